//! What leaves the mesh: names that are resolved, hosts that are not known, and what goes where it was sent.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::{Claim, Context, alone, shared};
use crate::harness::client::{Answer, Ask};
use crate::harness::lab::{Lab, host_address};
use crate::harness::nameserver::NameServer;

const EXPLICIT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15080);
/// Applications of the bookshop, reached straight: reviews v1 and ratings v1.
const REVIEWS: (Ipv4Addr, &str) = (host_address(1), "v1");
const RATINGS: Ipv4Addr = host_address(2);

pub(super) fn claims() -> Vec<Claim> {
    vec![shared("egress/policies", policies), shared("egress/entries", entries), alone("egress/names", names)]
}

/// A ServiceEntry of this name with the rest of its spec.
pub(super) fn entry(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: default}}\nspec:\n{spec}---\n"
    )
}

/// What an answer was, in short.
pub(super) fn shown(answer: &Answer) -> String {
    let json = answer.json();
    format!("{} {}", answer.status, json["version"].as_str().unwrap_or_default())
}

fn through(url: &str) -> Ask {
    Ask::get(url).through(EXPLICIT)
}

/// Asks until the answer is the one wanted, or for long enough.
fn until(lab: &Lab, ask: &Ask, wanted: &str) -> anyhow::Result<String> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let got = shown(&lab.as_productpage(ask)?);
        if got == wanted || Instant::now() > end {
            return Ok(got);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn policies(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let url = format!("http://{}:9081/health", REVIEWS.0);
    let mesh = |mode: &str| {
        format!(
            "apiVersion: v1\nkind: MeshConfig\nmetadata: {{name: mesh, namespace: istio-system}}\nspec: {{outboundTrafficPolicy: {{mode: {mode}}}}}\n---\n"
        )
    };
    let sidecar = |mode: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: pages, namespace: default}}\n\
             spec:\n  workloadSelector: {{labels: {{app: productpage}}}}\n  outboundTrafficPolicy: {{mode: {mode}}}\n---\n"
        )
    };
    let mut found = Vec::new();
    for (name, yaml, pages, others) in [
        ("ALLOW_ANY is the default", mesh("ALLOW_ANY"), "200 v1", "200 v1"),
        ("REGISTRY_ONLY for the mesh refuses", mesh("REGISTRY_ONLY"), "502 ", "502 "),
        ("a Sidecar's ALLOW_ANY wins for whom it selects", sidecar("ALLOW_ANY"), "200 v1", "502 "),
    ] {
        lab.control.apply_text(&yaml)?;
        let got = (shown(&lab.as_productpage(&through(&url))?), shown(&lab.as_reviews(&through(&url))?));
        found.push((name, got == (pages.to_owned(), others.to_owned()), format!("{} / {}", got.0, got.1)));
    }
    let known = shown(&lab.as_reviews(&through("http://ratings:9080/ratings/1"))?);
    found.push(("what the mesh knows is not affected", known.starts_with("200"), known));
    let metrics = lab.proxies[2].local(15090, "/stats/prometheus")?.text();
    let counted = metrics.lines().any(|line| {
        line.starts_with("istio_requests_total") && line.contains("BlackHoleCluster") && line.contains("502")
    });
    found.push(("what is refused counts for BlackHoleCluster", counted, String::new()));
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}

/// A WorkloadEntry or a Service of this name with the rest of its spec.
fn declared(kind: &str, name: &str, spec: &str) -> String {
    let version = if kind == "Service" { "v1" } else { "networking.istio.io/v1" };
    format!(
        "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: default}}\nspec: {spec}\n---\n"
    )
}

