//! Annotations of our own that say what Istio's fields cannot: attempts side by side, and faults of connections. Their
//! values are lists of `name=value`, so that they fit on a line.

use std::time::Duration;

use mesh_core::resilience::connection_fault::{ConnectionFault, ConnectionFaultKind};
use mesh_core::resilience::hedge::Hedge;
use mesh_core::vocab::origin::Kind;
use mesh_core::vocab::ratio::Ratio;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::field::{Field, nearest, not_one_of};
use super::node::quoted;
use super::scalar::parse_duration;

/// A VirtualService's: attempts side by side.
pub(crate) const HEDGE: &str = "mesh.io/hedge";
/// Another name of it.
pub(crate) const X_HEDGE: &str = "x-mesh-hedge";
/// A DestinationRule's: faults of connections.
pub(crate) const FAULT: &str = "mesh.io/fault";

/// Buckets of histograms.
pub(crate) const BUCKETS: &str = "sidecar.istio.io/statsHistogramBuckets";

/// Slower than that is a blackhole.
const LONGEST_LATENCY: Duration = Duration::from_secs(60);
/// As much as a fast network carries.
const MOST_BYTES: u64 = 100_000_000_000;

/// Refuses an annotation that is for another kind: it would be without effect.
pub(crate) fn check_place(field: &Field<'_>, key: &str, kind: Kind) {
    let place = match key {
        HEDGE | X_HEDGE => Kind::VirtualService,
        FAULT => Kind::DestinationRule,
        BUCKETS => {
            field.never("histograms have Envoy's buckets everywhere, so that they can be summed up");
            return;
        }
        _ => return,
    };
    if kind != place {
        field.fault(format!("{key} is for {} only", place.name()));
    }
}

/// What a VirtualService says of attempts side by side.
pub(crate) fn hedge(annotations: &Field<'_>) -> Option<Hedge> {
    check_known(annotations, HEDGE);
    let (field, other) = (annotations.below(HEDGE), annotations.below(X_HEDGE));
    if let (Some(_), Some(other)) = (&field, &other) {
        other.fault(format!("{HEDGE} says the same; only one of them can hold"));
    }
    let field = field.or(other)?;
    let words = words(&field, &["after", "max", "methods"])?;
    let Some(after) = words.get("after") else {
        field.fault("after is missing, as in after=50ms");
        return None;
    };
    let after = parse_duration(after)
        .filter(|after| (Hedge::SOONEST..=Hedge::LATEST).contains(after))
        .or_else(|| {
            field.fault(format!(
                "after: found {}, wanted a duration from 1ms to 1m such as 50ms",
                quoted(after)
            ));
            None
        });
    let most = match words.get("max") {
        None => Some(1),
        Some(text) => text.parse().ok().filter(|most| (1..=Hedge::MOST).contains(most)).or_else(|| {
            field.fault(format!("max: found {}, wanted a number from 1 to {}", quoted(text), Hedge::MOST));
            None
        }),
    };
    let any_method = match words.get("methods") {
        None | Some("idempotent") => Some(false),
        Some("all") => Some(true),
        Some(other) => {
            field.fault(format!("methods: {}", not_one_of(other, &["idempotent", "all"])));
            None
        }
    };
    Some(Hedge { after: after?, most: most?, any_method: any_method? })
}

/// What a DestinationRule says of faults of connections.
pub(crate) fn connection_fault(annotations: &Field<'_>) -> Option<ConnectionFault> {
    check_known(annotations, FAULT);
    let field = annotations.below(FAULT)?;
    let words = words(&field, &["kind", "percent", "until", "value"])?;
    let kind = kind(&field, &words);
    let share = match words.get("percent") {
        None => Some(Ratio::ONE),
        Some(text) => text.parse().ok().and_then(Ratio::from_percent).or_else(|| {
            field.fault(format!("percent: found {}, wanted a number from 0 to 100", quoted(text)));
            None
        }),
    };
    Some(ConnectionFault { kind: kind?, share: share?, until: until(&field, &words)? })
}

