//! A storm of retries: the last of a chain of services fails half of all, and each proxy of the chain may try three times more.

use std::time::{Duration, Instant};

use super::{Claim, Context, shared};
use crate::harness::bookshop::status;
use crate::harness::client::Ask;
use crate::harness::lab::Lab;
use crate::report::Report;

/// So many times what was offered may come to the last service.
const MOST: f64 = 1.3;

pub(super) fn claims() -> Vec<Claim> {
    vec![shared("resilience/storm", storm)]
}

fn storm(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let measured = measure(lab, 3_000)?;
    tell(context.report, &measured);
    Ok(())
}

/// What came of it.
pub(crate) struct Storm {
    offered: usize,
    seen: u64,
    succeeded: usize,
    took: Duration,
}

/// Calls productpage through reviews, ratings and details, so many times.
pub(crate) fn measure(lab: &Lab, requests: usize) -> anyhow::Result<Storm> {
    anyhow::ensure!(lab.has_users(), "callers are not told from one another here");
    let mut rules = String::new();
    for service in ["reviews", "ratings", "details", "productpage"] {
        rules.push_str(&format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {service}, namespace: default}}\n\
             spec:\n  hosts: [{service}]\n  http:\n    - retries: {{attempts: 3, retryOn: '5xx', backoff: 1ms}}\n      \
             route: [{{destination: {{host: {service}}}}}]\n---\n"
        ));
    }
    lab.control.apply_text(rules.trim_end_matches("---\n"))?;
    let ask = |percent| {
        let url = format!("http://reviews:9080/chain/ratings/details/productpage/fail/{percent}");
        Ask::get(url).patience(Duration::from_secs(60))
    };
    let user = lab.user("productpage-v1");
    // Connections are there.
    let ready = lab.count(lab.h1(), user, ask(0), 50, status);
    anyhow::ensure!(ready.count("200") == 50, "the chain does not work: {}", ready.figure());
    let (before, begun) = (attempts(lab)?, Instant::now());
    let tally = lab.count(lab.h1(), user, ask(50), requests, status);
    let took = begun.elapsed();
    Ok(Storm { offered: requests, seen: attempts(lab)? - before, succeeded: tally.count("200"), took })
}

/// Says whether the bar is kept.
pub(crate) fn tell(report: &mut Report, storm: &Storm) {
    let times = storm.seen as f64 / storm.offered as f64;
    let figure = format!(
        "{times:.2}x: {} of {} requests in {:.1?}, of which {} succeeded",
        storm.seen, storm.offered, storm.took, storm.succeeded
    );
    let holds = times <= MOST && storm.seen > storm.offered as u64 && storm.succeeded * 2 > storm.offered;
    report.claim(
        format!("the last of four hops, failing half, sees at most {MOST}x of what is offered"),
        holds,
        figure,
    );
}

/// Requests that have come to productpage.
fn attempts(lab: &Lab) -> anyhow::Result<u64> {
    let text = lab.proxies[0].local(15090, "/stats/prometheus")?.text();
    let marks = [
        "reporter=\"destination\"",
        "destination_workload=\"productpage-v1\"",
        "source_workload=\"details-v1\"",
    ];
    let lines = text.lines().filter(|line| line.starts_with("istio_requests_total{"));
    let lines = lines.filter(|line| marks.iter().all(|mark| line.contains(mark)));
    Ok(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum())
}
