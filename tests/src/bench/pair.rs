//! CPU per request of pairs of proxies: HTTP/1.1 in, mutual TLS between, HTTP/1.1 out; 32 connections, 1 KiB answers.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};

use super::mesh::How;
use super::setup::Setup;
use super::{cpu, mesh, peers};
use crate::harness::isolate::Inside;
use crate::harness::lab::programs;
use crate::harness::netns::Namespace;
use crate::harness::process::Spec;
use crate::report::Report;

/// The bar: at most so many times the CPU of HAProxy's HTTP/2 pair in the same run.
const BAR: f64 = 1.5;
/// A run of which the hypervisor took more than this share is repeated once.
pub(super) const DISTURBED: f64 = 0.08;

const NAMES: [&str; 4] = ["mesh", "mesh, access log off", "haproxy h2", "nginx h1"];

/// One measured run.
#[derive(Clone, Copy, Debug)]
struct Run {
    micros: f64,
    rate: f64,
    p99_micros: f64,
}

/// Measures all pairs in turns and prints the table.
pub(super) fn run(inside: &Inside, report: &mut Report, rounds: usize, seconds: u64) -> anyhow::Result<()> {
    report.title("Pairs of proxies: h1 in, mutual TLS 1.3 between, h1 out; 32 connections, 1 KiB answers");
    let folder = inside.scratch.join("logs").join("pair");
    let certificates = folder.join("certificates");
    peers::certificates(&certificates)?;
    let host = Namespace::lonely("bench", &mesh::HOSTS)?;
    let fixed = host.run(None, || std::fs::write("/proc/sys/net/ipv4/tcp_congestion_control", "reno"))?;
    if let Err(error) = fixed {
        report.say(&format!("  (congestion control stays what it is: {error})"));
    }
    let mut results: BTreeMap<&str, Vec<Run>> = BTreeMap::new();
    for round in 1..=rounds {
        for (number, name) in NAMES.into_iter().enumerate() {
            let place = folder.join(format!("{round}-{number}"));
            match measured(&host, &place, name, &certificates, seconds) {
                Ok(run) => {
                    report.say(&format!(
                        "  round {round} {name:22} {:6.1} us/request {:7.0} requests/s  p99 {:.0} us",
                        run.micros, run.rate, run.p99_micros
                    ));
                    results.entry(name).or_default().push(run);
                }
                Err(error) => report.say(&format!("  round {round} {name:22} {error:#}")),
            }
        }
    }
    let middle = |name: &str| -> Option<f64> {
        let mut all: Vec<f64> = results.get(name)?.iter().map(|r| r.micros).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied()
    };
    let reference = middle("haproxy h2");
    for name in NAMES {
        if let Some(micros) = middle(name) {
            let ratio = reference.map_or_else(String::new, |r| format!("  {:.2}x of haproxy h2", micros / r));
            report.say(&format!("  {name:22} {micros:6.1} us CPU a request{ratio}"));
        }
    }
    match (middle("mesh"), reference) {
        (Some(ours), Some(theirs)) => {
            let ratio = ours / theirs;
            let figure = format!("{ratio:.2}x ({ours:.1} and {theirs:.1} us)");
            report.claim(format!("our pair costs at most {BAR}x of HAProxy's h2 pair"), ratio <= BAR, figure);
        }
        (None, _) => {
            report.claim("our pair is measured", false, "no run of it succeeded");
        }
        (_, None) => report.skip("our pair beside HAProxy's", "HAProxy could not be measured"),
    }
    Ok(())
}

fn measured(
    host: &Namespace,
    place: &Path,
    name: &str,
    certificates: &Path,
    seconds: u64,
) -> anyhow::Result<Run> {
    let mut setup = Setup::new(host, place)?;
    match name {
        "haproxy h2" => peers::haproxy_pair(&mut setup, certificates)?,
        "nginx h1" => peers::nginx_pair(&mut setup, certificates)?,
        "mesh" => drop(mesh::pair(&mut setup, &programs()?, &How::logging("json"))?),
        _ => drop(mesh::pair(&mut setup, &programs()?, &How::logging("off"))?),
    }
    setup.wait_ready()?;
    load(&setup, 1)?;
    let (run, disturbed) = load(&setup, seconds)?;
    if disturbed > DISTURBED {
        return Ok(load(&setup, seconds)?.0);
    }
    Ok(run)
}

/// One run of wrk, and the share of it that the hypervisor took.
fn load(setup: &Setup, seconds: u64) -> anyhow::Result<(Run, f64)> {
    let url = format!("http://{}/", setup.entry);
    let spec = Spec::new("wrk", &peers::program("wrk")?)
        .args(["-t1", "-c32", &format!("-d{seconds}s"), "--latency", "--timeout", "4s"])
        .args(["-H", &format!("Host: {}", setup.host_header), &url])
        .cpu(Some(super::setup::LOAD_CPU));
    let (before, stolen) = (setup.used()?, cpu::stolen());
    let mut process = spec.start(&setup.host, &setup.folder)?;
    process.wait(Duration::from_secs(seconds + 20))?;
    let spent = setup.used()? - before;
    let out = process.stdout();
    let number = |line: &str| -> Option<f64> {
        out.lines().find_map(|l| l.trim().strip_prefix(line)).and_then(micros)
    };
    let requests =
        out.lines().find_map(|l| l.trim().split_once(" requests in ")).context("wrk printed no sum")?;
    let requests: f64 = requests.0.parse()?;
    if requests == 0.0 || out.contains("Non-2xx") {
        bail!("bad answers: {out}");
    }
    let run = Run {
        micros: spent.as_secs_f64() * 1e6 / requests,
        rate: requests / seconds as f64,
        p99_micros: number("99%").unwrap_or(0.0),
    };
    Ok((run, (cpu::stolen() - stolen) as f64 / 100.0 / seconds as f64))
}

/// A time as wrk prints it.
fn micros(text: &str) -> Option<f64> {
    let text = text.trim();
    let at = text.find(|c: char| c.is_alphabetic())?;
    let number: f64 = text[..at].parse().ok()?;
    let unit = match &text[at..] {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        _ => return None,
    };
    Some(number * unit)
}

#[cfg(test)]
mod tests {
    use super::micros;

    #[test]
    fn times_are_read() {
        assert_eq!(micros("  412.00us"), Some(412.0));
        assert_eq!(micros("1.50ms"), Some(1500.0));
        assert_eq!(micros("2.00s"), Some(2e6));
        assert_eq!(micros("soon"), None);
    }
}
