//! What ServiceEntry, Gateway and Sidecar say of a port: its name and what it speaks.

use mesh_core::vocab::name::Text;
use mesh_core::vocab::protocol::Protocol;

use crate::dialect::field::{Field, not_one_of};
use crate::dialect::node::quoted;
use crate::dialect::scalar::is_label;

/// The protocols as documents write them, in any case.
const PROTOCOLS: [&str; 12] = [
    "GRPC",
    "GRPC-WEB",
    "HTTP",
    "HTTP2",
    "HTTPS",
    "HTTP_PROXY",
    "MONGO",
    "MYSQL",
    "REDIS",
    "TCP",
    "TLS",
    "UDP",
];

/// Reads `protocol`; empty is found out from the first bytes. `None` for one that is refused.
pub(super) fn protocol(field: &Field<'_>) -> Option<Protocol> {
    let text = field.text()?;
    if text.is_empty() {
        return Some(Protocol::Auto);
    }
    // A port on which applications speak to an HTTP proxy carries HTTP.
    let known = match text.eq_ignore_ascii_case("HTTP_PROXY") {
        true => Some(Protocol::Http),
        false => Protocol::from_name(text),
    };
    if known.is_none() {
        field.fault(not_one_of(text, &PROTOCOLS));
    }
    known
}

/// Reads the name of a port.
pub(super) fn name(field: &Field<'_>) -> Option<Text> {
    let text = field.some_text()?;
    if !is_label(text) {
        field.fault(format!(
            "{} is no port name: wanted at most 63 letters, digits and '-', letter or digit at both ends",
            quoted(text)
        ));
        return None;
    }
    Some(text.into())
}

/// Whether a port carries TLS.
pub(super) fn is_tls(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Https | Protocol::Tls)
}
