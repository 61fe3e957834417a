//! One of ten endpoints becomes ten times as slow: what it still gets, and how long requests take, through our proxy, Envoy
//! and HAProxy, each choosing the endpoint with the fewest requests.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;

use super::mesh::{HOSTS, Operator};
use super::peers;
use super::setup::{LOCAL, Setup};
use crate::harness::bookshop::status;
use crate::harness::client::Ask;
use crate::harness::isolate::Inside;
use crate::harness::lab::programs;
use crate::harness::load::{Load, LoadSpec};
use crate::harness::netns::Namespace;
use crate::harness::process::Spec;
use crate::report::Report;

const ENDPOINTS: usize = 10;
/// The one that becomes slow.
const SLOW: usize = 3;
const TIME: Duration = Duration::from_millis(10);
const TIMES: u32 = 10;
/// Where the endpoints listen, from this port on.
const PORT: u16 = 22_000;
const CONNECTIONS: usize = 16;

/// The slow one gets less than this part of all requests.
const SHARE: f64 = 0.03;
/// And 99 of 100 requests take no longer than so many times what they took before.
const LONGER: f64 = 1.5;

const NAMES: [&str; 3] = ["mesh", "envoy", "haproxy"];

/// One measured run.
#[derive(Clone, Copy, Debug)]
struct Run {
    share: f64,
    healthy: Duration,
    p99: Duration,
}

impl Run {
    fn longer(&self) -> f64 {
        self.p99.as_secs_f64() / self.healthy.as_secs_f64().max(1e-9)
    }
}

