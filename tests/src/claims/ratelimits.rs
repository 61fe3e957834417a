//! Rate limits: what passes and what is told of the rest, whose bucket it takes from, what stays when configuration
//! changes, and limits that two proxies keep to together, with and without a control plane.

use std::time::{Duration, Instant};

use super::{Claim, Context, shared};
use crate::harness::bookshop::status;
use crate::harness::client::Ask;
use crate::harness::lab::Lab;
use crate::harness::load::{Load, LoadSpec};

pub(super) fn claims() -> Vec<Claim> {
    vec![
        shared("limits/workload", workload),
        shared("limits/keys", keys),
        shared("limits/route", route),
        shared("limits/words", words),
        super::alone("limits/mesh", mesh),
    ]
}

/// A RateLimit for a target, with these limits and more fields.
fn rate_limit(target: &str, limits: &str, more: &str) -> String {
    format!(
        "apiVersion: mesh.io/v1alpha1
kind: RateLimit
metadata: {{name: claimed, namespace: default}}
spec: {{targetRefs: [{target}], {more} limits: [{limits}]}}
"
    )
}

const RATINGS: &str = "{kind: Service, name: ratings}";

fn ratings() -> Ask {
    Ask::get("http://ratings:9080/health")
}

/// Counted series of a proxy whose name and labels hold all of these.
fn counted(lab: &Lab, proxy: usize, parts: &[&str]) -> anyhow::Result<u64> {
    let text = lab.proxies[proxy].local(15090, "/stats/prometheus")?.text();
    let lines = text.lines().filter(|line| parts.iter().all(|part| line.contains(part)));
    Ok(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum())
}

fn workload(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let five = "{name: all, requests: 5, interval: 1h}";
    lab.control.apply_text(&rate_limit(RATINGS, five, ""))?;
    let tally = lab.count(lab.h1(), lab.user("productpage-v1"), ratings(), 40, status);
    let refused = lab.as_productpage(&ratings())?;
    let log = || {
        let lines = lab.proxies[2].access_log();
        let flagged = |line: &&serde_json::Value| {
            line["response_flags"] == "RL" && line["response_code_details"] == "local_rate_limited"
        };
        lines.iter().filter(flagged).count()
    };
    let end = Instant::now() + Duration::from_secs(10);
    while log() < 36 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100));
    }
    let (logged, metric) = (log(), counted(lab, 2, &["mesh_proxy_rate_limited_total{", "default/claimed"])?);
    lab.control.apply_text(&rate_limit(RATINGS, five, "status: 503,"))?;
    let changed = lab.as_productpage(&ratings())?.status;
    lab.control.apply_text(&rate_limit(RATINGS, five, "dryRun: true,"))?;
    let rehearsed = lab.as_productpage(&ratings())?.status;
    lab.control.must(["delete", "ratelimit", "claimed", "-n", "default"])?;
    let removed = lab.count(lab.h1(), lab.user("productpage-v1"), ratings(), 20, status);
    context.report.claim(
        "of 40 requests the 5 of the limit pass, the others get 429",
        tally.count("200") == 5 && tally.count("429") == 35,
        tally.figure(),
    );
    let names = ["retry-after", "x-envoy-ratelimited", "ratelimit", "ratelimit-policy", "x-ratelimit-limit"];
    let told = names.map(|name| format!("{name}: {}", refused.header(name)));
    context.report.claim(
        "what is refused is told when to come again",
        refused.text() == "local_rate_limited"
            && refused.header("retry-after").parse::<u64>().is_ok_and(|wait| wait > 600)
            && refused.header("x-envoy-ratelimited") == "true"
            && refused.header("ratelimit-policy") == "\"all\";q=5;w=3600",
        told.join(", "),
    );
    context.report.claim(
        "each has a line with RL, and counts in mesh_proxy_rate_limited_total",
        logged >= 36 && metric == 36,
        format!("{logged} lines, {metric} counted"),
    );
    context.report.claim(
        "a changed resource keeps its bucket, and in dry run only counts",
        changed == 503 && rehearsed == 200,
        format!("{changed}, {rehearsed}"),
    );
    context.report.claim("without it all pass", removed.count("200") == 20, removed.figure());
    Ok(())
}

fn keys(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let by_user = "{name: user, requests: 3, interval: 1h, key: [{header: x-user}]}";
    lab.control.apply_text(&rate_limit(RATINGS, by_user, ""))?;
    let of = |user: &str| {
        let ask = ratings().header("x-user", user);
        lab.count(lab.h1(), lab.user("productpage-v1"), ask, 10, status).count("200")
    };
    let users = [of("alice"), of("bob"), of("alice")];
    let by_identity = "{name: caller, requests: 4, interval: 1h, key: [{sourcePrincipal: true}]}";
    lab.control.apply_text(&rate_limit(RATINGS, by_identity, ""))?;
    let page = lab.count(lab.h1(), lab.user("productpage-v1"), ratings(), 10, status).count("200");
    let host = &lab.proxies[1].host;
    let reviews = lab.count(host, lab.user("reviews-v2"), ratings(), 10, status).count("200");
    context.report.claim(
        "each value of a field has a bucket of its own",
        users == [3, 3, 0],
        format!("{users:?} of 10 each"),
    );
    context.report.claim(
        "each identity has a bucket of its own",
        (page, reviews) == (4, 4),
        format!("{page} and {reviews} of 10 each"),
    );
    Ok(())
}

fn route(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let rules = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings, namespace: default}
spec:
  hosts: [ratings]
  http:
  - {name: limited, match: [{headers: {x-slow: {exact: 'yes'}}}], route: [{destination: {host: ratings}}]}
  - {name: free, route: [{destination: {host: ratings}}]}
