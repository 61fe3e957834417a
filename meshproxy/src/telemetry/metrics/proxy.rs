//! Counters of the proxy itself that are there from the beginning.

use mesh_core::framing::refusal::Refusal;
use metrics::{Counter, Gauge, Key, Label, Recorder as _};

use super::registry::Registry;
use super::{BYTES_REFUSED, METADATA, Side};

/// Counters of the proxy itself.
#[derive(Debug)]
pub struct ProxyCounters {
    /// What runs: always there.
    _build: Gauge,
    /// When the snapshot in force came in force.
    pub(super) snapshot_time: Gauge,
    /// How long it took to be built, and until everything had followed.
    pub(super) snapshot_build: Gauge,
    /// See `snapshot_build`.
    pub(super) snapshot_apply: Gauge,
    /// TLS handshakes that were completed, by side.
    pub(super) handshakes: [Counter; 4],
    /// Deltas that were taken in, and those that were refused.
    pub deltas_acked: Counter,
    /// See `deltas_acked`.
    pub deltas_refused: Counter,
    /// Connections accepted.
    pub accepted: Counter,
    /// Panics caught in connections.
    pub panics: Counter,
    /// Attempts beyond the first.
    pub retries: Counter,
    /// Attempts beside another one whose answer counted, whose answer did not, and that were not begun.
    pub hedges_won: Counter,
    /// See `hedges_won`.
    pub hedges_lost: Counter,
    /// See `hedges_won`.
    pub hedges_refused: Counter,
    /// Connections that were ended because what came was not the protocol, as only its codec could see: of applications,
    /// of other proxies.
    pub malformed_downstream: Counter,
    /// Streams of HTTP/2 of which nothing came for too long.
    pub slow_streams: Counter,
    /// See `malformed_downstream`.
    pub malformed_mesh: Counter,
    /// Connections that take no new requests because of their age: of applications, of other proxies, upstream.
    pub retired_downstream: Counter,
    /// See `retired_downstream`.
    pub retired_peers: Counter,
    /// See `retired_downstream`.
    pub retired_upstream: Counter,
    /// Copies of requests that were sent.
    pub mirrors: Counter,
    /// Copies that were not sent, or given up: too many at once, or too far behind.
    pub mirrors_dropped: Counter,
    /// Copies that got no answer.
    pub mirrors_failed: Counter,
    /// Bodies that were not kept for another attempt because too much is kept already.
    pub bodies_not_kept: Counter,
    /// Whether the rules of interception stand, and how often they were found removed or changed.
    pub interception: Gauge,
    /// See `interception`.
    pub interception_lost: Counter,
    /// Attempts to dial a listener of our own.
    pub loops_refused: Counter,
    /// Requests that were ended because a newer policy is against them, and byte streams.
    pub requests_cut_off: Counter,
    /// See `requests_cut_off`.
    pub streams_cut_off: Counter,
    /// Ways of beginning TLS whose newest files cannot be used.
    pub certificate_faults: Gauge,
    /// Reports of load that were taken, that do not say enough, that cannot be read.
    pub load_reports: Counter,
    /// See `load_reports`.
    pub load_reports_lacking: Counter,
    /// See `load_reports`.
    pub load_reports_unreadable: Counter,
    /// Names that were resolved, and those that could not be.
    pub names_resolved: Counter,
    /// See `names_resolved`.
    pub names_failed: Counter,
    /// Reports of live traffic that meshd did not take in time.
    pub reports_dropped: Counter,
    /// Requests and streams that were reported together because too many kinds are told apart.
    pub reports_swallowed: Counter,
}