fn kind(field: &Field<'_>, words: &Words<'_>) -> Option<ConnectionFaultKind> {
    const KINDS: [&str; 4] = ["bandwidth", "blackhole", "latency", "reset"];
    let Some(kind) = words.get("kind") else {
        field.fault(format!("kind is missing; one of {}", KINDS.join(", ")));
        return None;
    };
    let value = words.get("value");
    let wanted = |wanted: &str| {
        match value {
            Some(found) => field.fault(format!("value: found {}, wanted {wanted}", quoted(found))),
            None => field.fault(format!("value is missing: {wanted}")),
        }
        None
    };
    match kind {
        "latency" => value
            .and_then(parse_duration)
            .filter(|time| (Duration::from_millis(1)..=LONGEST_LATENCY).contains(time))
            .map(ConnectionFaultKind::Latency)
            .or_else(|| wanted("a duration from 1ms to 1m such as 200ms")),
        "bandwidth" => value
            .and_then(bytes)
            .filter(|bytes| *bytes > 0)
            .map(ConnectionFaultKind::Bandwidth)
            .or_else(|| wanted("bytes a second such as 50000, 50k or 2Mi")),
        "reset" => match value {
            None => Some(ConnectionFaultKind::Reset { after: 0 }),
            Some(text) => bytes(text)
                .map(|after| ConnectionFaultKind::Reset { after })
                .or_else(|| wanted("after how many bytes, such as 1000 or 64Ki")),
        },
        "blackhole" => match value {
            None => Some(ConnectionFaultKind::Blackhole),
            Some(_) => wanted("none: a blackhole has no value"),
        },
        other => {
            field.fault(format!("kind: {}", not_one_of(other, &KINDS)));
            None
        }
    }
}

fn until(field: &Field<'_>, words: &Words<'_>) -> Option<u64> {
    let Some(text) = words.get("until") else {
        field.fault(
            "until is missing: a fault has an end, at most an hour away, such as until=2026-01-02T03:04:05Z",
        );
        return None;
    };
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok();
    moment.and_then(|moment| u64::try_from(moment.unix_timestamp()).ok()).or_else(|| {
        field.fault(format!("until: found {}, wanted a time such as 2026-01-02T03:04:05Z", quoted(text)));
        None
    })
}

/// A number of bytes, with a multiple of 1000 or of 1024 behind it.
fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|last: char| last.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" => 1,
        "k" | "K" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return None,
    };
    let number: u64 = digits.parse().ok()?;
    number.checked_mul(factor).filter(|bytes| *bytes <= MOST_BYTES)
}

/// Refuses what only looks like an annotation of ours.
fn check_known(annotations: &Field<'_>, known: &'static str) {
    for (key, value) in annotations.map().into_iter().filter(|(key, _)| key.starts_with("mesh.io/")) {
        // Those of other kinds are refused as such.
        if ![HEDGE, FAULT].contains(&key) {
            let hint =
                nearest(key, &[known]).map(|name| format!(", did you mean {name}?")).unwrap_or_default();
            value.fault(format!("unknown annotation {}{hint} known: {known}", quoted(key)));
        }
    }
}

/// The words of a value.
struct Words<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Words<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

/// Reads `name=value,name=value`; each of the names once.
fn words<'a>(field: &Field<'a>, names: &[&'static str]) -> Option<Words<'a>> {
    let mut words = Words(Vec::new());
    for part in field.some_text()?.split(',') {
        let part = part.trim();
        let Some((name, value)) = part.split_once('=') else {
            field.fault(format!(
                "found {}, wanted name=value; the names are {}",
                quoted(part),
                names.join(", ")
            ));
            return None;
        };
        let (name, value) = (name.trim(), value.trim());
        if !names.contains(&name) {
            field.fault(not_one_of(name, names));
            return None;
        }
        if words.get(name).is_some() {
            field.fault(format!("{name} is there twice"));
            return None;
        }
        words.0.push((name, value));
    }
    Some(words)
}
