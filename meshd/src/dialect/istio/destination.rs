//! Destinations of rules: `route` with its weights, and mirrors.

use mesh_core::resource::virtual_service::{Mirror, RouteDestination};
use mesh_core::routing::header::HeaderChanges;
use mesh_core::vocab::ratio::Ratio;

use super::fault::{PERCENTAGE, percentage};
use super::header;
use crate::dialect::field::{Field, Message, Note, Object};
use crate::dialect::scalar;

/// A destination of an HTTP rule.
pub(crate) static ROUTE: Message =
    Message { name: "a route", fields: &["destination", "headers", "weight"], later: &[], skipped: &[] };

/// A destination of a TCP or TLS rule.
pub(crate) static STREAM_ROUTE: Message =
    Message { name: "a route", fields: &["destination", "weight"], later: &[], skipped: &[] };

pub(crate) static DESTINATION: Message =
    Message { name: "a destination", fields: &["host", "port", "subset"], later: &[], skipped: &[] };

static PORT: Message = Message { name: "a port", fields: &["number"], later: &[], skipped: &[] };

pub(crate) static MIRROR: Message =
    Message { name: "a mirror", fields: &["destination", "percentage"], later: &[], skipped: &[] };

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&ROUTE, "destination", &DESTINATION),
    Note::Holds(&ROUTE, "headers", &header::HEADERS),
    Note::Holds(&STREAM_ROUTE, "destination", &DESTINATION),
    Note::Holds(&DESTINATION, "port", &PORT),
    Note::Holds(&MIRROR, "destination", &DESTINATION),
    Note::Holds(&MIRROR, "percentage", &PERCENTAGE),
];

/// Reads `route`; `None` if there is none that can be used.
pub(super) fn destinations(field: &Field<'_>, message: &'static Message) -> Option<Vec<RouteDestination>> {
    let items = field.items();
    if field.is_empty_list() {
        field.fault("needs at least one destination");
    }
    if items.is_empty() {
        return None;
    }
    let read: Vec<RouteDestination> = items.iter().filter_map(|item| weighted(item, message)).collect();
    if read.len() < items.len() {
        return None;
    }
    let total: u64 = read.iter().map(|destination| u64::from(destination.weight.unwrap_or(0))).sum();
    if read.len() > 1 && total == 0 {
        field.fault(format!(
            "the weights of these {} destinations add up to 0: none would get traffic",
            read.len()
        ));
    } else if total > u64::from(u32::MAX) {
        field.fault(format!("the weights add up to {total}, more than {}", u32::MAX));
    }
    Some(read)
}

fn weighted(field: &Field<'_>, message: &'static Message) -> Option<RouteDestination> {
    let entry = field.object(message)?;
    let weight = match entry.get("weight") {
        Some(field) => field.integer(0..=i64::from(i32::MAX)).map(|weight| u32::try_from(weight).ok()),
        None => Some(None),
    };
    let headers = match message.fields.contains(&"headers").then(|| entry.get("headers")).flatten() {
        Some(field) => header::changes(&field),
        None => header::Changes::default(),
    };
    let destination = destination(&entry.require("destination")?)?;
    Some(RouteDestination {
        weight: weight?,
        request_headers: headers.request,
        response_headers: headers.response,
        authority: headers.authority,
        ..destination
    })
}

/// Reads a destination by itself: host, subset, port.
fn destination(field: &Field<'_>) -> Option<RouteDestination> {
    let destination = field.object(&DESTINATION)?;
    let subset = destination.get("subset").filter(|field| !field.is_empty_text());
    let subset = match subset {
        Some(field) => scalar::subset_name(&field).map(Some),
        None => Some(None),
    };
    let port = match destination.get("port") {
        Some(field) => port(&field).map(Some),
        None => Some(None),
    };
    let host_field = destination.require("host")?;
    let host = scalar::host(&host_field)?;
    if &*host == "*" {
        host_field.fault("a destination cannot be the host '*'");
        return None;
    }
    Some(RouteDestination {
        host,
        subset: subset?,
        port: port?,
        weight: None,
        request_headers: HeaderChanges::default(),
        response_headers: HeaderChanges::default(),
        authority: None,
    })
}

fn port(field: &Field<'_>) -> Option<u16> {
    field.object(&PORT)?.require("number")?.port()
}

/// Reads `mirror` with its percentage, or `mirrors`.
pub(super) fn mirrors(rule: &Object<'_>) -> Vec<Mirror> {
    let share = share(rule);
    let several = rule.items("mirrors");
    let mut mirrors: Vec<Mirror> = several.iter().filter_map(mirror).collect();
    let Some(one) = rule.get("mirror") else { return mirrors };
    if !several.is_empty() {
        rule.field().fault("only one of mirror and mirrors can be set");
    }
    mirrors.extend(destination(&one).map(|destination| Mirror { destination, share }));
    mirrors
}

/// `mirrorPercentage`, else the old `mirrorPercent`, else all.
fn share(rule: &Object<'_>) -> Ratio {
    if rule.has("mirrorPercent") && rule.has("mirror_percent") {
        rule.field()
            .fault("only one of mirrorPercent and mirror_percent can be set; they are the same field");
    }
    let mut share = None;
    for key in ["mirrorPercent", "mirror_percent"] {
        if let Some(old) = rule.get(key) {
            old.warn(format!("{key} is deprecated, use mirrorPercentage"));
            share = old.integer(0..=100).and_then(|percent| Ratio::from_percent(percent as f64)).or(share);
        }
    }
    if let Some(field) = rule.get("mirrorPercentage") {
        share = percentage(&field).or(share);
    }
    share.unwrap_or(Ratio::ONE)
}

fn mirror(field: &Field<'_>) -> Option<Mirror> {
    let entry = field.object(&MIRROR)?;
    let share = match entry.get("percentage") {
        Some(field) => percentage(&field),
        None => Some(Ratio::ONE),
    };
    let destination = destination(&entry.require("destination")?);
    Some(Mirror { destination: destination?, share: share? })
}
