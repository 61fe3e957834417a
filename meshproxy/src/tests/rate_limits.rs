//! Rate limits: what passes, whose bucket it takes from, and what is told of it.

use std::time::Duration;

use http::{HeaderName, Request};
use http_body_util::Full;
use mesh_core::matching::text::TextMatch;
use mesh_core::resilience::ratelimit::Rate;
use mesh_core::routing::limit::{Counts, KeyPart, Limit, RateLimit, Tell, Terms};
use mesh_core::routing::rule::HttpRule;
use mesh_core::vocab::protocol::Protocol;

use super::harness::{Answer, Mesh, Plan, default_rule, echo};

/// So many an hour, all at once.
fn hourly(name: &str, requests: u32, key: Vec<KeyPart>) -> Limit {
    let rate = Rate::new(requests, Duration::from_secs(3600), requests).unwrap();
    Limit { name: name.into(), rate, key, counts: Counts::default() }
}

fn limit(limits: Vec<Limit>) -> RateLimit {
    RateLimit {
        origin: "ratelimit/default/reviews".into(),
        target: "service/default/reviews".into(),
        ports: Vec::new(),
        terms: Terms { shared: false, limits, status: 429, tell: Tell::Refused, dry_run: false },
    }
}

async fn mesh(limits: Vec<RateLimit>) -> Mesh {
    Mesh::start(Plan { rate_limits: limits, ..Plan::new(&[echo("127.0.0.2").await]) }).await
}

async fn ask(mesh: &Mesh, fields: &[(&str, &str)]) -> Answer {
    let mut request = Request::get("http://reviews:9080/");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    mesh.send(request.body(Full::default()).unwrap()).await
}

/// Statuses of so many requests: `+` for 200.
async fn statuses(mesh: &Mesh, count: usize, fields: &[(&str, &str)]) -> String {
    let mut all = String::new();
    for _ in 0..count {
        all.push(if ask(mesh, fields).await.status == 200 { '+' } else { '-' });
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_gets_429_and_is_told_when_to_come_again() {
    let mut mesh = mesh(vec![limit(vec![hourly("all", 2, vec![])])]).await;
    assert_eq!(statuses(&mesh, 3, &[]).await, "++-");
    let refused = ask(&mesh, &[]).await;
    assert_eq!((refused.status.as_u16(), refused.body.as_str()), (429, "local_rate_limited"));
    let fields = ["x-envoy-ratelimited", "ratelimit-policy", "x-ratelimit-limit", "x-ratelimit-remaining"];
    assert_eq!(fields.map(|name| refused.header(name)), ["true", "\"all\";q=2;w=3600", "2", "0"]);
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1700..=1800).contains(&wait), "{wait}");
    assert_eq!(mesh.b.metric("mesh_proxy_rate_limited_total", &["effect=\"refused\"", "limit=\"all\""]), 2);
    let flagged = ["response_flags=\"RL\"", "response_code=\"429\""];
    assert_eq!(mesh.b.metric("istio_requests_total", &flagged), 2);

    // The bucket stays when something else changes, and a wider limit is wide at once.
    mesh.change(2, |plan| plan.rate_limits[0].terms.status = 503).await;
    assert_eq!(ask(&mesh, &[]).await.status, 503);
    mesh.change(3, |plan| plan.rate_limits[0].terms.dry_run = true).await;
    assert_eq!(statuses(&mesh, 2, &[]).await, "++");
    assert_eq!(mesh.b.metric("mesh_proxy_rate_limited_total", &["effect=\"dry_run\""]), 2);
    mesh.change(4, |plan| plan.rate_limits.clear()).await;
    assert_eq!(statuses(&mesh, 2, &[]).await, "++");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_user_has_a_bucket_and_a_refusal_takes_from_none() {
    let user = KeyPart::Header(HeaderName::from_static("x-user"));
    let all = hourly("all", 5, vec![]);
    let mesh = mesh(vec![limit(vec![all, hourly("user", 2, vec![user])])]).await;
    let of = |user: &'static str| [("x-user", user)];
    assert_eq!(statuses(&mesh, 4, &of("a")).await, "++--");
    // What was refused has left the other limit alone.
    assert_eq!(statuses(&mesh, 3, &of("b")).await, "++-");
    assert_eq!(statuses(&mesh, 2, &[]).await, "+-");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_a_limit_counts_is_limited() {
    let gold = vec![(HeaderName::from_static("x-tier"), TextMatch::policy("iron"))];
    let mut iron = hourly("iron", 1, vec![KeyPart::Principal]);
    iron.counts = Counts { headers: gold, methods: vec![TextMatch::policy("GET")], paths: vec![] };
    let mut told = limit(vec![iron]);
    told.terms.tell = Tell::All;
    let mesh = mesh(vec![told]).await;
    assert_eq!(statuses(&mesh, 3, &[("x-tier", "gold")]).await, "+++");
    let first = ask(&mesh, &[("x-tier", "iron")]).await;
    assert_eq!((first.status.as_u16(), first.header("x-ratelimit-remaining")), (200, "0"));
    assert_eq!(statuses(&mesh, 1, &[("x-tier", "iron")]).await, "-");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_s_limit_counts_at_the_caller() {
    let mut by = limit(vec![hourly("all", 2, vec![])]);
    by.target = "virtualservice/default/reviews".into();
    let rules = vec![HttpRule { limits: vec![by], ..default_rule() }];
    let mesh = Mesh::start(Plan { rules: Some(rules), ..Plan::new(&[echo("127.0.0.2").await]) }).await;
    assert_eq!(statuses(&mesh, 4, &[]).await, "++--");
    let flagged = ["response_flags=\"RL\"", "reporter=\"source\""];
    assert_eq!(mesh.a.metric("istio_requests_total", &flagged), 2);
    assert_eq!(mesh.b.metric("istio_requests_total", &["response_code=\"200\""]), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_hears_unavailable() {
    let mesh = Mesh::start(Plan {
        protocol: Protocol::Grpc,
        rate_limits: vec![limit(vec![hourly("all", 1, vec![])])],
        ..Plan::new(&[super::harness::grpc_echo("127.0.0.2").await])
    })
    .await;
    let call = || {
        let request = Request::post("http://reviews:9080/s/m").header("content-type", "application/grpc");
        request.body(Full::default()).unwrap()
    };
    let _first = mesh.send(call()).await;
    let second = mesh.send(call()).await;
    assert_eq!((second.status.as_u16(), second.header("grpc-status")), (200, "14"));
    assert_eq!(second.header("x-envoy-ratelimited"), "true");
}
