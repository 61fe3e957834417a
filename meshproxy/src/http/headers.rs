//! Fields of the hop: what belongs to a connection ends here, what only proxies may say is taken from applications,
//! and what Istio adds is added.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Where the request goes, for the proxy there.
pub static MESH_TO: HeaderName = HeaderName::from_static("x-mesh-to");
/// What the application there speaks.
pub static MESH_PROTO: HeaderName = HeaderName::from_static("x-mesh-proto");
/// Who calls, for telemetry.
pub static MESH_FROM: HeaderName = HeaderName::from_static("x-mesh-from");
/// The version that decided.
pub static MESH_VERSION: HeaderName = HeaderName::from_static("x-mesh-version");
/// The PROXY header that the application there gets.
pub static MESH_PROXY: HeaderName = HeaderName::from_static("x-mesh-proxy");
/// Asks the proxy there for a WebSocket, and says that there is one.
pub static MESH_UPGRADE: HeaderName = HeaderName::from_static("x-mesh-upgrade");
/// Authority of a request that travels as CONNECT.
pub static MESH_AUTHORITY: HeaderName = HeaderName::from_static("x-mesh-authority");
/// Path and query of a request that travels as CONNECT.
pub static MESH_PATH: HeaderName = HeaderName::from_static("x-mesh-path");
/// Certificates of callers.
pub static CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
/// Scheme of the client.
pub static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Addresses of clients.
pub static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Id of the request.
pub static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Which try this is.
pub static ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
/// What is left of the time.
pub static EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
/// Path before a rewrite.
pub static ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
/// Host before a rewrite.
pub static ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
/// How long the upstream took.
pub static SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
/// The upstream has too much to do.
pub static OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");
/// There were too many requests.
pub static RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
/// What an endpoint reports of its load, as text, JSON or protobuf.
pub static LOAD_METRICS: HeaderName = HeaderName::from_static("endpoint-load-metrics");
/// The same as protobuf.
pub static LOAD_METRICS_BINARY: HeaderName = HeaderName::from_static("endpoint-load-metrics-bin");
/// gRPC status.
pub static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// gRPC message.
pub static GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// gRPC deadline.
pub static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
static HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// What one look over the fields found.
#[derive(Debug, Default)]
pub struct Scan {
    /// Names and values and what stands between them.
    pub bytes: usize,
    /// The largest single field.
    pub largest: usize,
    /// How many Host fields.
    pub hosts: u32,
    /// How many Cookie fields.
    pub cookies: u32,
    /// How many Content-Length fields.
    pub lengths: u32,
    /// How many Transfer-Encoding fields.
    pub encodings: u32,
    /// Whether the content is gRPC.
    pub grpc: bool,
    /// How many fields of the mesh's own (`x-mesh-`).
    pub mesh: u32,
    /// Whether there are other fields that only proxies may set.
    pub internal: bool,
    connection: bool,
    hop: bool,
    trailers_only: bool,
}

/// Looks over the fields once.
pub fn scan(headers: &HeaderMap) -> Scan {
    let mut found = Scan { trailers_only: true, ..Scan::default() };
    for (name, value) in headers {
        let size = name.as_str().len() + value.len() + 4;
        found.bytes += size;
        found.largest = found.largest.max(size);
        match name.as_str() {
            "host" => found.hosts += 1,
            "cookie" => found.cookies += 1,
            "content-length" => found.lengths += 1,
            "transfer-encoding" => found.encodings += 1,
            "content-type" => found.grpc = is_grpc(value),
            "connection" => found.connection = true,
            "keep-alive" | "proxy-connection" | "upgrade" | "http2-settings" | "expect" => found.hop = true,
            "te" => found.trailers_only &= value.as_bytes().eq_ignore_ascii_case(b"trailers"),
            "x-forwarded-client-cert" => found.internal = true,
            name if name.starts_with("x-mesh-") => found.mesh += 1,
            name if name.starts_with("x-envoy-") => found.internal = true,
            _ => {}
        }
    }
    found
}

fn is_grpc(value: &HeaderValue) -> bool {
    value
        .as_bytes()
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| rest.is_empty() || matches!(rest[0], b'+' | b';'))
}

