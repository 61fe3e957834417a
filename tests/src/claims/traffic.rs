//! Live traffic: `stat`, `edges`, `routes` and `top` say what the load generator says.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::captured::restart;
use super::protocols::{Extra, at_h2};
use super::routing::reviews_rules;
use super::{Claim, Context, alone};
use crate::harness::client::{Answer, Ask};
use crate::harness::echo::{Echo, send};
use crate::harness::lab::Lab;
use crate::harness::load::{Load, LoadSpec, Tally};
use crate::harness::process::Spec;

pub(super) fn claims() -> Vec<Claim> {
    vec![
        alone("traffic/figures", figures),
        alone("traffic/names", names),
        alone("traffic/tcp", tcp),
        alone("traffic/restarts", restarts),
    ]
}

/// How long figures may take to be whole on a slow machine.
const PATIENCE: Duration = Duration::from_secs(20);
const REVIEWS: &str = "reviews.default.svc.cluster.local";
const DETAILS: &str = "details.default.svc.cluster.local";

/// Rules for reviews: failures as they are, failures that are tried again, and a split.
const RULES: &str = "\
    - {match: [{uri: {prefix: /fail}}], retries: {attempts: 0}, route: [{destination: {host: reviews, subset: v1}}]}\n\
    - {match: [{uri: {prefix: /again}}], rewrite: {uri: /fail/30}, \
       retries: {attempts: 5, retryOn: 5xx}, route: [{destination: {host: reviews, subset: v1}}]}\n\
    - {retries: {attempts: 0}, route: [{destination: {host: reviews, subset: v1}, weight: 90}, \
       {destination: {host: reviews, subset: v3}, weight: 10}]}\n";

fn rules() -> String {
    // The lines above lose their indentation as a literal.
    reviews_rules(&RULES.lines().map(|line| format!("    {}\n", line.trim_start())).collect::<String>())
}

/// The answer's status and the version that gave it.
fn told(answer: &Answer) -> Result<String, String> {
    let version = answer.json()["version"].as_str().unwrap_or("-").to_owned();
    Ok(format!("{} {version}", answer.status))
}

fn calls(lab: &Lab, path: &str, count: usize) -> Tally {
    let ask = Ask::get(format!("http://reviews:9080{path}")).patience(Duration::from_secs(60));
    lab.count(lab.h1(), lab.user("productpage-v1"), ask, count, told)
}

/// The objects that a verb prints.
fn rows(lab: &Lab, arguments: &[&str]) -> anyhow::Result<Vec<Value>> {
    let all: Vec<&str> = arguments.iter().copied().chain(["-o", "json", "--window", "1h"]).collect();
    Ok(lab.control.must(all)?.json()?.as_array().cloned().unwrap_or_default())
}

/// The one that has all these values; null where none has.
fn row(rows: &[Value], wanted: &[(&str, &str)]) -> Value {
    let fits =
        |row: &&Value| wanted.iter().all(|(path, value)| row.pointer(path).is_some_and(|v| v == *value));
    rows.iter().find(fits).cloned().unwrap_or_default()
}

fn count(row: &Value) -> u64 {
    row["requests"].as_u64().unwrap_or(0)
}

/// How many of its requests went well.
fn successes(row: &Value) -> u64 {
    (row["success_rate"].as_f64().unwrap_or(0.0) * count(row) as f64).round() as u64
}

/// `stat` of reviews as one side tells it: all, v1, v3.
fn reviews(lab: &Lab, reporter: &str) -> anyhow::Result<[Value; 3]> {
    let found = rows(lab, &["stat", "reviews", "--reporter", reporter])?;
    let whole = found.iter().find(|row| row["service"] == REVIEWS && row["subset"].is_null());
    let subset = |name| row(&found, &[("/service", REVIEWS), ("/subset", name)]);
    Ok([whole.cloned().unwrap_or_default(), subset("v1"), subset("v3")])
}

/// Looks until it is as wanted, or for long enough; gives what was seen last.
fn until<T>(look: impl Fn() -> anyhow::Result<T>, wanted: impl Fn(&T) -> bool) -> anyhow::Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        let seen = look()?;
        if wanted(&seen) || Instant::now() > end {
            return Ok(seen);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// What is counted of reviews when nothing is under way.
fn settled(lab: &Lab, reporter: &str) -> anyhow::Result<[Value; 3]> {
    let mut before = reviews(lab, reporter)?;
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(1500));
        let now = reviews(lab, reporter)?;
        if count(&now[0]) == count(&before[0]) {
            return Ok(now);
        }
        before = now;
    }
    Ok(before)
}

