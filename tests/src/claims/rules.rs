//! What else rules do: cross-origin requests, header values with variables, copies, rules left to others.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use http::Method;

use super::routing::{received, reviews_rules, stop_app};
use super::{Claim, Context, shared};
use crate::harness::client::Ask;
use crate::harness::lab::{BOOKSHOP, Lab};

/// The HTTP proxy on h1.
const PROXY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15080);

pub(super) fn claims() -> Vec<Claim> {
    vec![
        shared("rules/cors", cors),
        shared("rules/variables", variables),
        shared("rules/mirror", mirror),
        shared("rules/delegate", delegate),
        shared("rules/hosts", hosts),
        shared("rules/redirect", redirect),
    ]
}

fn cors(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.control.apply_text(&reviews_rules(
        "    - corsPolicy:
        allowOrigins: [{regex: 'https://[a-z]+\\.shop\\.example'}]
        allowMethods: [GET, POST]
        allowHeaders: [x-token]
        exposeHeaders: [x-app-version]
        maxAge: 2m
        allowCredentials: true
      route: [{destination: {host: reviews, subset: v1}}]\n",
    ))?;
    let ask = Ask::get("http://reviews:9080/reviews/1").header("origin", "https://my.shop.example");
    let asks = |ask: Ask| ask.method(Method::OPTIONS).header("access-control-request-method", "DELETE");
    let preflight = lab.as_productpage(&asks(ask.clone()))?;
    let marked = lab.as_productpage(&ask)?;
    let foreign = Ask::get("http://reviews:9080/health").header("origin", "https://evil.example");
    let foreign = lab.as_productpage(&foreign)?;
    let field = |name: &str| preflight.header(&format!("access-control-{name}")).to_owned();
    let allowed =
        ["allow-origin", "allow-methods", "allow-headers", "max-age", "allow-credentials"].map(field);
    let expected = ["https://my.shop.example", "GET,POST", "x-token", "120", "true"];
    context.report.claim(
        "a preflight is answered by the caller's proxy",
        preflight.status == 200 && preflight.body.is_empty() && allowed == expected,
        format!("{} {}", preflight.status, allowed.join(" ")),
    );
    let exposed = marked.header("access-control-expose-headers").to_owned();
    let version = marked.json()["version"].as_str().unwrap_or_default().to_owned();
    context.report.claim(
        "an answer to an allowed origin says so",
        version == "v1" && exposed == "x-app-version",
        format!("{version} {exposed}"),
    );
    let origin = foreign.header("access-control-allow-origin").to_owned();
    context.report.claim(
        "another origin is answered without permission",
        foreign.status == 200 && origin.is_empty(),
        format!("{} {origin}", foreign.status),
    );
    Ok(())
}

fn variables(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.control.apply_text(&reviews_rules(
        "    - name: told
      headers:
        request: {set: {x-path: '%REQ(:METHOD)% %REQ(:PATH)%', x-route: '%ROUTE_NAME% 100%%', x-none: '%REQ(x-absent)%'}}
        response: {add: {x-user: '%REQ(end-user)%', x-from: '%UPSTREAM_HOST% %RESP(x-app-version)%'}}
      route: [{destination: {host: reviews, subset: v1}, headers: {request: {set: {x-share: '%PROTOCOL%'}}}}]\n",
    ))?;
    let answer = lab.as_productpage(&Ask::get("http://reviews:9080/headers?a=b").jason())?;
    let heard = ["x-path", "x-route", "x-none", "x-share"].map(|name| received(&answer, name));
    context.report.claim(
        "request fields are put together from the request",
        heard == ["GET /headers?a=b", "told 100%", "", "HTTP/1.1"],
        heard.join("|"),
    );
    let told = ["x-user", "x-from"].map(|name| answer.header(name).to_owned());
    context.report.claim(
        "answer fields from the request, the answer and the endpoint",
        told == ["jason", "10.77.0.12:9081 v1"],
        told.join("|"),
    );
    Ok(())
}

/// The sizes of the copies that the proxy of h3 has delivered.
fn copies(lab: &Lab) -> Vec<u64> {
    let log = lab.proxies[2].access_log();
    let copies = log.iter().filter(|line| line["authority"] == "reviews-shadow:9080");
    copies.filter_map(|line| line["bytes_received"].as_u64()).collect()
}

fn mirror(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.control.apply_text(&reviews_rules(
        "    - route: [{destination: {host: reviews, subset: v1}}]
      mirrors: [{destination: {host: reviews, subset: v3}, percentage: {value: 100}}]\n",
    ))?;
    let body = vec![b'm'; 200_000];
    let ask = Ask::get("http://reviews:9080/echo").method(Method::POST).body(body.clone());
    let before = copies(lab).len();
    let mut whole = 0;
    for _ in 0..20 {
        whole += usize::from(lab.as_productpage(&ask)?.body == body);
    }
    let end = Instant::now() + Duration::from_secs(5);
    let mut copied = copies(lab);
    while copied.len() < before + 20 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100));
        copied = copies(lab);
    }
    let copied = &copied[before..];
    let (count, full) = (copied.len(), copied.iter().all(|size| *size == 200_000));
    stop_app(lab, "reviews-v3")?;
    let began = Instant::now();
    let mut down = 0;
    for _ in 0..20 {
        down += usize::from(lab.as_productpage(&ask)?.body == body);
    }
    let took = began.elapsed();
    lab.start_app(&BOOKSHOP[4])?;
    lab.wait_serving()?;
    let metrics = lab.proxies[0].local(15090, "/stats/prometheus")?.text();
    let line = |name: &str| metrics.lines().find(|line| line.starts_with(name)).unwrap_or("none").to_owned();
    context.report.claim("every caller gets the whole answer", whole == 20, whole.to_string());
    context.report.claim(
        "v3 gets every request too, with its body",
        count == 20 && full,
        format!("{count} copies, all whole: {full}"),
    );
    context.report.claim(
        "a mirror that is down is felt by nobody",
        down == 20 && took < Duration::from_secs(2),
        format!("{down} of 20 in {took:?}"),
    );
    let counted = line("mesh_proxy_mirrors_total ");
    context.report.claim("copies are counted", counted != "none" && !counted.ends_with(" 0"), counted);
    Ok(())
}

