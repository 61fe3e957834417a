//! What it costs to know: metrics, reports, the access log and `tap`, each beside a pair that does without it.
//!
//! A few per cent are less than what neighbours do to the time of a run, so instructions are counted (callgrind): two
//! runs of different length, whose difference is requests alone. What `tap` costs depends on the rate, so that is timed.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use super::mesh::{self, How, Operator};
use super::peers;
use super::setup::{LOAD_CPU, Setup};
use crate::harness::isolate::Inside;
use crate::harness::lab::programs;
use crate::harness::netns::Namespace;
use crate::harness::process::Spec;
use crate::report::Report;

/// The bars: per cent more than without.
const METRICS: f64 = 3.0;
const RECORDER: f64 = 2.0;
const LOG: f64 = 15.0;
const TAP: f64 = 2.0;
/// Requests of the short and the long run.
const COUNTS: [u64; 2] = [1_000, 5_000];
/// Requests a second beside `tap`, and the connections that they come over.
const RATE: u64 = 10_000;
const CONNECTIONS: u64 = 20;
/// Programs are slow under callgrind.
const PATIENCE: Duration = Duration::from_secs(120);

const NOTHING: &str = "
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: nothing, namespace: istio-system}
spec:
  metrics: [{overrides: [{match: {metric: ALL_METRICS}, disabled: true}]}]
";
const SILENT: [&str; 4] = ["--report-interval", "0", "--flight-recorder", "0"];
const FORGETFUL: [&str; 2] = ["--flight-recorder", "0"];
const CALLGRIND: [&str; 3] = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"];

/// Counts and times, and prints how much more each costs.
pub(super) fn run(inside: &Inside, report: &mut Report, rounds: usize, seconds: u64) -> anyhow::Result<()> {
    report.title("What it costs to know: instructions of a request through both proxies, outside the kernel");
    let folder = inside.scratch.join("logs").join("telemetry");
    let host = Namespace::lonely("bench", &mesh::HOSTS)?;
    let counted = |report: &mut Report, name: &str, how: How<'_>| -> anyhow::Result<f64> {
        let each = instructions(&host, &folder.join(name.replace(' ', "-")), &how)?;
        report.say(&format!("  {name:26} {each:9.0} instructions"));
        Ok(each)
    };
    let nothing = How { log: "off", flags: &SILENT, declared: NOTHING, ..How::default() };
    let nothing = counted(report, "nothing", nothing)?;
    let forgetful = How { flags: &FORGETFUL, ..How::logging("off") };
    let told = counted(report, "metrics and reports", forgetful)?;
    let known = counted(report, "and the flight recorder", How::logging("off"))?;
    let file = folder.join("access.log").display().to_string();
    let declared =
        format!("\napiVersion: v1\nkind: MeshConfig\naccessLogFile: {file}\naccessLogEncoding: JSON\n");
    let logged = counted(report, "and a JSON log", How { declared: &declared, ..How::logging("off") })?;
    let more = |with: f64, without: f64| (with / without - 1.0) * 100.0;
    let beside =
        |with: f64, without: f64| format!("{:.1} % ({with:.0} and {without:.0})", more(with, without));
    report.claim(
        format!("metrics and reports cost at most {METRICS} % of a request"),
        more(told, nothing) <= METRICS,
        beside(told, nothing),
    );
    report.claim(
        format!("what proxies remember of single requests costs at most {RECORDER} %"),
        more(known, told) <= RECORDER,
        beside(known, told),
    );
    report.claim(
        format!("an access log in JSON to a file costs at most {LOG} %"),
        more(logged, known) <= LOG,
        beside(logged, known),
    );
    tapped(report, &host, &folder.join("tap"), (rounds, seconds))
}

/// Instructions of one request in both proxies.
fn instructions(host: &Namespace, folder: &Path, how: &How<'_>) -> anyhow::Result<f64> {
    let how = How { under: &CALLGRIND, ..*how };
    let mut collected = [0; 2];
    for (count, sum) in COUNTS.into_iter().zip(&mut collected) {
        let mut setup = Setup::new(host, &folder.join(count.to_string()))?;
        let _operator = mesh::pair(&mut setup, &programs()?, &how)?;
        setup.wait_ready()?;
        let load = load(&setup, &["-c", "8", "-n", &count.to_string()])?;
        anyhow::ensure!(load.succeeded == count, "{} of {count} requests succeeded", load.succeeded);
        for told in setup.end_proxies(PATIENCE)? {
            *sum += collected_in(&told).context("callgrind counted nothing")?;
        }
    }
    let [short, long] = collected;
    Ok(long.saturating_sub(short) as f64 / (COUNTS[1] - COUNTS[0]) as f64)
}

