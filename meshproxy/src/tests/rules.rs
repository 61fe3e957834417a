//! What rules do to requests and answers on their way: cross-origin requests, header values with variables, copies.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use mesh_core::matching::text::TextMatch;
use mesh_core::resilience::fault::{AbortStatus, FaultPolicy};
use mesh_core::routing::cors::{CorsPolicy, UnmatchedPreflights};
use mesh_core::routing::header::{HeaderChanges, HeaderOperations};
use mesh_core::routing::mirror::Mirror;
use mesh_core::routing::rule::{HttpRule, RuleAction};
use mesh_core::vocab::ratio::Ratio;

use super::harness::{Answer, HOST, Mesh, Plan, application, default_rule, echo};

fn request(method: Method, fields: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri("http://reviews:9080/a?q=1");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Full::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn preflights_are_answered_here_and_answers_are_marked() {
    let cors = CorsPolicy {
        allow_origins: vec![TextMatch::Exact("https://a".into())],
        allow_methods: vec!["GET".into(), "PUT".into()],
        expose_headers: vec!["x-b".into()],
        max_age: Some(60),
        unmatched_preflights: UnmatchedPreflights::Ignore,
        ..CorsPolicy::default()
    };
    let rule = HttpRule { cors: Some(cors), ..default_rule() };
    let mut mesh =
        Mesh::start(Plan { rules: Some(vec![rule.clone()]), ..Plan::new(&[echo("127.0.0.2").await]) }).await;
    let asks = ("access-control-request-method", "DELETE");
    let preflight = mesh.send(request(Method::OPTIONS, &[("origin", "https://a"), asks])).await;
    assert_eq!((preflight.status.as_u16(), preflight.body.as_str()), (200, ""));
    let fields = ["access-control-allow-origin", "access-control-allow-methods", "access-control-max-age"];
    assert_eq!(fields.map(|name| preflight.header(name)), ["https://a", "GET,PUT", "60"]);
    let marked = mesh.send(request(Method::GET, &[("origin", "https://a")])).await;
    assert!(marked.body.starts_with("GET /a?q=1"), "{marked:?}");
    let fields = ["access-control-allow-origin", "access-control-expose-headers"];
    assert_eq!(fields.map(|name| marked.header(name)), ["https://a", "x-b"]);
    let other = mesh.send(request(Method::OPTIONS, &[("origin", "https://b"), asks])).await;
    assert_eq!((other.status.as_u16(), other.body.as_str(), other.header(fields[0])), (200, "", ""));
    let plain = mesh.send(request(Method::OPTIONS, &[asks])).await;
    assert!(plain.body.starts_with("OPTIONS /a"), "{plain:?}");

    // An answer of our own is marked like any other, but a fault comes before all that.
    mesh.change(2, |plan| plan.applications.clear()).await;
    let nobody = mesh.send(request(Method::GET, &[("origin", "https://a")])).await;
    assert_eq!((nobody.status.as_u16(), nobody.header(fields[0])), (503, "https://a"));
    let fault = FaultPolicy { delay: None, abort: Some((Ratio::ONE, AbortStatus::Http(555))) };
    mesh.change(3, |plan| plan.rules = Some(vec![HttpRule { fault, ..rule }])).await;
    let aborted = mesh.send(request(Method::OPTIONS, &[("origin", "https://a"), asks])).await;
    assert_eq!((aborted.status.as_u16(), aborted.header(fields[0])), (555, ""));
}

fn operations(set: &[(&'static str, &'static str)]) -> HeaderOperations {
    let field = |(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    HeaderOperations::from(&HeaderChanges {
        set: set.iter().map(field).collect(),
        ..HeaderChanges::default()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn header_values_are_put_together_from_the_exchange() {
    let app = application("127.0.0.2", |request| async move {
        let heard = |name: &str| request.headers().get(name).map_or("-", |value| value.to_str().unwrap());
        let body = [heard("x-of-rule"), heard("x-of-backend"), heard("x-empty")].join("|");
        Response::builder().header("x-app", "yes").body(Full::from(body)).unwrap()
    })
    .await;
    let mut rule = HttpRule { name: Some("named".into()), ..default_rule() };
    rule.request_headers = operations(&[
        ("x-of-rule", "%REQ(:method)% %REQ(:path)% %REQ(x-of-backend)% %PROTOCOL% %ROUTE_NAME%"),
        ("x-empty", "%UPSTREAM_HOST%%REQ(x-none)%"),
    ]);
    rule.response_headers = operations(&[
        (
            "x-told",
            "%REQ(x-user):3% %RESP(x-app)% %RESP(:status)% %UPSTREAM_HOST% %UPSTREAM_CLUSTER% %RESPONSE_FLAGS%",
        ),
        ("x-path", "%REQ(x-envoy-original-path?:path)%"),
        ("x-id", "%STREAM_ID%"),
    ]);
    let RuleAction::Route { backends, .. } = &mut rule.action else { panic!() };
    backends[0].request_headers = operations(&[("x-of-backend", "of %REQ(host)%, %HOSTNAME%")]);
    let mesh = Mesh::start(Plan { rules: Some(vec![rule.clone()]), ..Plan::new(&[app]) }).await;
    let answer = mesh.send(request(Method::GET, &[("x-user", "jason"), ("x-request-id", "7")])).await;
    assert_eq!(answer.body, "GET /a?q=1 of reviews:9080, b HTTP/1.1 named|of reviews:9080, b|-");
    let expected = format!("jas yes 200 {app} outbound|9080||{HOST} -");
    assert_eq!(answer.header("x-told"), expected);
    assert_eq!([answer.header("x-path"), answer.header("x-id")], ["/a?q=1", "7"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_our_own_are_changed_as_rule_and_backend_say() {
    let mut rule = HttpRule { name: Some("named".into()), ..default_rule() };
    rule.response_headers =
        operations(&[("x-rule", "%ROUTE_NAME% %RESPONSE_CODE%"), ("content-type", "text/x")]);
    rule.cors = Some(CorsPolicy { allow_origins: vec![TextMatch::Present], ..CorsPolicy::default() });
    let RuleAction::Route { backends, .. } = &mut rule.action else { panic!() };
    backends[0].response_headers = operations(&[("x-rule", "backend"), ("x-backend", "b")]);
    let mut mesh = Mesh::start(Plan { rules: Some(vec![rule.clone()]), ..Plan::new(&[]) }).await;
    let fields = ["x-rule", "x-backend", "content-type"];
    let told = |answer: &Answer| (answer.status.as_u16(), fields.map(|name| answer.header(name).to_owned()));
    let expected = |code: u16| (code, [&format!("named {code}"), "b", "text/x"].map(str::to_owned));
    assert_eq!(told(&mesh.send(request(Method::GET, &[])).await), expected(503));
    let asks = ("access-control-request-method", "GET");
    let preflight = mesh.send(request(Method::OPTIONS, &[("origin", "https://a"), asks])).await;
    assert_eq!(told(&preflight), (200, fields.map(|_| String::new())));

    let fault = FaultPolicy { delay: None, abort: Some((Ratio::ONE, AbortStatus::Http(418))) };
    mesh.change(2, |plan| plan.rules = Some(vec![HttpRule { fault, ..rule.clone() }])).await;
    assert_eq!(told(&mesh.send(request(Method::GET, &[])).await), expected(418));
    let RuleAction::Route { backends, .. } = &mut rule.action else { panic!() };
    backends[0].host = "nowhere".into();
    mesh.change(3, |plan| plan.rules = Some(vec![rule.clone()])).await;
    let (code, [by_rule, by_backend, _]) = told(&mesh.send(request(Method::GET, &[])).await);
    assert_eq!((code, by_rule.as_str(), by_backend.as_str()), (503, "named 503", "b"));
}

/// What applications heard: host and body of each request.
type Heard = Arc<Mutex<Vec<(String, usize)>>>;

/// An application that lets copies wait, and reads their bodies if it shall.
async fn heard(heard: &Heard, wait: Duration, reads: bool) -> std::net::SocketAddr {
    let heard = Arc::clone(heard);
    application("127.0.0.2", move |request| {
        let heard = Arc::clone(&heard);
        async move {
            let host = match request.headers().get("host") {
                Some(host) => host.to_str().unwrap().to_owned(),
                None => request.uri().authority().unwrap().to_string(),
            };
            let copy = host.contains("-shadow");
            if copy {
                tokio::time::sleep(wait).await;
            }
            let length = match reads || !copy {
                true => request.into_body().collect().await.map_or(usize::MAX, |body| body.to_bytes().len()),
                false => 0,
            };
            heard.lock().unwrap().push((host, length));
            Response::new(Full::from("done"))
        }
    })
    .await
}

fn mirrored() -> Option<Vec<HttpRule>> {
    let mirror = Mirror { host: HOST.into(), port: 9080, subset: None, share: Ratio::ONE };
    Some(vec![HttpRule { mirrors: vec![mirror.clone(), mirror], ..default_rule() }])
}

fn post(length: usize) -> Request<Full<Bytes>> {
    let body = Full::new(Bytes::from(vec![b'x'; length]));
    Request::post("http://reviews:9080/up").body(body).unwrap()
}

async fn counted(mesh: &Mesh, name: &str, expected: u64) {
    let value = || {
        let text = mesh.a.shared.metrics.render();
        let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).map(str::to_owned);
        line.and_then(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).unwrap_or(0)
    };
    let reached = async {
        while value() < expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let reached = tokio::time::timeout(Duration::from_secs(10), reached).await;
    assert!(reached.is_ok(), "{name} is {}, not {expected}", value());
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_get_the_whole_body_and_nobody_waits_for_them() {
    for mesh_hop in [true, false] {
        let all = Heard::default();
        let app = heard(&all, Duration::from_millis(300), true).await;
        let plan = Plan { rules: mirrored(), mesh: mesh_hop, ..Plan::new(&[app]) };
        let mesh = Mesh::start(plan).await;
        let began = Instant::now();
        assert_eq!(mesh.send(post(600_000)).await.body, "done");
        assert!(began.elapsed() < Duration::from_millis(250), "{:?}", began.elapsed());
        let copied = async {
            while all.lock().unwrap().len() < 3 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(5), copied).await.is_ok(), "{:?}", all.lock());
        let copy = ("reviews-shadow:9080".to_owned(), 600_000);
        let expected = [("reviews:9080".to_owned(), 600_000), copy.clone(), copy];
        assert_eq!(*all.lock().unwrap(), expected);
        counted(&mesh, "mesh_proxy_mirrors_total", 2).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_answer_early_or_not_at_all_hurt_nobody() {
    let all = Heard::default();
    let app = heard(&all, Duration::ZERO, false).await;
    let mut mesh = Mesh::start(Plan { rules: mirrored(), ..Plan::new(&[app]) }).await;
    for _ in 0..5 {
        assert_eq!(mesh.send(post(3_000_000)).await.body, "done");
    }
    let originals = || all.lock().unwrap().iter().filter(|(host, _)| host == "reviews:9080").count();
    assert_eq!(originals(), 5);

    // Too far behind: a copy of which nothing is taken is given up, the request itself is whole.
    let slow = heard(&all, Duration::from_secs(60), true).await;
    mesh.change(2, |plan| {
        plan.applications = vec![slow];
        plan.mesh = false;
    })
    .await;
    assert_eq!(mesh.send(post(20_000_000)).await.body, "done");
    assert_eq!(all.lock().unwrap().last().unwrap().1, 20_000_000);
    counted(&mesh, "mesh_proxy_mirrors_dropped_total", 2).await;

    // Too many at once: those beyond are dropped.
    for _ in 0..260 {
        assert_eq!(mesh.get("http://reviews:9080/").await.body, "done");
    }
    counted(&mesh, "mesh_proxy_mirrors_dropped_total", 4).await;
}
