//! What a scrape of both proxies says of one exchange, and what Telemetry changes of it.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Request;
use http_body_util::Full;
use mesh_core::telemetry::expression::Expression;
use mesh_core::telemetry::metrics::{Metric, MetricChange, Metrics, TagChange};
use mesh_core::telemetry::{Side, Telemetry};
use mesh_core::vocab::protocol::Protocol;
use tokio::net::TcpStream;

use super::harness::{A, B, Mesh, Plan, Proxy, echo, grpc_echo};

/// Waits until the lines of a metric that have all these labels add up to a number.
async fn until(proxy: &Proxy, name: &str, labels: &[&str], expected: u64) {
    let reached = async {
        while proxy.metric(name, labels) != expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let reached = tokio::time::timeout(Duration::from_secs(10), reached).await;
    assert!(reached.is_ok(), "{name} {labels:?} {expected}: {}", proxy.shared.metrics.render());
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_tell_of_a_grpc_call_and_its_messages() {
    let plan = Plan { protocol: Protocol::Grpc, ..Plan::new(&[grpc_echo("127.0.0.2").await]) };
    let mesh = Mesh::start(plan).await;
    let stream = TcpStream::connect(mesh.a.explicit).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::post("http://reviews:9080/")
        .header("te", "trailers")
        .header("content-type", "application/grpc");
    let (answer, mut upload) = client.send_request(request.body(()).unwrap(), false).unwrap();
    // Two messages and a half, and the rest of the third.
    upload.send_data(vec![0, 0, 0, 0, 1, 9, 0, 0, 0, 0, 0, 0, 0, 0].into(), false).unwrap();
    upload.send_data(vec![0, 2, 7, 7].into(), true).unwrap();
    let mut answer = answer.await.unwrap().into_body();
    while let Some(Ok(_)) = answer.data().await {}
    assert_eq!(answer.trailers().await.unwrap().unwrap()["grpc-status"], "5");
    connection.abort();
    let principals = [format!("source_principal=\"{A}\""), format!("destination_principal=\"{B}\"")];
    for (proxy, reporter, security) in
        [(&mesh.a, "reporter=\"source\"", "unknown"), (&mesh.b, "reporter=\"destination\"", "mutual_tls")]
    {
        let security = format!("connection_security_policy=\"{security}\"");
        let mut labels = vec![
            reporter,
            "source_workload=\"a\"",
            "destination_workload=\"b0\"",
            "destination_service_name=\"reviews\"",
            &principals[0],
            &principals[1],
        ];
        until(proxy, "istio_request_messages_total", &labels, 3).await;
        until(proxy, "istio_response_messages_total", &labels, 3).await;
        labels.extend(["request_protocol=\"grpc\"", "grpc_response_status=\"5\"", &security]);
        until(proxy, "istio_requests_total", &labels, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn telemetry_changes_what_is_counted() {
    let set = |expression: &str| TagChange::Set(Expression::new(expression).unwrap());
    let tags: BTreeMap<_, _> = [
        ("team".into(), set("request.headers['x-team']")),
        ("kind".into(), set("response.headers['content-type']")),
        ("peer".into(), set("upstream_peer.workload")),
        ("destination_app".into(), TagChange::Remove),
    ]
    .into();
    let change = MetricChange { disabled: false, tags };
    let off = Metrics { enabled: false, ..Metrics::default() };
    let client = Metrics { changes: [(Metric::RequestCount, change)].into(), ..Metrics::default() };
    let side = |metrics| Side { metrics, ..Side::default() };
    let telemetry = Telemetry { client: side(client), server: side(off) };
    let plan = Plan { telemetry, ..Plan::new(&[echo("127.0.0.2").await]) };
    let mut mesh = Mesh::start(plan).await;
    let ask = || Request::get("http://reviews:9080/").header("x-team", "red").body(Full::default()).unwrap();
    assert_eq!(mesh.send(ask()).await.status, 200);
    until(&mesh.a, "istio_requests_total", &["team=\"red\"", "kind=\"unknown\"", "peer=\"b0\""], 1).await;
    assert_eq!(mesh.a.metric("istio_requests_total", &["destination_app="]), 0);
    assert_eq!(mesh.a.metric("istio_request_bytes_count", &["destination_app=\"reviews\""]), 1);
    mesh.change(2, |plan| plan.telemetry = Telemetry::default()).await;
    assert_eq!(mesh.send(ask()).await.status, 200);
    // Only the second one was told of where it is counted now.
    until(&mesh.b, "istio_requests_total", &["reporter=\"destination\""], 1).await;
    until(&mesh.a, "istio_requests_total", &["destination_app=\"reviews\""], 1).await;
    assert_eq!(mesh.a.metric("istio_requests_total", &["team=\"red\""]), 1);
}
