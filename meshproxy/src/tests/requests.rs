//! Requests over the mesh hop, and what both ends see of them.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use mesh_core::routing::rule::RuleAction;
use mesh_core::vocab::protocol::Protocol;

use super::harness::{A, B, Mesh, OTHER, Plan, default_rule, echo, grpc_echo};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_routed_over_mutual_tls_and_counted_at_both_ends() {
    let mesh = Mesh::start(Plan::new(&[echo("127.0.0.2").await])).await;
    let answer = mesh.get("http://reviews:9080/a/../b?q=1").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.starts_with("GET /b?q=1\n"), "{}", answer.body);
    assert!(answer.body.contains("host: reviews:9080\n"), "{}", answer.body);
    assert!(answer.body.contains("x-envoy-attempt-count: 1\n"), "{}", answer.body);
    assert!(answer.body.contains("x-request-id: "), "{}", answer.body);
    let certificate = answer.body.lines().find(|line| line.starts_with("x-forwarded-client-cert: ")).unwrap();
    assert!(certificate.contains(&format!("By={B};Hash=")), "{certificate}");
    assert!(certificate.ends_with(&format!(";Subject=\"\";URI={A}")), "{certificate}");
    assert!(!answer.body.contains("x-mesh-"), "{}", answer.body);
    assert_eq!(answer.header("server"), "envoy");
    assert!(answer.headers.contains_key("x-envoy-upstream-service-time"));
    let parties = ["source_workload=\"a\"", "response_code=\"200\"", "destination_service_name=\"reviews\""];
    assert_eq!(mesh.a.metric("istio_requests_total", &[&parties[..], &["reporter=\"source\""]].concat()), 1);
    let destination = ["reporter=\"destination\"", "connection_security_policy=\"mutual_tls\""];
    assert_eq!(mesh.b.metric("istio_requests_total", &[&parties[..], &destination].concat()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_identity_than_expected_is_refused() {
    let mesh = Mesh::start(Plan { expected: OTHER, ..Plan::new(&[echo("127.0.0.2").await]) }).await;
    let answer = mesh.get("http://reviews:9080/").await;
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("remote connection failure"), "{}", answer.body);
    assert_eq!(mesh.a.metric("istio_requests_total", &["response_flags=\"URX,UF\""]), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_proxies_may_say_is_taken_from_applications() {
    let mesh = Mesh::start(Plan::new(&[echo("127.0.0.2").await])).await;
    let request = Request::get("http://reviews.default:9080/")
        .header("x-mesh-hop", "127.0.0.2:1 h2 1 evil/evil")
        .header("x-mesh-from", "evil/evil")
        .header("x-forwarded-client-cert", "By=forged")
        .header("x-envoy-max-retries", "9")
        .header("connection", "x-secret")
        .header("x-secret", "1")
        .body(Full::default())
        .unwrap();
    let answer = mesh.send(request).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    for gone in ["x-mesh-", "forged", "max-retries", "x-secret", "evil"] {
        assert!(!answer.body.contains(gone), "{gone} in {}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_pass_and_plaintext_endpoints_are_reached() {
    for (mesh, protocol) in [(true, Protocol::Http), (false, Protocol::Http), (true, Protocol::Http2)] {
        let application = echo("127.0.0.2").await;
        let mesh = Mesh::start(Plan { mesh, protocol, ..Plan::new(&[application]) }).await;
        let large = "x".repeat(300_000);
        let request = Request::builder()
            .method(Method::POST)
            .uri("http://reviews:9080/up")
            .body(Full::new(Bytes::from(large.clone())))
            .unwrap();
        let answer = mesh.send(request).await;
        assert_eq!(answer.status, 200);
        assert!(answer.body.ends_with(&format!("body: {large}")), "{protocol:?}");
        // The connections serve more than one request.
        assert_eq!(mesh.get("http://reviews:9080/").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_and_unknown_hosts() {
    let mesh = Mesh::start(Plan::new(&[echo("127.0.0.2").await])).await;
    assert_eq!(mesh.get("http://reviews:9080/a%00b").await.status, 400);
    assert_eq!(mesh.get("http://reviews:9081/").await.status, 404);
    assert_eq!(mesh.get("http://nowhere.invalid/").await.status, 503);
    // An address outside the mesh is passed through.
    let outside = echo("127.0.0.1").await;
    let answer = mesh.get(&format!("http://{outside}/x")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    // Our own listener is never dialled.
    let own = mesh.a.explicit;
    assert_eq!(mesh.get(&format!("http://{own}/x")).await.status, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_no_path_is_malformed() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mesh = Mesh::start(Plan::new(&[echo("127.0.0.2").await])).await;
    for (target, status) in [("reviews:9080", "400"), ("reviews", "400"), ("/", "200")] {
        let mut stream = tokio::net::TcpStream::connect(mesh.a.explicit).await.unwrap();
        let head = format!("GET {target} HTTP/1.1\r\nhost: reviews:9080\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{target}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_request_obeys_the_next_version() {
    let mut mesh = Mesh::start(Plan::new(&[echo("127.0.0.2").await])).await;
    assert_eq!(mesh.get("http://reviews:9080/").await.status, 200);
    let mut rule = default_rule();
    if let RuleAction::Route { backends, rewrite } = &mut rule.action {
        rewrite.authority = Some("other".into());
        rewrite.path = Some(mesh_core::routing::rewrite::PathRewrite::Matched("/v2/".into()));
        backends[0].response_headers.set.push((
            http::HeaderName::from_static("x-set"),
            mesh_core::routing::format::Template::parse("1").unwrap(),
        ));
    }
    mesh.change(2, |plan| plan.rules = Some(vec![rule])).await;
    let answer = mesh.get("http://reviews:9080/b").await;
    assert!(answer.body.starts_with("GET /v2/b\n"), "{}", answer.body);
    assert!(answer.body.contains("host: other\n"), "{}", answer.body);
    assert!(answer.body.contains("x-envoy-original-path: /b\n"), "{}", answer.body);
    assert!(answer.body.contains("x-envoy-original-host: reviews:9080\n"), "{}", answer.body);
    assert_eq!(answer.header("x-set"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_streams_both_ways_and_its_trailers_arrive() {
    let mesh =
        Mesh::start(Plan { protocol: Protocol::Grpc, ..Plan::new(&[grpc_echo("127.0.0.2").await]) }).await;
    let stream = tokio::net::TcpStream::connect(mesh.a.explicit).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let request = Request::post("http://reviews:9080/s/Chat")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (response, mut upload) = client.send_request(request, false).unwrap();
    upload.send_data(Bytes::from_static(b"one"), false).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    // The answer to the first message arrives while the request is still open.
    assert_eq!(&body.data().await.unwrap().unwrap()[..], b"one");
    upload.send_data(Bytes::from_static(b"two"), true).unwrap();
    assert_eq!(&body.data().await.unwrap().unwrap()[..], b"two");
    assert!(body.data().await.is_none());
    let trailers = body.trailers().await.unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "5");
    drop(body);
    for (proxy, reporter) in [(&mesh.a, "reporter=\"source\""), (&mesh.b, "reporter=\"destination\"")] {
        let labels = [reporter, "grpc_response_status=\"5\"", "request_protocol=\"grpc\""];
        let reached = async {
            while proxy.metric("istio_requests_total", &labels) != 1 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let reached = tokio::time::timeout(std::time::Duration::from_secs(5), reached).await;
        assert!(reached.is_ok(), "{reporter}");
    }
    driver.abort();
}

/// Futures are moved when they are made and when they end: what is rare must not be carried by every request.
#[test]
fn exchanges_stay_small() {
    fn size<A, B, F: Future>(_: impl Fn(std::rc::Rc<A>, B) -> F) -> usize {
        size_of::<F>()
    }
    let outbound = size(crate::http::exchange::outbound);
    let inbound = size(crate::http::deliver::inbound);
    assert!(outbound <= 4736 && inbound <= 2560, "{outbound} {inbound}");
}
