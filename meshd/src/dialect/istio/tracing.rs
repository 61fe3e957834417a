//! Traces of a Telemetry: how many, and with which tags.

use std::collections::BTreeMap;

use mesh_core::resource::telemetry::{CustomTag, Tracing};
use mesh_core::telemetry::format::Template;
use mesh_core::vocab::name::Text;
use mesh_core::vocab::ratio::Ratio;

use super::telemetry::{MATCH, PROVIDER, boolean, providers, side};
use crate::dialect::field::{Field, Message, Note, Object};

pub(crate) static TRACING: Message = Message {
    name: "an entry of tracing",
    fields: &[
        "customTags",
        "disableContextPropagation",
        "disableSpanReporting",
        "enableIstioTags",
        "match",
        "providers",
        "randomSamplingPercentage",
        "useRequestIdForTraceSampling",
    ],
    later: &[],
    skipped: &[],
};

static TAG: Message = Message {
    name: "a custom tag",
    fields: &["environment", "formatter", "header", "literal"],
    later: &[],
    skipped: &[],
};

static VALUE: Message = Message { name: "the value of a tag", fields: &["value"], later: &[], skipped: &[] };

static NAMED: Message = Message {
    name: "the source of a tag's value",
    fields: &["defaultValue", "name"],
    later: &[],
    skipped: &[],
};

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&TRACING, "match", &MATCH),
    Note::Holds(&TRACING, "providers[]", &PROVIDER),
    Note::Holds(&TRACING, "customTags{}", &TAG),
    Note::Holds(&TAG, "literal", &VALUE),
    Note::Holds(&TAG, "formatter", &VALUE),
    Note::Holds(&TAG, "environment", &NAMED),
    Note::Holds(&TAG, "header", &NAMED),
];

/// Reads one entry of `tracing`.
pub(super) fn tracing(field: &Field<'_>) -> Option<Tracing> {
    let entry = field.object(&TRACING)?;
    let providers = providers(&entry);
    if providers.len() > 1
        && let Some(list) = entry.get("providers")
    {
        list.warn("only one provider of traces counts");
    }
    Some(Tracing {
        mode: side(&entry),
        providers,
        sampling: entry.get("randomSamplingPercentage").and_then(|field| percentage(&field)),
        disable_span_reporting: boolean(&entry, "disableSpanReporting"),
        disable_context_propagation: boolean(&entry, "disableContextPropagation"),
        enable_istio_tags: boolean(&entry, "enableIstioTags"),
        use_request_id: boolean(&entry, "useRequestIdForTraceSampling"),
        custom_tags: entry.get("customTags").map(|field| tags(&field)),
    })
}

/// A percentage of 0 to 100.
pub(super) fn percentage(field: &Field<'_>) -> Option<Ratio> {
    let percent = field.number()?;
    let ratio = Ratio::from_percent(percent);
    if ratio.is_none() {
        field.fault(format!("{percent} is out of range: 0 to 100"));
    }
    ratio
}

/// Reads `customTags`.
pub(super) fn tags(field: &Field<'_>) -> BTreeMap<Text, CustomTag> {
    let mut tags = BTreeMap::new();
    for (name, field) in field.map() {
        if name.is_empty() {
            field.fault("the name of a tag must not be empty");
        }
        if let Some(tag) = tag(&field) {
            tags.insert(name.into(), tag);
        }
    }
    tags
}

/// `None` for a tag that is taken from nowhere, too: it is allowed, and never there.
fn tag(field: &Field<'_>) -> Option<CustomTag> {
    let entry = field.object(&TAG)?;
    let written: Vec<&str> = TAG.fields.iter().copied().filter(|key| entry.has(key)).collect();
    if written.len() > 1 {
        field.fault(format!("only one of {} can be set", written.join(" and ")));
        return None;
    }
    if let Some(field) = entry.get("literal") {
        return value(&field).map(CustomTag::Literal);
    }
    if let Some(field) = entry.get("formatter") {
        let format = value(&field)?;
        if let Err(error) = Template::parse(&format) {
            field.fault(error.to_string());
        }
        return Some(CustomTag::Formatter(format));
    }
    if let Some(field) = entry.get("environment") {
        return named(&field).map(|(name, default)| CustomTag::Environment(name, default));
    }
    named(&entry.get("header")?).map(|(name, default)| CustomTag::Header(name, default))
}

fn value(field: &Field<'_>) -> Option<Text> {
    field.object(&VALUE)?.require("value")?.some_text().map(Text::from)
}

fn named(field: &Field<'_>) -> Option<(Text, Text)> {
    let entry: Object<'_> = field.object(&NAMED)?;
    let name = entry.require("name")?.some_text()?;
    Some((name.into(), entry.text("defaultValue").unwrap_or("").into()))
}
