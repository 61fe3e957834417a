//! Texts with a meaning: durations, names, hosts, labels, addresses.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
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

/// Longest duration that Go has, in nanoseconds.
const LONGEST: u128 = i64::MAX as u128;

/// Reads `1h30m`, `1.5s`, `250ms`; `None` if it is none.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    if text.len() > 64 {
        return None;
    }
    // Go takes a sign; a negative duration is none that is of use.
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if matches!(rest, "" | "0") {
        return (rest == "0").then_some(Duration::ZERO);
    }
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
    if nanos > LONGEST {
        return None;
    }
    let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
    let subsecond = u32::try_from(nanos % 1_000_000_000).ok()?;
    Some(Duration::new(seconds, subsecond))
}

/// A duration of any precision.
pub(crate) fn any_duration(field: &Field<'_>) -> Option<Duration> {
    let found = match field.value() {
        Value::Text(text) => match parse_duration(text) {
            Some(duration) => return Some(duration),
            None => quoted(text),
        },
        other => other.to_string(),
    };
    field.fault(format!("found {found}, wanted a duration such as 1h, 1m, 1.5s or 250ms"));
    None
}

/// A duration of 0 or at least a millisecond, in whole milliseconds.
pub(crate) fn duration_or_zero(field: &Field<'_>) -> Option<Duration> {
    let duration = any_duration(field)?;
    if !duration.is_zero() && (duration.subsec_nanos() % 1_000_000 != 0) {
        field.fault(format!("{} is not in whole milliseconds", field.text()?));
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

/// Checks the name of a resource: an RFC 1123 subdomain whose parts may be of any length, as in Kubernetes.
pub(crate) fn check_resource_name(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > 253 {
        return Err(NameError::TooLong { name: text.to_owned(), limit: 253 });
    }
    if prefix_part(text) && !text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Ok(());
    }
    Err(NameError::Shape(text.to_owned()))
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
    text.len() <= 63 && value_part(text)
}

fn value_part(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |b: &u8| b.is_ascii_alphanumeric();
    bytes.first().is_some_and(edge)
        && bytes.last().is_some_and(edge)
        && bytes.iter().all(|b| edge(b) || matches!(b, b'-' | b'_' | b'.'))
}

/// The prefix of a key: labels of a DNS name, of any length each, as Kubernetes and Istio take it.
fn prefix_part(text: &str) -> bool {
    let edge = |b: &u8| b.is_ascii_alphanumeric();
    let is_part = |part: &str| {
        let bytes = part.as_bytes();
        bytes.first().is_some_and(edge)
            && bytes.last().is_some_and(edge)
            && bytes.iter().all(|b| edge(b) || *b == b'-')
    };
    text.len() <= 253 && text.split('.').all(is_part)
}

/// Checks the key of a label or annotation: `[PREFIX/]NAME`.
pub(crate) fn check_qualified(field: &Field<'_>, key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let valid = name_part(name) && prefix.is_none_or(prefix_part);
    if !valid {
        field.fault(format!(
            "{} is no key: wanted letters, digits, '-', '_' and '.', at most 63, after a DNS name and '/' or without",
            quoted(key)
        ));
    }
    valid
}

/// Whose rules labels follow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LabelRules {
    /// Keys in lower case before the '/', values of at most 63 characters.
    Kubernetes,
    /// Neither.
    Istio,
}

/// Labels that Istio's resources speak of: a map of text to text, both of limited form.
pub(crate) fn labels(field: &Field<'_>) -> Labels {
    labels_by(field, LabelRules::Istio)
}

/// Labels that Kubernetes keeps: those of metadata and of a Service's selector.
pub(crate) fn kubernetes_labels(field: &Field<'_>) -> Labels {
    labels_by(field, LabelRules::Kubernetes)
}

fn labels_by(field: &Field<'_>, rules: LabelRules) -> Labels {
    let mut labels = Labels::default();
    for (key, value) in field.map() {
        let mut key_valid = check_qualified(&value, key);
        let capital = |prefix: &str| prefix.bytes().any(|b| b.is_ascii_uppercase());
        if let Some((prefix, _)) = key.split_once('/')
            && key_valid
            && rules == LabelRules::Kubernetes
            && capital(prefix)
        {
            value.fault(format!("{} is no key: capitals are not allowed before the '/'", quoted(key)));
            key_valid = false;
        }
        let Some(text) = value.text() else { continue };
        let (fits, most) = match rules {
            LabelRules::Kubernetes => (text.len() <= 63, "at most 63 "),
            LabelRules::Istio => (true, ""),
        };
        let value_valid = text.is_empty() || (fits && value_part(text));
        if !value_valid {
            value.fault(format!(
                "{} is no label value: wanted {most}letters, digits, '-', '_' and '.', letter or digit at both ends",
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

/// A network such as `10.0.0.0/8`, without zeros or signs before the numbers.
pub(crate) fn parse_network(text: &str) -> Option<IpNet> {
    let (address, bits) = text.split_once('/')?;
    let canonical = bits == "0" || !bits.starts_with('0') && bits.bytes().all(|b| b.is_ascii_digit());
    IpNet::new(address.parse().ok()?, bits.parse().ok().filter(|_| canonical)?).ok()
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
