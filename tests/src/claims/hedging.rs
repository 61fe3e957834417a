//! A second attempt beside one without an answer: an endpoint that stands still costs nobody its time.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::Signal;

use super::routing::reviews_rules;
use super::{Claim, Context, shared};
use crate::harness::client::{Answer, Ask};
use crate::harness::lab::Lab;

pub(super) fn claims() -> Vec<Claim> {
    vec![shared("resilience/hedge", hedge)]
}

/// How long requests may take that do not wait for who stands still.
const SOON: Duration = Duration::from_secs(5);

fn judge(answer: &Answer) -> Result<String, String> {
    match (answer.status, answer.took < SOON) {
        (200, true) => Ok("soon".to_owned()),
        (200, false) => Ok("late".to_owned()),
        (status, _) => Err(format!("status {status}")),
    }
}

fn with_hedge(value: &str) -> String {
    let route = "    - {timeout: 30s, route: [{destination: {host: reviews}}]}\n";
    let annotation = format!("namespace: default\n  annotations: {{mesh.io/hedge: '{value}'}}");
    reviews_rules(route).replacen("namespace: default", &annotation, 1)
}

fn hedges(lab: &Lab, result: &str) -> anyhow::Result<u64> {
    let text = lab.proxies[0].local(15090, "/stats/prometheus")?.text();
    let name = format!("mesh_proxy_hedges_total{{result=\"{result}\"}}");
    let line = text.lines().find(|line| line.starts_with(&name)).context("no metric of hedges")?;
    Ok(line.rsplit(' ').next().and_then(|value| value.parse().ok()).unwrap_or(0))
}

fn signal(lab: &Lab, app: &str, signal: Signal) -> anyhow::Result<()> {
    let (_, process) = lab.apps.iter().find(|(name, _)| *name == app).context("no such application")?;
    process.signal(signal)
}

fn hedge(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.control.apply_text(&with_hedge("after=100ms,max=1"))?;
    lab.wait_serving()?;
    let ask = || Ask::get("http://reviews:9080/health").patience(Duration::from_secs(60));
    signal(lab, "reviews-v1", Signal::STOP)?;
    let before = hedges(lab, "won")?;
    let tally = lab.count(lab.h1(), lab.user("productpage-v1"), ask(), 60, judge);
    let won = hedges(lab, "won")? - before;
    signal(lab, "reviews-v1", Signal::CONT)?;
    let mut found = vec![(
        "with one of three endpoints standing still every request is answered soon",
        tally.count("soon") == 60,
        tally.figure(),
    )];
    found.push(("by attempts beside those that have no answer", won > 0, format!("{won} won")));
    // It has heard that nobody waits any more, and works.
    let end = Instant::now() + Duration::from_secs(20);
    let mut versions = 0;
    while versions == 0 && Instant::now() < end {
        let one = lab.as_productpage(&ask())?;
        versions += usize::from(one.json()["version"] == "v1");
    }
    found.push(("and the endpoint is in use again afterwards", versions > 0, format!("{versions} of v1")));
    let arguments =
        ["explain", "--from", "default/bookinfo-productpage", "--to", "http://reviews:9080/", "-o", "json"];
    let told = lab.control.must(arguments)?.json()?["hedge"].to_string();
    let expected = "{\"after\":\"100ms\",\"max\":1,\"methods\":\"idempotent\"}";
    found.push(("explain tells of it", told == expected, told));
    let refused = lab.control.apply_text(&with_hedge("after=100")).err().map(|error| format!("{error:#}"));
    let words = refused.unwrap_or_else(|| "it was accepted".to_owned());
    let names_it = words.contains("mesh.io/hedge") && words.contains("wanted a duration from 1ms to 1m");
    found.push(("a value that cannot be is refused where it stands", names_it, words));
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}