fn entries(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let (reviews, ratings) = (REVIEWS.0, RATINGS);
    let http = "{number: 80, name: http, protocol: HTTP, targetPort: 9081}";
    let services = [
        declared(
            "Service",
            "kept",
            "{sessionAffinity: ClientIP, selector: {picked: 'yes'}, ports: [{name: http, port: 80}]}",
        ),
        declared(
            "Service",
            "near",
            "{internalTrafficPolicy: Local, selector: {app: details}, ports: [{name: http, port: 9080}]}",
        ),
        declared(
            "Service",
            "far",
            "{internalTrafficPolicy: Local, selector: {app: ratings}, ports: [{name: http, port: 9080}]}",
        ),
        declared("Service", "other", "{type: ExternalName, externalName: pooled.example}"),
    ]
    .concat();
    let picked = |name: &str, address: Ipv4Addr, label: &str| {
        declared(
            "WorkloadEntry",
            name,
            &format!(
                "{{address: {address}, network: far, labels: {{picked: {label}}}, ports: {{http: 9081}}}}"
            ),
        )
    };
    lab.control.apply_text(
        &[
            services.clone(),
            picked("picked-1", reviews, "'yes'"),
            picked("picked-2", ratings, "'yes'"),
            entry("picked", "  hosts: [picked.example]\n  resolution: STATIC\n  location: MESH_INTERNAL\n  ports: [{number: 80, name: http, protocol: HTTP}]\n  workloadSelector: {labels: {picked: 'yes'}}\n"),
            entry("pooled", &format!("  hosts: [pooled.example]\n  resolution: STATIC\n  ports: [{http}]\n  endpoints: [{{address: {reviews}}}]\n")),
        ]
        .concat(),
    )?;
    let more = format!(
        "  hosts: [pooled.example]\n  resolution: STATIC\n  ports: [{{number: 81, name: http-b, protocol: HTTP}}]\n  endpoints: [{{address: {ratings}, ports: {{http-b: 9081}}}}]\n"
    );
    lab.control.apply_text(&entry("pooled-younger", &more))?;
    let ask = |url: &str| -> anyhow::Result<String> { Ok(shown(&lab.as_productpage(&through(url))?)) };
    let instances = |url: &str| -> anyhow::Result<usize> {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..20 {
            let answer = lab.as_productpage(&through(url))?;
            seen.insert(answer.json()["instance"].as_str().unwrap_or_default().to_owned());
        }
        Ok(seen.len())
    };
    let mut found = Vec::new();
    for (claim, url, wanted) in [
        (
            "a younger entry of a host adds its ports and their endpoints",
            "http://pooled.example:81/health",
            "200 v1",
        ),
        ("another name of a host in the mesh leads there", "http://other/health", "200 v1"),
        ("where endpoints are local, one of this host answers", "http://near:9080/health", "200 v1"),
        ("and on other hosts there are none", "http://far:9080/health", "503 "),
    ] {
        let got = ask(url)?;
        found.push((claim, got == wanted, got));
    }
    let (both, one) = (instances("http://picked.example/health")?, instances("http://kept/health")?);
    found.push(("a selector picks workloads, of any network", both == 2, both.to_string()));
    found.push(("a client keeps its endpoint", one == 1, one.to_string()));
    lab.control.apply_text(&picked("picked-2", ratings, "'no'"))?;
    let left = instances("http://picked.example/health")?;
    found.push(("a workload that is not picked any more gets nothing", left == 1, left.to_string()));
    for name in ["picked-1", "picked-2"] {
        lab.control.must(["delete", "workloadentry", name])?;
    }
    for name in ["kept", "near", "far", "other"] {
        lab.control.must(["delete", "service", name])?;
    }
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}

fn names(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let at = SocketAddr::from((Ipv4Addr::new(10, 77, 0, 1), 5353));
    let server = NameServer::start(&lab.control.host, at)?;
    server.tell("real.example", &[REVIEWS.0]);
    server.tell("open.example", &[REVIEWS.0]);
    server.tell("open.elsewhere.example", &[REVIEWS.0]);
    server.tell("a.wild.example", &[REVIEWS.0]);
    let proxy = &mut lab.proxies[0];
    proxy.with(["--dns-upstream", &at.to_string()]);
    proxy.running()?.terminate(Duration::from_secs(35))?;
    proxy.launch()?;
    proxy.wait_ready()?;
    lab.wait_serving()?;
    let port = "  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 9081}]\n";
    lab.control.apply_text(
        &[
            entry(
                "named",
                &format!("  hosts: [api.example]\n  resolution: DNS\n{port}  endpoints: [{{address: real.example}}]\n"),
            ),
            entry("elsewhere", "  hosts: [real.example]\n  resolution: DNS\n  ports: [{number: 443, name: tls, protocol: TLS}]\n"),
            declared("Service", "outside", "{type: ExternalName, externalName: open.elsewhere.example}"),
            entry("open", &format!("  hosts: [open.example]\n  resolution: NONE\n{port}")),
            entry("wild", &format!("  hosts: ['*.wild.example']\n  resolution: DYNAMIC_DNS\n{port}")),
        ]
        .concat(),
    )?;
    let mut found = Vec::new();
    let api = Ask::get("http://api.example/health");
    let wanted = format!("200 {}", REVIEWS.1);
    let got = shown(&lab.as_productpage(&api)?);
    found.push(("a name in the place of an address is resolved", got == wanted, got));
    let got = shown(&lab.as_productpage(&Ask::get("http://open.example/health"))?);
    found.push(("without resolution it goes to the name asked for", got == wanted, got));
    let got = shown(&lab.as_productpage(&through("http://a.wild.example/health"))?);
    found.push(("a wildcard's host is resolved when it is asked for", got == wanted, got));
    let got = shown(&lab.as_productpage(&through("http://real.example:9081/health"))?);
    found.push(("a port that a host outside does not declare is unknown", got == wanted, got));
    for ask in [through("http://outside:9081/health"), Ask::get("http://outside.default:9081/health")] {
        let got = shown(&lab.as_productpage(&ask)?);
        found.push(("another name of a host that nobody has leads there", got == wanted, got));
    }
    server.tell("real.example", &[]);
    std::thread::sleep(Duration::from_secs(4));
    let got = shown(&lab.as_productpage(&api)?);
    found.push(("a name server that fails changes nothing", got == wanted, got));
    // Nobody listens there on this port.
    server.tell("real.example", &[Ipv4Addr::new(10, 77, 0, 1)]);
    let got = until(lab, &api, "503 ")?;
    found.push(("a new address is taken up within the time to live", got == "503 ", got));
    server.tell("real.example", &[Ipv4Addr::new(10, 77, 0, 1), RATINGS]);
    let got = until(lab, &api, "200 v1")?;
    found.push((
        "several addresses share the requests, retries hide a dead one",
        got.starts_with("200"),
        got,
    ));
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    drop(server);
    Ok(())
}
