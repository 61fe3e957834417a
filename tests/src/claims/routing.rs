//! Which answer a request gets: weights, matches, rewrites, redirects, headers, timeouts, retries.

use std::time::{Duration, Instant};

use super::{Claim, Context, shared};
use crate::harness::bookshop::version;
use crate::harness::client::{Answer, Ask};
use crate::harness::lab::{Lab, yaml};

pub(super) fn claims() -> Vec<Claim> {
    vec![
        shared("routing/shares", shares),
        shared("routing/header", header),
        shared("routing/matches", matches),
        shared("routing/rewrite", rewrite),
        shared("routing/answers", answers),
        shared("routing/headers", headers),
        shared("routing/timeout", timeout),
        shared("routing/retries", retries),
        shared("routing/stripped", stripped),
        shared("routing/balancing", balancing),
    ]
}

/// A virtual service for reviews with these http rules, indented as under `http:`.
pub(super) fn reviews_rules(rules: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: reviews\n  namespace: default\n\
         spec:\n  hosts: [reviews]\n  http:\n{rules}"
    )
}

fn shares(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let mut found = Vec::new();
    for (file, v3) in [("2-reviews-90-10", 0.1), ("2-reviews-50-50", 0.5), ("2-reviews-0-100", 1.0)] {
        lab.control.apply(&yaml(&format!("demo/{file}.yaml")))?;
        let tally = lab.pages(lab.page(), 1000);
        let holds = tally.is_share("v3", v3) && tally.is_share("v1", 1.0 - v3) && tally.failed() == 0;
        found.push((format!("the share of v3 is {v3} within binomial bounds"), holds, tally.figure()));
    }
    found.into_iter().for_each(|(claim, holds, figure)| {
        context.report.claim(claim, holds, figure);
    });
    Ok(())
}

fn header(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.control.apply(&yaml("demo/3-reviews-jason-v2.yaml"))?;
    let (jason, others) = (lab.pages(lab.page().jason(), 200), lab.pages(lab.page(), 200));
    let other_user = lab.pages(lab.page().header("end-user", "Jason"), 50);
    context.report.claim("the user jason gets v2 only", jason.is_share("v2", 1.0), jason.figure());
    context.report.claim("everyone else gets v1 only", others.is_share("v1", 1.0), others.figure());
    context.report.claim(
        "exact means exact: Jason is not jason",
        other_user.is_share("v1", 1.0),
        other_user.figure(),
    );
    Ok(())
}

fn matches(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let rules = "    - {name: uri, match: [{uri: {prefix: /reviews/7}}], route: [{destination: {host: reviews, subset: v3}}]}
    - {name: query, match: [{queryParams: {probe: {regex: '[0-9]+'}}}], route: [{destination: {host: reviews, subset: v2}}]}
    - {name: method, match: [{method: {exact: HEAD}}], directResponse: {status: 418}}
    - {name: source, match: [{uri: {exact: /reviews/8}, sourceLabels: {app: reviews}}], directResponse: {status: 419}}
    - {name: authority, match: [{authority: {prefix: 'reviews.default'}}], route: [{destination: {host: reviews, subset: v3}}]}
    - {route: [{destination: {host: reviews, subset: v1}}]}\n";
    lab.control.apply_text(&reviews_rules(rules))?;
    let cases: [(&str, Ask, bool, &str); 8] = [
        ("uri prefix", Ask::get("http://reviews:9080/reviews/77"), false, "200 v3"),
        ("query by regex", Ask::get("http://reviews:9080/reviews/1?probe=12"), false, "200 v2"),
        ("a regex matches whole", Ask::get("http://reviews:9080/reviews/1?probe=12x"), false, "200 v1"),
        ("method", Ask::get("http://reviews:9080/reviews/1").method(http::Method::HEAD), false, "418 "),
        ("sourceLabels of the caller", Ask::get("http://reviews:9080/reviews/8"), true, "419 "),
        ("sourceLabels of another", Ask::get("http://reviews:9080/reviews/8"), false, "200 v1"),
        ("authority", Ask::get("http://reviews.default:9080/reviews/1"), false, "200 v3"),
        ("no match: the last rule", Ask::get("http://reviews:9080/reviews/1"), false, "200 v1"),
    ];
    let mut found = Vec::new();
    for (name, ask, by_reviews, expected) in cases {
        let answer = if by_reviews { lab.as_reviews(&ask)? } else { lab.as_productpage(&ask)? };
        let got = format!("{} {}", answer.status, answer.json()["version"].as_str().unwrap_or_default());
        found.push((name, got == expected, got));
    }
    for (name, holds, got) in found {
        context.report.claim(format!("match on {name}"), holds, got);
    }
    Ok(())
}

