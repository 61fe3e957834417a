//! ProxyConfig.

use std::collections::BTreeMap;

use mesh_core::resource::proxy_config::ProxyConfig;
use mesh_core::vocab::name::Text;

use super::selector::{BY_MATCH_LABELS, by_match_labels};
use crate::dialect::field::{Field, Message, Note};

pub(crate) static SPEC: Message = Message {
    name: "spec of a ProxyConfig",
    fields: &[],
    later: &["concurrency", "environmentVariables", "image", "selector"],
    skipped: &[],
};

static IMAGE: Message = Message { name: "an image", fields: &["imageType"], later: &[], skipped: &[] };

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] =
    &[Note::Holds(&SPEC, "image", &IMAGE), Note::Holds(&SPEC, "selector", &BY_MATCH_LABELS)];

const LONGEST_VARIABLE: usize = 2048;

/// Reads the spec of a ProxyConfig.
pub(crate) fn proxy_config(field: &Field<'_>) -> Option<ProxyConfig> {
    let spec = field.object(&SPEC)?;
    let concurrency = spec.get("concurrency").and_then(|field| field.integer(0..=i64::from(i32::MAX)));
    let image = spec.get("image").and_then(|field| field.object(&IMAGE));
    Some(ProxyConfig {
        selector: spec.get("selector").and_then(|field| by_match_labels(&field)),
        concurrency: concurrency.and_then(|threads| u32::try_from(threads).ok()),
        environment: spec.get("environmentVariables").map(|field| variables(&field)).unwrap_or_default(),
        image_type: image.and_then(|image| image.text("imageType").map(Text::from)),
    })
}

fn variables(field: &Field<'_>) -> BTreeMap<Text, Text> {
    let mut variables = BTreeMap::new();
    for (name, value) in field.map() {
        let Some(text) = value.text() else { continue };
        let length = text.chars().count();
        if length > LONGEST_VARIABLE {
            value.fault(format!("found {length} characters, at most {LONGEST_VARIABLE} are allowed"));
        }
        variables.insert(name.into(), text.into());
    }
    variables
}
