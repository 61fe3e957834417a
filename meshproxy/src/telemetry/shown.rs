//! An exchange as an object of JSON: what `meshd tap` prints and what saved files hold.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use mesh_core::telemetry::tap::is_secret;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::flight::{Exchange, Part};
use super::labels::Party;
use super::tap::{Fields, Hub};

/// What is shown of a secret.
const SECRET: &str = "***";
/// Fields of proxies among themselves.
const OWN: &str = "x-mesh-";

/// When it began, in microseconds since 1970.
pub fn began(exchange: &Exchange) -> u64 {
    let age = Instant::now().saturating_duration_since(exchange.started);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(age);
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The time of now, as exchanges are told with.
pub fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    stamp(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// The object, and when the exchange began.
pub fn object(hub: &Hub, exchange: &Exchange, fields: Option<&Fields>) -> (u64, Value) {
    let began = began(exchange);
    let service = hub.metrics.service_of(exchange.service);
    let mut map = Map::new();
    let mut put = |name: &str, value: Value| drop(map.insert(name.to_owned(), value));
    put("time", stamp(began).into());
    put("node", hub.node.as_str().into());
    put("reporter", exchange.reporter.name().into());
    put("version", exchange.version.into());
    put("source", Value::Object(party(&hub.metrics.party_of(exchange.source))));
    let mut destination = party(&hub.metrics.party_of(exchange.destination));
    let called = if &*service.host == "unknown" { &service.name } else { &service.host };
    destination.insert("service".to_owned(), (&**called).into());
    put("destination", Value::Object(destination));
    let text = |part| exchange.text(part).into_owned();
    let method = text(Part::Method);
    if method.is_empty() && exchange.code == 0 {
        put("protocol", "tcp".into());
    } else {
        put("protocol", exchange.protocol.into());
        put("method", method.into());
        put("authority", text(Part::Authority).into());
        put("path", text(Part::Path).into());
        put("status", exchange.code.into());
        put("request_id", text(Part::RequestId).into());
    }
    if exchange.is_cut(Part::Path) {
        put("path_cut", true.into());
    }
    if let Some(status) = exchange.grpc_status {
        put("grpc_status", status.into());
    }
    put("flags", exchange.flags.to_string().into());
    put("duration_ms", millis(exchange.duration).into());
    if let Some(origin) = &exchange.origin {
        let mut route = Map::new();
        route.insert("resource".to_owned(), (&*origin.resource).into());
        if let Some(rule) = origin.rule {
            route.insert("rule".to_owned(), rule.into());
        }
        put("route", Value::Object(route));
    }
    put("attempts", exchange.attempts.into());
    put("bytes_received", exchange.received.into());
    put("bytes_sent", exchange.sent.into());
    if exchange.mutual_tls {
        put("mtls", true.into());
    }
    if let Some(endpoint) = exchange.endpoint {
        put("endpoint", endpoint.to_string().into());
    }
    put("client", exchange.remote.to_string().into());
    let trace = text(Part::Trace);
    let trace = trace.split('-').nth(1).unwrap_or("").to_owned();
    for (name, value) in [
        ("details", text(Part::Details)),
        ("failure", text(Part::Failure)),
        ("cluster", text(Part::Cluster)),
        ("trace_id", trace),
    ] {
        if !value.is_empty() {
            put(name, value.into());
        }
    }
    if let Some(fields) = fields {
        put("request_headers", headers(&fields.request));
        if let Some(answer) = &fields.answer {
            put("response_headers", headers(answer));
        }
    }
    (began, Value::Object(map))
}

/// `2026-01-02T03:04:05.678Z`.
pub fn stamp(microseconds: u64) -> String {
    let seconds = i64::try_from(microseconds / 1_000_000).unwrap_or(0);
    let at = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        microseconds / 1000 % 1000
    )
}

fn party(party: &Party) -> Map<String, Value> {
    let pairs =
        [("workload", &party.workload), ("namespace", &party.namespace), ("identity", &party.principal)];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), (&**value).into())).collect()
}

fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// Fields by name, several of a name with commas; credentials are not told.
fn headers(all: &HeaderMap) -> Value {
    let mut map = Map::new();
    for name in all.keys().filter(|name| !name.as_str().starts_with(OWN)) {
        let value = if is_secret(name.as_str()) {
            SECRET.to_owned()
        } else {
            let values: Vec<_> =
                all.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
            values.join(", ")
        };
        map.insert(name.as_str().to_owned(), json!(value));
    }
    Value::Object(map)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{HeaderName, HeaderValue};
    use mesh_core::vocab::origin::Origin;

    use super::*;
    use crate::telemetry::entry::{Entry, sample};
    use crate::telemetry::flags::Flags;
    use crate::telemetry::labels::ServiceLabels;
    use crate::telemetry::metrics::Metrics;

    fn hub() -> Arc<Hub> {
        Hub::new("h1", &Arc::new(Metrics::default()), std::env::temp_dir(), 4)
    }

    #[test]
    fn an_exchange_has_the_names_of_the_contract() {
        let hub = hub();
        let service = hub
            .metrics
            .service(ServiceLabels::of(&"reviews.default.svc.cluster.local".into(), &"default".into()));
        let at = "127.0.0.1:1".parse().unwrap();
        let id = HeaderValue::from_static("abc");
        let trace = HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let origin = Origin { resource: "virtualservice/default/reviews".into(), rule: Some(0) };
        let exchange = Exchange::of(&Entry {
            service: service.number,
            method: "GET",
            path: "/reviews/1?a=\"b\"",
            authority: "reviews:9080",
            protocol: "HTTP/1.1",
            code: 503,
            flags: Flags::of("UH"),
            attempts: 2,
            request_id: Some(&id),
            trace: Some(&trace),
            origin: Some(&origin),
            version: 12,
            duration: Duration::from_micros(2100),
            ..sample(Instant::now(), at, at)
        });
        let (_, value) = object(&hub, &exchange, None);
        for (pointer, expected) in [
            ("/node", json!("h1")),
            ("/version", json!(12)),
            ("/source/workload", json!("unknown")),
            ("/destination/service", json!("reviews.default.svc.cluster.local")),
            ("/destination/identity", json!("unknown")),
            ("/method", json!("GET")),
            ("/path", json!("/reviews/1?a=\"b\"")),
            ("/authority", json!("reviews:9080")),
            ("/status", json!(503)),
            ("/flags", json!("UH")),
            ("/duration_ms", json!(2.1)),
            ("/route/resource", json!("virtualservice/default/reviews")),
            ("/route/rule", json!(0)),
            ("/attempts", json!(2)),
            ("/request_id", json!("abc")),
            ("/trace_id", json!("0af7651916cd43dd8448eb211c80319c")),
        ] {
            assert_eq!(value.pointer(pointer), Some(&expected), "{pointer} of {value}");
        }
        let time = value["time"].as_str().unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z') && time.len() == 24, "{time}");
        let stream = Exchange::of(&sample(Instant::now(), at, at));
        let (_, value) = object(&hub, &stream, None);
        assert_eq!(value["protocol"], "tcp");
        assert!(value.get("status").is_none() && value.get("method").is_none());
    }

    #[test]
    fn secrets_are_not_told() {
        let mut request = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer x"),
            ("cookie", "a=b"),
            ("x-user-token", "t"),
            ("x-mesh-hop", "internal"),
            ("accept", "a"),
            ("accept", "b"),
        ] {
            request.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let shown = headers(&request);
        let expected =
            json!({"authorization": "***", "cookie": "***", "x-user-token": "***", "accept": "a, b"});
        assert_eq!(shown, expected);
    }
}
