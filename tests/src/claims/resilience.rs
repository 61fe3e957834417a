//! Limits of what a service bears at once, and endpoints that fail: left alone for a while, and back when they work.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::routing::{reviews_rules, stop_app};
use super::{Claim, Context, shared};
use crate::harness::bookshop::{status, version};
use crate::harness::client::Ask;
use crate::harness::lab::{BOOKSHOP, Lab};
use crate::harness::load::{Load, LoadSpec, Tally};

pub(super) fn claims() -> Vec<Claim> {
    vec![
        shared("resilience/limits", limits),
        shared("resilience/ejection", ejection),
        shared("resilience/ejected-share", share),
    ]
}

fn rule(host: &str, policy: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {host}, namespace: default}}\n\
         spec: {{host: {host}, trafficPolicy: {policy}}}\n"
    )
}

/// Waits for something, twenty seconds at most; whether it came.
pub(super) fn comes(mut is_so: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<bool> {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so()? {
        if Instant::now() > end {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(true)
}

/// The first line of h1's metrics with these marks.
fn metric(lab: &Lab, marks: &[&str]) -> anyhow::Result<String> {
    let text = lab.proxies[0].local(15090, "/stats/prometheus")?.text();
    let line = text.lines().find(|line| marks.iter().all(|mark| line.contains(mark)));
    Ok(line.unwrap_or("none").to_owned())
}

fn limits(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.control.apply_text(&rule(
        "ratings",
        "{connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1, maxRequestsPerConnection: 2}}}",
    ))?;
    let slow = || Ask::get("http://ratings:9080/slow/300");
    // There is a connection by now.
    lab.as_reviews(&slow())?;
    let spec = LoadSpec {
        ask: slow(),
        connections: 5,
        pause: Duration::from_millis(50),
        count: None,
        judge: status,
    };
    let load = Load::start(&lab.proxies[1].host, lab.user("reviews-v1"), spec);
    let enough = comes(|| Ok(load.tally().count("200") >= 5))?;
    let refused = comes(|| {
        let answer = slow().send(&lab.proxies[1].host, lab.user("reviews-v1"))?;
        Ok(answer.status == 503 && answer.header("x-envoy-overloaded") == "true")
    })?;
    let tally = load.stop();
    let text = lab.proxies[1].local(15090, "/stats/prometheus")?.text();
    let told = |marks: &[&str]| {
        let line = text.lines().find(|line| marks.iter().all(|mark| line.contains(mark)));
        line.unwrap_or("none").to_owned()
    };
    let overflow = told(&["mesh_proxy_overflows_total{", "limit=\"pending\"", "ratings"]);
    let flagged = told(&["istio_requests_total{", "response_flags=\"UO\"", "reporter=\"source\""]);
    let one_by_one = tally.count("503") > tally.count("200") && tally.failed() == 0;
    context.report.claim(
        "what is too much gets 503 at once, the rest is served",
        enough && one_by_one,
        tally.figure(),
    );
    context.report.claim("the answer says that there is too much", refused, "x-envoy-overloaded: true");
    context.report.claim("metrics tell of the overflow", overflow != "none" && flagged != "none", overflow);
    Ok(())
}

fn count(lab: &Lab, count: usize) -> Tally {
    lab.count(lab.h1(), lab.user("productpage-v1"), Ask::get("http://reviews:9080/health"), count, version)
}

/// What `meshd health` says of who leaves a workload alone.
fn ejected_by(lab: &Lab, workload: &str) -> anyhow::Result<String> {
    let all = lab.control.must(["health", "-o", "json"])?.json()?;
    let rows = all.as_array().cloned().unwrap_or_default();
    let row = rows.iter().find(|row| row["workload"].as_str() == Some(workload));
    Ok(row.map_or_else(|| "no such workload".to_owned(), |row| row["ejected_by"].to_string()))
}

fn ejection(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let mut found = Vec::new();
    lab.control.apply_text(&rule(
        "reviews",
        "{outlierDetection: {consecutive5xxErrors: 2, interval: 1s, baseEjectionTime: 4s, maxEjectionPercent: 34}}",
    ))?;
    let route = "    - {retries: {attempts: 0}, route: [{destination: {host: reviews}}]}\n";
    lab.control.apply_text(&reviews_rules(route))?;
    lab.wait_serving()?;
    stop_app(lab, "reviews-v1")?;
    let begun = Instant::now();
    // Before checks tell of it, and after: whoever asks hears of two failures at most.
    let (mut failed, mut asked) = (0, 0);
    while begun.elapsed() < Duration::from_secs(2) {
        asked += 1;
        failed += usize::from(lab.as_productpage(&Ask::get("http://reviews:9080/health"))?.status != 200);
    }
    let figure = format!("{failed} of {asked} failed");
    found.push(("a killed endpoint costs as many failures as are allowed", failed <= 2, figure));
    let told = comes(|| Ok(ejected_by(lab, "reviews-v1")? == "[\"h1\"]"))?;
    found.push(("meshd health says who leaves it alone", told, ejected_by(lab, "reviews-v1")?));
    let line = metric(lab, &["mesh_proxy_ejections_total{", "reviews", "consecutive_5xx"])?;
    found.push(("metrics tell of the ejection", line != "none", line));
    let app = BOOKSHOP.iter().find(|app| app.name == "reviews-v1").context("reviews-v1 is an application")?;
    lab.start_app(app)?;
    let back = comes(|| Ok(count(lab, 30).count("v1") > 0))?;
    let tally = count(lab, 120);
    found.push(("it is back when it works again", back && tally.failed() == 0, tally.figure()));
    let told = comes(|| Ok(ejected_by(lab, "reviews-v1")? == "[]"))?;
    found.push(("and meshd health says so", told, ejected_by(lab, "reviews-v1")?));
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}

fn share(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    // One endpoint of one is more than half: it is never left alone, and more than none of a hundred per cent is.
    let mut found = Vec::new();
    for (percent, expected) in [(50, "404 is what it says"), (100, "503 when nobody is left")] {
        let policy = format!(
            "{{outlierDetection: {{consecutive5xxErrors: 2, outlierDetectionHttpErrorCodes: [404], interval: 1s, \
             baseEjectionTime: 60s, maxEjectionPercent: {percent}}}}}"
        );
        lab.control.apply_text(&rule("details", &policy))?;
        let ask = Ask::get("http://details:9080/nothing");
        let count = || lab.count(lab.h1(), lab.user("productpage-v1"), ask.clone(), 20, status);
        drop(count());
        let tally = count();
        let holds = tally.count(if percent == 50 { "404" } else { "503" }) == 20;
        found.push((expected, holds, tally.figure()));
    }
    let answer = lab.as_productpage(&Ask::get("http://details:9080/nothing"))?.text();
    found.push(("the answer says that nobody is left", answer == "no healthy upstream", answer));
    lab.control.apply_text(&rule("details", "{loadBalancer: {simple: RANDOM}}"))?;
    let again = lab.as_productpage(&Ask::get("http://details:9080/nothing"))?.status;
    found.push(("without the rule it gets traffic again", again == 404, again.to_string()));
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}
