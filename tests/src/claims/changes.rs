//! Configuration that changes while traffic goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::{Claim, Context, shared};
use crate::harness::client::{Answer, Ask, Client};
use crate::harness::lab::Lab;
use crate::harness::load::{Load, LoadSpec};
use crate::harness::wire::Capture;

pub(super) fn claims() -> Vec<Claim> {
    vec![
        shared("changes/under-load", under_load),
        shared("changes/latency", latency),
        shared("changes/one-slice", one_slice),
    ]
}

const SUBSETS: [&str; 3] = ["v1", "v2", "v3"];

/// Reviews by change number: the subset follows from it and the answer names it.
fn numbered(change: u64) -> String {
    super::routing::reviews_rules(&format!(
        "    - headers: {{response: {{set: {{x-change: '{change}'}}}}}}
      route: [{{destination: {{host: reviews, subset: {}}}}}]\n",
        SUBSETS[(change % 3) as usize]
    ))
}

/// The change that decided an answer, if the instance is the one that it sends to.
fn decided(answer: &Answer) -> Result<String, String> {
    let change = answer.header("x-change");
    let Ok(number) = change.parse::<u64>() else {
        return Err(format!("status {} without a change", answer.status));
    };
    let version = answer.json()["version"].as_str().unwrap_or("?").to_owned();
    if answer.status != 200 || version != SUBSETS[(number % 3) as usize] {
        return Err(format!("change {change} answered {} by {version}", answer.status));
    }
    Ok(change.to_owned())
}

fn under_load(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.control.apply_text(&numbered(0))?;
    let load = Load::start(
        lab.h1(),
        lab.user("productpage-v1"),
        LoadSpec {
            ask: Ask::get("http://reviews:9080/health?under-load"),
            connections: 8,
            pause: Duration::from_millis(5),
            count: None,
            judge: decided,
        },
    );
    let mut versions = BTreeMap::new();
    for change in 1..=300 {
        let file = lab.control.file(numbered(change))?;
        let version = lab.control.must(["apply", "-f", &file.display().to_string()])?.version()?;
        versions.insert(version, change);
        std::fs::remove_file(file)?;
    }
    lab.control.must(["wait", "--synced", "--timeout", "20s"])?;
    let since = load.elapsed();
    std::thread::sleep(Duration::from_millis(300));
    let last = load.tally_since(since);
    let tally = load.stop();
    let different = tally.counts.len();
    let figure = format!(
        "{} requests under {different} different configurations, {} failed or misrouted {:?}",
        tally.total,
        tally.failed(),
        tally.failures
    );
    let last_holds = last.counts.keys().all(|k| k == "300") && last.total > 0;
    std::thread::sleep(Duration::from_millis(1200));
    let log = logged(lab, &versions);
    context.report.claim(
        "300 changes under load: no request fails or goes astray",
        tally.failed() == 0 && different > 30,
        figure,
    );
    context.report.claim("after the last change it alone decides", last_holds, last.figure());
    context.report.attempt("each log line names the version that decided", log);
    Ok(())
}

/// Compares the log of the caller's proxy with what each version was to do.
fn logged(lab: &Lab, versions: &BTreeMap<u64, u64>) -> anyhow::Result<(bool, String)> {
    let (mut right, mut wrong, mut seen) = (0, Vec::new(), BTreeSet::new());
    for line in lab.proxies[0].access_log() {
        if !line["path"].as_str().is_some_and(|p| p.contains("under-load")) {
            continue;
        }
        let names = ["version", "config_version", "mesh_version", "snapshot_version"];
        let version =
            names.iter().find_map(|n| line[*n].as_u64().or_else(|| line[*n].as_str()?.parse().ok()));
        let version = version.with_context(|| format!("a log line without a version: {line}"))?;
        let Some(change) = versions.get(&version) else { continue };
        seen.insert(version);
        let expected = format!("|{}|", SUBSETS[(change % 3) as usize]);
        if line["upstream_cluster"].as_str().is_some_and(|c| c.contains(&expected)) {
            right += 1;
        } else {
            wrong.push(line.to_string());
        }
    }
    let figure =
        format!("{right} lines of {} versions agree, {} do not {:?}", seen.len(), wrong.len(), wrong.first());
    Ok((wrong.is_empty() && seen.len() > 30, figure))
}

