//! Single requests: shown as they end, remembered, saved.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use http::Method;
use rustix::process::Signal;
use serde_json::Value;

use super::routing::reviews_rules;
use super::{Claim, Context, alone, shared};
use crate::harness::bookshop::status;
use crate::harness::client::{Answer, Ask};
use crate::harness::lab::Lab;
use crate::harness::load::{Load, LoadSpec};
use crate::harness::process::Process;

/// How long is waited for what should be soon.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn claims() -> Vec<Claim> {
    vec![
        shared("tap/live", live),
        shared("tap/past", past),
        shared("tap/limit", limit),
        shared("tap/stopped", stopped),
        alone("tap/alarm", alarm),
    ]
}

/// A tap that runs.
struct Tap(Process);

impl Tap {
    fn start(lab: &Lab, label: &str, arguments: &[&str]) -> anyhow::Result<Tap> {
        let spec = lab.control.verb(label).args(["tap", "-o", "json"]).args(arguments);
        Ok(Tap(spec.start(&lab.control.host, &lab.logs())?))
    }

    fn shown(&self) -> Vec<Value> {
        self.0.stdout().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// What it has shown once it is so many, and a moment later: there must not be more.
    fn settled(&self, count: usize) -> Vec<Value> {
        until(|| self.shown().len() >= count);
        std::thread::sleep(Duration::from_secs(1));
        self.shown()
    }
}

fn until(holds: impl Fn() -> bool) -> Option<Duration> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if holds() {
            return Some(began.elapsed());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    None
}

/// A metric without labels, of a proxy.
fn metric(lab: &Lab, proxy: usize, name: &str) -> Option<f64> {
    let text = lab.proxies[proxy].local(15090, "/stats/prometheus").ok()?.text();
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// Waits until each proxy has so many taps, and that of h2 so many more.
fn tapped(lab: &Lab, count: usize, more: usize) -> Option<Duration> {
    until(|| {
        (0..lab.proxies.len()).all(|proxy| {
            let count = if proxy == 1 { count + more } else { count };
            metric(lab, proxy, "mesh_proxy_taps ").unwrap_or(0.0) == count as f64
        })
    })
}

fn ids(events: &[Value]) -> BTreeSet<&str> {
    events.iter().filter_map(|event| event["request_id"].as_str()).collect()
}

/// Asks reviews as productpage, by an id.
fn ask(lab: &Lab, id: &str, ask: Ask) -> anyhow::Result<Answer> {
    lab.as_productpage(&ask.header("x-request-id", id))
}

const HEALTH: &str = "http://reviews:9080/health";
const BROKEN: &str = "    - match: [{headers: {x-break: {exact: '1'}}}]
      fault: {abort: {httpStatus: 503, percentage: {value: 100}}}
      route: [{destination: {host: reviews, subset: v1}}]
    - {route: [{destination: {host: reviews, subset: v1}}]}\n";

fn live(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.control.apply_text(&reviews_rules(BROKEN))?;
    let mut taps = vec![
        Tap::start(lab, "tap-status", &["reviews", "--status", "5xx"])?,
        Tap::start(lab, "tap-path", &["--path", "/health?tap-live"])?,
        Tap::start(lab, "tap-method", &["reviews", "-X", "POST", "--to", "reviews-v1"])?,
        Tap::start(lab, "tap-header", &["-H", "x-user: jas*", "--show-headers"])?,
        Tap::start(lab, "tap-both", &["--path", "/health?tap-live", "--reporter", "both"])?,
        Tap::start(lab, "tap-node", &["--path", "/health?tap-live", "--node", "h2"])?,
    ];
    let begun = tapped(lab, 5, 1).is_some();
    let mark = Ask::get(format!("{HEALTH}?tap-live"));
    let mut expected: [BTreeSet<String>; 4] = Default::default();
    for number in 0..5 {
        ask(lab, &format!("tap-plain-{number}"), Ask::get(HEALTH))?;
        let id = format!("tap-mark-{number}");
        ask(lab, &id, mark.clone())?;
        expected[1].insert(id);
        let id = format!("tap-break-{number}");
        ask(lab, &id, Ask::get(HEALTH).header("x-break", "1").header("x-user", "eve"))?;
        expected[0].insert(id);
        let id = format!("tap-post-{number}");
        ask(lab, &id, Ask::get(HEALTH).method(Method::POST).body("x"))?;
        expected[2].insert(id);
    }
    let secret = Ask::get(HEALTH)
        .header("x-user", "jason")
        .header("authorization", "Bearer open-sesame")
        .header("x-session-token", "open-sesame");
    ask(lab, "tap-secret", secret)?;
    expected[3].insert("tap-secret".to_owned());
    let mut figures = Vec::new();
    let mut exact = begun;
    for (tap, expected) in taps.iter().zip(&expected) {
        let events = tap.settled(expected.len());
        let ids = ids(&events);
        exact &= events.len() == expected.len() && ids.iter().all(|id| expected.contains(*id));
        figures.push(format!("{} of {}", events.len(), expected.len()));
    }
    let both = taps[4].settled(10);
    let sides = |side: &str| both.iter().filter(|event| event["reporter"] == side).count();
    let here = taps[5].settled(1);
    let broken = taps[0].shown();
    let marked = taps[1].shown();
    let secrets = taps[3].0.stdout();
    let (log, version) = (lab.proxies[0].access_log(), lab.control.status()?[0]["acknowledged"].clone());
    let disagreements: Vec<String> = broken.iter().chain(&marked).flat_map(|e| disagree(e, &log)).collect();
    let explained = lab
        .control
        .must([
            "explain",
            "-o",
            "json",
            "--from",
            "default/bookinfo-productpage",
            "--to",
            HEALTH,
            "-H",
            "x-break: 1",
        ])?
        .json()?;
    let one = broken.first().cloned().unwrap_or_default();
    let first = marked.first().cloned().unwrap_or_default();
    let left = {
        taps[0].0.kill()?;
        tapped(lab, 4, 1)
    };
    taps.clear();
    let none = tapped(lab, 0, 0);
    let report = &mut context.report;
    report.claim("a tap shows the requests that match, each once", exact, figures.join(", "));
    report.claim(
        "both sides are shown where that is asked for",
        sides("source") == 5 && sides("destination") == 5,
        format!("source {}, destination {}", sides("source"), sides("destination")),
    );
    let of_h2 = here.iter().all(|event| event["node"] == "h2");
    report.claim("and one node's where that is", of_h2, format!("{} of h2", here.len()));
    report.claim(
        "an object agrees with the line of the access log",
        disagreements.is_empty() && !broken.is_empty(),
        if disagreements.is_empty() { one.to_string() } else { disagreements.join("; ") },
    );
    let same_route = one["route"]["resource"] == explained["route"]["resource"]
        && one["route"]["rule"] == explained["route"]["rule"]
        && one["version"] == version;
    report.claim("and with explain", same_route, format!("{} {}", one["route"], explained["route"]));
    let parties = first["source"]["workload"] == "productpage-v1"
        && first["source"]["identity"] == "spiffe://cluster.local/ns/default/sa/bookinfo-productpage"
        && first["destination"]["service"] == "reviews.default.svc.cluster.local"
        && first["destination"]["workload"] == "reviews-v1"
        && first["destination"]["namespace"] == "default"
        && first["attempts"] == 1;
    report.claim("who calls whom is named", parties, format!("{} {}", first["source"], first["destination"]));
    let redacted = secrets.contains("\"authorization\":\"***\"")
        && secrets.contains("\"x-session-token\":\"***\"")
        && secrets.contains("\"x-user\":\"jason\"")
        && secrets.contains("response_headers")
        && !secrets.contains("open-sesame")
        && !secrets.contains("x-mesh-");
    report.claim("credentials are not shown", redacted, secrets.chars().take(200).collect::<String>());
    report.claim(
        "a tap that is killed ends everywhere",
        left.is_some_and(|time| time < Duration::from_secs(3)) && none.is_some(),
        format!("{left:?}"),
    );
    Ok(())
}

/// Where an object differs from the line of its request.
fn disagree(event: &Value, log: &[Value]) -> Vec<String> {
    let Some(line) = log.iter().find(|line| line["request_id"] == event["request_id"]) else {
        return vec![format!("no line of {}", event["request_id"])];
    };
    let mut found = Vec::new();
    for (name, theirs) in [
        ("method", "method"),
        ("path", "path"),
        ("authority", "authority"),
        ("status", "response_code"),
        ("flags", "response_flags"),
        ("version", "snapshot_version"),
        ("details", "response_code_details"),
        ("cluster", "upstream_cluster"),
        ("endpoint", "upstream_host"),
        ("bytes_sent", "bytes_sent"),
        ("protocol", "protocol"),
    ] {
        if event[name] != line[theirs] {
            found.push(format!("{name}: {} is not {}", event[name], line[theirs]));
        }
    }
    let logged = line["duration"].as_f64().unwrap_or(-1.0);
    if event["duration_ms"].as_f64().is_none_or(|ms| ms.floor() != logged) {
        found.push(format!("duration: {} is not {logged}", event["duration_ms"]));
    }
    found
}

fn past(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.control.apply_text(&reviews_rules(BROKEN))?;
    for number in 0..4 {
        let broken = Ask::get(format!("{HEALTH}?tap-past")).header("x-break", "1");
        ask(lab, &format!("tap-past-{number}"), broken)?;
        ask(lab, &format!("tap-good-{number}"), Ask::get(format!("{HEALTH}?tap-past")))?;
    }
    // What is over is remembered as its record is dropped, a moment after the answer.
    std::thread::sleep(Duration::from_millis(500));
    let last = |arguments: &[&str]| {
        let all = ["tap", "-o", "json", "--last", "5m", "--path", "/health?tap-past"].iter().chain(arguments);
        lab.control.must(all.copied())
    };
    let read = |out: &str| -> Vec<Value> {
        out.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    let broken = read(&last(&["--status", "5xx"])?.out);
    let all = read(&last(&[])?.out);
    let two = read(&last(&["--limit", "2"])?.out);
    let times: Vec<&str> = all.iter().filter_map(|event| event["time"].as_str()).collect();
    let right = broken.len() == 4
        && ids(&broken).iter().all(|id| id.starts_with("tap-past-"))
        && broken.iter().all(|event| event["status"] == 503 && event["flags"] == "FI");
    let report = &mut context.report;
    report.claim(
        "what failed in the last minutes is shown after the fact",
        right,
        format!("{}", broken.len()),
    );
    report.claim(
        "in the order of time, each once, the newest where there is a limit",
        all.len() == 8
            && ids(&all).len() == 8
            && times.is_sorted()
            && two == all[all.len().saturating_sub(2)..],
        format!("{} objects, {times:?}", all.len()),
    );
    let usage = context.lab()?.control.cli(["tap", "--last", "5m", "-H", "a: b"])?;
    context.report.claim("fields are not remembered, and that is said", usage.code == 2, usage.err);
    let wrong = context.lab()?.control.cli(["tap", "--status", "often"])?;
    context.report.claim("a filter that means nothing is refused", wrong.code == 1, wrong.err);
    Ok(())
}

fn spec(count: Option<usize>, pause: Duration) -> LoadSpec {
    let ask = Ask::get(format!("{HEALTH}?tap-load"));
    LoadSpec { ask, connections: 4, pause, count, judge: status }
}

fn limit(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let arguments = ["--path", "/health?tap-load", "--max-rps", "10"];
    let mut tap = Tap::start(lab, "tap-limit", &arguments)?;
    let begun = tapped(lab, 1, 0).is_some();
    let began = Instant::now();
    let tally = Load::run(lab.h1(), lab.user("productpage-v1"), spec(Some(2000), Duration::ZERO));
    let took = began.elapsed();
    std::thread::sleep(Duration::from_secs(1));
    tap.0.signal(Signal::INT)?;
    let ended = tap.0.wait(PATIENCE)?;
    let shown = tap.shown().len();
    let words = tap.0.stderr();
    let left = words
        .lines()
        .rev()
        .find_map(|line| line.strip_suffix(" requests matched and were not shown (limit 10 rps)"))
        .and_then(|count| count.trim().parse::<usize>().ok());
    // A bucket of ten, and ten a second.
    let most = 10 + 10 * (took.as_secs() as usize + 2);
    let report = &mut context.report;
    report.claim(
        "a tap is limited, and says how many it left out",
        begun && (10..=most).contains(&shown) && left.is_some_and(|left| left + shown == tally.total),
        format!("{shown} shown in {took:?}, {left:?} left out of {}", tally.total),
    );
    report.claim("interrupted, it ends well", ended.success(), ended.to_string());
    report.claim("no request is harmed", tally.count("200") == tally.total, tally.figure());
    Ok(())
}

fn stopped(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let arguments = ["--path", "/health?tap-load", "--max-rps", "100000", "--show-headers"];
    let mut tap = Tap::start(lab, "tap-stopped", &arguments)?;
    let begun = tapped(lab, 1, 0).is_some();
    tap.0.signal(Signal::STOP)?;
    let tally = Load::run(lab.h1(), lab.user("productpage-v1"), spec(Some(6000), Duration::ZERO));
    // Another sees everything meanwhile.
    let other = Tap::start(lab, "tap-other", &["--path", "/health?tap-other"])?;
    let second = tapped(lab, 2, 0).is_some();
    ask(lab, "tap-other", Ask::get(format!("{HEALTH}?tap-other")))?;
    let seen = other.settled(1).len();
    tap.0.signal(Signal::CONT)?;
    std::thread::sleep(Duration::from_secs(2));
    tap.0.signal(Signal::INT)?;
    tap.0.wait(PATIENCE)?;
    let (shown, words) = (tap.shown().len(), tap.0.stderr());
    let lost = words.lines().find_map(|line| line.split_once(" requests matched and were lost"));
    let lost: usize = lost.and_then(|(count, _)| count.trim().parse().ok()).unwrap_or(0);
    drop(other);
    let none = tapped(lab, 0, 0).is_some();
    let report = &mut context.report;
    report.claim(
        "a reader that stops harms no request",
        begun && tally.count("200") == tally.total,
        tally.figure(),
    );
    report.claim("nor another reader", second && seen == 1, format!("{seen}"));
    report.claim(
        "what it missed is counted",
        shown + lost == tally.total,
        format!("{shown} shown, {lost} lost of {}", tally.total),
    );
    report.claim("afterwards nothing is left of it", none, format!("{none}"));
    Ok(())
}

fn alarm(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let load = Load::start(
        lab.h1(),
        lab.user("productpage-v1"),
        LoadSpec { connections: 2, ..spec(None, Duration::from_millis(20)) },
    );
    std::thread::sleep(Duration::from_secs(21));
    let early = metric(lab, 0, "mesh_proxy_flight_saves_total ").unwrap_or(0.0);
    lab.control.apply_text(&reviews_rules(
        "    - fault: {abort: {httpStatus: 503, percentage: {value: 100}}}
      route: [{destination: {host: reviews, subset: v1}}]\n",
    ))?;
    let began = Instant::now();
    let saves = || metric(lab, 0, "mesh_proxy_flight_saves_total ").unwrap_or(0.0);
    while saves() == 0.0 && began.elapsed() < Duration::from_secs(45) {
        std::thread::sleep(Duration::from_millis(500));
    }
    let (took, saved) = (began.elapsed(), saves());
    let tally = load.stop();
    let listed = lab.control.must(["tap", "--saved", "-o", "json"])?.out;
    let rows: Vec<Value> = listed.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let row = rows.iter().find(|row| row["node"] == "h1").cloned().unwrap_or_default();
    let name = format!("{}@h1", row["name"].as_str().unwrap_or_default());
    let out = lab.control.cli(["tap", "-o", "json", "--saved", &name])?;
    let kept: Vec<Value> = out.out.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let failed = kept.iter().filter(|event| event["status"] == 503).count();
    let good = kept.iter().filter(|event| event["status"] == 200).count();
    let file = lab.proxies[0].data().join("flight").join(row["name"].as_str().unwrap_or_default());
    let mode = std::fs::metadata(&file).map_or(0, |file| file.permissions().mode() & 0o777);
    let warning = lab.proxies[0].running()?.stderr();
    let warning = warning.lines().find(|line| line.contains("success of reviews.default")).map(str::to_owned);
    let strange = lab.control.cli(["tap", "--saved", "../node.key@h1"])?;
    let report = &mut context.report;
    report.claim(
        "requests are saved when a service's success falls, not before",
        early == 0.0 && saved == 1.0,
        format!("{early} before, {saved} after {took:?}, {}", tally.figure()),
    );
    report.claim(
        "what is saved holds those before and those that failed",
        out.code == 0 && failed > 0 && good > 0,
        format!("{name}: {good} good, {failed} failed"),
    );
    report.claim("nobody else may read it", mode == 0o600, format!("{mode:o}"));
    report.claim("the log says so once, with the rates", warning.is_some(), warning.unwrap_or_default());
    report.claim("other files are not handed out", strange.code == 1, strange.err);
    Ok(())
}
