//! Contexts of traces through two proxies, and the spans that come of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use mesh_core::resilience::retry::{RetryCondition, RetryPolicy};
use mesh_core::telemetry::tracing::{Collector, TagValue, Tracing, Transport};
use mesh_core::telemetry::{Side, Telemetry};
use mesh_core::vocab::ratio::Ratio;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as Status;

use super::harness::{Answer, Mesh, Plan, Proxy, application, default_rule, echo};
use crate::otlp::router::{Exporting, Reach};
use crate::telemetry::export::parcel::Records;
use crate::telemetry::export::parcel::{Parcel, Place};
use crate::telemetry::trace::Tail;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

fn traced(percent: f64) -> Tracing {
    let collector = Collector {
        service: "collector".into(),
        port: 4317,
        transport: Transport::Grpc,
        headers: Vec::new(),
        timeout: Duration::from_secs(1),
    };
    Tracing { collector: Some(collector), sampling: Ratio::from_percent(percent), ..Tracing::default() }
}

fn plan(applications: &[SocketAddr], tracing: Tracing) -> Plan {
    let side = Side { tracing, ..Side::default() };
    let telemetry = Telemetry { client: side.clone(), server: side };
    Plan { telemetry, ..Plan::new(applications) }
}

async fn ask(mesh: &Mesh, fields: &[(&str, &str)]) -> Answer {
    let mut request = Request::get("http://reviews:9080/a/b?secret=1");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    mesh.send(request.body(Full::default()).unwrap()).await
}

/// A field that the application has heard.
fn heard<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// The next spans of a proxy; none where nothing comes for a while.
async fn spans(proxy: &Proxy) -> Vec<(BTreeMap<String, String>, Span)> {
    let mut parcels = proxy.parcels.lock().await;
    let Ok(Some(parcel)) = tokio::time::timeout(Duration::from_secs(1), parcels.recv()).await else {
        return Vec::new();
    };
    assert_eq!(&*parcel.place.collector.service, "collector");
    let Records::Spans(spans) = parcel.records else { panic!("no spans") };
    let resource = told(&parcel.resource.attributes);
    spans.into_iter().map(|span| (resource.clone(), span)).collect()
}

async fn one(proxy: &Proxy) -> (BTreeMap<String, String>, Span) {
    let mut spans = spans(proxy).await;
    assert_eq!(spans.len(), 1, "{spans:?}");
    spans.remove(0)
}

