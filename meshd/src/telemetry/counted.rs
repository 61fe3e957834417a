//! What happens, as counters, gauges and histograms.

use mesh_core::sync::message::Nack;
use metrics::{counter, gauge, histogram};

use super::names;

/// A batch was applied or refused.
pub fn applied(result: &'static str) {
    counter!(names::APPLIES.name, "result" => result).increment(1);
}

/// A version or revision was compiled.
pub fn compiled(version: u64, seconds: f64) {
    histogram!(names::COMPILE.name).record(seconds);
    gauge!(names::VERSION.name).set(version as f64);
}

/// Proxies connected now.
pub fn connected(nodes: usize) {
    gauge!(names::CONNECTED.name).set(nodes as f64);
}

/// A proxy answered a delta.
pub fn answered(result: &'static str, seconds: f64) {
    counter!(names::ANSWERS.name, "result" => result).increment(1);
    histogram!(names::DELIVERY.name).record(seconds);
}

/// A delta was sent.
pub fn sent(bytes: usize) {
    counter!(names::DELTAS.name).increment(1);
    counter!(names::DELTA_BYTES.name).increment(bytes as u64);
}

/// A host's lease ran out.
pub fn lease_ended() {
    counter!(names::LEASES_ENDED.name).increment(1);
}

/// A workload that flaps: `kept_out`, or `let_in` because too few others were well.
pub fn flapped(result: &'static str) {
    counter!(names::FLAPPING.name, "result" => result).increment(1);
}

/// A proxy has reported its traffic: so many kinds are told apart now, so many of the report's were counted together, and
/// so many spoke of workloads of other nodes.
pub fn reported(series: usize, swallowed: usize, ignored: u32) {
    counter!(names::TRAFFIC_REPORTS.name).increment(1);
    gauge!(names::TRAFFIC_SERIES.name).set(series as f64);
    counter!(names::TRAFFIC_SWALLOWED.name).increment(swallowed as u64);
    counter!(names::TRAFFIC_IGNORED.name).increment(u64::from(ignored));
}

/// Taps that run now.
pub fn taps(count: usize) {
    gauge!(names::TAPS.name).set(count as f64);
}

/// An exchange was not shown because who asked for it did not read in time.
pub fn tap_lost() {
    counter!(names::TAP_EVENTS_LOST.name).increment(1);
}

/// A proxy refused a delta.
pub fn refused(nack: &Nack) {
    for (key, _) in &nack.reasons {
        let text = key.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
        // The first word is the kind of the section; the rest names one.
        let kind = text.split('/').next().unwrap_or_default().to_owned();
        counter!(names::NACK_REASONS.name, "section" => kind).increment(1);
    }
}

/// Every connected proxy runs a version, so long after it was published; `None` where some did not in time.
pub fn converged(seconds: Option<f64>) {
    match seconds {
        Some(seconds) => histogram!(names::CONVERGENCE.name).record(seconds),
        None => counter!(names::NOT_CONVERGED.name).increment(1),
    }
}

/// A certificate was issued, or refused: of a `node` or of a `workload`.
pub fn certificate(of: &'static str, is_issued: bool) {
    let result = if is_issued { "issued" } else { "refused" };
    counter!(names::CERTIFICATES.name, "of" => of, "result" => result).increment(1);
}

/// A stream of gRPC, counted until it is dropped.
pub struct OpenStream(&'static str);

impl OpenStream {
    /// One of this service.
    pub fn of(service: &'static str) -> OpenStream {
        gauge!(names::STREAMS.name, "service" => service).increment(1.0);
        OpenStream(service)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        gauge!(names::STREAMS.name, "service" => self.0).decrement(1.0);
    }
}
