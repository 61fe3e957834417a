//! Every metric of meshd: its name, what kind of figure it is, what it says. `docs/observability.md` has the same with
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
    VERSION = Gauge "meshd_config_version": "The version that is served.";
    REVISION = Gauge "meshd_config_revision": "Changes of the registry since that version.";
    APPLIES = Counter "meshd_applies_total": "Batches that were applied, and those that were refused.";
    COMPILE = Histogram "meshd_compile_seconds": "How long a version or revision took to compile.";
    CONNECTED = Gauge "meshd_connected_proxies": "Proxies that are connected.";
    PROXIES = Gauge "meshd_proxies": "Proxies that are connected, by how far they are.";
    DELTAS = Counter "meshd_deltas_total": "Deltas that were sent.";
    DELTA_BYTES = Counter "meshd_delta_bytes_total": "Bytes of the deltas that were sent.";
    ANSWERS = Counter "meshd_delta_answers_total": "Deltas that were acknowledged, and those that were refused.";
    NACK_REASONS = Counter "meshd_nack_reasons_total": "Sections that proxies refused, by their kind.";
    DELIVERY = Histogram "meshd_delivery_seconds": "From sending a delta to the answer of its proxy.";
    CONVERGENCE = Histogram "meshd_convergence_seconds":
        "From publishing a version until every connected proxy runs it.";
    NOT_CONVERGED = Counter "meshd_convergence_timeouts_total":
        "Versions that some connected proxy did not run after a minute.";
    WRITER_QUEUE = Gauge "meshd_writer_queue": "Commands that wait for the writer.";
    STORE_BYTES = Gauge "meshd_store_bytes": "Size of the embedded store.";
    HOSTS = Gauge "meshd_hosts": "Hosts that have announced themselves, by how they stand.";
    LEASES_ENDED = Counter "meshd_leases_ended_total": "Hosts that nothing was heard of for a lease.";
    FLAPPING = Counter "meshd_flapping_total": "Workloads that flap: kept out, or let in.";
    CERTIFICATES = Counter "meshd_certificates_total": "Certificates that were issued, and those that were refused.";
    TRAFFIC_REPORTS = Counter "meshd_traffic_reports_total": "Reports of live traffic that were taken.";
    TRAFFIC_SERIES = Gauge "meshd_traffic_series": "Kinds of traffic that are told apart.";
    TRAFFIC_SWALLOWED = Counter "meshd_traffic_swallowed_total":
        "Kinds of traffic in reports that were counted as other.";
    TRAFFIC_IGNORED = Counter "meshd_traffic_ignored_total":
        "Kinds of traffic in reports that were ignored because they are of other nodes.";
    TAPS = Gauge "meshd_taps": "Taps that run.";
    TAP_EVENTS_LOST = Counter "meshd_tap_events_lost_total":
        "Exchanges that were not shown because who asked for them did not read in time.";
    STREAMS = Gauge "meshd_grpc_streams": "Streams of gRPC that are open.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_they_are_and_are_documented() {
        let documented = include_str!("../../../docs/observability.md");
        for family in ALL {
            assert_eq!(family.name.ends_with("_total"), family.kind == Kind::Counter, "{}", family.name);
            let is_told = documented.contains(&format!("`{}", family.name));
            assert!(is_told, "{} is missing in docs/observability.md", family.name);
        }
    }
}