fn told(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &KeyValue| match value.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{other:?}"),
    };
    attributes.iter().map(|pair| (pair.key.clone(), text(pair))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_spans_of_a_hop_are_parent_and_child() {
    let app = echo("127.0.0.2").await;
    let mut tracing = traced(100.0);
    tracing.tags = vec![
        ("who".into(), TagValue::Header("x-who".into(), "nobody".into())),
        ("where".into(), TagValue::Literal("here".into())),
        ("home".into(), TagValue::Environment("NO_SUCH_VARIABLE".into(), "away".into())),
        ("status".into(), TagValue::Format("%RESPONSE_CODE%".into())),
    ];
    let mesh = Mesh::start(plan(&[app], tracing)).await;
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let answer =
        ask(&mesh, &[("traceparent", &parent), ("tracestate", "a=1"), ("x-who", "me"), ("user-agent", "t")])
            .await;
    assert_eq!(answer.status, StatusCode::OK);
    let ((resource, client), (_, server)) = (one(&mesh.a).await, one(&mesh.b).await);
    assert_eq!((client.kind, server.kind), (SpanKind::Client.into(), SpanKind::Server.into()));
    assert_eq!((hex(&client.trace_id), hex(&client.parent_span_id)), (TRACE.to_owned(), SPAN.to_owned()));
    assert_eq!((server.trace_id, server.parent_span_id), (client.trace_id, client.span_id));
    assert_eq!((&*client.trace_state, &*server.trace_state), ("a=1", "a=1"));
    assert_eq!((&*client.name, &*server.name), ("reviews.default.svc.cluster.local:9080/*", &*client.name));
    // The application goes on from the span of its own proxy.
    let expected = format!("00-{TRACE}-{}-01", hex(&server.span_id));
    assert_eq!(
        (heard(&answer, "traceparent"), heard(&answer, "tracestate")),
        (Some(&*expected), Some("a=1"))
    );
    assert_eq!(heard(&answer, "x-envoy-decorator-operation"), None);
    assert_eq!(resource["service.name"], "x");
    assert_eq!(resource["service.namespace"], "default");
    assert_eq!(resource["service.version"], "v1");
    let told = told(&client.attributes);
    for (key, value) in [
        ("http.request.method", "GET"),
        ("url.path", "/a/b"),
        ("url.full", "http://reviews:9080/a/b"),
        ("http.response.status_code", "200"),
        ("server.address", "reviews"),
        ("server.port", "9080"),
        ("user_agent.original", "t"),
        ("mesh.snapshot_version", "1"),
        ("mesh.rule", "service/default/reviews"),
        ("istio.canonical_service", "x"),
        ("istio.mesh_id", "cluster.local"),
        ("upstream_cluster", "outbound|9080||reviews.default.svc.cluster.local"),
        ("response_flags", "-"),
        ("who", "me"),
        ("where", "here"),
        ("home", "away"),
        ("status", "200"),
    ] {
        assert_eq!(told.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert_eq!(told["guid:x-request-id"], heard(&answer, "x-request-id").unwrap());
    assert!(!told.values().any(|value| value.contains("secret")), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn contexts_go_on_in_the_form_that_they_came_in() {
    let app = echo("127.0.0.2").await;
    let mesh = Mesh::start(plan(&[app], traced(0.0))).await;
    // Nothing came: W3C is begun, and not sampled.
    let answer = ask(&mesh, &[]).await;
    let parent = heard(&answer, "traceparent").unwrap();
    assert!(parent.len() == 55 && parent.ends_with("-02"), "{parent}");
    assert_eq!(heard(&answer, "b3"), None);
    let answer = ask(&mesh, &[("b3", &format!("{TRACE}-{SPAN}-0"))]).await;
    let b3 = heard(&answer, "b3").unwrap();
    assert!(b3.starts_with(TRACE) && b3.contains("-0-") && !b3.contains(SPAN), "{b3}");
    assert_eq!(heard(&answer, "traceparent"), None);
    assert!(spans(&mesh.a).await.is_empty() && spans(&mesh.b).await.is_empty());

    let fields = [("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-sampled", "1")];
    let answer = ask(&mesh, &fields).await;
    let (client, server) = (one(&mesh.a).await.1, one(&mesh.b).await.1);
    assert_eq!(heard(&answer, "x-b3-traceid"), Some(TRACE));
    assert_eq!(heard(&answer, "x-b3-sampled"), Some("1"));
    assert_eq!(heard(&answer, "x-b3-spanid"), Some(&*hex(&server.span_id)));
    assert_eq!(heard(&answer, "x-b3-parentspanid"), Some(&*hex(&client.span_id)));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_contexts_pass_untouched() {
    let app = echo("127.0.0.2").await;
    let mesh = Mesh::start(Plan::new(&[app])).await;
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let answer = ask(&mesh, &[("traceparent", &parent), ("b3", "nonsense")]).await;
    assert_eq!((heard(&answer, "traceparent"), heard(&answer, "b3")), (Some(&*parent), Some("nonsense")));
    assert_eq!(heard(&ask(&mesh, &[]).await, "traceparent"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_reported_or_not_passed_on() {
    let app = echo("127.0.0.2").await;
    let mut mesh = Mesh::start(plan(&[app], Tracing { report: false, ..traced(100.0) })).await;
    let answer = ask(&mesh, &[]).await;
    assert!(heard(&answer, "traceparent").unwrap().ends_with("-03"));
    assert!(heard(&answer, "x-request-id").unwrap().chars().nth(14) == Some('9'));
    assert!(spans(&mesh.a).await.is_empty());
    let side = Side { tracing: Tracing { propagate: false, ..traced(100.0) }, ..Side::default() };
    mesh.change(2, |plan| plan.telemetry = Telemetry { client: side.clone(), server: side }).await;
    let answer = ask(&mesh, &[]).await;
    assert_eq!(heard(&answer, "traceparent"), None);
    assert_eq!(spans(&mesh.a).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_events_and_failures_are_told() {
    let failing = application("127.0.0.2", |_| async {
        let mut answer = Response::new(Full::new(Bytes::new()));
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        answer
    });
    let failing = failing.await;
    let mut rule = default_rule();
    let backoff = Duration::from_millis(1);
    rule.retry = RetryPolicy { on: vec![RetryCondition::FiveXx], backoff, ..RetryPolicy::default() };
    let mesh = Mesh::start(Plan { rules: Some(vec![rule]), ..plan(&[failing], traced(100.0)) }).await;
    assert_eq!(ask(&mesh, &[]).await.status, StatusCode::SERVICE_UNAVAILABLE);
    let (_, client) = one(&mesh.a).await;
    assert_eq!(client.events.len(), 2);
    assert_eq!(told(&client.events[1].attributes)["http.response.status_code"], "503");
    assert_eq!(client.status.unwrap().code, i32::from(Status::Error));
    let told = told(&client.attributes);
    assert_eq!((&*told["http.request.resend_count"], &*told["error.type"]), ("2", "URX"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tail_has_what_failed_and_was_not_sampled() {
    let app = application("127.0.0.2", |request: Request<hyper::body::Incoming>| async move {
        let mut answer = Response::new(Full::new(Bytes::new()));
        if request.headers().contains_key("x-fail") {
            *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        }
        answer
    });
    let tail = Tail { errors: true, buffer: 2, ..Tail::default() };
    let mesh = Mesh::start(Plan { tail, ..plan(&[app.await], traced(0.0)) }).await;
    assert_eq!(ask(&mesh, &[]).await.status, StatusCode::OK);
    assert_eq!(ask(&mesh, &[("x-fail", "1")]).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    let ((_, client), (_, server)) = (one(&mesh.a).await, one(&mesh.b).await);
    assert_eq!((client.trace_id, client.span_id), (server.trace_id, server.parent_span_id));
    // More than the buffer holds are lost, and counted.
    let asked = (0..20).map(|_| ask(&mesh, &[("x-fail", "1")]));
    futures_util::future::join_all(asked).await;
    let dropped = || mesh.a.metric("mesh_proxy_otlp_dropped_total", &["traces", "reason=\"tail\""]);
    assert!(dropped() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_of_the_mesh_is_reached_through_its_proxy() {
    let collector = application("127.0.0.2", |request: Request<hyper::body::Incoming>| async move {
        let mut answer = Response::new(Full::new(Bytes::new()));
        if request.uri().path() != "/v1/traces" {
            *answer.status_mut() = StatusCode::NOT_FOUND;
        }
        answer
    });
    let mesh = Mesh::start(plan(&[collector.await], traced(100.0))).await;
    let shared = &mesh.a.shared;
    let reach = Reach {
        roots: Arc::clone(&shared.roots),
        svids: Arc::clone(&shared.svids),
        forwarder: shared.forwarder.clone(),
    };
    let (exporter, exporting) = Exporting::start(Default::default(), reach, Arc::clone(&shared.metrics));
    let collector = Collector {
        service: "default/reviews".into(),
        port: 9080,
        transport: Transport::Http("/v1/traces".into()),
        headers: Vec::new(),
        timeout: Duration::from_secs(10),
    };
    exporter.hand_over(Parcel {
        place: Arc::new(Place::from(&collector)),
        resource: Arc::default(),
        records: Records::Spans(vec![Span::default()]),
    });
    exporting.finish(Duration::from_secs(20)).await;
    assert_eq!(mesh.a.metric("mesh_proxy_otlp_exported_total", &["traces"]), 1);
    // Its proxy has seen bytes on a connection that is mutual TLS, and no exchange.
    assert_eq!(mesh.b.metric("istio_requests_total", &[]), 0);
    assert_eq!(mesh.b.metric("istio_tcp_connections_opened_total", &["mutual_tls"]), 1);
    assert!(spans(&mesh.b).await.is_empty());
}
