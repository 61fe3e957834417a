//! What the listeners of both directions have.

use mesh_core::resource::sidecar::{CaptureMode, SidecarPort};
use mesh_core::vocab::protocol::Protocol;

use crate::dialect::field::{Field, Message, Object};
use crate::dialect::istio::port;

pub(super) static PORT: Message = Message {
    name: "a port",
    fields: &["name", "number", "protocol", "targetPort"],
    later: &[],
    skipped: &[],
};

/// Number, which may be 0 for a Unix socket, name and protocol; and whether that is HTTP_PROXY.
pub(super) fn listener_port(field: &Field<'_>) -> Option<(SidecarPort, bool)> {
    let object = field.object(&PORT)?;
    let number = match object.get("number") {
        Some(field) => field.integer(0..=65535).and_then(|number| u16::try_from(number).ok()),
        None if object.is_misspelt("number") => None,
        None => Some(0),
    };
    let name = match object.get("name").filter(|field| !field.is_empty_text()) {
        Some(field) => port::name(&field),
        None => Some("".into()),
    };
    let protocol = object.get("protocol").map_or(Some(Protocol::Auto), |field| port::protocol(&field));
    if let Some(field) = object.get("targetPort")
        && field.integer(0..=i64::from(u32::MAX)).is_some_and(|target| target > 0)
    {
        field.fault("targetPort has no meaning in a Sidecar");
    }
    let is_proxy = object.text("protocol").is_some_and(|text| text.eq_ignore_ascii_case("HTTP_PROXY"));
    Some((SidecarPort { number: number?, name: name?, protocol: protocol? }, is_proxy))
}

pub(super) fn capture(entry: &Object<'_>) -> CaptureMode {
    match entry.get("captureMode").and_then(|field| field.choice(&["DEFAULT", "IPTABLES", "NONE"])) {
        Some("IPTABLES") => CaptureMode::Iptables,
        Some("NONE") => CaptureMode::None,
        _ => CaptureMode::Default,
    }
}
