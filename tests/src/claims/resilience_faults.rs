//! Parts of a mesh that fail under load: processes that die or hang, hosts that no packet reaches, a link that comes and goes,
//! two faults at once. With retries nothing fails while one endpoint works; without, one request of each caller's connection.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal};

use super::routing::{reviews_rules, stop_app};
use super::{Claim, Context, alone, shared};
use crate::harness::bookshop::version;
use crate::harness::client::Ask;
use crate::harness::lab::{BOOKSHOP, Lab};
use crate::harness::load::{Load, LoadSpec, Tally};
use crate::harness::netns::Namespace;

pub(super) fn claims() -> Vec<Claim> {
    vec![
        shared("resilience/fault-killed", killed),
        shared("resilience/fault-stopped", stopped),
        shared("resilience/fault-slow", slow),
        shared("resilience/fault-two", two),
        alone("resilience/fault-blackhole", blackhole),
        alone("resilience/fault-link", link),
        alone("resilience/fault-partition", partition),
    ]
}

/// Connections of the caller.
const CONNECTIONS: usize = 6;

/// A request that takes its time, so that some are under way whenever something fails.
fn load(lab: &Lab, ask: Ask) -> Load {
    let pause = Duration::from_millis(10);
    let spec = LoadSpec { ask, connections: CONNECTIONS, pause, count: None, judge: version };
    Load::start(lab.h1(), lab.user("productpage-v1"), spec)
}

fn ask() -> Ask {
    Ask::get("http://reviews:9080/slow/10").patience(Duration::from_secs(60))
}

/// Rules under which a failure costs nobody anything: each try has a second, and who fails once is left alone.
fn with_retries(lab: &Lab) -> anyhow::Result<()> {
    lab.control.apply_text(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: reviews, namespace: default}\n\
         spec: {host: reviews, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 1, interval: 1s, \
         baseEjectionTime: 2s, maxEjectionPercent: 100}}}\n",
    )?;
    let route = "    - {timeout: 50s, retries: {attempts: 3, perTryTimeout: 1s, retryOn: '5xx,connect-failure', \
                 backoff: 5ms}, route: [{destination: {host: reviews}}]}\n";
    lab.control.apply_text(&reviews_rules(route))?;
    Ok(())
}

