//! RateLimit: how many requests pass, attached to workloads or routes.

use std::time::Duration;

use http::HeaderName;
use mesh_core::matching::text::TextMatch;
use mesh_core::resilience::ratelimit::Rate;
use mesh_core::resource::rate_limit::{LimitTarget, RateLimit, TargetKind};
use mesh_core::routing::limit::{Counts, KeyPart, Limit, Tell, Terms};
use mesh_core::vocab::name::Text;

use crate::dialect::field::{Field, Message, Note, Object};
use crate::dialect::istio::target as istio;
use crate::dialect::node::quoted;
use crate::dialect::scalar;

pub(crate) static SPEC: Message = Message {
    name: "spec of a RateLimit",
    fields: &[
        "dryRun",
        "limits",
        "responseHeaders",
        "scope",
        "selector",
        "status",
        "targetRef",
        "targetRefs",
    ],
    later: &[],
    skipped: &[],
};

static TARGET: Message = Message {
    name: "a target of a RateLimit",
    fields: &["group", "kind", "name", "namespace", "sectionName"],
    later: &[],
    skipped: &[],
};

static LIMIT: Message = Message {
    name: "a limit",
    fields: &["burst", "interval", "key", "match", "name", "requests"],
    later: &[],
    skipped: &[],
};

static KEY: Message = Message {
    name: "an entry of key",
    fields: &["header", "method", "path", "sourceAddress", "sourceNamespace", "sourcePrincipal"],
    later: &[],
    skipped: &[],
};

static MATCH: Message = Message {
    name: "the match of a limit",
    fields: &["headers", "methods", "paths"],
    later: &[],
    skipped: &[],
};

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&SPEC, "selector", &istio::SELECTOR),
    Note::Holds(&SPEC, "targetRef", &TARGET),
    Note::Holds(&SPEC, "targetRefs[]", &TARGET),
    Note::Holds(&SPEC, "limits[]", &LIMIT),
    Note::Holds(&LIMIT, "key[]", &KEY),
    Note::Holds(&LIMIT, "match", &MATCH),
    Note::Refused(&TARGET, "namespace", "an object of another namespace cannot be a target"),
];

/// Most objects and limits of a RateLimit, parts of a key, and texts of a list.
const MOST_TARGETS: usize = 16;
const MOST_LIMITS: usize = 16;
const MOST_PARTS: usize = 8;
const MOST_TEXTS: usize = 64;
/// Longest name of a limit or section, and longest text that is compared.
const LONGEST_NAME: usize = 63;
const LONGEST_TEXT: usize = 1024;
/// Longest interval: a day.
const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// Reads the spec of a RateLimit.
pub(crate) fn rate_limit(field: &Field<'_>) -> Option<RateLimit> {
    let spec = field.object(&SPEC)?;
    let written = ["selector", "targetRef", "targetRefs"].into_iter().filter(|key| spec.has(key));
    let written: Vec<&str> = written.collect();
    if written.len() > 1 {
        field.fault(format!("only one of {} can be set", written.join(" and ")));
    }
    let single = spec.get("targetRef");
    let several = spec.items("targetRefs");
    at_most(&spec, "targetRefs", several.len(), MOST_TARGETS);
    let targets = single.iter().chain(several.iter().take(MOST_TARGETS)).filter_map(target).collect();
    Some(RateLimit { selector: istio::selector(&spec), targets, terms: terms(&spec)? })
}

fn terms(spec: &Object<'_>) -> Option<Terms> {
    let limits = spec.require("limits");
    let items = spec.items("limits");
    if let (Some(list), true) = (&limits, items.is_empty()) {
        list.fault("at least one limit is needed");
    }
    at_most(spec, "limits", items.len(), MOST_LIMITS);
    let read: Vec<Limit> = items.iter().take(MOST_LIMITS).filter_map(limit).collect();
    for (index, one) in read.iter().enumerate() {
        if read[..index].iter().any(|other| other.name == one.name)
            && let Some(field) = items.get(index).and_then(|item| item.below("name"))
        {
            field.fault(format!("the name {} is taken by another limit", quoted(&one.name)));
        }
    }
    let scope = spec.get("scope").and_then(|field| field.choice(&["local", "mesh"]));
    let told = spec.get("responseHeaders").and_then(|field| field.choice(&["Refused", "All", "None"]));
    let status = spec.get("status").and_then(|field| field.integer(400..=599));
    limits?;
    Some(Terms {
        shared: scope == Some("mesh"),
        limits: read,
        status: status.and_then(|status| u16::try_from(status).ok()).unwrap_or(429),
        tell: match told {
            Some("All") => Tell::All,
            Some("None") => Tell::None,
            _ => Tell::Refused,
        },
        dry_run: spec.get("dryRun").and_then(|field| field.boolean()).unwrap_or(false),
    })
}

fn at_most(object: &Object<'_>, key: &'static str, found: usize, most: usize) {
    if found > most
        && let Some(list) = object.get(key)
    {
        list.fault(format!("found {found} entries, at most {most} are allowed"));
    }
}

