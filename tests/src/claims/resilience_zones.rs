//! Zones: the nearest one first, the next when it fails, shares as a rule says; and how many retries a service bears.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::routing::{reviews_rules, stop_app};
use super::{Claim, Context, alone, shared};
use crate::harness::bookshop::{status, version};
use crate::harness::client::Ask;
use crate::harness::lab::{BOOKSHOP, Lab};
use crate::harness::load::Tally;

pub(super) fn claims() -> Vec<Claim> {
    vec![alone("resilience/zones", zones), shared("resilience/retry-budget", retry_budget)]
}

fn rule(policy: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews, namespace: default}}\n\
         spec: {{host: reviews, trafficPolicy: {policy}}}\n"
    )
}

fn count(lab: &Lab, count: usize) -> Tally {
    let ask = Ask::get("http://reviews:9080/health");
    lab.count(lab.h1(), lab.user("productpage-v1"), ask, count, version)
}

/// Looks until only these versions answer, and for twenty seconds at most.
fn settled(lab: &Lab, expected: &[&str]) -> Tally {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let tally = count(lab, 40);
        let all = ["v1", "v2", "v3"];
        let seen: BTreeSet<&str> = all.into_iter().filter(|version| tally.count(version) > 0).collect();
        if seen == expected.iter().copied().collect() || Instant::now() > end {
            return tally;
        }
    }
}

fn zones(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let mut found = Vec::new();
    // v1 and v2 are on h2, v3 is on h3.
    for (host, locality) in [(0, "r1/z1"), (1, "r1/z1"), (2, "r1/z2")] {
        lab.place(host, locality)?;
    }
    lab.control.apply_text(&rule(
        "{outlierDetection: {consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 60s, maxEjectionPercent: 100}}",
    ))?;
    let route = "    - {retries: {attempts: 2, retryOn: '5xx'}, route: [{destination: {host: reviews}}]}\n";
    lab.control.apply_text(&reviews_rules(route))?;
    let near = settled(lab, &["v1", "v2"]);
    found.push(("callers stay in their zone", near.count("v3") == 0 && near.failed() == 0, near.figure()));
    stop_app(lab, "reviews-v1")?;
    drop(settled(lab, &["v2", "v3"]));
    let half = count(lab, 300);
    let holds = half.is_share("v2", 0.7) && half.is_share("v3", 0.3) && half.failed() == 0;
    found.push(("half of a zone lost: 30 % go to the next, and none fails", holds, half.figure()));
    stop_app(lab, "reviews-v2")?;
    let lost = count(lab, 100);
    let holds = lost.failed() == 0 && lost.count("v3") == 100;
    found.push(("a whole zone lost: the next takes all, and none fails", holds, lost.figure()));
    for app in [&BOOKSHOP[2], &BOOKSHOP[3]] {
        lab.start_app(app)?;
    }
    lab.control.apply_text(&rule(
        "{loadBalancer: {localityLbSetting: {distribute: [{from: r1/z1/*, to: {r1/z1/*: 20, r1/z2/*: 80}}]}}}",
    ))?;
    lab.wait_serving()?;
    drop(settled(lab, &["v1", "v2", "v3"]));
    let shares = count(lab, 400);
    let holds = shares.is_share("v3", 0.8) && shares.failed() == 0;
    found.push(("zones get the shares that a rule names", holds, shares.figure()));
    lab.control
        .apply_text(&rule("{loadBalancer: {zoneAwareLbSetting: {enabled: true, minClusterSize: 3}}}"))?;
    lab.control.must(["wait", "--synced", "--timeout", "10s"])?;
    // A third of the endpoints is in the zone of v3, and a third of those who call from among them.
    let ask = || Ask::get("http://reviews:9080/health");
    let at_home = lab.count(&lab.proxies[2].host, lab.user("reviews-v3"), ask(), 60, version);
    let holds = at_home.count("v3") == 60;
    found.push(("what a zone has room for stays in it", holds, at_home.figure()));
    let all = count(lab, 400);
    let holds = all.is_share("v3", 0.33) && all.failed() == 0;
    found.push(("what it has no room for goes to the others", holds, all.figure()));
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}

/// Attempts that reviews have seen of a path that they do not know.
fn attempts(lab: &Lab) -> anyhow::Result<u64> {
    let mut all = 0;
    for proxy in &lab.proxies {
        let text = proxy.local(15090, "/stats/prometheus")?.text();
        let marks = ["reporter=\"destination\"", "response_code=\"404\"", "destination_workload=\"reviews-"];
        let lines = text.lines().filter(|line| line.starts_with("istio_requests_total{"));
        let lines = lines.filter(|line| marks.iter().all(|mark| line.contains(mark)));
        all += lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum::<u64>();
    }
    Ok(all)
}

fn retry_budget(context: &mut Context<'_>) -> anyhow::Result<()> {
    const REQUESTS: usize = 1000;
    let lab = context.lab()?;
    let route = "    - {retries: {attempts: 3, retryOn: '404', backoff: 1ms}, route: [{destination: {host: reviews}}]}\n";
    lab.control.apply_text(&reviews_rules(route))?;
    let (before, begun) = (attempts(lab)?, Instant::now());
    let ask = Ask::get("http://reviews:9080/nothing");
    let tally = lab.count(lab.h1(), lab.user("productpage-v1"), ask, REQUESTS, status);
    let most = REQUESTS as f64 * 1.2 + 20.0 + begun.elapsed().as_secs_f64() * 10.0 + 1.0;
    let seen = attempts(lab)? - before;
    let holds = tally.count("404") == REQUESTS && seen as f64 <= most && seen > REQUESTS as u64;
    let figure = format!("{seen} attempts of {REQUESTS} requests, at most {most:.0}");
    let metrics = lab.proxies[0].local(15090, "/stats/prometheus")?.text();
    let told = |line: &str| {
        line.starts_with("mesh_proxy_overflows_total{") && line.contains("limit=\"retry_budget\"")
    };
    let refused = metrics.lines().find(|line| told(line)).unwrap_or("none").to_owned();
    context.report.claim("a service that fails bears a fifth more, whatever a rule allows", holds, figure);
    context.report.claim("a metric tells of what was refused", refused != "none", refused);
    Ok(())
}
