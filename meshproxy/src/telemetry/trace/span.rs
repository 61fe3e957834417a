//! An exchange as a span, in OpenTelemetry's words for HTTP and RPC, and in Istio's.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::uri::Authority;
use mesh_core::telemetry::tracing::{TagValue, Tracing};
use mesh_core::vocab::name::Text;
use mesh_core::vocab::outcome::Outcome;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};

use super::{Earlier, Kept, Traced};
use crate::telemetry::entry::Entry;
use crate::telemetry::export::parcel::{number, text};
use crate::telemetry::export::settings::Settings;
use crate::telemetry::labels::{Party, ServiceLabels};
use crate::telemetry::metrics::Reporter;

/// Methods that may be told by name; any other could be anything.
const METHODS: [&str; 9] = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];
/// What a value of a header field is cut to.
const LONGEST_VALUE: usize = 1024;
/// So many earlier attempts are told.
const MOST_EVENTS: usize = 32;

/// What a format of the access log says of the exchange.
pub(super) type Render<'a> = &'a dyn Fn(&Text) -> String;

/// Who tells of an exchange.
pub(super) struct Speaker<'a> {
    pub(super) node: &'a Text,
    pub(super) party: &'a Party,
    pub(super) tracing: &'a Tracing,
}

/// What sends spans of a workload.
pub(super) fn resource(party: u32, speaker: &Speaker<'_>, settings: &Settings) -> Resource {
    let Party { workload, namespace, canonical_service, canonical_revision, .. } = speaker.party;
    let mut attributes = Vec::with_capacity(8);
    if party == 0 {
        attributes.push(text("service.name", settings.service_name.as_deref().unwrap_or("meshproxy")));
    } else {
        attributes.push(text("service.name", &**canonical_service));
        attributes.push(text("service.namespace", &**namespace));
        attributes.push(text("service.version", &**canonical_revision));
        attributes.push(text("service.instance.id", format!("{namespace}/{workload}")));
    }
    attributes.push(text("host.name", &**speaker.node));
    attributes.push(text("mesh.id", mesh_id(speaker.party)));
    for (key, value) in &settings.attributes {
        if !attributes.iter().any(|known| known.key == **key) {
            attributes.push(text(key, &**value));
        }
    }
    Resource { attributes, ..Resource::default() }
}

/// The trust domain, which is Istio's usual id of a mesh.
fn mesh_id(party: &Party) -> &str {
    let domain = party.principal.strip_prefix("spiffe://").and_then(|rest| rest.split('/').next());
    domain.unwrap_or("cluster.local")
}

/// Whether the tail keeps an exchange: it did not go well, or a proxy has something to say of it.
pub(super) fn is_failure(entry: &Entry<'_>) -> bool {
    !entry.flags.is_empty() || !entry.is_success()
}

/// Statuses of gRPC for which a server answers.
fn is_server_error(status: u16) -> bool {
    matches!(status, 2 | 4 | 12 | 13 | 14 | 15)
}

/// Whether the span says that it failed: a server answers for itself only, a client sees every failure.
fn is_error(entry: &Entry<'_>) -> bool {
    let is_client = entry.reporter == Reporter::Source;
    let lowest = if is_client { 400 } else { 500 };
    let of_grpc = |status: u16| if is_client { status != 0 } else { is_server_error(status) };
    entry.code == 0 || entry.code >= lowest || entry.grpc_status.is_some_and(of_grpc)
}

