//! Secret: certificates and keys. No message repeats what is in one.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mesh_core::resource::kubernetes::Secret;
use mesh_core::vocab::name::Text;

use crate::dialect::field::{Field, Message, Object};
use crate::dialect::node::Value;

pub(crate) static SECRET: Message = Message {
    name: "a Secret",
    fields: &["apiVersion", "data", "kind", "metadata", "stringData", "type"],
    later: &[],
    skipped: &["immutable", "status"],
};

/// Reads a Secret.
pub(crate) fn secret(object: &Object<'_>) -> Secret {
    let kind = object.text("type").unwrap_or("Opaque");
    let mut data: BTreeMap<Text, Vec<u8>> = BTreeMap::new();
    let entries = |key| object.get(key).map(|field: Field<'_>| field.map()).unwrap_or_default();
    let mut faulty = false;
    for (key, value) in entries("data") {
        let Value::Text(text) = value.value() else {
            value.fault("wanted text in base64");
            faulty = true;
            continue;
        };
        let plain: String = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
        match STANDARD.decode(plain) {
            Ok(bytes) => drop(data.insert(key.into(), bytes)),
            Err(_) => {
                value.fault("is not base64; plain text belongs into stringData");
                faulty = true;
            }
        }
    }
    for (key, value) in entries("stringData") {
        let Value::Text(text) = value.value() else {
            value.fault("wanted text; put it in quotes");
            faulty = true;
            continue;
        };
        data.insert(key.into(), text.as_bytes().to_vec());
    }
    let missing: Vec<&str> =
        ["tls.crt", "tls.key"].into_iter().filter(|key| !data.contains_key(*key)).collect();
    if kind == "kubernetes.io/tls" && !missing.is_empty() && !faulty {
        object
            .field()
            .fault(format!("a Secret of type kubernetes.io/tls needs {} in data", missing.join(" and ")));
    }
    Secret { kind: kind.into(), data }
}