/// `==17== Collected : 360113`.
fn collected_in(told: &str) -> Option<u64> {
    told.lines().rev().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
}

/// What h2load says of its requests.
struct Load {
    sent: u64,
    succeeded: u64,
}

fn load(setup: &Setup, how: &[&str]) -> anyhow::Result<Load> {
    let spec = Spec::new("h2load", &peers::program("h2load")?)
        .args(["--h1", "-t", "1", "-H"])
        .args([format!(":authority: {}", setup.host_header)])
        .args(how)
        .args([format!("http://{}/", setup.entry)])
        .cpu(Some(LOAD_CPU));
    let mut process = spec.start(&setup.host, &setup.folder)?;
    process.wait(PATIENCE)?;
    let out = process.stdout();
    let line =
        out.lines().rev().find(|line| line.starts_with("requests: ")).context("h2load printed no sum")?;
    let number = |what: &str| {
        let before = line.split(',').find(|part| part.trim_end().ends_with(what))?;
        before.split_whitespace().rev().nth(1)?.parse().ok()
    };
    let statuses = out
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("status codes: ")?.split(' ').next()?.parse().ok());
    Ok(Load {
        sent: number("done").context("h2load has done nothing")?,
        succeeded: statuses.context("h2load tells no status")?,
    })
}

/// The CPU of the proxies at a fixed rate, with and without somebody who taps.
fn tapped(
    report: &mut Report,
    host: &Namespace,
    folder: &Path,
    (rounds, seconds): (usize, u64),
) -> anyhow::Result<()> {
    report.title(&format!("tap beside {RATE} requests a second"));
    let mut setup = Setup::new(host, folder)?;
    let operator = mesh::pair(&mut setup, &programs()?, &How::logging("off"))?;
    setup.wait_ready()?;
    let mut shares = [Vec::new(), Vec::new()];
    let mut lost = 0;
    for _ in 0..rounds.max(5) {
        for (with, all) in shares.iter_mut().enumerate() {
            let (share, failed) = share(&setup, &operator, with == 1, seconds)?;
            all.push(share);
            lost += failed;
        }
    }
    let [without, with] = shares.map(|mut all| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    });
    report.claim(
        format!("tap costs at most {TAP} % of a CPU on each proxy"),
        (with - without) / 2.0 <= TAP / 100.0,
        format!("both {:.1} % of a CPU with it, {:.1} % without", with * 100.0, without * 100.0),
    );
    report.claim("and loses no request", lost == 0, format!("{lost} failed"));
    Ok(())
}

/// The part of a CPU that both proxies take, and the requests that failed.
fn share(setup: &Setup, operator: &Operator, with: bool, seconds: u64) -> anyhow::Result<(f64, u64)> {
    let tap = operator.command("tap", &["tap", "-o", "json"]).cpu(Some(LOAD_CPU));
    let mut tap = with.then(|| tap.start(&setup.host, &setup.folder)).transpose()?;
    if let Some(tap) = &mut tap {
        tap.wait_for_line("{", Duration::from_millis(1)).ok();
    }
    let before = setup.used()?;
    let (rate, clients, time) =
        ((RATE / CONNECTIONS).to_string(), CONNECTIONS.to_string(), seconds.to_string());
    let load = load(setup, &["-c", &clients, "--rps", &rate, "-D", &time])?;
    let spent = setup.used()? - before;
    if let Some(mut tap) = tap {
        let told = tap.stdout();
        tap.terminate(PATIENCE)?;
        anyhow::ensure!(told.contains("\"status\""), "tap showed nothing");
    }
    Ok((spent.as_secs_f64() / seconds as f64, load.sent.saturating_sub(load.succeeded)))
}

#[cfg(test)]
mod tests {
    use super::collected_in;

    #[test]
    fn the_last_count_is_read() {
        assert_eq!(collected_in("==17== Collected : 360113\n"), Some(360_113));
        assert_eq!(collected_in("nothing"), None);
    }
}