fn rewrite(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let rules = "    - match: [{uri: {prefix: /old/}}]
      rewrite: {uri: /, authority: renamed.example}
      route: [{destination: {host: reviews, subset: v1}}]\n";
    lab.control.apply_text(&reviews_rules(rules))?;
    let answer = lab.as_productpage(&Ask::get("http://reviews:9080/old/headers?x=1"))?;
    let uri = answer.json()["uri"].as_str().unwrap_or_default().to_owned();
    let host = received(&answer, "host");
    context.report.claim(
        "the prefix and the authority are rewritten",
        uri == "/headers?x=1" && host == "renamed.example",
        format!("{uri} at {host}"),
    );
    Ok(())
}

fn answers(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let rules = "    - {match: [{uri: {exact: /moved}}], redirect: {uri: /reviews/1, redirectCode: 302}}
    - {match: [{uri: {exact: /teapot}}], directResponse: {status: 503, body: {string: 'closed today'}}}
    - {match: [{uri: {prefix: /reviews}}], route: [{destination: {host: reviews, subset: v1}}]}\n";
    lab.control.apply_text(&reviews_rules(rules))?;
    let moved = lab.as_productpage(&Ask::get("http://reviews:9080/moved"))?;
    let direct = lab.as_productpage(&Ask::get("http://reviews:9080/teapot"))?;
    let nothing = lab.as_productpage(&Ask::get("http://reviews:9080/else"))?;
    let location = moved.header("location").to_owned();
    context.report.claim(
        "redirect",
        moved.status == 302 && location.ends_with("/reviews/1"),
        format!("{} to {location}", moved.status),
    );
    context.report.claim(
        "direct response",
        direct.status == 503 && direct.text() == "closed today",
        format!("{} {}", direct.status, direct.text()),
    );
    context.report.claim("no rule matches: 404", nothing.status == 404, nothing.status.to_string());
    Ok(())
}

/// The value of a header as the application received it.
pub(super) fn received(answer: &Answer, name: &str) -> String {
    let list = answer.json()["headers"].as_array().cloned().unwrap_or_default();
    let values: Vec<String> =
        list.iter().filter(|h| h[0] == name).filter_map(|h| h[1].as_str().map(str::to_owned)).collect();
    values.join("|")
}

fn headers(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let rules = "    - headers:
        request: {set: {x-set: a}, add: {x-added: b}, remove: [x-secret]}
        response: {set: {x-answer: c}, remove: [x-app-version]}
      route: [{destination: {host: reviews, subset: v1}}]\n";
    lab.control.apply_text(&reviews_rules(rules))?;
    let ask = Ask::get("http://reviews:9080/headers")
        .header("x-set", "old")
        .header("x-secret", "s")
        .header("x-kept", "k");
    let answer = lab.as_productpage(&ask)?;
    let seen: Vec<String> =
        ["x-set", "x-added", "x-secret", "x-kept"].iter().map(|n| received(&answer, n)).collect();
    context.report.claim(
        "request headers are set, added, removed and else kept",
        seen == ["a", "b", "", "k"],
        seen.join(","),
    );
    let (set, gone) = (answer.header("x-answer").to_owned(), answer.header("x-app-version").to_owned());
    context.report.claim(
        "response headers are set and removed",
        set == "c" && gone.is_empty(),
        format!("{set},{gone}"),
    );
    Ok(())
}

