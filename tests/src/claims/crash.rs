//! Processes that die, are killed, or are asked to go.

use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::{Claim, Context, alone, shared};
use crate::harness::bookshop::version;
use crate::harness::client::Ask;
use crate::harness::lab::{Lab, yaml};
use crate::harness::load::{Load, LoadSpec};

pub(super) fn claims() -> Vec<Claim> {
    vec![
        shared("crash/last-good", last_good),
        shared("crash/control-killed", control_killed),
        alone("crash/fifty-kills", fifty_kills),
        shared("crash/drain-server", drain_server),
        shared("crash/drain-caller", drain_caller),
        shared("crash/ten-thousand", ten_thousand),
    ]
}

fn last_good(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.control.apply(&yaml("demo/2-reviews-0-100.yaml"))?;
    lab.control.kill()?;
    // What came in force is written at most a tenth of a second later.
    std::thread::sleep(Duration::from_millis(500));
    let mut versions = Vec::new();
    for proxy in &mut lab.proxies {
        proxy.running()?.kill()?;
        proxy.launch()?;
    }
    for proxy in &mut lab.proxies {
        versions.push(proxy.wait_ready()?);
    }
    let tally = lab.pages(lab.page(), 100);
    let ready = lab.proxies[0].local(15021, "/healthz/ready")?.status;
    let says = lab.control.start()?;
    lab.control.wait_for_proxies(3)?;
    let next = lab.control.apply(&yaml("demo/1-all-v1.yaml"))?;
    let after = lab.pages(lab.page(), 100);
    context.report.claim(
        "three proxies killed and started while meshd is down serve the last good snapshot",
        tally.is_share("v3", 1.0) && ready == 200,
        format!("versions {versions:?}, ready {ready}; {}", tally.figure()),
    );
    context.report.claim(
        "and take changes again when it is back",
        next == says + 1 && after.is_share("v1", 1.0),
        after.figure(),
    );
    Ok(())
}

fn control_killed(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let spec = LoadSpec {
        ask: lab.page(),
        connections: 4,
        pause: Duration::from_millis(10),
        count: None,
        judge: crate::harness::bookshop::whole_page,
    };
    let load = Load::start(lab.h1(), None, spec);
    for _ in 0..3 {
        lab.control.kill()?;
        std::thread::sleep(Duration::from_millis(400));
        lab.control.start()?;
        lab.control.wait_for_proxies(3)?;
    }
    std::thread::sleep(Duration::from_millis(300));
    let tally = load.stop();
    context.report.claim(
        "meshd killed and started three times under traffic: nothing fails",
        tally.failed() == 0 && tally.total > 50,
        tally.figure(),
    );
    Ok(())
}

/// A change that was acknowledged is there after the next start, wherever the kill struck.
fn fifty_kills(context: &mut Context<'_>) -> anyhow::Result<()> {
    let scratch = context.scratch()?;
    let mut lab = Lab::lay_out(context.inside, &scratch)?;
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64 ^ u64::from(std::process::id());
    let (mut acknowledged, mut version, mut lost, mut rounds) = (0u64, 0, Vec::new(), 0);
    for round in 0..50 {
        let says =
            lab.control.start().with_context(|| format!("starting in round {round} (seed {seed:x})"))?;
        if says < version {
            lost.push(format!("version {version} was acknowledged, {says} came back"));
        }
        if acknowledged > 0 {
            let name = format!("kept-{acknowledged}");
            let found = lab.control.cli(["get", "virtualservice", &name, "-o", "json"])?;
            if found.code != 0 {
                lost.push(name);
            }
        }
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pid = lab.control.process.as_ref().context("meshd does not run")?.pid();
        let delay = Duration::from_millis(5 + (seed >> 33) % 120);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(delay);
            let pid = rustix::process::Pid::from_raw(pid.cast_signed());
            pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL))
        });
        for change in acknowledged + 1.. {
            let file = lab.control.file(kept(change))?;
            let said = lab.control.cli(["apply", "-f", &file.display().to_string()])?;
            std::fs::remove_file(file)?;
            if said.code != 0 {
                break;
            }
            (acknowledged, version) = (change, said.version()?);
        }
        drop(killer.join());
        lab.control.kill()?;
        rounds += 1;
    }
    lab.control.start()?;
    let all = lab.control.must(["get", "virtualservice", "-o", "json"])?.json()?;
    let count = all.as_array().or_else(|| all["items"].as_array()).map_or(0, Vec::len) as u64;
    context.report.claim(
        "meshd killed in the middle of a stream of applies, 50 times: nothing acknowledged is lost",
        lost.is_empty() && count >= acknowledged && acknowledged > 50,
        format!("{rounds} rounds, {acknowledged} applies acknowledged, {count} there, lost {lost:?}"),
    );
    Ok(())
}

