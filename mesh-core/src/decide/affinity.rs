//! What keeps requests that belong together at one endpoint: the hash of a consistent hash policy's key.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use http::HeaderMap;

use super::facts::{OutboundRequest, OutboundStream};
use crate::balancing::hash::hash;
use crate::balancing::policy::{Algorithm, HashKey};
use crate::matching::pseudo::Pseudo;
use crate::matching::request::{Request, query_value};
use crate::message::authority::Authority;
use crate::tables::destinations::Destination;
use crate::vocab::name::Text;
use crate::vocab::random::Random;

/// By what the endpoint of a request is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Affinity {
    /// The key's hash; `None` where the destination has no such policy or the request no key.
    pub hash: Option<u64>,
    /// `set-cookie` of an upstream's answer: the key was made for this request, and the client keeps it.
    pub cookie: Option<Box<str>>,
}

impl Affinity {
    /// Of a request to a destination.
    pub fn of_request(
        destination: &Destination,
        facts: &OutboundRequest<'_>,
        random: &mut Random,
    ) -> Affinity {
        let by = |hash: Option<u64>| Affinity { hash, cookie: None };
        let key = match &destination.policy.load_balancer {
            Algorithm::Simple(_) | Algorithm::Utilization(_) => return Affinity::default(),
            Algorithm::Passthrough => {
                let asked = Authority::parse(facts.request.authority).map(|asked| asked.host);
                return by(asked.ok().and_then(|host| addressed(destination, address(host))));
            }
            Algorithm::ConsistentHash { key, .. } => key,
        };
        match key {
            HashKey::Header(name) => by(header_hash(&facts.request, name)),
            HashKey::QueryParameter(name) => {
                by(query_value(facts.request.query, name).map(|value| hash(value.as_bytes())))
            }
            HashKey::SourceIp => by(facts.source.map(address_hash)),
            HashKey::Cookie { name, path, ttl, attributes } => {
                match (cookie(facts.request.headers, name), ttl) {
                    (Some(value), _) => by(Some(hash(value))),
                    (None, None) => Affinity::default(),
                    (None, Some(ttl)) => {
                        let value = format!("{:016x}", random.bits());
                        Affinity {
                            hash: Some(hash(value.as_bytes())),
                            cookie: Some(set_cookie(name, &value, path.as_deref(), *ttl, attributes)),
                        }
                    }
                }
            }
        }
    }

    /// Of a byte stream to a destination: only addresses are known.
    pub fn of_stream(destination: &Destination, facts: &OutboundStream<'_>) -> Option<u64> {
        match &destination.policy.load_balancer {
            Algorithm::ConsistentHash { key: HashKey::SourceIp, .. } => facts.source.map(address_hash),
            Algorithm::Passthrough => addressed(destination, facts.destination),
            Algorithm::ConsistentHash { .. } | Algorithm::Simple(_) | Algorithm::Utilization(_) => None,
        }
    }
}

/// What the endpoint with an address is found by, where traffic goes to where it was sent.
fn addressed(destination: &Destination, asked: Option<IpAddr>) -> Option<u64> {
    let asked = asked?;
    let mut endpoints = destination.endpoints.iter();
    let found = endpoints.find(|endpoint| endpoint.address.ip().is_some_and(|at| at.ip() == asked));
    found.map(|endpoint| endpoint.address.hash())
}

fn address(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn address_hash(address: IpAddr) -> u64 {
    hash(address.to_canonical().to_string().as_bytes())
}

/// The order of several values says nothing. A name may be that of a part of the request, as HTTP/2 writes it.
fn header_hash(request: &Request<'_>, name: &str) -> Option<u64> {
    let headers = request.headers;
    if name.eq_ignore_ascii_case(http::header::HOST.as_str()) {
        return Some(hash(request.authority.as_bytes()));
    }
    if name.starts_with(':') {
        return Some(hash(Pseudo::from_name(name)?.value(request)?.as_bytes()));
    }
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    if values.next().is_none() {
        return Some(hash(first.as_bytes()));
    }
    let mut all: Vec<&[u8]> = headers.get_all(name).iter().map(|value| value.as_bytes()).collect();
    all.sort_unstable();
    Some(hash(&all.concat()))
}

/// The value of a cookie, without quotes; an empty one is none.
fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let fields = headers.get_all(http::header::COOKIE).iter();
    let mut pairs = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    let value = pairs.find_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(name.as_bytes())?;
        value.strip_prefix(b"=")
    })?;
    let bare = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
    (!bare.is_empty()).then_some(bare)
}

