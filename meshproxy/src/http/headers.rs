//! Names of the fields that proxies add and read.

use std::cell::RefCell;

use http::header::{HeaderName, HeaderValue};
pub use mesh_core::message::internal::{
    CLIENT_CERT, MESH_AUTHORITY, MESH_FAILED, MESH_HOP, MESH_PATH, MESH_PROXY, MESH_RETRY, MESH_STATUS,
    MESH_UPGRADE,
};

/// Scheme of the client.
pub static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// What it says where nothing else is known.
pub const USUAL_PROTO: &str = "http";
/// Addresses of clients.
pub static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Id of the request.
pub static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Context of a trace (W3C).
pub static TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
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

thread_local! {
    /// The last number that [`repeated`] has written.
    static LAST: RefCell<(u128, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static("0"))) };
}

/// A number that most requests have alike, as a field's value.
pub fn repeated(value: u128) -> HeaderValue {
    LAST.with_borrow_mut(|(last, text)| {
        if *last != value {
            (*last, *text) = (value, number(value));
        }
        text.clone()
    })
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
