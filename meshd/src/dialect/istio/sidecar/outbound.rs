//! What a Sidecar does with what the mesh does not know.

use mesh_core::resource::sidecar::{OutboundMode, OutboundPolicy};
use mesh_core::vocab::name::Text;

use crate::dialect::field::{Field, Message};
use crate::dialect::node::quoted;
use crate::dialect::scalar;

pub(super) static OUTBOUND: Message =
    Message { name: "an outboundTrafficPolicy", fields: &["egressProxy", "mode"], later: &[], skipped: &[] };

pub(super) static EGRESS_PROXY: Message =
    Message { name: "an egressProxy", fields: &["host", "port", "subset"], later: &[], skipped: &[] };

pub(super) static EGRESS_PROXY_PORT: Message =
    Message { name: "a port", fields: &["number"], later: &[], skipped: &[] };

/// Reads an `outboundTrafficPolicy`.
pub(super) fn policy(field: &Field<'_>) -> Option<OutboundPolicy> {
    let object = field.object(&OUTBOUND)?;
    // The enum's zero: an empty block refuses what the mesh does not know.
    let mode = match object.get("mode") {
        Some(field) => match field.choice(&["REGISTRY_ONLY", "ALLOW_ANY"]) {
            Some("ALLOW_ANY") => Some(OutboundMode::AllowAny),
            Some(_) => Some(OutboundMode::RegistryOnly),
            None => None,
        },
        None => Some(OutboundMode::RegistryOnly),
    };
    let proxy = object.get("egressProxy");
    if let (Some(field), Some(OutboundMode::RegistryOnly)) = (&proxy, mode) {
        field.fault("egressProxy takes what the mesh does not know, which only ALLOW_ANY lets out");
    }
    let egress_proxy = match proxy {
        Some(field) => Some(egress_proxy(&field)?),
        None => None,
    };
    Some(OutboundPolicy { mode: mode?, egress_proxy })
}

fn egress_proxy(field: &Field<'_>) -> Option<(Text, Option<Text>, u16)> {
    let object = field.object(&EGRESS_PROXY)?;
    let host = object.require("host").and_then(|field| {
        let text = field.some_text()?;
        if !scalar::is_dns_name(text) {
            field.fault(format!("{} is no DNS name", quoted(text)));
            return None;
        }
        Some(Text::from(text.to_ascii_lowercase()))
    });
    let subset = match object.get("subset").filter(|field| !field.is_empty_text()) {
        Some(field) => scalar::subset_name(&field).map(Some),
        None => Some(None),
    };
    let port = object.require("port").and_then(|field| {
        let port = field.object(&EGRESS_PROXY_PORT)?;
        port.require("number")?.port()
    });
    Some((host?, subset?, port?))
}