---
";
    let target = "{kind: VirtualService, name: ratings, sectionName: limited}";
    let limits = "{name: all, requests: 4, interval: 1h}";
    lab.control.apply_text(&format!("{rules}{}", rate_limit(target, limits, "")))?;
    let user = lab.user("productpage-v1");
    let limited = lab.count(lab.h1(), user, ratings().header("x-slow", "yes"), 20, status);
    let free = lab.count(lab.h1(), user, ratings(), 20, status);
    let here =
        counted(lab, 0, &["mesh_proxy_rate_limited_total{", "virtualservice/default/ratings/limited"])?;
    context.report.claim(
        "a route's limit is kept to by the caller's proxy, and other routes are free",
        limited.count("200") == 4 && limited.count("429") == 16 && free.count("200") == 20 && here == 16,
        format!("{}; free: {}; {here} counted at the caller", limited.figure(), free.figure()),
    );
    Ok(())
}

fn words(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let control = &lab.control;
    let by_user = "{name: user, requests: 3, interval: 1h, key: [{header: x-user}]}";
    control.apply_text(&rate_limit(RATINGS, by_user, ""))?;
    let url = "http://ratings:9080/health";
    let asked =
        ["explain", "--from", "default/bookinfo-productpage", "--to", url, "-H", "x-user: a", "-o", "json"];
    let explained = control.must(asked)?.json()?;
    let found = &explained["rate_limits"][0];
    let described = control.must(["describe", "ratelimit", "claimed", "-n", "default"])?.out;
    let broken = control.file(rate_limit(
        "{kind: Service, name: ratingz}",
        "{name: a, requests: x, interval: 1s}",
        "",
    ))?;
    let broken = broken.display().to_string();
    let refused = control.cli(["validate", "-f", &broken])?;
    let unknown = control.file(rate_limit("{kind: Service, name: ratingz}", by_user, ""))?;
    let unknown = control.cli(["apply", "--dry-run", "-f", &unknown.display().to_string()])?;
    context.report.claim(
        "explain names the limit and whose bucket it is",
        found["resource"] == "ratelimit/default/claimed" && found["key"] == "header x-user=a",
        found.to_string(),
    );
    context.report.claim(
        "describe names what it limits",
        described.contains("service/default/ratings"),
        described.lines().count().to_string(),
    );
    let said = format!("{}{}", refused.out, refused.err);
    context.report.claim(
        "what is wrong is named with its field",
        refused.code != 0 && said.contains("spec.limits[0].requests"),
        said.lines().next().unwrap_or_default().to_owned(),
    );
    let said = format!("{}{}", unknown.out, unknown.err);
    context.report.claim(
        "a target that does not exist is told of, with the nearest name",
        said.contains("IST0101") && said.contains("ratings"),
        said.lines().next().unwrap_or_default().to_owned(),
    );
    Ok(())
}

/// The rate of the limit that two proxies share, a second.
const RATE: f64 = 40.0;
/// What passes at once at first, and while shares move, at most.
const SLACK: f64 = 80.0;

fn mesh(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let limits = "{name: all, requests: 40, interval: 1s, burst: 10}";
    let target = "{kind: Service, name: reviews}";
    lab.control.apply_text(&rate_limit(target, limits, "scope: mesh,"))?;
    // Until each of the three workloads, behind two proxies, has its share.
    let end = Instant::now() + Duration::from_secs(30);
    let shares = |lab: &Lab| -> anyhow::Result<Vec<f64>> {
        let mut all = Vec::new();
        for proxy in [1, 2] {
            let text = lab.proxies[proxy].local(15090, "/stats/prometheus")?.text();
            let lines = text.lines().filter(|line| line.starts_with("mesh_proxy_rate_limit_share{"));
            all.extend(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()));
        }
        Ok(all)
    };
    let are_settled = |shares: &[f64]| {
        let sum: f64 = shares.iter().sum();
        shares.len() == 3 && shares.iter().all(|share| *share > 0.0) && (0.9..1.001).contains(&sum)
    };
    let mut settled = shares(lab)?;
    while !are_settled(&settled) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(200));
        settled = shares(lab)?;
    }
    let load = Load::start(
        lab.h1(),
        lab.user("productpage-v1"),
        LoadSpec {
            ask: Ask::get("http://reviews:9080/health"),
            connections: 8,
            pause: Duration::from_millis(20),
            count: None,
            judge: status,
        },
    );
    let during = |load: &Load, time: Duration| {
        let since = load.elapsed();
        std::thread::sleep(time);
        let passed = load.tally_since(since).count("200") as f64;
        (passed, (load.elapsed() - since).as_secs_f64())
    };
    let together = during(&load, Duration::from_secs(8));
    lab.control.kill()?;
    // What was leased is over soon.
    std::thread::sleep(Duration::from_secs(4));
    let apart = during(&load, Duration::from_secs(6));
    let asked = load.stop();
    let within = |(passed, time): (f64, f64)| passed <= RATE * time + SLACK && passed >= RATE * time * 0.5;
    context.report.claim(
        "three workloads behind two proxies hold shares of the limit, and no more than all of it",
        are_settled(&settled),
        format!("{settled:?}"),
    );
    context.report.claim(
        "together they let pass what one limit does",
        within(together),
        format!("{} in {:.1} s of 40/s, {} asked in all", together.0, together.1, asked.figure()),
    );
    context.report.claim(
        "and without the control plane each keeps to an even part",
        within(apart),
        format!("{} in {:.1} s", apart.0, apart.1),
    );
    Ok(())
}
