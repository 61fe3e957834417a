//! Texts with a meaning: durations, names, hosts, labels, addresses.

use std::net::IpAddr;
use std::time::Duration;

use mesh_core::vocab::label::Labels;
use mesh_core::vocab::name::{NameError, Text, check_label};

use super::field::Field;
use super::node::{Value, quoted};

const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Longest duration that protobuf has, in seconds.
const LONGEST: u128 = 315_576_000_000;

/// Reads `1h30m`, `1.5s`, `250ms`; `None` if it is none.
fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    if text.is_empty() || text.len() > 64 {
        return None;
    }
    let mut rest = text;
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (amount, after) = rest.split_at(end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let factor = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        let (whole, fraction) = amount.split_once('.').unwrap_or((amount, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        nanos = nanos.checked_add(whole.checked_mul(factor)?)?;
        let mut place = factor;
        for digit in fraction.bytes() {
            place /= 10;
            nanos = nanos.checked_add(u128::from(digit.checked_sub(b'0').filter(|d| *d < 10)?) * place)?;
        }
        rest = after;
    }
    if nanos > LONGEST * 1_000_000_000 {
        return None;
    }
    let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
    let subsecond = u32::try_from(nanos % 1_000_000_000).ok()?;
    Some(Duration::new(seconds, subsecond))
}

/// A duration of 0 or at least a millisecond, in whole milliseconds.
pub(crate) fn duration_or_zero(field: &Field<'_>) -> Option<Duration> {
    let Value::Text(text) = field.value() else {
        field.fault(format!("found {}, wanted a duration such as 1h, 1m, 1.5s or 250ms", field.value()));
        return None;
    };
    let Some(duration) = parse_duration(text) else {
        field.fault(format!("found {}, wanted a duration such as 1h, 1m, 1.5s or 250ms", quoted(text)));
        return None;
    };
    if !duration.is_zero() && (duration.subsec_nanos() % 1_000_000 != 0) {
        field.fault(format!("{text} is not in whole milliseconds"));
        return None;
    }
    Some(duration)
}

/// A duration of at least a millisecond.
pub(crate) fn duration(field: &Field<'_>) -> Option<Duration> {
    let duration = duration_or_zero(field)?;
    if duration.is_zero() {
        field.fault("must be at least 1ms");
        return None;
    }
    Some(duration)
}

/// An RFC 1123 label: names of subsets, namespaces.
pub(crate) fn label_name(field: &Field<'_>) -> Option<Text> {
    let text = field.some_text()?;
    match check_label(text) {
        Ok(()) => Some(text.into()),
        Err(NameError::Shape(_)) => {
            field.fault(format!(
                "{} must consist of lower-case letters, digits and '-', and start and end with a letter or digit",
                quoted(text)
            ));
            None
        }
        Err(error) => {
            field.fault(error.to_string());
            None
        }
    }
}

/// The name of a subset: a label in which capitals are allowed as well.
pub(crate) fn subset_name(field: &Field<'_>) -> Option<Text> {
    let text = field.some_text()?;
    if check_label(&text.to_ascii_lowercase()).is_ok() {
        return Some(text.into());
    }
    field.fault(format!(
        "{} is no name of a subset: wanted at most 63 letters, digits and '-', letter or digit at both ends",
        quoted(text)
    ));
    None
}

fn name_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |b: &u8| b.is_ascii_alphanumeric();
    !bytes.is_empty()
        && bytes.len() <= 63
        && bytes.first().is_some_and(edge)
        && bytes.last().is_some_and(edge)
        && bytes.iter().all(|b| edge(b) || matches!(b, b'-' | b'_' | b'.'))
}

/// Checks the key of a label or annotation: `[PREFIX/]NAME`.
pub(crate) fn check_qualified(field: &Field<'_>, key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let valid = name_part(name)
        && prefix.is_none_or(|prefix| {
            mesh_core::vocab::name::check_subdomain(&prefix.to_ascii_lowercase()).is_ok()
        });
    if !valid {
        field.fault(format!(
            "{} is no key: wanted letters, digits, '-', '_' and '.', at most 63, after a DNS name and '/' or without",
            quoted(key)
        ));
    }
    valid
}

/// Labels: a map of text to text, both of limited form.
pub(crate) fn labels(field: &Field<'_>) -> Labels {
    let mut labels = Labels::default();
    for (key, value) in field.map() {
        let key_valid = check_qualified(&value, key);
        let Some(text) = value.text() else { continue };
        if !text.is_empty() && !name_part(text) {
            value.fault(format!(
                "{} is no label value: wanted at most 63 letters, digits, '-', '_' and '.', letter or digit at both ends",
                quoted(text)
            ));
        } else if key_valid {
            labels.set(key, text);
        }
    }
    labels
}

/// An IP address.
pub(crate) fn ip(field: &Field<'_>) -> Option<IpAddr> {
    let text = field.some_text()?;
    let parsed = text.parse().ok();
    if parsed.is_none() {
        field.fault(format!("{} is no IP address", quoted(text)));
    }
    parsed
}

/// Whether a text is a label of a DNS name as Istio takes it: at most 63 letters, digits and hyphens, a letter or
/// digit at both ends.
pub(crate) fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |b: &u8| b.is_ascii_alphanumeric();
    bytes.len() <= 63
        && bytes.first().is_some_and(edge)
        && bytes.last().is_some_and(edge)
        && bytes.iter().all(|b| edge(b) || *b == b'-')
}

/// Whether a text is a DNS name: labels, the last of them not a number, with a dot at the end or without.
pub(crate) fn is_dns_name(text: &str) -> bool {
    let length = 1..=255;
    length.contains(&text.len()) && labels_are_valid(text)
}

fn labels_are_valid(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let last = text.rsplit('.').next().unwrap_or("");
    let is_number = !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit());
    !is_number && (text.is_empty() || name.split('.').all(is_label))
}

/// Whether a text is a host: a DNS name whose first label may be `*` or begin with it (Istio's wildcards).
pub(crate) fn is_host(text: &str) -> bool {
    if text.is_empty() || text.len() > 255 {
        return false;
    }
    let (first, rest) = match text.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (text, None),
    };
    let first_is_valid = match first.strip_prefix('*') {
        Some("") => true,
        Some(name) => first.len() <= 63 && is_label(name.strip_prefix('-').unwrap_or(name)),
        None => is_label(first),
    };
    first_is_valid && rest.is_none_or(labels_are_valid)
}

/// A host name, in lower case.
pub(crate) fn host(field: &Field<'_>) -> Option<Text> {
    let text = field.some_text()?;
    if !is_host(text) {
        field.fault(format!(
            "{} is no host: wanted a DNS name, or one whose first label is '*'",
            quoted(text)
        ));
        return None;
    }
    Some(text.to_ascii_lowercase().into())
}
