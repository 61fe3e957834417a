//! PeerAuthentication.

use mesh_core::policy::mtls::MtlsMode;
use mesh_core::resource::security::PeerAuthentication;

use super::target;
use crate::dialect::field::{Field, Message, Note};
use crate::dialect::node::{Value, quoted};

pub(crate) static SPEC: Message = Message {
    name: "spec of a PeerAuthentication",
    fields: &["mtls", "portLevelMtls", "selector"],
    later: &[],
    skipped: &[],
};

static MTLS: Message = Message { name: "mtls", fields: &["mode"], later: &[], skipped: &[] };

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&SPEC, "selector", &target::SELECTOR),
    Note::Holds(&SPEC, "mtls", &MTLS),
    Note::Holds(&SPEC, "portLevelMtls{}", &MTLS),
];

/// Reads the spec of a PeerAuthentication.
pub(crate) fn peer_authentication(field: &Field<'_>) -> Option<PeerAuthentication> {
    let spec = field.object(&SPEC)?;
    let selector = target::selector(&spec);
    let mode = spec.get("mtls").and_then(|field| mode(&field));
    let mut ports = Vec::new();
    if let Some(by_port) = spec.get("portLevelMtls") {
        if selector.is_none() {
            by_port.fault("portLevelMtls needs a selector with labels");
        }
        if matches!(by_port.value(), Value::Map(entries) if entries.is_empty()) {
            by_port.fault("must not be empty; leave the field out where all ports are alike");
        }
        for (key, value) in by_port.map() {
            let digits = !key.is_empty() && key.bytes().all(|b| b.is_ascii_digit());
            let mode = self::mode(&value);
            match key.parse::<u16>() {
                Ok(port) if port > 0 && digits => ports.push((port, mode)),
                _ => value.fault(format!("found the key {}, wanted a port from 1 to 65535", quoted(key))),
            }
        }
    }
    Some(PeerAuthentication { selector, mode, ports })
}

/// `None` inherits.
fn mode(field: &Field<'_>) -> Option<MtlsMode> {
    let mtls = field.object(&MTLS)?;
    match mtls.get("mode")?.choice(&["UNSET", "DISABLE", "PERMISSIVE", "STRICT"])? {
        "DISABLE" => Some(MtlsMode::Disable),
        "PERMISSIVE" => Some(MtlsMode::Permissive),
        "STRICT" => Some(MtlsMode::Strict),
        _ => None,
    }
}