/// From the start of `meshd apply` until the last of three callers, one a host, is served by it.
fn latency(context: &mut Context<'_>) -> anyhow::Result<()> {
    let mut times = measure(context.lab()?, 25)?;
    times.sort();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    context.report.claim(
        "from apply to the last of three proxies serving it",
        median < Duration::from_millis(150),
        format!(
            "median {median:.1?}, worst {worst:.1?} of {} (debug build, the command's own start included)",
            times.len()
        ),
    );
    Ok(())
}

/// The times of so many changes, the operator's command included.
pub fn measure(lab: &Lab, changes: u64) -> anyhow::Result<Vec<Duration>> {
    let began = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let callers = [(0, "productpage-v1"), (1, "reviews-v2"), (2, "reviews-v3")];
    let mut seen: Vec<Arc<Vec<AtomicU64>>> = Vec::new();
    let mut threads = Vec::new();
    lab.control.apply_text(&numbered(1000))?;
    for (host, app) in callers {
        let first: Arc<Vec<AtomicU64>> = Arc::new((0..changes).map(|_| AtomicU64::new(0)).collect());
        seen.push(first.clone());
        let stop = stop.clone();
        threads.push(lab.proxies[host].host.spawn(lab.user(app), move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
                return;
            };
            tokio::task::LocalSet::new().block_on(&runtime, async {
                let (mut client, ask) = (Client::default(), Ask::get("http://reviews:9080/health"));
                while !stop.load(Ordering::Relaxed) {
                    if let Ok(answer) = client.ask(&ask).await
                        && let Ok(number) = answer.header("x-change").parse::<usize>()
                        && let Some(cell) = first.get(number)
                    {
                        let now = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                        let _ = cell.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
        }));
    }
    let mut times = Vec::new();
    for change in 0..changes {
        let file = lab.control.file(numbered(change))?;
        let at = began.elapsed();
        lab.control.must(["apply", "-f", &file.display().to_string()])?;
        let end = Instant::now() + Duration::from_secs(5);
        let last = loop {
            let cells: Vec<u64> = seen.iter().map(|s| s[change as usize].load(Ordering::Relaxed)).collect();
            if cells.iter().all(|c| *c > 0) {
                break cells.into_iter().max().unwrap_or(0);
            }
            if Instant::now() > end {
                anyhow::bail!("change {change} does not arrive at all hosts: {cells:?}");
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        times.push(Duration::from_micros(last).saturating_sub(at));
        std::thread::sleep(Duration::from_millis(30));
    }
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        drop(thread.join());
    }
    Ok(times)
}

/// A thousand endpoints of which one changes: the bytes from meshd to one proxy tell what was sent.
fn one_slice(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let thousand = |changed: u16| {
        let mut text = String::from(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: thousand, namespace: default}\n\
             spec:\n  hosts: [thousand.example]\n  location: MESH_EXTERNAL\n  resolution: STATIC\n\
             \x20 ports: [{number: 8080, name: http, protocol: HTTP}]\n  endpoints:\n",
        );
        for number in 0..1000u16 {
            let last = if number == 500 { changed } else { number % 250 };
            text.push_str(&format!(
                "    - {{address: 10.9.{}.{last}, labels: {{row: r{number}}}}}\n",
                number / 250
            ));
        }
        text
    };
    let sent = |text: &str| -> anyhow::Result<usize> {
        let capture = Capture::start()?;
        lab.control.apply_text(text)?;
        let seen = capture.stop()?;
        // Each segment passes two cables; the two ends are told apart by the address of the first host.
        let h1 = Ipv4Addr::new(10, 77, 0, 11);
        let bytes: usize =
            seen.iter().filter(|s| s.from.port() == 15012 && *s.to.ip() == h1).map(|s| s.payload.len()).sum();
        Ok(bytes)
    };
    let (all, one) = (sent(&thousand(0))?, sent(&thousand(251))?);
    context.report.claim(
        "one endpoint of a thousand changes: about one slice of a hundred is sent",
        one > 0 && one * 5 < all,
        format!("{all} bytes for all, {one} for one"),
    );
    Ok(())
}