fn figures(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.control.apply_text(&rules())?;
    lab.wait_serving()?;
    let before = [settled(lab, "source")?, settled(lab, "destination")?];
    let split = calls(lab, "/reviews/0", 700);
    let failed = calls(lab, "/fail/100", 200);
    let again = calls(lab, "/again", 100);
    let mut found = Vec::new();
    let good = split.counts.iter().chain(&again.counts).filter(|(name, _)| name.starts_with("200"));
    let good = good.map(|(_, count)| *count as u64).sum::<u64>();
    let asked = (split.total + failed.total + again.total) as u64;
    found.push(("the load got its answers", failed.count("503 v1") == 200, format!("{split:?} {again:?}")));

    let source = until(|| reviews(lab, "source"), |seen| count(&seen[0]) >= count(&before[0][0]) + asked)?;
    let more = |index: usize| count(&source[index]) - count(&before[0][index]);
    let went_well = successes(&source[0]) - successes(&before[0][0]);
    found.push((
        "stat of the callers' side: every request, and how many went well",
        more(0) == asked && went_well.abs_diff(good) <= 1,
        format!("{} of {asked}, {went_well} of {good} well", more(0)),
    ));
    let (v1, v3) = (split.count("200 v1") as u64, split.count("200 v3") as u64);
    found.push((
        "and of each subset, as the answers say",
        more(1) == v1 + 300 && more(2) == v3,
        format!("v1 {} of {}, v3 {} of {v3}", more(1), v1 + 300, more(2)),
    ));

    let routes = rows(lab, &["routes", "reviews"])?;
    let rule = |number: u64| {
        let fits = |row: &&Value| {
            row["route"]["resource"] == "virtualservice/default/reviews" && row["route"]["rule"] == number
        };
        routes.iter().find(fits).cloned().unwrap_or_default()
    };
    let (tried, shared) = (rule(1), rule(2));
    let (effective, actual) = (
        tried["effective_success_rate"].as_f64().unwrap_or(0.0),
        tried["success_rate"].as_f64().unwrap_or(1.0),
    );
    let retries = tried["retries"].as_u64().unwrap_or(0);
    let well =
        again.counts.iter().filter(|(name, _)| name.starts_with("200")).map(|(_, c)| *c).sum::<usize>();
    let expected = well as f64 / (100.0 + retries as f64);
    found.push((
        "routes: retries lift the effective success above the actual one",
        count(&tried) == 100
            && (effective - well as f64 / 100.0).abs() < 0.001
            && (actual - expected).abs() < 0.001
            && retries > 10
            && effective > actual,
        format!("effective {effective}, actual {actual}, {retries} retries, {well} of 100 well"),
    ));
    let share = |subset: &str| {
        let list = shared["destinations"].as_array().cloned().unwrap_or_default();
        let one = list.iter().find(|one| one["subset"] == subset).cloned().unwrap_or_default();
        (one["weight"].as_u64(), one["share"].as_f64().unwrap_or(0.0))
    };
    let (one, three) = (share("v1"), share("v3"));
    found.push((
        "routes: the share of each destination beside its weight",
        one.0 == Some(90)
            && three.0 == Some(10)
            && (one.1 + three.1 - 1.0).abs() < 0.001
            && (three.1 - 0.1).abs() < 0.05,
        shared["destinations"].to_string(),
    ));

    // Each retry is a request at the other end.
    let arrived = asked + retries;
    let there =
        until(|| reviews(lab, "destination"), |seen| count(&seen[0]) >= count(&before[1][0]) + arrived)?;
    let more = |index: usize| count(&there[index]) - count(&before[1][index]);
    let went_well = successes(&there[0]) - successes(&before[1][0]);
    found.push((
        "stat of the called side: every attempt, by version",
        more(0) == arrived && more(2) == v3 && went_well.abs_diff(good) <= 1,
        format!("{} of {arrived}, v3 {} of {v3}, {went_well} of {good} well", more(0), more(2)),
    ));

    let edges = rows(lab, &["edges", "reviews"])?;
    let edge =
        row(&edges, &[("/source/workload", "productpage-v1"), ("/destination/workload", "reviews-v1")]);
    let identity = |account: &str| format!("spiffe://cluster.local/ns/default/sa/bookinfo-{account}");
    found.push((
        "edges: who calls whom, by which identities, over mutual TLS",
        edge["mtls"] == true
            && edge["source"]["identity"] == identity("productpage").as_str()
            && edge["destination"]["identity"] == identity("reviews").as_str()
            && edge["destination"]["service"] == REVIEWS
            && edge["rps"].as_f64().is_some_and(|rps| rps > 0.0),
        edge.to_string(),
    ));
    let top = rows(lab, &["top", "reviews"])?;
    let busiest = top.first().cloned().unwrap_or_default();
    let rps = |row: &Value| row["rps"].as_f64().unwrap_or(0.0);
    found.push((
        "top: the busiest call first, with its rule",
        top.windows(2).all(|pair| rps(&pair[0]) >= rps(&pair[1]))
            && busiest["route"]["resource"] == "virtualservice/default/reviews",
        busiest.to_string(),
    ));
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    latency(context)
}

