//! One export on the wire: gRPC, or HTTP with protobuf.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use tonic::metadata::{KeyAndValueRef, MetadataMap};
use tonic::transport::{Channel, Endpoint};

use super::reach::{Opened, Owned, Reach};
use super::verdict::Failure;
use crate::telemetry::export::parcel::{Parcel, Place, Records, Signal, scope};

/// No answer of a collector is longer.
const LONGEST_ANSWER: usize = 64 * 1024;
const AGENT: &str = concat!("meshproxy-otlp/", env!("CARGO_PKG_VERSION"));

/// What a collector has not taken of a batch that it has taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Partial {
    /// So many records.
    pub(super) rejected: usize,
    /// Why, or what else it has to say.
    pub(super) message: String,
}

/// A message on its way.
#[derive(Debug, Clone)]
pub(super) enum Message {
    /// Spans.
    Spans(ExportTraceServiceRequest),
    /// Log records.
    Logs(ExportLogsServiceRequest),
}

impl Message {
    /// Joins parcels of one signal, those of one resource together.
    pub(super) fn of(signal: Signal, parcels: Vec<Parcel>) -> Message {
        let mut spans: Vec<(Arc<Resource>, Vec<Span>)> = Vec::new();
        let mut logs: Vec<(Arc<Resource>, Vec<LogRecord>)> = Vec::new();
        for parcel in parcels {
            match parcel.records {
                Records::Spans(more) => join(&mut spans, parcel.resource, more),
                Records::Logs(more) => join(&mut logs, parcel.resource, more),
            }
        }
        match signal {
            Signal::Traces => {
                let of_resource = |(resource, spans): (Arc<Resource>, Vec<Span>)| ResourceSpans {
                    resource: Some(Resource::clone(&resource)),
                    scope_spans: vec![ScopeSpans { scope: Some(scope()), spans, ..ScopeSpans::default() }],
                    ..ResourceSpans::default()
                };
                let resource_spans = spans.into_iter().map(of_resource).collect();
                Message::Spans(ExportTraceServiceRequest { resource_spans })
            }
            Signal::Logs => {
                let of_resource = |(resource, logs): (Arc<Resource>, Vec<LogRecord>)| ResourceLogs {
                    resource: Some(Resource::clone(&resource)),
                    scope_logs: vec![ScopeLogs {
                        scope: Some(scope()),
                        log_records: logs,
                        ..ScopeLogs::default()
                    }],
                    ..ResourceLogs::default()
                };
                let resource_logs = logs.into_iter().map(of_resource).collect();
                Message::Logs(ExportLogsServiceRequest { resource_logs })
            }
        }
    }

    fn bytes(&self) -> Bytes {
        match self {
            Message::Spans(message) => message.encode_to_vec().into(),
            Message::Logs(message) => message.encode_to_vec().into(),
        }
    }

    /// What the collector's answer over HTTP says of it. An answer that cannot be read has taken all.
    fn partial(&self, answer: &[u8]) -> Partial {
        match self {
            Message::Spans(_) => of_spans(ExportTraceServiceResponse::decode(answer).unwrap_or_default()),
            Message::Logs(_) => of_logs(ExportLogsServiceResponse::decode(answer).unwrap_or_default()),
        }
    }
}

fn join<T>(all: &mut Vec<(Arc<Resource>, Vec<T>)>, resource: Arc<Resource>, more: Vec<T>) {
    match all.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &resource) || **known == *resource) {
        Some((_, records)) => records.extend(more),
        None => all.push((resource, more)),
    }
}

fn of_spans(answer: ExportTraceServiceResponse) -> Partial {
    let partial = answer.partial_success.unwrap_or_default();
    Partial { rejected: partial.rejected_spans.try_into().unwrap_or(0), message: partial.error_message }
}

fn of_logs(answer: ExportLogsServiceResponse) -> Partial {
    let partial = answer.partial_success.unwrap_or_default();
    Partial { rejected: partial.rejected_log_records.try_into().unwrap_or(0), message: partial.error_message }
}

