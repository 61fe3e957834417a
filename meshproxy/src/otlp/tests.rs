//! Exports to collectors of this process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mesh_core::telemetry::tracing::{Collector, Transport};
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::{Request, Status};

use super::router::{Exporting, Reach};
use crate::dns::forward::Forwarder;
use crate::dns::resolv_conf::HostResolvers;
use crate::identity::svid::Svids;
use crate::live::root::Roots;
use crate::telemetry::export::Exporter;
use crate::telemetry::export::parcel::{Parcel, Place, Records, Signal, text};
use crate::telemetry::export::settings::Settings;
use crate::telemetry::metrics::Metrics;

const PATIENCE: Duration = Duration::from_secs(20);

fn start() -> (Exporter, Exporting, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::default());
    let resolvers = HostResolvers::new(vec![], "127.0.0.1:53".parse().unwrap());
    let reach = Reach {
        roots: Arc::new(Roots::new(Arc::clone(&metrics))),
        svids: Arc::new(Svids::new()),
        forwarder: Forwarder::new(Arc::new(resolvers)),
    };
    let (exporter, exporting) = Exporting::start(Settings::default(), reach, Arc::clone(&metrics));
    (exporter, exporting, metrics)
}

fn place(address: SocketAddr, transport: Transport, timeout: Duration) -> Arc<Place> {
    let collector = Collector {
        service: address.ip().to_string().into(),
        port: address.port(),
        transport,
        headers: vec![("x-key".into(), "secret".into())],
        timeout,
    };
    Arc::new(Place { collector, tls: None })
}

fn spans(place: &Arc<Place>, service: &str, count: usize) -> Parcel {
    let resource = Resource { attributes: vec![text("service.name", service)], ..Resource::default() };
    let span = |index: usize| Span { name: index.to_string(), ..Span::default() };
    Parcel {
        place: Arc::clone(place),
        resource: Arc::new(resource),
        records: Records::Spans((0..count).map(span).collect()),
    }
}

async fn until(metrics: &Metrics, line: &str) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !metrics.render().lines().any(|found| found == line) {
        assert!(tokio::time::Instant::now() < deadline, "no {line} in\n{}", metrics.render());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A collector over gRPC that is unavailable at first.
struct Grpc {
    calls: AtomicUsize,
    heard: mpsc::Sender<(String, usize)>,
}

#[tonic::async_trait]
impl TraceService for Grpc {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        if self.calls.fetch_add(1, Ordering::Relaxed) == 0 {
            return Err(Status::unavailable("starting"));
        }
        let key = request.metadata().get("x-key").unwrap().to_str().unwrap().to_owned();
        let of_scope = |spans: usize, one: &opentelemetry_proto::tonic::trace::v1::ResourceSpans| {
            spans + one.scope_spans.iter().map(|scope| scope.spans.len()).sum::<usize>()
        };
        let message = request.into_inner();
        let count = message.resource_spans.iter().fold(0, of_scope);
        let resources = message.resource_spans.len();
        self.heard.send((format!("{key} {resources}"), count)).await.unwrap();
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

struct NoLogs;

#[tonic::async_trait]
impl LogsService for NoLogs {
    async fn export(
        &self,
        _request: Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, Status> {
        Err(Status::invalid_argument("no logs here"))
    }
}

#[tokio::test]
async fn grpc_is_tried_again_and_parcels_of_a_resource_join() {
    let (heard, mut hears) = mpsc::channel(8);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(Grpc { calls: AtomicUsize::new(0), heard }))
        .add_service(LogsServiceServer::new(NoLogs))
        .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
    let server = tokio::spawn(server);
    let (exporter, exporting, metrics) = start();
    let to = place(address, Transport::Grpc, PATIENCE);
    for (service, count) in [("a", 3), ("b", 1), ("a", 2)] {
        exporter.hand_over(spans(&to, service, count));
    }
    assert_eq!(hears.recv().await.unwrap(), ("secret 2".to_owned(), 6));
    until(&metrics, "mesh_proxy_otlp_exported_total{signal=\"traces\"} 6").await;

    let logs = Records::Logs(vec![LogRecord::default()]);
    exporter.hand_over(Parcel { place: Arc::clone(&to), resource: Arc::default(), records: logs });
    until(&metrics, "mesh_proxy_otlp_dropped_total{signal=\"logs\",reason=\"refused\"} 1").await;

    // What waits at the end still goes.
    exporter.hand_over(spans(&to, "a", 1));
    exporting.finish(PATIENCE).await;
    assert_eq!(hears.recv().await.unwrap(), ("secret 1".to_owned(), 1));
    server.abort();
}

#[tokio::test]
async fn http_carries_protobuf_and_tells_what_was_not_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let answer = |request: http::Request<Incoming>| async move {
            assert_eq!(request.uri().path(), "/v1/traces");
            assert_eq!(request.headers()["content-type"], "application/x-protobuf");
            assert_eq!(request.headers()["x-key"], "secret");
            let body = request.into_body().collect().await.unwrap().to_bytes();
            assert!(ExportTraceServiceRequest::decode(body).is_ok());
            let partial = ExportTracePartialSuccess { rejected_spans: 2, error_message: "too old".into() };
            let message = ExportTraceServiceResponse { partial_success: Some(partial) };
            Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::from(message.encode_to_vec()))))
        };
        let _ended = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service_fn(answer))
            .await;
    });
    let (exporter, exporting, metrics) = start();
    let to = place(address, Transport::Http("/v1/traces".into()), PATIENCE);
    exporter.hand_over(spans(&to, "a", 5));
    until(&metrics, "mesh_proxy_otlp_exported_total{signal=\"traces\"} 3").await;
    until(&metrics, "mesh_proxy_otlp_dropped_total{signal=\"traces\",reason=\"refused\"} 2").await;
    exporting.finish(PATIENCE).await;
    server.abort();
}

#[tokio::test]
async fn a_collector_that_is_silent_costs_records_and_nothing_else() {
    // Connections are taken by the kernel, and nobody answers on them.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (exporter, exporting, metrics) = start();
    let to = place(address, Transport::Grpc, Duration::from_secs(600));
    for _ in 0..1_000 {
        exporter.hand_over(spans(&to, "a", 10));
        tokio::task::yield_now().await;
    }
    let lost =
        |line: &str| line.starts_with("mesh_proxy_otlp_dropped_total{signal=\"traces\",reason=\"queue\"}");
    let text = metrics.render();
    let line = text.lines().find(|line| lost(line)).unwrap();
    assert!(line.rsplit(' ').next().unwrap().parse::<u64>().unwrap() > 1_000, "{line}");
    let begun = tokio::time::Instant::now();
    exporting.finish(Duration::from_millis(200)).await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    drop(listener);
}

#[tokio::test]
async fn what_refuses_over_http_is_not_asked_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let answer = |_: http::Request<Incoming>| async move {
            let mut response = Response::new(Full::new(Bytes::new()));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            Ok::<_, hyper::Error>(response)
        };
        let _ended = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service_fn(answer))
            .await;
    });
    let (exporter, exporting, metrics) = start();
    assert!(exporter.place(Signal::Traces, None).is_none());
    exporter.hand_over(spans(&place(address, Transport::Http("/".into()), PATIENCE), "a", 4));
    until(&metrics, "mesh_proxy_otlp_dropped_total{signal=\"traces\",reason=\"refused\"} 4").await;
    exporting.finish(PATIENCE).await;
    server.abort();
}
