//! `consistentHash` of a loadBalancer: what requests are hashed by, and over which layout of the endpoints.

use std::collections::HashSet;

use mesh_core::balancing::balancer::LoadBalancer;
use mesh_core::balancing::policy::{Algorithm, HashKey, HashTable};
use mesh_core::vocab::name::Text;

use super::exclusive::at_most_one;
use crate::dialect::field::{Field, Message, Note, Object};
use crate::dialect::node::quoted;
use crate::dialect::scalar;

pub(crate) static CONSISTENT_HASH: Message = Message {
    name: "a consistentHash",
    fields: &[
        "httpCookie",
        "httpHeaderName",
        "httpQueryParameterName",
        "maglev",
        "minimumRingSize",
        "ringHash",
        "useSourceIp",
    ],
    later: &[],
    skipped: &[],
};

static COOKIE: Message = Message {
    name: "a httpCookie",
    fields: &["attributes", "name", "path", "ttl"],
    later: &[],
    skipped: &[],
};

static ATTRIBUTE: Message =
    Message { name: "an attribute of a cookie", fields: &["name", "value"], later: &[], skipped: &[] };

static RING_HASH: Message =
    Message { name: "a ringHash", fields: &["minimumRingSize"], later: &[], skipped: &[] };

static MAGLEV: Message = Message { name: "a maglev", fields: &["tableSize"], later: &[], skipped: &[] };

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&CONSISTENT_HASH, "httpCookie", &COOKIE),
    Note::Holds(&CONSISTENT_HASH, "ringHash", &RING_HASH),
    Note::Holds(&CONSISTENT_HASH, "maglev", &MAGLEV),
    Note::Holds(&COOKIE, "attributes[]", &ATTRIBUTE),
];

/// Smallest ring where none is written.
const RING_SIZE: u64 = 1024;
/// Size of a Maglev table where none is written.
const MAGLEV_SIZE: u64 = 65537;
/// Maglev tables are smaller than this.
const MAGLEV_LIMIT: u64 = 5_000_011;

/// Reads `consistentHash`.
pub(super) fn consistent_hash(field: &Field<'_>) -> Option<Algorithm> {
    let hash = field.object(&CONSISTENT_HASH)?;
    let keys = ["httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"];
    at_most_one(&hash, &keys);
    at_most_one(&hash, &["ringHash", "maglev"]);
    let table = table(&hash);
    let key = match keys.into_iter().find(|key| hash.has(key)) {
        Some("httpHeaderName") => {
            hash.text("httpHeaderName").map(|name| HashKey::Header(name.to_ascii_lowercase().into()))
        }
        Some("httpCookie") => Some(cookie(&hash.get("httpCookie")?)?),
        Some("httpQueryParameterName") => {
            hash.text("httpQueryParameterName").map(|name| HashKey::QueryParameter(name.into()))
        }
        Some(_) => hash.get("useSourceIp")?.boolean()?.then_some(HashKey::SourceIp),
        None => None,
    };
    match key {
        Some(key) => Some(Algorithm::ConsistentHash { key, table }),
        None => {
            if !keys.iter().any(|key| hash.is_misspelt(key)) {
                field.warn(format!(
                    "nothing to hash by, so endpoints are chosen at random; one of {} says what",
                    keys.join(", ")
                ));
            }
            Some(Algorithm::Simple(LoadBalancer::Random))
        }
    }
}

fn cookie(field: &Field<'_>) -> Option<HashKey> {
    let cookie = field.object(&COOKIE)?;
    let mut attributes: Vec<(Text, Text)> = Vec::new();
    let mut names: HashSet<&str> = HashSet::new();
    for item in cookie.items("attributes") {
        let Some(entry) = item.object(&ATTRIBUTE) else { continue };
        let value = entry.get("value").and_then(|field| field.text()).unwrap_or("");
        let Some(name) = entry.require("name").and_then(|field| field.some_text()) else { continue };
        if !names.insert(name) {
            item.fault(format!("the attribute {} is there twice", quoted(name)));
        }
        attributes.push((name.into(), value.into()));
    }
    let path = cookie.text("path").map(Text::from);
    let ttl = cookie.get("ttl").and_then(|field| scalar::duration_or_zero(&field));
    let name = cookie.require("name").and_then(|field| field.some_text())?;
    Some(HashKey::Cookie { name: name.into(), path, ttl, attributes })
}

fn table(hash: &Object<'_>) -> HashTable {
    let old = size(hash, "minimumRingSize").filter(|size| *size > 0);
    if old.is_some()
        && let Some(field) = hash.get("minimumRingSize")
    {
        if hash.has("ringHash") || hash.has("maglev") {
            field.fault("only one of minimumRingSize, ringHash and maglev can be set");
        } else {
            field.warn("minimumRingSize is deprecated here, use ringHash: {minimumRingSize: ...}");
        }
    }
    if let Some(field) = hash.get("maglev") {
        return HashTable::Maglev(maglev(&field).unwrap_or(MAGLEV_SIZE));
    }
    let ring = hash.get("ringHash").and_then(|field| size(&field.object(&RING_HASH)?, "minimumRingSize"));
    HashTable::Ring(ring.or(old).filter(|size| *size > 0).unwrap_or(RING_SIZE))
}

fn maglev(field: &Field<'_>) -> Option<u64> {
    let maglev = field.object(&MAGLEV)?;
    let table = maglev.require("tableSize")?;
    let size = size(&maglev, "tableSize")?;
    if size >= MAGLEV_LIMIT {
        table.fault(format!("{size} is too large, wanted a prime below {MAGLEV_LIMIT}"));
        return None;
    }
    if !is_prime(size) {
        table.fault(format!("{size} is no prime number, as a table of Maglev must be"));
        return None;
    }
    Some(size)
}

fn size(object: &Object<'_>, key: &'static str) -> Option<u64> {
    u64::try_from(object.get(key)?.integer(0..=i64::MAX)?).ok()
}

/// Envoy's notion: 1 counts as well. Called for sizes below the limit, so that some thousand divisions are the most.
fn is_prime(size: u64) -> bool {
    match size {
        0 => false,
        1..=3 => true,
        _ => {
            size % 2 == 1
                && (3u64..)
                    .step_by(2)
                    .take_while(|factor| factor * factor <= size)
                    .all(|factor| !size.is_multiple_of(factor))
        }
    }
}