impl ProxyCounters {
    pub(super) fn new(recorder: &Registry, build: Gauge) -> ProxyCounters {
        let counter = |name: &'static str| recorder.register_counter(&Key::from_name(name), &METADATA);
        let gauge = |name: &'static str| recorder.register_gauge(&Key::from_name(name), &METADATA);
        let resolutions = |result: &'static str| {
            let labels = vec![Label::new("result", result)];
            recorder
                .register_counter(&Key::from_parts("mesh_proxy_name_resolutions_total", labels), &METADATA)
        };
        let reports = |result: &'static str| {
            let labels = vec![Label::new("result", result)];
            recorder.register_counter(&Key::from_parts("mesh_proxy_load_reports_total", labels), &METADATA)
        };
        let deltas = |result: &'static str| {
            let labels = vec![Label::new("result", result)];
            recorder.register_counter(&Key::from_parts("mesh_proxy_deltas_total", labels), &METADATA)
        };
        let hedges = |result: &'static str| {
            let labels = vec![Label::new("result", result)];
            recorder.register_counter(&Key::from_parts("mesh_proxy_hedges_total", labels), &METADATA)
        };
        let retired = |side: &'static str| {
            let labels = vec![Label::new("side", side)];
            recorder
                .register_counter(&Key::from_parts("mesh_proxy_connections_retired_total", labels), &METADATA)
        };
        let cut_off = |kind: &'static str| {
            let labels = vec![Label::new("kind", kind)];
            recorder.register_counter(
                &Key::from_parts("mesh_proxy_authorization_cut_off_total", labels),
                &METADATA,
            )
        };
        let malformed = |from: &'static str| {
            let labels = vec![Label::new("from", from), Label::new("reason", "codec")];
            recorder.register_counter(&Key::from_parts(BYTES_REFUSED, labels), &METADATA)
        };
        let slow = vec![Label::new("from", "downstream"), Label::new("reason", Refusal::SlowBody.name())];
        let slow = recorder.register_counter(&Key::from_parts(BYTES_REFUSED, slow), &METADATA);
        ProxyCounters {
            _build: build,
            snapshot_time: gauge("mesh_proxy_snapshot_timestamp_seconds"),
            snapshot_build: gauge("mesh_proxy_snapshot_build_seconds"),
            snapshot_apply: gauge("mesh_proxy_snapshot_apply_seconds"),
            handshakes: Side::ALL.map(|side| {
                let labels = vec![Label::new("side", side.name())];
                recorder.register_counter(&Key::from_parts("mesh_proxy_handshakes_total", labels), &METADATA)
            }),
            deltas_acked: deltas("ack"),
            deltas_refused: deltas("nack"),
            accepted: counter("mesh_proxy_connections_accepted_total"),
            panics: counter("mesh_proxy_panics_total"),
            retries: counter("mesh_proxy_retries_total"),
            hedges_won: hedges("won"),
            hedges_lost: hedges("lost"),
            hedges_refused: hedges("refused"),
            malformed_downstream: malformed("downstream"),
            slow_streams: slow,
            malformed_mesh: malformed("mesh"),
            retired_downstream: retired("downstream"),
            retired_peers: retired("mesh"),
            retired_upstream: retired("upstream"),
            mirrors: counter("mesh_proxy_mirrors_total"),
            mirrors_dropped: counter("mesh_proxy_mirrors_dropped_total"),
            mirrors_failed: counter("mesh_proxy_mirrors_failed_total"),
            bodies_not_kept: counter("mesh_proxy_bodies_not_kept_total"),
            loops_refused: counter("mesh_proxy_loops_refused_total"),
            interception: recorder.register_gauge(&Key::from_name("mesh_proxy_interception"), &METADATA),
            interception_lost: counter("mesh_proxy_interception_lost_total"),
            requests_cut_off: cut_off("request"),
            streams_cut_off: cut_off("stream"),
            certificate_faults: recorder
                .register_gauge(&Key::from_name("mesh_proxy_certificate_faults"), &METADATA),
            load_reports: reports("ok"),
            load_reports_lacking: reports("lacking"),
            load_reports_unreadable: reports("unreadable"),
            names_resolved: resolutions("ok"),
            names_failed: resolutions("failed"),
            reports_dropped: counter("mesh_proxy_reports_dropped_total"),
            reports_swallowed: counter("mesh_proxy_reports_swallowed_total"),
        }
    }
}
