//! Every metric of a proxy: its name, what kind of figure it is, what it says. `docs/observability.md` has the same with
//! labels.

use mesh_core::telemetry::exposition::{Family, Kind};

macro_rules! families {
    ($($constant:ident = $kind:ident $name:literal: $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $constant: Family = Family { name: $name, kind: Kind::$kind, help: $help };
        )*
        /// All of them.
        pub static ALL: &[&Family] = &[$(&$constant),*];
    };
}

families! {
    BUILD = Gauge "istio_build": "1; the labels say what runs.";
    REQUESTS = Counter "istio_requests_total": "Requests that have ended.";
    DURATION = Histogram "istio_request_duration_milliseconds": "How long requests took, in milliseconds.";
    REQUEST_BYTES = Histogram "istio_request_bytes": "Bytes of requests, heads included.";
    RESPONSE_BYTES = Histogram "istio_response_bytes": "Bytes of answers, heads included.";
    REQUEST_MESSAGES = Counter "istio_request_messages_total": "Messages of gRPC from clients.";
    RESPONSE_MESSAGES = Counter "istio_response_messages_total": "Messages of gRPC to clients.";
    STREAMS_OPENED = Counter "istio_tcp_connections_opened_total": "Byte streams that began.";
    STREAMS_CLOSED = Counter "istio_tcp_connections_closed_total": "Byte streams that have ended.";
    STREAM_SENT = Counter "istio_tcp_sent_bytes_total": "Bytes to clients on byte streams.";
    STREAM_RECEIVED = Counter "istio_tcp_received_bytes_total": "Bytes from clients on byte streams.";

    SERIES_OVERFLOW = Counter "mesh_proxy_series_overflow_total":
        "What was counted under other, because a metric had as many series as it may have.";
    LABELS_OVERFLOW = Counter "mesh_proxy_labels_overflow_total":
        "Callers, called and services that are told as other, because too many are known.";
    SERIES = Gauge "mesh_proxy_series": "Label sets of a metric.";

    SNAPSHOT_VERSION = Gauge "mesh_proxy_snapshot_version": "Version of the snapshot in force.";
    SNAPSHOT_REVISION = Gauge "mesh_proxy_snapshot_revision":
        "Changes of the registry since that version, as of the snapshot in force.";
    SNAPSHOT_TIME = Gauge "mesh_proxy_snapshot_timestamp_seconds":
        "When the snapshot in force came in force, in seconds since 1970.";
    SNAPSHOT_BUILD = Gauge "mesh_proxy_snapshot_build_seconds":
        "How long the tables in force took to be built and swapped in.";
    SNAPSHOT_APPLY = Gauge "mesh_proxy_snapshot_apply_seconds":
        "The same until sockets had followed and new names had addresses.";
    DELTAS = Counter "mesh_proxy_deltas_total": "Deltas that came from meshd, by what was answered.";
    CERTIFICATE_EXPIRY = Gauge "mesh_proxy_certificate_expiry_timestamp_seconds":
        "When the certificate of an identity ends, in seconds since 1970.";
    HANDSHAKES = Counter "mesh_proxy_handshakes_total": "TLS handshakes that were completed.";
    HANDSHAKE_FAILURES = Counter "mesh_proxy_handshake_failures_total": "TLS handshakes that came to nothing.";
    POOL_CONNECTIONS = Gauge "mesh_proxy_pool_connections": "Connections towards endpoints.";
    POOL_STREAMS = Gauge "mesh_proxy_pool_streams": "Exchanges on shared connections towards endpoints.";
    WORKER_CONNECTIONS = Gauge "mesh_proxy_worker_connections": "Clients' connections of a data thread.";
    WORKER_LOAD = Gauge "mesh_proxy_worker_load": "Part of the time that a data thread was at work of late, 0 to 1.";
    BREAKER_TAKEN = Gauge "mesh_proxy_breaker_taken": "What is taken of the limits of a destination.";
    RETRIES_UNDER_WAY = Gauge "mesh_proxy_retries_under_way": "Retries of a destination that are under way.";
    RETRY_BUDGET = Gauge "mesh_proxy_retry_budget_left": "Retries of a destination that are earned and not spent.";

    ACCEPTED = Counter "mesh_proxy_connections_accepted_total": "Connections that were accepted.";
    RETIRED = Counter "mesh_proxy_connections_retired_total":
        "Connections that take no new requests because of their age.";
    SHED = Counter "mesh_proxy_connections_shed_total": "Connections that were closed because there is too little.";
    STREAMS_SHED = Counter "mesh_proxy_streams_shed_total": "Requests and tunnels refused because there is too little.";
    GIVES_WAY = Gauge "mesh_proxy_gives_way": "1 while memory or descriptors are scarce.";
    MEMORY = Gauge "mesh_proxy_memory_bytes": "Memory in use.";
    MEMORY_BUDGET = Gauge "mesh_proxy_memory_budget_bytes": "Memory beyond which the proxy gives way.";
    DESCRIPTORS = Gauge "mesh_proxy_descriptors": "Descriptors in use.";
    DESCRIPTORS_LIMIT = Gauge "mesh_proxy_descriptors_limit": "Descriptors that there may be.";
    BYTES_REFUSED = Counter "mesh_proxy_bytes_refused_total":
        "Requests refused and connections closed for what was sent on them.";
    ENTRANCES_REFUSED = Counter "mesh_proxy_entrances_refused_total":
        "Captured connections to applications of this host that were closed for what they began with.";
    OVERFLOWS = Counter "mesh_proxy_overflows_total": "What was too much for the limits of a destination.";
    RATE_LIMITED = Counter "mesh_proxy_rate_limited_total": "Requests that were too much for a RateLimit.";
    RATE_LIMIT_BUCKETS = Gauge "mesh_proxy_rate_limit_buckets": "Buckets of a RateLimit that are not full.";
    RATE_LIMIT_EVICTIONS = Counter "mesh_proxy_rate_limit_evictions_total":
        "Buckets of a RateLimit that were given up for want of room.";
    RATE_LIMIT_SHARE = Gauge "mesh_proxy_rate_limit_share": "The part of a limit of the mesh that is used here.";
    EJECTIONS = Counter "mesh_proxy_ejections_total": "Endpoints that were left alone because they failed.";
    EJECTIONS_REFUSED = Counter "mesh_proxy_ejections_refused_total":
        "Endpoints that failed and were not left alone, because too many would have been.";
    EJECTED = Gauge "mesh_proxy_endpoints_ejected": "Endpoints that are left alone now.";
    RETRIES = Counter "mesh_proxy_retries_total": "Attempts beyond the first.";
    HEDGES = Counter "mesh_proxy_hedges_total": "Attempts that were begun beside others.";
    FAULTS = Counter "mesh_proxy_faults_total": "Faults on purpose.";
    BODIES_NOT_KEPT = Counter "mesh_proxy_bodies_not_kept_total": "Bodies that could not be kept for another attempt.";
    MIRRORS = Counter "mesh_proxy_mirrors_total": "Copies of requests that were sent.";
    MIRRORS_DROPPED = Counter "mesh_proxy_mirrors_dropped_total": "Copies of requests that were not sent or given up.";
    MIRRORS_FAILED = Counter "mesh_proxy_mirrors_failed_total": "Copies of requests that got no answer.";
    RESOLUTIONS = Counter "mesh_proxy_name_resolutions_total": "Names of endpoints that were asked for.";
    LOAD_REPORTS = Counter "mesh_proxy_load_reports_total": "Reports of load of endpoints.";
    INTERCEPTION = Gauge "mesh_proxy_interception": "1 while the rules of capture stand.";
    INTERCEPTION_LOST = Counter "mesh_proxy_interception_lost_total":
        "Times that the rules of capture were found removed or changed.";
    CUT_OFF = Counter "mesh_proxy_authorization_cut_off_total":
        "What was under way and closed because a newer policy is against it.";
    AUDITED = Counter "mesh_proxy_authorization_audited_total": "What AUDIT policies are about.";
    DRY_RUN = Counter "mesh_proxy_authorization_dry_run_total": "What policies in dry run would have done.";
    LOOPS_REFUSED = Counter "mesh_proxy_loops_refused_total": "Attempts to reach a listener of the proxy itself.";
    CERTIFICATE_FAULTS = Gauge "mesh_proxy_certificate_faults": "Sets of certificate files that cannot be used.";
    ACCESS_LOG_DROPPED = Counter "mesh_proxy_access_log_dropped_total": "Lines of the access log that were dropped.";
    REPORTS_DROPPED = Counter "mesh_proxy_reports_dropped_total":
        "Reports of live traffic that meshd did not take in time.";
    REPORTS_SWALLOWED = Counter "mesh_proxy_reports_swallowed_total":
        "Requests and streams that were reported as other, because too many kinds are told apart.";
    ACCESS_LOG_WAITING = Gauge "mesh_proxy_access_log_waiting": "Buffers of an access log that wait to be written.";
    OTLP_WAITING = Gauge "mesh_proxy_otlp_waiting": "Spans and log records that wait for their collector.";
    OTLP_EXPORTED = Counter "mesh_proxy_otlp_exported_total": "Spans and log records that a collector has taken.";
    OTLP_DROPPED = Counter "mesh_proxy_otlp_dropped_total": "Spans and log records that were lost, by why.";
    TAPS = Gauge "mesh_proxy_taps": "Taps that want to see exchanges.";
    TAP_EVENTS = Counter "mesh_proxy_tap_events_total": "Exchanges that taps are about, by what became of them.";
    FLIGHT_SAVES = Counter "mesh_proxy_flight_saves_total": "Files that were saved because success fell.";
    PANICS = Counter "mesh_proxy_panics_total": "Panics on data threads.";
}

/// The metric of a name.
pub fn of(name: &str) -> Option<&'static Family> {
    ALL.iter().copied().find(|family| family.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_are_and_are_documented() {
        let documented = include_str!("../../../../docs/observability.md");
        for family in ALL {
            assert_eq!(family.name.ends_with("_total"), family.kind == Kind::Counter, "{}", family.name);
            let is_told = documented.contains(&format!("`{}", family.name));
            assert!(is_told, "{} is missing in docs/observability.md", family.name);
            assert!(std::ptr::eq(of(family.name).unwrap(), *family), "{} is there twice", family.name);
        }
    }
}