fn target(field: &Field<'_>) -> Option<LimitTarget> {
    let object = field.object(&TARGET)?;
    if let Some(namespace) = object.get("namespace")
        && namespace.text().is_some_and(|text| !text.is_empty())
    {
        namespace.fault("must be left out: an object of another namespace cannot be a target");
    }
    let name = object.require("name");
    let kind = object.require("kind")?;
    let kind_name = kind.choice(&["Service", "VirtualService"])?;
    let (meant, group) = match kind_name {
        "Service" => (TargetKind::Service, ""),
        _ => (TargetKind::VirtualService, "networking.istio.io"),
    };
    if let Some(written) = object.get("group")
        && let Some(text) = written.text()
        && text != group
        // An empty group is what is not written, and `core` a name for it.
        && !text.is_empty()
        && !(text == "core" && group.is_empty())
    {
        written.fault(format!("found {}, wanted {} for a {kind_name}", quoted(text), quoted(group)));
    }
    let section = object.get("sectionName").and_then(|field| short_name(&field));
    Some(LimitTarget { kind: meant, name: name?.some_text()?.into(), section })
}

fn short_name(field: &Field<'_>) -> Option<Text> {
    let text = field.some_text()?;
    if text.len() > LONGEST_NAME {
        field.fault(format!("longer than {LONGEST_NAME} characters"));
        return None;
    }
    // It stands between quotes in a header field.
    if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\') {
        field.fault(format!("found {}, wanted letters, digits and signs without quotes", quoted(text)));
        return None;
    }
    Some(text.into())
}

fn limit(field: &Field<'_>) -> Option<Limit> {
    let object = field.object(&LIMIT)?;
    let name = object.require("name").and_then(|field| short_name(&field));
    let requests = object.require("requests").and_then(|field| field.integer(1..=i64::from(u32::MAX)));
    let interval = object.require("interval").and_then(|field| interval(&field));
    let burst = object.get("burst").map(|field| field.integer(1..=i64::from(u32::MAX)));
    let parts = object.items("key");
    at_most(&object, "key", parts.len(), MOST_PARTS);
    let key = parts.iter().take(MOST_PARTS).filter_map(key_part).collect();
    let counts = object.get("match").and_then(|field| counts(&field)).unwrap_or_default();
    let requests = u32::try_from(requests?).ok()?;
    let burst = match burst {
        None => requests,
        Some(burst) => u32::try_from(burst?).ok()?,
    };
    match Rate::new(requests, interval?, burst) {
        Ok(rate) => Some(Limit { name: name?, rate, key, counts }),
        Err(error) => {
            field.fault(error.to_string());
            None
        }
    }
}

fn interval(field: &Field<'_>) -> Option<Duration> {
    let interval = scalar::any_duration(field)?;
    if interval < Duration::from_millis(1) || interval > LONGEST_INTERVAL {
        field.fault("must be at least 1ms and at most 24h");
        return None;
    }
    Some(interval)
}

fn key_part(field: &Field<'_>) -> Option<KeyPart> {
    let object = field.object(&KEY)?;
    let written: Vec<&'static str> = KEY.fields.iter().copied().filter(|key| object.has(key)).collect();
    let [one] = written.as_slice() else {
        field.fault(format!("exactly one of {} must be set", KEY.fields.join(", ")));
        return None;
    };
    if *one == "header" {
        return Some(KeyPart::Header(header_name(&object.get("header")?)?));
    }
    let value = object.get(one)?;
    if value.boolean() == Some(false) {
        value.fault("can only be true; leave out the entry where it shall not count apart");
        return None;
    }
    match *one {
        "method" => Some(KeyPart::Method),
        "path" => Some(KeyPart::Path),
        "sourceAddress" => Some(KeyPart::Address),
        "sourceNamespace" => Some(KeyPart::Namespace),
        _ => Some(KeyPart::Principal),
    }
}

fn header_name(field: &Field<'_>) -> Option<HeaderName> {
    let text = field.some_text()?;
    let name = HeaderName::try_from(text).ok();
    if name.is_none() {
        field.fault(format!("{} is no name of a header field", quoted(text)));
    }
    name
}

fn counts(field: &Field<'_>) -> Option<Counts> {
    let object = field.object(&MATCH)?;
    let texts = |key: &'static str| {
        let items = object.items(key);
        at_most(&object, key, items.len(), MOST_TEXTS);
        items.iter().take(MOST_TEXTS).filter_map(text).collect::<Vec<TextMatch>>()
    };
    let headers = object.get("headers").map(|field| {
        let entries = field.map();
        if entries.len() > MOST_TEXTS {
            field.fault(format!("found {} entries, at most {MOST_TEXTS} are allowed", entries.len()));
        }
        let header = |(name, value): &(&str, Field<'_>)| {
            let Ok(read) = HeaderName::try_from(*name) else {
                value.fault(format!("{} is no name of a header field", quoted(name)));
                return None;
            };
            Some((read, text(value)?))
        };
        entries.iter().take(MOST_TEXTS).filter_map(header).collect()
    });
    Some(Counts { methods: texts("methods"), paths: texts("paths"), headers: headers.unwrap_or_default() })
}

/// Exact, `x*`, `*x` or `*`, as in an AuthorizationPolicy.
fn text(field: &Field<'_>) -> Option<TextMatch> {
    let text = field.some_text()?;
    if text.len() > LONGEST_TEXT {
        field.fault(format!("longer than {LONGEST_TEXT} characters"));
        return None;
    }
    Some(TextMatch::policy(text))
}