/// Measures all in turns and prints the table.
pub(super) fn run(inside: &Inside, report: &mut Report, rounds: usize, seconds: u64) -> anyhow::Result<()> {
    report.title("One of ten endpoints becomes ten times as slow (10 ms, 100 ms); 16 connections");
    let folder = inside.scratch.join("logs").join("slow");
    let host = Namespace::lonely("slow", &HOSTS)?;
    let endpoints = Endpoints::start(&host, HOSTS[1])?;
    let mut results: BTreeMap<&str, Vec<Run>> = BTreeMap::new();
    for round in 1..=rounds {
        for name in NAMES {
            match measured(&host, &folder.join(format!("{round}-{name}")), name, &endpoints, seconds) {
                Ok(run) => {
                    report.say(&format!("  round {round} {name:8} {}", told(&run)));
                    results.entry(name).or_default().push(run);
                }
                Err(error) => report.say(&format!("  round {round} {name:8} {error:#}")),
            }
        }
    }
    let middle = |name: &str| -> Option<Run> {
        let all = results.get(name)?;
        let median = |of: fn(&Run) -> f64| {
            let mut figures: Vec<f64> = all.iter().map(of).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        Some(Run {
            share: median(|run| run.share),
            healthy: Duration::from_secs_f64(median(|run| run.healthy.as_secs_f64())),
            p99: Duration::from_secs_f64(median(|run| run.p99.as_secs_f64())),
        })
    };
    for name in NAMES {
        if let Some(run) = middle(name) {
            report.say(&format!("  {name:8} {}", told(&run)));
        }
    }
    let Some(ours) = middle("mesh") else {
        report.claim("our proxy is measured", false, "no run of it succeeded");
        return Ok(());
    };
    let share = format!("{:.2} %", ours.share * 100.0);
    report.claim("the slow one gets under 3 % of the requests", ours.share < SHARE, share);
    let longer = format!("{:.2}x", ours.longer());
    report.claim(format!("p99 stays within {LONGER}x"), ours.longer() <= LONGER, longer);
    for name in ["envoy", "haproxy"] {
        let claim = format!("it gets no more than from {name}, and p99 is no longer");
        match middle(name) {
            Some(theirs) => {
                let holds = ours.share <= theirs.share && ours.p99 <= theirs.p99.mul_f64(1.05);
                report.claim(claim, holds, format!("{}; {name}: {}", told(&ours), told(&theirs)));
            }
            None => report.skip(claim, format!("{name} could not be measured")),
        }
    }
    Ok(())
}

fn told(run: &Run) -> String {
    let Run { share, healthy, p99 } = run;
    format!("{:5.2} % to the slow one, p99 {healthy:.1?} before and {p99:.1?} then", share * 100.0)
}

fn measured(
    host: &Namespace,
    place: &Path,
    name: &str,
    endpoints: &Endpoints,
    seconds: u64,
) -> anyhow::Result<Run> {
    endpoints.set_slow(false);
    let mut setup = Setup::new(host, place)?;
    match name {
        "mesh" => mesh(&mut setup)?,
        "envoy" => envoy(&mut setup)?,
        _ => haproxy(&mut setup)?,
    }
    setup.wait_ready()?;
    let spec = LoadSpec {
        ask: Ask::get(format!("http://{}/", setup.entry)).header("host", &setup.host_header),
        connections: CONNECTIONS,
        pause: TIME * 2,
        count: None,
        judge: status,
    };
    let load = Load::start(host, None, spec);
    // Connections are there, and what is learned of endpoints.
    std::thread::sleep(Duration::from_secs(2));
    let begun = load.elapsed();
    std::thread::sleep(Duration::from_secs(seconds));
    let before = endpoints.counts();
    endpoints.set_slow(true);
    let changed = load.elapsed();
    std::thread::sleep(Duration::from_secs(seconds));
    let after = endpoints.counts();
    endpoints.set_slow(false);
    let ended = load.elapsed();
    let samples = load.samples();
    drop(load.stop());
    let p99 = |from: Duration, to: Duration| -> anyhow::Result<Duration> {
        let within = samples.iter().filter(|sample| sample.at >= from && sample.at < to);
        let mut times: Vec<Duration> = Vec::new();
        for sample in within {
            anyhow::ensure!(sample.verdict.as_deref() == Ok("200"), "an answer was {:?}", sample.verdict);
            times.push(sample.took);
        }
        times.sort_unstable();
        times.get(times.len() * 99 / 100).copied().context("no requests")
    };
    let got: Vec<u64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
    Ok(Run {
        share: got[SLOW] as f64 / got.iter().sum::<u64>().max(1) as f64,
        healthy: p99(begun, changed)?,
        p99: p99(changed, ended)?,
    })
}

fn mesh(setup: &mut Setup) -> anyhow::Result<()> {
    let endpoints: String = (0..ENDPOINTS)
        .map(|number| format!("{{address: {}, ports: {{http: {}}}}}, ", HOSTS[1], PORT + number as u16))
        .collect();
    let declared = format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: app, namespace: default}}\n\
         spec:\n  hosts: [app.test]\n  ports: [{{name: http, number: 8080, protocol: HTTP}}]\n  resolution: STATIC\n  \
         endpoints: [{}]\n---\n\
         apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: app, namespace: default}}\n\
         spec: {{host: app.test, trafficPolicy: {{loadBalancer: {{simple: LEAST_REQUEST}}}}}}\n",
        endpoints.trim_end_matches(", ")
    );
    let programs = programs()?;
    let operator = Operator::start(setup, &programs, &declared)?;
    operator.join(setup, &programs, (0, "caller", 8081), &super::mesh::How::logging("json"))?;
    let address = operator.wait_for("app.test", ENDPOINTS as u64)?;
    setup.entry = SocketAddr::from((address, 8080));
    "app.test:8080".clone_into(&mut setup.host_header);
    Ok(())
}