fn delegate(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.control.apply_text(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: team, namespace: default}
spec:
  http:
    - {match: [{uri: {prefix: /reviews/7}}], route: [{destination: {host: reviews, subset: v3}}]}
    - {route: [{destination: {host: reviews, subset: v2}}]}\n",
    )?;
    lab.control.apply_text(&reviews_rules(
        "    - {match: [{uri: {prefix: /reviews}, gateways: [edge, mesh]}], delegate: {name: team}, headers: {response: {set: {x-root: 'yes'}}}}
    - {match: [{gateways: [edge]}], directResponse: {status: 418}}
    - {route: [{destination: {host: reviews, subset: v1}}]}\n",
    ))?;
    let mut found = Vec::new();
    for path in ["reviews/7", "reviews/8", "health"] {
        let answer = lab.as_productpage(&Ask::get(format!("http://reviews:9080/{path}")))?;
        let version = answer.json()["version"].as_str().unwrap_or_default().to_owned();
        found.push(format!("{version}{}", answer.header("x-root")));
    }
    context.report.claim(
        "rules left to another VirtualService hold below the root's match, with what they inherit",
        found == ["v3yes", "v2yes", "v1"],
        found.join(" "),
    );
    Ok(())
}

fn hosts(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.control.apply_text(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: shop, namespace: default}
spec:
  hosts: ['*.shop.example', books.example, reviews]
  http:
    - {match: [{authority: {prefix: b}}], route: [{destination: {host: reviews, subset: v2, port: {number: 9080}}}]}
    - {route: [{destination: {host: reviews, subset: v3, port: {number: 9080}}}]}
---
apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: ratings, namespace: default}
spec: {hosts: [ratings], exportTo: [elsewhere], http: [{directResponse: {status: 418}}]}\n",
    )?;
    let mut found = Vec::new();
    for url in ["http://a.shop.example", "http://books.example", "http://reviews:9080", "http://x.example"] {
        let ask = Ask::get(format!("{url}/health")).through(PROXY);
        let answer = lab.as_productpage(&ask)?;
        found.push(answer.json()["version"].as_str().unwrap_or("none").to_owned());
    }
    let hidden = lab.as_productpage(&Ask::get("http://ratings:9080/health"))?;
    context.report.claim(
        "rules hold for each of several hosts, a wildcard and one that is no service among them",
        found == ["v3", "v2", "v3", "none"],
        found.join(" "),
    );
    context.report.claim(
        "rules that are not exported to the caller do not hold",
        hidden.status == 200,
        hidden.status.to_string(),
    );
    Ok(())
}

fn redirect(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.control.apply_text(&reviews_rules(
        "    - {match: [{uri: {exact: /a}}], redirect: {uri: /b, authority: new.example, scheme: https, redirectCode: 308}}
    - {match: [{uri: {exact: /c}}], redirect: {port: 8080}}
    - {match: [{uri: {exact: /d}}], redirect: {authority: new.example, derivePort: FROM_REQUEST_PORT, redirectCode: 303}}
    - match: [{uri: {exact: /e}}]
      directResponse: {status: 200, body: {bytes: eyJhIjogMX0=}}
      headers: {response: {set: {content-type: application/json, x-at: '%REQ(:path)%'}}}
    - match: [{uri: {prefix: /old}}]
      rewrite: {uriRegexRewrite: {match: '/old/(\\w+)/(\\w+)', rewrite: '/headers?\\2=\\1'}}
      route: [{destination: {host: reviews, subset: v1}}]\n",
    ))?;
    let mut found = Vec::new();
    for path in ["a?q=1", "c", "d"] {
        let answer = lab.as_productpage(&Ask::get(format!("http://reviews:9080/{path}")))?;
        found.push(format!("{} {}", answer.status, answer.header("location")));
    }
    let expected =
        ["308 https://new.example/b?q=1", "301 http://reviews:8080/c", "303 http://new.example:9080/d"];
    context.report.claim("redirects with all their fields", found == expected, found.join(", "));
    let lab = context.lab()?;
    let direct = lab.as_productpage(&Ask::get("http://reviews:9080/e?x"))?;
    let rewritten = lab.as_productpage(&Ask::get("http://reviews:9080/old/one/two"))?;
    let told = ["content-type", "x-at"].map(|name| direct.header(name).to_owned()).join(" ");
    let uri = rewritten.json()["uri"].as_str().unwrap_or_default().to_owned();
    context.report.claim(
        "a direct response of bytes, with fields",
        direct.text() == "{\"a\": 1}" && told == "application/json /e?x",
        format!("{} {told}", direct.text()),
    );
    context.report.claim("a path is rewritten by a pattern", uri == "/headers?two=one", uri);
    Ok(())
}