/// A connection to a collector.
pub(super) struct Connection {
    spoken: Spoken,
    // Dropped with it: what carries the stream, and what drives the connection.
    _carrier: Option<Owned>,
    _driver: Option<Owned>,
}

enum Spoken {
    Grpc(Channel),
    Http(http1::SendRequest<Full<Bytes>>),
}

impl Connection {
    /// Opens one.
    pub(super) async fn open(reach: &Reach, place: &Place) -> Result<Connection, Failure> {
        let Opened { io, carrier } = reach.open(place).await.map_err(Failure::broken)?;
        if place.path().is_some() {
            let (sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(Failure::broken)?;
            let driver = Owned::spawn(async move { drop(connection.await) });
            return Ok(Connection { spoken: Spoken::Http(sender), _carrier: carrier, _driver: Some(driver) });
        }
        let mut once = Some(TokioIo::new(io));
        // What breaks is opened anew from here, perhaps to another endpoint.
        let connector = tower::service_fn(move |_: http::Uri| {
            let stream = once.take().ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected));
            std::future::ready(stream)
        });
        let endpoint =
            Endpoint::from_shared(format!("http://{}", place.authority())).map_err(Failure::broken)?;
        let endpoint = endpoint.user_agent(AGENT).map_err(Failure::broken)?;
        let channel = endpoint.connect_with_connector(connector).await.map_err(Failure::broken)?;
        Ok(Connection { spoken: Spoken::Grpc(channel), _carrier: carrier, _driver: None })
    }

    /// Sends a message, and waits for what the collector says.
    pub(super) async fn send(&mut self, place: &Place, message: &Message) -> Result<Partial, Failure> {
        match &mut self.spoken {
            Spoken::Grpc(channel) => grpc(channel.clone(), place, message.clone()).await,
            Spoken::Http(sender) => http(sender, place, message).await,
        }
    }
}

async fn grpc(channel: Channel, place: &Place, message: Message) -> Result<Partial, Failure> {
    let failed = |status: tonic::Status| Failure::of_grpc(&status);
    match message {
        Message::Spans(message) => {
            let mut client = TraceServiceClient::new(channel);
            let answer = client.export(dressed(place, message)).await.map_err(failed)?;
            Ok(of_spans(answer.into_inner()))
        }
        Message::Logs(message) => {
            let mut client = LogsServiceClient::new(channel);
            let answer = client.export(dressed(place, message)).await.map_err(failed)?;
            Ok(of_logs(answer.into_inner()))
        }
    }
}

/// A gRPC message with the fields that every export to the collector carries.
fn dressed<T>(place: &Place, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let fields = MetadataMap::from_headers(fields(place).collect());
    for field in fields.iter() {
        if let KeyAndValueRef::Ascii(name, value) = field {
            request.metadata_mut().append(name, value.clone());
        }
    }
    request
}

/// The fields that every export carries. What is no field is left out.
fn fields(place: &Place) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    place.collector.headers.iter().filter_map(|(name, value)| {
        let name = HeaderName::try_from(&**name).ok()?;
        let mut value = HeaderValue::try_from(&**value).ok()?;
        // They hold keys of whoever runs the collector.
        value.set_sensitive(true);
        Some((name, value))
    })
}

async fn http(
    sender: &mut http1::SendRequest<Full<Bytes>>,
    place: &Place,
    message: &Message,
) -> Result<Partial, Failure> {
    sender.ready().await.map_err(Failure::broken)?;
    let path = place.path().map_or("/", |path| path);
    let mut request = Request::post(path).body(Full::new(message.bytes())).map_err(Failure::broken)?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::try_from(place.authority()).map_err(Failure::broken)?);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    for (name, value) in fields(place) {
        headers.append(name, value);
    }
    let answer = sender.send_request(request).await.map_err(Failure::broken)?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, LONGEST_ANSWER).collect().await.map_err(Failure::broken)?.to_bytes();
    match head.status.is_success() {
        true => Ok(message.partial(&body)),
        false => Err(Failure::of_http(head.status, &head.headers)),
    }
}
