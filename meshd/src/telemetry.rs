//! Logging, and the names of what meshd counts.

use std::io::IsTerminal;

use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// Sends the program's log to standard error; `RUST_LOG` chooses what, `fallback` where it is not set.
pub fn start_logging(format: LogFormat, fallback: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(fallback));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A second start in one process (tests) keeps the first.
    let _already_set = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}

/// Collects what is counted and renders it for Prometheus.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    /// Installs the recorder of this process. A second one in the same process records nothing.
    pub fn install() -> Metrics {
        let builder = PrometheusBuilder::new();
        // Fails only for an empty list of buckets.
        let builder = builder.set_buckets(&SECONDS).expect("there are buckets");
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::debug!("metrics are recorded by an earlier instance in this process");
        }
        Metrics { handle }
    }

    /// The text that Prometheus scrapes.
    pub fn render(&self) -> String {
        self.handle.render()
    }
}

const SECONDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

/// Time to compile one version or revision.
const COMPILE_SECONDS: &str = "meshd_compile_seconds";
/// Time from a published state to the acknowledgement of a proxy.
const DELIVERY_SECONDS: &str = "meshd_delivery_seconds";

/// A batch was applied or refused.
pub fn applied(result: &'static str) {
    counter!("meshd_applies_total", "result" => result).increment(1);
}

/// A version or revision was compiled.
pub fn compiled(version: u64, seconds: f64) {
    histogram!(COMPILE_SECONDS).record(seconds);
    gauge!("meshd_config_version").set(version as f64);
}

/// Proxies connected now.
pub fn connected(nodes: usize) {
    gauge!("meshd_connected_proxies").set(nodes as f64);
}

/// A proxy answered a delta.
pub fn answered(result: &'static str, seconds: f64) {
    counter!("meshd_delta_answers_total", "result" => result).increment(1);
    histogram!(DELIVERY_SECONDS).record(seconds);
}

/// A delta was sent.
pub fn sent(bytes: usize) {
    counter!("meshd_deltas_total").increment(1);
    counter!("meshd_delta_bytes_total").increment(bytes as u64);
}

/// A host's lease ran out.
pub fn lease_ended() {
    counter!("meshd_leases_ended_total").increment(1);
}

/// Taps that run now.
pub fn taps(count: usize) {
    gauge!("meshd_taps").set(count as f64);
}

/// An exchange was not shown because who asked for it did not read in time.
pub fn tap_lost() {
    counter!("meshd_tap_events_lost_total").increment(1);
}

/// A workload that flaps: `kept_out`, or `let_in` because too few others were well.
pub fn flapped(result: &'static str) {
    counter!("meshd_flapping_total", "result" => result).increment(1);
}