/// The span.
pub(super) fn make(
    entry: &Entry<'_>,
    traced: &Traced,
    kept: &Kept,
    (speaker, render): (&Speaker<'_>, Render<'_>),
    service: &ServiceLabels,
) -> Span {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let start = now.saturating_sub(entry.duration);
    let context = &traced.context;
    let is_error = is_error(entry);
    let mut status = Status::default();
    if is_error {
        status.code = StatusCode::Error.into();
        if entry.details != "via_upstream" {
            status.message = entry.details.to_owned();
        }
    }
    let kind = match entry.reporter {
        Reporter::Source => SpanKind::Client,
        Reporter::Destination => SpanKind::Server,
    };
    Span {
        trace_id: context.trace.to_vec(),
        span_id: context.span.to_vec(),
        parent_span_id: context.parent.map(|id| id.to_vec()).unwrap_or_default(),
        trace_state: kept.state.as_ref().and_then(|state| state.to_str().ok()).unwrap_or("").to_owned(),
        // The flag of W3C, and that nothing is known of whether the parent is remote.
        flags: u32::from(context.sampled),
        name: name(entry, kept, service),
        kind: kind.into(),
        start_time_unix_nano: nanos(start),
        end_time_unix_nano: nanos(now),
        attributes: attributes(entry, is_error, kept, (speaker, render)),
        events: entry
            .earlier
            .iter()
            .take(MOST_EVENTS)
            .zip(1..)
            .map(|(one, try_)| event(entry, one, try_, start))
            .collect(),
        status: Some(status),
        ..Span::default()
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// `HOST:PORT/*`, as Istio names operations.
fn name(entry: &Entry<'_>, kept: &Kept, service: &ServiceLabels) -> String {
    if let Some(operation) = &kept.operation {
        return operation.to_string();
    }
    let port = entry.cluster.split('|').nth(1).unwrap_or("");
    match (&*service.host, port) {
        ("unknown", _) | (_, "") if entry.authority.is_empty() => entry.method.to_owned(),
        ("unknown", _) | (_, "") => format!("{}/*", entry.authority),
        (host, port) => format!("{host}:{port}/*"),
    }
}

/// An attempt that was not the last.
fn event(entry: &Entry<'_>, earlier: &Earlier, try_: i64, start: Duration) -> Event {
    let at = start + earlier.ended.saturating_duration_since(entry.started);
    let mut attributes = vec![number("http.request.resend_count", try_ - 1)];
    if let Some(endpoint) = earlier.endpoint {
        attributes.push(text("network.peer.address", endpoint.ip().to_string()));
        attributes.push(number("network.peer.port", endpoint.port().into()));
    }
    match earlier.outcome {
        Outcome::Response { status, .. } => {
            attributes.push(number("http.response.status_code", status.into()))
        }
        outcome => attributes.push(text("error.type", outcome.flag())),
    }
    Event { time_unix_nano: nanos(at), name: "attempt failed".to_owned(), attributes, ..Event::default() }
}

fn attributes(
    entry: &Entry<'_>,
    is_error: bool,
    kept: &Kept,
    (speaker, render): (&Speaker<'_>, Render<'_>),
) -> Vec<KeyValue> {
    let mut out = Vec::with_capacity(40);
    of_http(entry, is_error, &mut out);
    of_mesh(entry, &mut out);
    if speaker.tracing.istio_tags {
        of_istio(entry, speaker, &mut out);
    }
    of_operator(kept, speaker.tracing, render, &mut out);
    out
}

/// OpenTelemetry's words. What a query holds may be a secret, so that it is never told.
fn of_http(entry: &Entry<'_>, is_error: bool, out: &mut Vec<KeyValue>) {
    let is_client = entry.reporter == Reporter::Source;
    if METHODS.contains(&entry.method) {
        out.push(text("http.request.method", entry.method));
    } else {
        out.push(text("http.request.method", "_OTHER"));
        out.push(text("http.request.method_original", entry.method));
    }
    out.push(text("url.path", path(entry)));
    out.push(text("url.scheme", "http"));
    if is_client {
        out.push(text("url.full", url(entry)));
    }
    if let Ok(authority) = entry.authority.parse::<Authority>() {
        out.push(text("server.address", authority.host()));
        out.push(number("server.port", authority.port_u16().unwrap_or(80).into()));
    }
    if entry.code > 0 {
        out.push(number("http.response.status_code", entry.code.into()));
    }
    out.push(text("network.protocol.name", "http"));
    out.push(text("network.protocol.version", if entry.protocol == "HTTP/2" { "2" } else { "1.1" }));
    let peer = if is_client { entry.upstream_host } else { Some(entry.remote) };
    if let Some(peer) = peer {
        out.push(text("network.peer.address", peer.ip().to_string()));
        out.push(number("network.peer.port", peer.port().into()));
    }
    if !is_client {
        out.push(text("client.address", client(entry)));
    }
    if let Some(agent) = entry.user_agent {
        out.push(text("user_agent.original", cut(agent.as_bytes())));
    }
    out.push(number("http.request.body.size", size(entry.received)));
    out.push(number("http.response.body.size", size(entry.sent)));
    if entry.attempts > 1 {
        out.push(number("http.request.resend_count", i64::from(entry.attempts) - 1));
    }
    if entry.grpc {
        out.push(text("rpc.system", "grpc"));
        let mut parts = path(entry).trim_start_matches('/').splitn(2, '/');
        if let (Some(service), Some(method)) = (parts.next(), parts.next()) {
            out.push(text("rpc.service", service));
            out.push(text("rpc.method", method));
        }
        if let Some(status) = entry.grpc_status {
            out.push(number("rpc.grpc.status_code", status.into()));
        }
    }
    if is_error {
        out.push(text("error.type", error(entry)));
    }
}

/// The class of an error: the proxy's word for it, else the status.
fn error(entry: &Entry<'_>) -> String {
    match (entry.flags.is_empty(), entry.code, entry.grpc_status) {
        (false, ..) => entry.flags.to_string(),
        (true, 0..400, Some(status)) => status.to_string(),
        (true, 0, None) => "_OTHER".to_owned(),
        (true, code, _) => code.to_string(),
    }
}

/// What decided.
fn of_mesh(entry: &Entry<'_>, out: &mut Vec<KeyValue>) {
    out.push(number("mesh.snapshot_version", size(entry.version)));
    if let Some(origin) = entry.origin {
        out.push(text("mesh.rule", &*origin.resource));
        out.extend(origin.rule.map(|index| number("mesh.rule.index", index.into())));
    }
}

/// The tags of Istio's proxies.
fn of_istio(entry: &Entry<'_>, speaker: &Speaker<'_>, out: &mut Vec<KeyValue>) {
    let party = speaker.party;
    out.push(text("istio.canonical_service", &*party.canonical_service));
    out.push(text("istio.canonical_revision", &*party.canonical_revision));
    out.push(text("istio.namespace", &*party.namespace));
    out.push(text("istio.mesh_id", mesh_id(party)));
    out.push(text("istio.cluster_id", "Kubernetes"));
    out.push(text("component", "proxy"));
    out.push(text("node_id", &**speaker.node));
    out.push(text("response_flags", entry.flags.to_string()));
    if !entry.cluster.is_empty() {
        out.push(text("upstream_cluster", entry.cluster));
        out.push(text("upstream_cluster.name", entry.cluster));
    }
    if let Some(id) = entry.request_id {
        out.push(text("guid:x-request-id", cut(id.as_bytes())));
    }
    out.push(text("http.method", entry.method));
    out.push(text("http.url", url(entry)));
    out.push(text("http.protocol", entry.protocol));
    if entry.code > 0 {
        out.push(text("http.status_code", entry.code.to_string()));
    }
    out.push(text("request_size", entry.received.to_string()));
    out.push(text("response_size", entry.sent.to_string()));
    out.push(text("peer.address", entry.remote.ip().to_string()));
    if let Some(agent) = entry.user_agent {
        out.push(text("user_agent", cut(agent.as_bytes())));
    }
}

/// The tags that the operator wants.
fn of_operator(kept: &Kept, tracing: &Tracing, render: Render<'_>, out: &mut Vec<KeyValue>) {
    for (index, (name, value)) in tracing.tags.iter().enumerate() {
        let value = match value {
            TagValue::Literal(value) => value.to_string(),
            TagValue::Environment(variable, default) => {
                std::env::var(&**variable).unwrap_or_else(|_| default.to_string())
            }
            TagValue::Header(_, default) => match kept.fields.iter().find(|(of, _)| *of == index) {
                Some((_, value)) => cut(value.as_bytes()),
                None => default.to_string(),
            },
            TagValue::Format(format) => cut(render(format).as_bytes()),
        };
        if !value.is_empty() {
            out.retain(|known| known.key != **name);
            out.push(text(name, value));
        }
    }
}

fn path<'a>(entry: &Entry<'a>) -> &'a str {
    entry.path.split(['?', '#']).next().unwrap_or("")
}

fn url(entry: &Entry<'_>) -> String {
    format!("http://{}{}", entry.authority, path(entry))
}

/// Where the client is, as the proxies before have told.
fn client(entry: &Entry<'_>) -> String {
    let told = entry.forwarded_for.and_then(|value| value.to_str().ok()?.split(',').next());
    let told = told.and_then(|first| first.trim().parse::<IpAddr>().ok());
    told.unwrap_or_else(|| entry.remote.ip()).to_string()
}

fn cut(value: &[u8]) -> String {
    String::from_utf8_lossy(&value[..value.len().min(LONGEST_VALUE)]).into_owned()
}

fn size(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