/// As Envoy writes it.
fn set_cookie(
    name: &str,
    value: &str,
    path: Option<&str>,
    ttl: Duration,
    attributes: &[(Text, Text)],
) -> Box<str> {
    let mut text = format!("{name}=\"{value}\"");
    // Writing into a string cannot fail.
    if !ttl.is_zero() {
        let _ = write!(text, "; Max-Age={}", ttl.as_secs().max(1));
    }
    if let Some(path) = path.filter(|path| !path.is_empty()) {
        let _ = write!(text, "; Path={path}");
    }
    for (name, value) in attributes {
        let _ = if value.is_empty() { write!(text, "; {name}") } else { write!(text, "; {name}={value}") };
    }
    text.push_str("; HttpOnly");
    text.into()
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::balancing::policy::HashTable;
    use crate::snapshot::destination::Destination as Policy;
    use crate::vocab::name::DestinationKey;
    use crate::vocab::protocol::Protocol;

    fn destination(key: HashKey) -> Destination {
        let host = DestinationKey { host: "a".into(), port: 80, subset: None, scope: None };
        let load_balancer = Algorithm::ConsistentHash { key, table: HashTable::Ring(1024) };
        let policy = Policy { load_balancer, ..Policy::plain(host, Protocol::Http) };
        Destination { policy, cluster: "c".into(), server_name: None, endpoints: Vec::new() }
    }

    fn affinity(key: HashKey, query: Option<&str>, fields: &[(&'static str, &'static str)]) -> Affinity {
        let fields = fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, value);
        }
        let request = Request {
            method: "GET",
            scheme: "http",
            authority: "a",
            path: "/",
            query,
            headers: &headers,
            claims: None,
        };
        let source = Some("10.0.0.7".parse().unwrap());
        let facts = OutboundRequest { request, port: 80, owner: None, listener: None, caller: None, source };
        Affinity::of_request(&destination(key), &facts, &mut Random::seeded(1))
    }

    #[test]
    fn what_requests_are_hashed_by() {
        let check = |key: HashKey, query, fields: &[(&'static str, &'static str)], expected: Option<&str>| {
            let found = affinity(key.clone(), query, fields);
            let expected = expected.map(|text| hash(text.as_bytes()));
            assert_eq!(found, Affinity { hash: expected, cookie: None }, "{key} {fields:?}");
        };
        let header = || HashKey::Header("x-user".into());
        check(header(), None, &[("x-user", "ann")], Some("ann"));
        check(header(), None, &[("x-user", "b"), ("x-user", "a")], Some("ab"));
        check(header(), None, &[("x-other", "ann")], None);
        // Parts of the request, as HTTP/2 writes them.
        let part = |name: &str| HashKey::Header(name.into());
        check(part(":path"), Some("q=1"), &[], Some("/?q=1"));
        check(part(":path"), None, &[], Some("/"));
        check(part(":authority"), None, &[], Some("a"));
        check(part("host"), None, &[("host", "else")], Some("a"));
        check(part(":method"), None, &[], Some("GET"));
        check(part(":status"), None, &[], None);
        let parameter = || HashKey::QueryParameter("user".into());
        check(parameter(), Some("a=1&user=ann"), &[], Some("ann"));
        check(parameter(), Some("a=1"), &[], None);
        check(parameter(), None, &[], None);
        check(HashKey::SourceIp, None, &[], Some("10.0.0.7"));
        let cookie = || HashKey::Cookie { name: "id".into(), path: None, ttl: None, attributes: Vec::new() };
        check(cookie(), None, &[("cookie", "other=1; id=x")], Some("x"));
        check(cookie(), None, &[("cookie", "identity=1"), ("cookie", "id=\"x\"")], Some("x"));
        check(cookie(), None, &[("cookie", "id=")], None);
        check(cookie(), None, &[], None);
    }

    #[test]
    fn a_cookie_is_made_where_it_has_a_lifetime_and_is_missing() {
        let key = |ttl: u64, path: Option<&str>, attributes: &[(&str, &str)]| HashKey::Cookie {
            name: "id".into(),
            path: path.map(Text::from),
            ttl: Some(Duration::from_secs(ttl)),
            attributes: attributes.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        };
        let check = |key: HashKey, expected: &str| {
            let found = affinity(key, None, &[]);
            let text = found.cookie.unwrap();
            let value = text.split('"').nth(1).unwrap();
            assert_eq!((value.len(), found.hash), (16, Some(hash(value.as_bytes()))));
            assert_eq!(text.replace(value, "V"), expected);
        };
        check(key(0, None, &[]), "id=\"V\"; HttpOnly");
        check(key(60, Some("/a"), &[]), "id=\"V\"; Max-Age=60; Path=/a; HttpOnly");
        check(
            key(0, None, &[("SameSite", "Lax"), ("Secure", "")]),
            "id=\"V\"; SameSite=Lax; Secure; HttpOnly",
        );
        // The next request brings it.
        assert_eq!(affinity(key(60, None, &[]), None, &[("cookie", "id=\"v\"")]).hash, Some(hash(b"v")));
    }

    #[test]
    fn where_traffic_goes_to_where_it_was_sent_an_endpoint_is_found_by_its_address() {
        let mut destination = destination(HashKey::SourceIp);
        destination.policy.load_balancer = Algorithm::Passthrough;
        let destination = destination.aimed("x", &["10.0.0.1:8080".parse().unwrap()]);
        let headers = HeaderMap::new();
        let check = |authority: &str, expected: Option<u64>| {
            let request = Request {
                method: "GET",
                scheme: "http",
                authority,
                path: "/",
                query: None,
                headers: &headers,
                claims: None,
            };
            let facts = OutboundRequest {
                request,
                port: 80,
                owner: None,
                listener: None,
                caller: None,
                source: None,
            };
            assert_eq!(Affinity::of_request(&destination, &facts, &mut Random::seeded(1)).hash, expected);
        };
        check("10.0.0.1", Some(hash(b"10.0.0.1:8080")));
        check("10.0.0.1:80", Some(hash(b"10.0.0.1:8080")));
        check("10.0.0.2:80", None);
        check("a.example", None);
    }

    #[test]
    fn streams_are_hashed_by_the_address_only() {
        let facts = OutboundStream {
            service: 0,
            port: 80,
            destination: None,
            sni: None,
            caller: None,
            source: "::ffff:10.0.0.7".parse().ok(),
        };
        let of = |key| Affinity::of_stream(&destination(key), &facts);
        assert_eq!(of(HashKey::SourceIp), Some(hash(b"10.0.0.7")));
        assert_eq!(of(HashKey::Header("x".into())), None);
    }
}
