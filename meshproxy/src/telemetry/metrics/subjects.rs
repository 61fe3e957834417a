//! Metrics of single subjects: what was refused, what limits and outliers cost, what policies write down.

use std::sync::PoisonError;
use std::time::Instant;

use mesh_core::framing::refusal::Refusal;
use mesh_core::message::fault::Fault;
use mesh_core::vocab::name::WorkloadKey;
use metrics::{Counter, Gauge, Key, Label, Recorder as _};

use super::{BYTES_REFUSED, ENTRANCES_REFUSED, HANDSHAKES_FAILED, METADATA, Metrics, Side, TOLD_AGAIN};

impl Metrics {
    /// A captured connection to an application of this host was refused for what it began with.
    pub fn entrance_refused(&self, reason: &'static str) {
        let key = Key::from_parts(ENTRANCES_REFUSED, vec![Label::new("reason", reason)]);
        self.recorder.register_counter(&key, &METADATA).increment(1);
    }

    /// Lines of an access log that were lost: it was written too slowly, or could not be.
    pub fn log_dropped(&self, sink: &str) -> Counter {
        let key =
            Key::from_parts("mesh_proxy_access_log_dropped_total", vec![Label::new("sink", sink.to_owned())]);
        let counter = self.recorder.register_counter(&key, &METADATA);
        counter.increment(0);
        counter
    }

    /// Buffers of an access log that wait to be written.
    pub fn log_waiting(&self, sink: &str) -> Gauge {
        let labels = vec![Label::new("sink", sink.to_owned())];
        let gauge = self
            .recorder
            .register_gauge(&Key::from_parts("mesh_proxy_access_log_waiting", labels), &METADATA);
        gauge.increment(0.0);
        gauge
    }

    /// A fault of this kind happened to a connection or a request on purpose.
    pub fn fault(&self, kind: &'static str) {
        let key = Key::from_parts("mesh_proxy_faults_total", vec![Label::new("kind", kind)]);
        self.recorder.register_counter(&key, &METADATA).increment(1);
    }

    /// Bytes of a peer were refused.
    pub fn refused(&self, from: &'static str, refusal: Refusal) {
        self.refused_for(from, refusal.name());
    }

    /// A request was refused that the codec and the guard had let pass.
    pub fn malformed(&self, from: &'static str, fault: Fault) {
        self.refused_for(from, fault.name());
    }

    fn refused_for(&self, from: &'static str, reason: &'static str) {
        let labels = vec![Label::new("from", from), Label::new("reason", reason)];
        let key = Key::from_parts(BYTES_REFUSED, labels);
        self.recorder.register_counter(&key, &METADATA).increment(1);
    }

    /// What was too much for the limits of a cluster.
    pub fn overflows(&self, cluster: &str, limit: &'static str) -> Counter {
        let limit = Label::new("limit", limit);
        self.of_cluster("mesh_proxy_overflows_total", cluster, Some(limit))
    }

    /// Endpoints of a cluster that were left alone because they failed, for this cause.
    pub fn ejections(&self, cluster: &str, cause: &'static str) -> Counter {
        self.of_cluster("mesh_proxy_ejections_total", cluster, Some(Label::new("cause", cause)))
    }

    /// Endpoints of a cluster that failed and were not left alone, because too many would have been.
    pub fn ejections_refused(&self, cluster: &str) -> Counter {
        self.of_cluster("mesh_proxy_ejections_refused_total", cluster, None)
    }

    /// Endpoints of a cluster that are left alone now.
    pub fn ejected(&self, cluster: &str) -> Gauge {
        let labels = vec![Label::new("cluster", cluster.to_owned())];
        let key = Key::from_parts("mesh_proxy_endpoints_ejected", labels);
        self.recorder.register_gauge(&key, &METADATA)
    }

    fn of_cluster(&self, name: &'static str, cluster: &str, more: Option<Label>) -> Counter {
        let labels =
            std::iter::once(Label::new("cluster", cluster.to_owned())).chain(more).collect::<Vec<_>>();
        self.recorder.register_counter(&Key::from_parts(name, labels), &METADATA)
    }

    /// Requests that a rate limit was exceeded by: `refused`, or only counted, in `dry_run`.
    pub fn rate_limited(&self, limit: &[(&'static str, String)], effect: &'static str) -> Counter {
        let mut labels = limit_labels(limit);
        labels.push(Label::new("effect", effect));
        self.recorder.register_counter(&Key::from_parts("mesh_proxy_rate_limited_total", labels), &METADATA)
    }

    /// Buckets of a rate limit that were given up before they were full again, for want of room.
    pub fn rate_limit_evictions(&self, limit: &[(&'static str, String)]) -> Counter {
        let key = Key::from_parts("mesh_proxy_rate_limit_evictions_total", limit_labels(limit));
        self.recorder.register_counter(&key, &METADATA)
    }

    /// Buckets of a rate limit that are not full now.
    pub fn rate_limit_buckets(&self, limit: &[(&'static str, String)]) -> Gauge {
        let key = Key::from_parts("mesh_proxy_rate_limit_buckets", limit_labels(limit));
        self.recorder.register_gauge(&key, &METADATA)
    }

    /// The part of a rate limit of the mesh that this proxy may use.
    pub fn rate_limit_share(&self, limit: &[(&'static str, String)]) -> Gauge {
        let key = Key::from_parts("mesh_proxy_rate_limit_share", limit_labels(limit));
        self.recorder.register_gauge(&key, &METADATA)
    }

    /// A TLS handshake came to nothing. Says whether the log should tell of it: the first of its kind in a while.
    pub fn handshake_failed(&self, side: Side, reason: &'static str) -> bool {
        let labels = vec![Label::new("side", side.name()), Label::new("reason", reason)];
        let key = Key::from_parts(HANDSHAKES_FAILED, labels);
        self.recorder.register_counter(&key, &METADATA).increment(1);
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let again = told.get(&(side, reason)).is_none_or(|last| now.duration_since(*last) >= TOLD_AGAIN);
        if again {
            told.insert((side, reason), now);
        }
        again
    }

    /// How often the policies of a workload have written something down. `labels` say which policy, and what.
    pub fn remarks(
        &self,
        name: &'static str,
        workload: &WorkloadKey,
        labels: &[(&'static str, &str)],
    ) -> Counter {
        let workload = [("workload", &*workload.name), ("workload_namespace", &*workload.namespace)];
        let all = workload.iter().chain(labels);
        let labels: Vec<Label> = all.map(|(key, value)| Label::new(*key, (*value).to_owned())).collect();
        self.recorder.register_counter(&Key::from_parts(name, labels), &METADATA)
    }
}

fn limit_labels(limit: &[(&'static str, String)]) -> Vec<Label> {
    limit.iter().map(|(key, value)| Label::new(*key, value.clone())).collect()
}