fn kept(number: u64) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: kept-{number}, namespace: default}}\n\
         spec: {{hosts: [kept-{number}.example], http: [{{directResponse: {{status: 200}}}}]}}\n"
    )
}

/// The proxy of a server's host is asked to go: callers move to other hosts before it goes.
fn drain_server(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let spec = LoadSpec {
        ask: Ask::get("http://reviews:9080/slow/20"),
        connections: 8,
        pause: Duration::ZERO,
        count: None,
        judge: version,
    };
    let load = Load::start(lab.h1(), lab.user("productpage-v1"), spec);
    std::thread::sleep(Duration::from_millis(700));
    let before = load.tally();
    let status = lab.proxies[1].running()?.terminate(Duration::from_secs(35))?;
    let since = load.elapsed();
    std::thread::sleep(Duration::from_millis(500));
    let after = load.tally_since(since);
    let tally = load.stop();
    lab.proxies[1].launch()?;
    lab.proxies[1].wait_ready()?;
    lab.wait_serving()?;
    let moved = before.count("v1") > 0 && after.is_share("v3", 1.0);
    context.report.claim(
        "SIGTERM of a server's proxy under load: no request fails, exit 0",
        tally.failed() == 0 && status.code() == Some(0) && moved,
        format!("{}; {status}", tally.figure()),
    );
    Ok(())
}

/// The caller's own proxy is asked to go: what is under way comes to its end.
fn drain_caller(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let (host, user) = (lab.h1().clone(), lab.user("productpage-v1"));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let host = host.clone();
            std::thread::spawn(move || {
                Ask::get("http://reviews:9080/slow/1500").send(&host, user).map(|a| a.status)
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(600));
    let began = Instant::now();
    let status = lab.proxies[0].running()?.terminate(Duration::from_secs(35))?;
    let took = began.elapsed();
    let answers: Vec<Option<u16>> = threads.into_iter().map(|t| t.join().ok().and_then(Result::ok)).collect();
    lab.proxies[0].launch()?;
    lab.proxies[0].wait_ready()?;
    lab.wait_serving()?;
    context.report.claim(
        "SIGTERM of the caller's proxy: the requests under way are answered, exit 0",
        answers.iter().all(|a| *a == Some(200)) && status.code() == Some(0),
        format!("{answers:?}, {status} after {took:.1?}"),
    );
    Ok(())
}

/// Each connection makes one request and is closed.
fn ten_thousand(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let connections = |count: usize| {
        let spec = LoadSpec {
            ask: Ask::get("http://reviews:9080/health").header("connection", "close"),
            connections: 50,
            pause: Duration::ZERO,
            count: Some(count),
            judge: version,
        };
        Load::run(lab.h1(), lab.user("productpage-v1"), spec)
    };
    connections(2000);
    std::thread::sleep(Duration::from_secs(1));
    let process = lab.proxies[0].process.as_ref().context("the proxy of h1 does not run")?;
    let (files, memory) = (process.descriptors()?, process.resident_kib()?);
    let tally = connections(10_000);
    let end = Instant::now() + Duration::from_secs(10);
    while process.descriptors()? > files && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100));
    }
    let (files_after, memory_after) = (process.descriptors()?, process.resident_kib()?);
    let grown = memory_after.saturating_sub(memory);
    context.report.claim(
        "10,000 connections opened and closed leave nothing behind",
        tally.failed() == 0 && files_after <= files && grown < 4096,
        format!(
            "{}; descriptors {files} then {files_after}, memory {memory} KiB then {memory_after} KiB",
            tally.figure()
        ),
    );
    Ok(())
}