/// Percentiles beside the load generator's own.
fn latency(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.control.apply_text(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: details, namespace: default}\n\
         spec: {hosts: [details], http: [{match: [{uri: {prefix: /slow}}], route: [{destination: {host: details}}]}, \
         {route: [{destination: {host: details}}]}]}\n",
    )?;
    let ask = Ask::get("http://details:9080/slow/150").patience(Duration::from_secs(60));
    let spec = LoadSpec { ask, connections: 4, pause: Duration::ZERO, count: Some(120), judge: told };
    let load = Load::start(lab.h1(), lab.user("productpage-v1"), spec);
    while load.len() < 120 && load.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut took: Vec<Duration> = load.samples().iter().map(|sample| sample.took).collect();
    took.sort_unstable();
    let own = |part: usize| {
        took.get((took.len() * part).div_ceil(100).max(1) - 1).map_or(0.0, |t| t.as_secs_f64() * 1e3)
    };
    let arguments = ["stat", "details", "--by", "route", "--reporter", "source"];
    let find = || -> anyhow::Result<Value> {
        let found = rows(lab, &arguments)?;
        let slow = found.iter().find(|row| row["service"] == DETAILS && row["route"]["rule"] == 0);
        Ok(slow.cloned().unwrap_or_default())
    };
    let seen = until(find, |row| count(row) >= 120)?;
    drop(load);
    let near = |name: &str, part: usize| {
        let told = seen[name].as_f64().unwrap_or(0.0);
        // The generator's own time includes what lies before the proxy and behind it.
        told <= own(part) * 1.01 && told >= own(part) * 0.9
    };
    let holds = count(&seen) == 120 && near("p50_ms", 50) && near("p95_ms", 95);
    let figure =
        format!("{seen}; by the generator p50 {:.1}, p95 {:.1}, p99 {:.1}", own(50), own(95), own(99));
    context.report.claim("percentiles are those of the load generator", holds, figure);
    Ok(())
}

/// Names, refusals, and looking again.
fn names(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.pages(lab.page(), 20);
    let mut found = Vec::new();
    let by_name = |name: &str| -> anyhow::Result<u64> {
        Ok(rows(lab, &["stat", name, "-A"])?.iter().filter(|row| row["service"] == REVIEWS).count() as u64)
    };
    until(|| by_name("reviews"), |lines| *lines > 2)?;
    let forms = ["reviews", "reviews.default", "reviews.default.svc", "reviews.default.mesh", REVIEWS];
    let lines = forms.map(|name| by_name(name).unwrap_or(0));
    found.push(("every form of a name", lines.iter().all(|n| *n > 2), format!("{lines:?}")));
    let unknown = lab.control.cli(["stat", "reveiws"])?;
    found.push((
        "an unknown service is refused, with the nearest name",
        unknown.code == 1 && unknown.err.contains("did you mean reviews?"),
        unknown.err,
    ));
    let elsewhere = lab.control.cli(["stat", "reviews", "-n", "other"])?;
    found.push((
        "one of another namespace is told with that",
        elsewhere.code == 1 && elsewhere.err.contains("did you mean reviews.default?"),
        elsewhere.err,
    ));
    let usage = lab.control.cli(["stat", "--window", "2h"])?;
    found.push(("an hour is remembered, no more", usage.code == 2, usage.err));
    lab.control.apply_text(
        "apiVersion: v1\nkind: Service\nmetadata: {name: idle, namespace: default}\n\
         spec: {selector: {app: idle}, ports: [{name: http, port: 80}]}\n",
    )?;
    let idle = row(&rows(lab, &["stat"])?, &[("/service", "idle.default.svc.cluster.local")]);
    found.push(("a service without traffic is listed", idle["requests"] == 0, idle.to_string()));
    lab.control.must(["delete", "service", "idle", "-n", "default"])?;
    for verb in ["stat", "edges", "routes", "top"] {
        for format in ["table", "wide", "yaml"] {
            let said = lab.control.cli([verb, "-A", "-o", format])?;
            if said.code != 0 || said.out.is_empty() {
                found.push(("each verb in each format", false, format!("{verb} {format}: {}", said.err)));
            }
        }
    }
    let mut watch = Spec::new("stat-watch", &lab.program("meshd"))
        .args(["stat", "reviews", "-w", "-o", "json"])
        .env("MESHD_SERVER", &lab.control.server())
        .start(&lab.control.host, &lab.logs())?;
    let end = Instant::now() + PATIENCE;
    let mut times = std::collections::BTreeSet::new();
    while times.len() < 3 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(200));
        let out = watch.stdout();
        let objects = out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        times = objects.filter(|o| o["service"] == REVIEWS).map(|o| o["time"].to_string()).collect();
    }
    watch.kill()?;
    found.push(("-w prints one object a line, every second", times.len() >= 3, format!("{times:?}")));
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}