fn haproxy(setup: &mut Setup) -> anyhow::Result<()> {
    let port = setup.port();
    let servers: String = (0..ENDPOINTS)
        .map(|number| format!(" server s{number} {}:{}\n", HOSTS[1], PORT + number as u16))
        .collect();
    let text = format!(
        "global\n nbthread 1\ndefaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
         \x20http-reuse always\nfrontend f\n bind {LOCAL}:{port}\n default_backend b\n\
         backend b\n balance leastconn\n{servers}"
    );
    let file = setup.file("haproxy.cfg", &text)?.display().to_string();
    let spec = Spec::new("haproxy", &peers::program("haproxy")?).args(["-db", "-f", &file]);
    setup.proxy(spec)?;
    setup.entry.set_port(port);
    Ok(())
}

fn envoy(setup: &mut Setup) -> anyhow::Result<()> {
    let envoy = std::env::var_os("LAB_ENVOY").context("LAB_ENVOY does not name an Envoy")?;
    let port = setup.port();
    let endpoints: Vec<_> = (0..ENDPOINTS)
        .map(|number| {
            let address = json!({"address": HOSTS[1].to_string(), "port_value": PORT + number as u16});
            json!({"endpoint": {"address": {"socket_address": address}}})
        })
        .collect();
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "app",
        "http_filters": [{"name": "router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": "app"}}]}]}});
    let config = json!({"static_resources": {
        "listeners": [{"name": "app",
            "address": {"socket_address": {"address": LOCAL.to_string(), "port_value": port}},
            "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}]}],
        "clusters": [{"name": "app", "connect_timeout": "2s", "type": "STATIC", "lb_policy": "LEAST_REQUEST",
            "load_assignment": {"cluster_name": "app", "endpoints": [{"lb_endpoints": endpoints}]}}]}});
    let file = setup.file("envoy.json", &config.to_string())?.display().to_string();
    let arguments = ["-c", &file, "--concurrency", "1", "--use-dynamic-base-id", "-l", "warn"];
    setup.proxy(Spec::new("envoy", Path::new(&envoy)).args(arguments))?;
    setup.entry.set_port(port);
    Ok(())
}

/// Ten servers that take their time, until they are dropped.
struct Endpoints {
    state: Arc<State>,
    thread: Option<JoinHandle<anyhow::Result<anyhow::Result<()>>>>,
}

#[derive(Default)]
struct State {
    is_slow: AtomicBool,
    stops: AtomicBool,
    counts: [AtomicU64; ENDPOINTS],
}

impl Endpoints {
    fn start(host: &Namespace, address: Ipv4Addr) -> anyhow::Result<Endpoints> {
        let state = Arc::new(State::default());
        let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
        let its = Arc::clone(&state);
        let thread = host.spawn(None, move || -> anyhow::Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            tokio::task::LocalSet::new().block_on(&runtime, async move {
                for number in 0..ENDPOINTS {
                    let listener = TcpListener::bind((address, PORT + number as u16)).await?;
                    tokio::task::spawn_local(accept(listener, number, Arc::clone(&its)));
                }
                let _ = ready.send(());
                while !its.stops.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Ok(())
            })
        });
        is_ready.recv_timeout(Duration::from_secs(5)).context("the endpoints do not start")?;
        Ok(Endpoints { state, thread: Some(thread) })
    }

    fn set_slow(&self, is_slow: bool) {
        self.state.is_slow.store(is_slow, Ordering::Relaxed);
    }

    fn counts(&self) -> Vec<u64> {
        self.state.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }
}

impl Drop for Endpoints {
    fn drop(&mut self) {
        self.state.stops.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

async fn accept(listener: TcpListener, number: usize, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        let answer = move |_: Request<Incoming>| {
            let state = Arc::clone(&state);
            async move {
                state.counts[number].fetch_add(1, Ordering::Relaxed);
                let slow = number == SLOW && state.is_slow.load(Ordering::Relaxed);
                tokio::time::sleep(if slow { TIME * TIMES } else { TIME }).await;
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ok"))))
            }
        };
        drop(stream.set_nodelay(true));
        let service = hyper::service::service_fn(answer);
        let connection =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::task::spawn_local(connection);
    }
}