fn timeout(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.control.apply_text(&reviews_rules(
        "    - {timeout: 500ms, route: [{destination: {host: reviews, subset: v1}}]}\n",
    ))?;
    let answer = lab.as_productpage(&Ask::get("http://reviews:9080/slow/3000"))?;
    let in_time = (Duration::from_millis(450)..Duration::from_millis(900)).contains(&answer.took);
    context.report.claim(
        "a timeout of 500 ms answers 504",
        answer.status == 504 && in_time,
        format!("{} after {:?}", answer.status, answer.took),
    );
    Ok(())
}

/// One of the two versions is stopped: without another attempt its share of the requests would fail.
fn retries(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let rules = "    - {retries: {attempts: 3, retryOn: 'connect-failure,reset,5xx'}, route: [{destination: {host: reviews}}]}\n";
    lab.control.apply_text(&reviews_rules(rules))?;
    stop_app(lab, "reviews-v3")?;
    let tally = lab.count(
        lab.h1(),
        lab.user("productpage-v1"),
        Ask::get("http://reviews:9080/reviews/1"),
        100,
        version,
    );
    let placed = crate::harness::lab::BOOKSHOP[4];
    lab.start_app(&placed)?;
    lab.wait_serving()?;
    // Whoever could not reach it tries it again now and then only.
    let again = Ask::get("http://reviews:9080/reviews/1");
    let end = Instant::now() + Duration::from_secs(20);
    while lab.count(lab.h1(), lab.user("productpage-v1"), again.clone(), 30, version).count("v3") == 0
        && Instant::now() < end
    {}
    context.report.claim("an instance dies: retries hide it", tally.failed() == 0, tally.figure());
    Ok(())
}

/// Kills an application.
pub(super) fn stop_app(lab: &mut Lab, name: &str) -> anyhow::Result<()> {
    if let Some(at) = lab.apps.iter().position(|(app, _)| *app == name) {
        lab.apps.remove(at).1.kill()?;
    }
    Ok(())
}

/// What the mesh says to itself never reaches an application, and is not believed from one.
fn stripped(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let ask = Ask::get("http://ratings:9080/headers")
        .header("x-forwarded-client-cert", "By=spiffe://evil;URI=spiffe://evil")
        .header("x-mesh-hop", "10.77.0.12:9080 h2 0 default/evil")
        .header("x-mesh-from", "default/evil");
    let answer = lab.as_productpage(&ask)?;
    let certificate = received(&answer, "x-forwarded-client-cert");
    let right = certificate.contains("URI=spiffe://cluster.local/ns/default/sa/bookinfo-productpage")
        && certificate.contains("By=spiffe://cluster.local/ns/default/sa/bookinfo-ratings")
        && !certificate.contains("evil");
    context.report.claim("x-forwarded-client-cert names the verified caller only", right, certificate);
    let internal: Vec<String> = ["x-mesh-hop", "x-mesh-from"].iter().map(|n| received(&answer, n)).collect();
    context.report.claim(
        "headers between proxies are not passed on",
        answer.status == 200 && internal.concat().is_empty(),
        format!("status {}, {:?}", answer.status, internal),
    );
    Ok(())
}

fn balancing(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let mut found = Vec::new();
    for policy in ["ROUND_ROBIN", "RANDOM", "LEAST_REQUEST"] {
        lab.control.apply_text(&format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews, namespace: default}}\n\
             spec: {{host: reviews, trafficPolicy: {{loadBalancer: {{simple: {policy}}}}}}}\n"
        ))?;
        let ask = Ask::get("http://reviews:9080/health");
        let tally = lab.count(lab.h1(), lab.user("productpage-v1"), ask, 300, version);
        let each: Vec<usize> = ["v1", "v2", "v3"].iter().map(|v| tally.count(v)).collect();
        let holds = tally.failed() == 0
            && match policy {
                "ROUND_ROBIN" => each.iter().all(|n| (85..=115).contains(n)),
                _ => each.iter().all(|n| *n >= 40),
            };
        found.push((policy, holds, tally.figure()));
    }
    for (policy, holds, figure) in found {
        context.report.claim(format!("{policy} spreads over three instances"), holds, figure);
    }
    Ok(())
}