impl Scan {
    /// Takes away what belongs to the connection: listed fields, framing, upgrades.
    pub fn strip_connection(&self, headers: &mut HeaderMap) {
        if self.connection {
            for name in listed(headers) {
                headers.remove(name);
            }
            headers.remove(header::CONNECTION);
        }
        if self.hop {
            headers.remove(&KEEP_ALIVE);
            headers.remove(&PROXY_CONNECTION);
            headers.remove(header::UPGRADE);
            headers.remove(&HTTP2_SETTINGS);
            // The client hears that it may go on as soon as its body is asked for, so nobody upstream needs to say it.
            headers.remove(header::EXPECT);
        }
        if self.encodings > 0 {
            headers.remove(header::TRANSFER_ENCODING);
        }
        if !self.trailers_only {
            headers.remove(header::TE);
        }
    }
}

/// The fields that Connection lists, but for those that a client must not make us drop.
fn listed(headers: &HeaderMap) -> Vec<HeaderName> {
    let kept = |name: &str| {
        matches!(name, "host" | "content-length" | "te" | "authorization" | "cookie" | "keep-alive" | "close")
            || name.starts_with("x-forwarded-")
            || name.starts_with("x-mesh-")
    };
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let names = values.flat_map(|value| value.split(',')).map(|name| name.trim().to_ascii_lowercase());
    names.filter(|name| !kept(name)).filter_map(|name| HeaderName::try_from(name).ok()).collect()
}

/// Takes from an application's request what only proxies may say.
pub fn strip_internal(headers: &mut HeaderMap, found: &Scan) {
    if found.mesh > 0 || found.internal {
        strip_named(headers, |name| {
            name.starts_with("x-mesh-") || name.starts_with("x-envoy-") || name == "x-forwarded-client-cert"
        });
    }
}

/// Takes the mesh's own fields from a message that leaves the mesh.
pub fn strip_mesh(headers: &mut HeaderMap, found: &Scan) {
    let mut left = found.mesh;
    if left == 0 {
        return;
    }
    for name in [&MESH_TO, &MESH_PROTO, &MESH_FROM, &MESH_VERSION] {
        if headers.remove(name).is_some() {
            left -= 1;
        }
    }
    if left > 0 {
        strip_named(headers, |name| name.starts_with("x-mesh-"));
    }
}

fn strip_named(headers: &mut HeaderMap, internal: impl Fn(&str) -> bool) {
    let found: Vec<HeaderName> = headers.keys().filter(|name| internal(name.as_str())).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// A small number as a field's value.
pub fn number(value: u128) -> HeaderValue {
    match value {
        0 => HeaderValue::from_static("0"),
        1 => HeaderValue::from_static("1"),
        2 => HeaderValue::from_static("2"),
        other => HeaderValue::from(u64::try_from(other).unwrap_or(u64::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        headers.keys().map(HeaderName::as_str).collect()
    }

    #[test]
    fn fields_of_the_connection_end_here() {
        let mut headers = map(&[
            ("connection", "keep-alive, X-Secret, authorization, x-mesh-to"),
            ("x-secret", "1"),
            ("authorization", "b"),
            ("keep-alive", "5"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("accept", "*/*"),
        ]);
        scan(&headers).strip_connection(&mut headers);
        assert_eq!(names(&headers), ["authorization", "accept"]);
    }

    #[test]
    fn trailers_may_stay_announced() {
        let mut headers = map(&[("te", "trailers"), ("content-type", "application/grpc+proto")]);
        let found = scan(&headers);
        found.strip_connection(&mut headers);
        assert!(found.grpc && headers.contains_key("te"));
        assert!(!scan(&map(&[("content-type", "application/grpc-web")])).grpc);
    }

    #[test]
    fn applications_cannot_speak_for_proxies() {
        let mut headers = map(&[
            ("x-mesh-from", "a"),
            ("x-envoy-max-retries", "9"),
            ("x-forwarded-client-cert", "By=x"),
            ("x-forwarded-for", "1.2.3.4"),
        ]);
        let found = scan(&headers);
        strip_internal(&mut headers, &found);
        assert_eq!(names(&headers), ["x-forwarded-for"]);
    }
}
