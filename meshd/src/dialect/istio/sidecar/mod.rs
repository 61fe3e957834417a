//! Sidecar.

mod egress;
mod ingress;
mod listener;
mod outbound;

use mesh_core::resource::sidecar::Sidecar;

use super::connection_pool::{CONNECTION_POOL, connection_pool};
use super::selector::{BY_LABELS, by_labels};
use super::server_tls::SERVER_TLS;
use crate::dialect::field::{Field, Message, Note};

pub(crate) static SPEC: Message = Message {
    name: "spec of a Sidecar",
    fields: &["egress", "inboundConnectionPool", "outboundTrafficPolicy", "workloadSelector"],
    later: &["ingress"],
    skipped: &[],
};

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&SPEC, "egress[]", &egress::EGRESS),
    Note::Holds(&SPEC, "inboundConnectionPool", &CONNECTION_POOL),
    Note::Holds(&SPEC, "ingress[]", &ingress::INGRESS),
    Note::Holds(&SPEC, "outboundTrafficPolicy", &outbound::OUTBOUND),
    Note::Holds(&SPEC, "workloadSelector", &BY_LABELS),
    Note::Holds(&ingress::INGRESS, "connectionPool", &CONNECTION_POOL),
    Note::Holds(&ingress::INGRESS, "port", &listener::PORT),
    Note::Holds(&ingress::INGRESS, "tls", &SERVER_TLS),
    Note::Holds(&egress::EGRESS, "port", &listener::PORT),
    Note::Holds(&outbound::OUTBOUND, "egressProxy", &outbound::EGRESS_PROXY),
    Note::Holds(&outbound::EGRESS_PROXY, "port", &outbound::EGRESS_PROXY_PORT),
    Note::Refused(&listener::PORT, "targetPort", "it has no meaning in a Sidecar"),
];

/// Reads the spec of a Sidecar in the namespace `own`.
pub(crate) fn sidecar(field: &Field<'_>, own: &str) -> Option<Sidecar> {
    let spec = field.object(&SPEC)?;
    let has_items = |key| spec.get(key).is_some_and(|field| !field.is_blank());
    let says_something = has_items("egress")
        || has_items("ingress")
        || ["outboundTrafficPolicy", "inboundConnectionPool"].iter().any(|key| spec.has(key));
    let misspelt = ["egress", "ingress", "outboundTrafficPolicy", "inboundConnectionPool"];
    if !says_something && !misspelt.iter().any(|key| spec.is_misspelt(key)) {
        field.fault("a Sidecar needs at least one of egress, ingress, outboundTrafficPolicy and inboundConnectionPool");
    }
    let selector = spec.get("workloadSelector").and_then(|field| by_labels(&field));
    let ingress = ingress::list(&spec);
    let egress = egress::list(&spec, own);
    Some(Sidecar {
        selector,
        ingress,
        egress: has_items("egress").then_some(egress),
        outbound: spec.get("outboundTrafficPolicy").and_then(|field| outbound::policy(&field)),
        inbound_connection_pool: spec.get("inboundConnectionPool").and_then(|field| connection_pool(&field)),
    })
}