/// Waits until so many requests more are answered; half a minute at most.
fn more(load: &Load, count: usize) -> anyhow::Result<()> {
    let (wanted, end) = (load.len() + count, Instant::now() + Duration::from_secs(30));
    while load.len() < wanted {
        anyhow::ensure!(Instant::now() < end, "the load stands still: {}", load.tally().figure());
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Waits until these versions answer again, half a minute at most.
fn back(lab: &Lab, versions: &[&str]) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let user = lab.user("productpage-v1");
        let tally = lab.count(lab.h1(), user, Ask::get("http://reviews:9080/health"), 30, version);
        if versions.iter().all(|version| tally.count(version) > 0) {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < end, "not all are back: {}", tally.figure());
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn signal(lab: &Lab, app: &str, signal: Signal) -> anyhow::Result<()> {
    let (_, process) = lab.apps.iter().find(|(name, _)| *name == app).context("no such application")?;
    process.signal(signal)
}

fn start(lab: &mut Lab, name: &str) -> anyhow::Result<()> {
    let app = BOOKSHOP.iter().find(|app| app.name == name).context("no such application")?;
    lab.start_app(app)
}

/// Whether nothing failed while requests went on.
fn whole(tally: &Tally) -> bool {
    tally.failed() == 0 && tally.total > 100
}

fn killed(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    back(lab, &["v1", "v2", "v3"])?;
    let plain = load(lab, ask());
    more(&plain, 200)?;
    stop_app(lab, "reviews-v3")?;
    more(&plain, 300)?;
    let plain = plain.stop();
    start(lab, "reviews-v3")?;
    with_retries(lab)?;
    back(lab, &["v3"])?;
    let retried = load(lab, ask());
    more(&retried, 200)?;
    stop_app(lab, "reviews-v3")?;
    more(&retried, 300)?;
    start(lab, "reviews-v3")?;
    back(lab, &["v3"])?;
    let retried = retried.stop();
    let holds = plain.failed() <= CONNECTIONS && plain.total > 400;
    context.report.claim(
        "SIGKILL of an endpoint: what was under way fails, and nothing after it",
        holds,
        plain.figure(),
    );
    context.report.claim(
        "with retries nothing fails, and it is back when it runs",
        whole(&retried),
        retried.figure(),
    );
    Ok(())
}

fn stopped(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    with_retries(lab)?;
    back(lab, &["v1", "v2", "v3"])?;
    let load = load(lab, ask());
    more(&load, 200)?;
    signal(lab, "reviews-v3", Signal::STOP)?;
    let since = load.elapsed() + Duration::from_secs(2);
    more(&load, 600)?;
    let slowest = load.tally_since(since).slowest;
    signal(lab, "reviews-v3", Signal::CONT)?;
    let returned = back(lab, &["v3"]);
    let tally = load.stop();
    context.report.claim("a process that hangs: nothing fails", whole(&tally), tally.figure());
    let figure = format!("{slowest:.1?} at most");
    context.report.claim(
        "no request waits for it longer than two tries",
        slowest < Duration::from_secs(3),
        figure,
    );
    context.report.attempt("it is back when it goes on", returned.map(|()| (true, String::new())));
    Ok(())
}

/// A process that has the CPU a tenth of the time, until it is dropped.
struct Slowed {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Slowed {
    fn start(lab: &Lab, app: &str) -> anyhow::Result<Slowed> {
        let (_, process) = lab.apps.iter().find(|(name, _)| *name == app).context("no such application")?;
        let pid = Pid::from_raw(process.pid().cast_signed()).context("no process id")?;
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopping = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopping.load(std::sync::atomic::Ordering::Relaxed) {
                for (signal, millis) in [(Signal::STOP, 180), (Signal::CONT, 20)] {
                    let _ = rustix::process::kill_process(pid, signal);
                    std::thread::sleep(Duration::from_millis(millis));
                }
            }
        });
        Ok(Slowed { stop, thread: Some(thread) })
    }
}

impl Drop for Slowed {
    fn drop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// What the load gets when v3 has its share; what it gets after forty seconds, if it does not.
fn until_even(load: &Load) -> anyhow::Result<Tally> {
    let end = Instant::now() + Duration::from_secs(40);
    loop {
        let since = load.elapsed();
        more(load, 400)?;
        let tally = load.tally_since(since);
        if tally.count("v3") * 4 > tally.total || Instant::now() > end {
            return Ok(tally);
        }
    }
}

fn slow(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let policy = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: reviews, namespace: default}\n\
                  spec: {host: reviews, trafficPolicy: {loadBalancer: {simple: LEAST_REQUEST}}}\n";
    lab.control.apply_text(policy)?;
    back(lab, &["v1", "v2", "v3"])?;
    let load = load(lab, Ask::get("http://reviews:9080/slow/5"));
    // What was slow before, in another trial, is forgiven first.
    let even = until_even(&load)?;
    let slowed = Slowed::start(lab, "reviews-v3")?;
    std::thread::sleep(Duration::from_secs(2));
    let since = load.elapsed();
    more(&load, 1500)?;
    let uneven = load.tally_since(since);
    drop(slowed);
    let again = until_even(&load)?;
    drop(load.stop());
    let share = |tally: &Tally| tally.count("v3") as f64 / tally.total.max(1) as f64;
    let shares = [&even, &uneven, &again].map(share);
    context.report.claim(
        "endpoints that are alike get alike",
        (0.2..0.47).contains(&shares[0]),
        even.figure(),
    );
    let holds = shares[1] < 0.05 && uneven.failed() == 0;
    context.report.claim("one of three that is slow gets next to nothing", holds, uneven.figure());
    context.report.claim("and its share when it is not slow any more", shares[2] > 0.2, again.figure());
    Ok(())
}

fn two(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    with_retries(lab)?;
    back(lab, &["v1", "v2", "v3"])?;
    let load = load(lab, ask());
    more(&load, 200)?;
    signal(lab, "reviews-v3", Signal::STOP)?;
    stop_app(lab, "reviews-v1")?;
    more(&load, 600)?;
    let during = load.tally();
    signal(lab, "reviews-v3", Signal::CONT)?;
    start(lab, "reviews-v1")?;
    let returned = back(lab, &["v1", "v2", "v3"]);
    let tally = load.stop();
    let figure = format!("{} in all; while they lasted {}", tally.figure(), during.figure());
    context.report.claim("one killed and one hanging at once: nothing fails", whole(&tally), figure);
    context.report.attempt("both are back", returned.map(|()| (true, String::new())));
    Ok(())
}

/// Has no packet reach a host from outside, or only none of one address.
fn cut(host: &Namespace, from: Option<std::net::Ipv4Addr>) -> anyhow::Result<()> {
    let matched = from.map_or_else(|| "iifname \"eth0\"".to_owned(), |from| format!("ip saddr {from}"));
    let rule = format!(
        "table inet hole {{ chain in {{ type filter hook input priority -300; policy accept; {matched} drop; }}; }}"
    );
    host.must(&["nft", &rule]).map(drop)
}

fn mend(host: &Namespace) -> anyhow::Result<()> {
    host.must(&["nft", "delete table inet hole"]).map(drop)
}

fn blackhole(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let h3 = lab.proxies[2].host.clone();
    if cut(&h3, None).and_then(|()| mend(&h3)).is_err() {
        context.report.skip("a host that no packet reaches", "nft does not work here");
        return Ok(());
    }
    back(lab, &["v1", "v2", "v3"])?;
    let plain = load(lab, ask());
    more(&plain, 200)?;
    cut(&h3, None)?;
    std::thread::sleep(Duration::from_secs(14));
    let since = plain.elapsed();
    more(&plain, 200)?;
    let gone = plain.tally_since(since);
    mend(&h3)?;
    let returned = back(lab, &["v3"]);
    let plain = plain.stop();
    lab.wait_serving()?;
    with_retries(lab)?;
    let retried = load(lab, ask());
    more(&retried, 200)?;
    cut(&h3, None)?;
    more(&retried, 600)?;
    mend(&h3)?;
    let again = back(lab, &["v3"]);
    let retried = retried.stop();
    let holds = plain.failed() <= CONNECTIONS && plain.total > 300;
    context.report.claim(
        "a host that no packet reaches: one request of each connection fails at most",
        holds,
        format!("{}, {:.1?} at most", plain.figure(), plain.slowest),
    );
    let figure = gone.figure();
    context.report.claim(
        "callers keep away from it meanwhile",
        gone.count("v3") == 0 && gone.failed() == 0,
        figure,
    );
    context.report.attempt("it is back when packets reach it", returned.map(|()| (true, String::new())));
    context.report.claim(
        "with retries nothing fails",
        whole(&retried),
        format!("{}, {:.1?} at most", retried.figure(), retried.slowest),
    );
    context.report.attempt("and it is back again", again.map(|()| (true, String::new())));
    Ok(())
}

fn link(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let h3 = lab.proxies[2].host.clone();
    let set = |word: &str| h3.must(&["ip", "link", "set", "eth0", word]).map(drop);
    if set("up").is_err() {
        context.report.skip("a link that is down", "there is no ip here");
        return Ok(());
    }
    with_retries(lab)?;
    back(lab, &["v1", "v2", "v3"])?;
    let down = load(lab, ask());
    more(&down, 200)?;
    set("down")?;
    more(&down, 600)?;
    set("up")?;
    let returned = back(lab, &["v3"]);
    let down = down.stop();
    let flapping = load(lab, ask());
    more(&flapping, 100)?;
    for _ in 0..8 {
        set("down")?;
        std::thread::sleep(Duration::from_millis(400));
        set("up")?;
        std::thread::sleep(Duration::from_millis(600));
    }
    more(&flapping, 100)?;
    let again = back(lab, &["v3"]);
    let flapping = flapping.stop();
    let figure = |tally: &Tally| format!("{}, {:.1?} at most", tally.figure(), tally.slowest);
    context.report.claim("a link that is down: nothing fails", whole(&down), figure(&down));
    context.report.attempt("its host is back when it is up", returned.map(|()| (true, String::new())));
    context.report.claim("a link that comes and goes: nothing fails", whole(&flapping), figure(&flapping));
    context.report.attempt("its host is back when it stays", again.map(|()| (true, String::new())));
    Ok(())
}

fn partition(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let (h2, control) = (lab.proxies[1].host.clone(), lab.control.host.clone());
    if cut(&control, Some(h2.address())).is_err() {
        context.report.skip("meshd cut off from a host", "nft does not work here");
        return Ok(());
    }
    mend(&control)?;
    with_retries(lab)?;
    back(lab, &["v1", "v2", "v3"])?;
    let near = load(lab, ask());
    let spec = LoadSpec {
        ask: Ask::get("http://ratings:9080/slow/10").patience(Duration::from_secs(60)),
        connections: 2,
        pause: Duration::from_millis(10),
        count: None,
        judge: version,
    };
    // A caller on the host that is cut off.
    let far = Load::start(&h2, lab.user("reviews-v2"), spec);
    more(&near, 100)?;
    cut(&control, Some(h2.address()))?;
    // Its lease ends.
    let end = Instant::now() + Duration::from_secs(60);
    let during = loop {
        let since = near.elapsed();
        more(&near, 100)?;
        let tally = near.tally_since(since);
        if tally.count("v3") == tally.total || Instant::now() > end {
            break tally;
        }
    };
    mend(&control)?;
    let returned = back(lab, &["v1", "v2", "v3"]);
    let (near, far) = (near.stop(), far.stop());
    lab.wait_serving()?;
    context.report.claim("meshd cut off from a host: its callers lose nothing", whole(&far), far.figure());
    context.report.claim("callers elsewhere lose nothing", whole(&near), near.figure());
    let holds = during.count("v3") == during.total;
    context.report.claim("they go elsewhere when its lease is over", holds, during.figure());
    context.report.attempt("and come back when it is heard of", returned.map(|()| (true, String::new())));
    Ok(())
}