fn tcp(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = &*context.lab()?;
    let user = lab.user("productpage-v1");
    let service = Echo::start(&lab.proxies[1].host, at_h2(7000), b"")?;
    let extra = Extra::announce(lab, "echo", 7000, "tcp")?;
    for _ in 0..5 {
        send(lab.h1(), user, "echo:7000", vec![b'x'; 10_000])?;
    }
    let find = |reporter: &str| {
        let arguments = ["stat", "echo", "--reporter", reporter];
        let look = || Ok(rows(lab, &arguments)?.first().cloned().unwrap_or_default());
        until(look, |row| row["tcp"]["sent_bytes"] == 50_000 && row["connections"] == 0)
    };
    let rows_of = [find("source")?, find("destination")?];
    let edge = rows(lab, &["edges", "echo"])?.first().cloned().unwrap_or_default();
    drop((extra, service));
    for (side, row) in ["the callers' side", "the called side"].iter().zip(rows_of) {
        let tcp = &row["tcp"];
        let holds = tcp["connections"] == 5
            && tcp["failed"] == 0
            && tcp["received_bytes"] == 50_000
            && tcp["sent_bytes"] == 50_000
            && row["requests"] == 0;
        context.report.claim(format!("connections and bytes of {side}"), holds, row.to_string());
    }
    let holds = edge["mtls"] == true && edge["tcp"]["connections"] == 5;
    context.report.claim("edges tells of them", holds, edge.to_string());
    Ok(())
}

/// Proxies and meshd come and go; a proxy may be told to say nothing.
fn restarts(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.control.apply_text(&rules())?;
    lab.wait_serving()?;
    let mut found = Vec::new();
    let before = settled(lab, "destination")?;
    calls(lab, "/fail/0", 100);
    until(|| reviews(lab, "destination"), |seen| count(&seen[0]) >= count(&before[0]) + 100)?;
    restart(lab, 1, "explicit,loopback", &[])?;
    lab.wait_serving()?;
    let middle = settled(lab, "destination")?;
    calls(lab, "/fail/0", 100);
    let seen = until(|| reviews(lab, "destination"), |seen| count(&seen[0]) >= count(&middle[0]) + 100)?;
    found.push((
        "a proxy that is started anew: nothing is lost, nothing counts twice",
        count(&middle[0]) >= count(&before[0]) + 100 && count(&seen[0]) == count(&middle[0]) + 100,
        format!("{} {} {}", count(&before[0]), count(&middle[0]), count(&seen[0])),
    ));
    restart(lab, 0, "explicit,loopback", &["--report-interval", "0s"])?;
    lab.wait_serving()?;
    let quiet = settled(lab, "source")?;
    let there = settled(lab, "destination")?;
    calls(lab, "/fail/0", 100);
    let heard = until(|| reviews(lab, "destination"), |seen| count(&seen[0]) >= count(&there[0]) + 100)?;
    let said = reviews(lab, "source")?;
    found.push((
        "--report-interval 0s: that proxy says nothing, the other end does",
        count(&said[0]) == count(&quiet[0]) && count(&heard[0]) == count(&there[0]) + 100,
        format!("source {} {}, destination {}", count(&quiet[0]), count(&said[0]), count(&heard[0])),
    ));
    lab.control.kill()?;
    lab.control.start()?;
    lab.control.wait_for_proxies(3)?;
    lab.wait_serving()?;
    let fresh = settled(lab, "destination")?;
    calls(lab, "/fail/0", 100);
    let seen = until(|| reviews(lab, "destination"), |seen| count(&seen[0]) >= count(&fresh[0]) + 100)?;
    found.push((
        "a meshd that is started anew knows nothing of before, and counts on",
        count(&fresh[0]) < count(&heard[0]) && count(&seen[0]) == count(&fresh[0]) + 100,
        format!("{} then {} {}", count(&heard[0]), count(&fresh[0]), count(&seen[0])),
    ));
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}
