//! Puts the parts together, starts them, and ends them gracefully.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use mesh_core::snapshot::Version;
use mesh_core::sync::subscriber::Subscriber;
use mesh_core::vocab::node::{Node, Role};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::admin::dump::Certificate;
use crate::admin::server::{self as admin, Face, Facts};
use crate::capture::loopback;
use crate::capture::transparent::{self, Transparent};
use crate::cli::AccessLog;
use crate::config::Config;
use crate::control::apply::Apply;
use crate::control::certificates::Certificates;
use crate::control::channel::Resolve;
use crate::control::discovery::Discovery;
use crate::control::last_good::LastGood;
use crate::control::report::Report;
use crate::control::reports::Reporting;
use crate::control::{Control, files};
use crate::dial;
use crate::dns::forward::Forwarder;
use crate::dns::keep::keep as keep_names;
use crate::dns::names::AddressOf;
use crate::dns::resolv_conf::HostResolvers;
use crate::dns::server::{self as dns, DnsSockets};
use crate::dns::within;
use crate::identity::svid::Svids;
use crate::intercept::{keeper, nft};
use crate::listener::sockets::{Listeners, Settings};
use crate::live::ejection::{self, Ejected};
use crate::live::interception::Interception;
use crate::live::keep;
use crate::live::limits;
use crate::live::root::Roots;
use crate::otlp::router::{Exporting, Reach};
use crate::runtime::drain::Drain;
use crate::runtime::pressure::{Pressure, Seen};
use crate::runtime::supply::Supply;
use crate::telemetry::access::{AccessSink, Format};
use crate::telemetry::alarm;
use crate::telemetry::log::sinks::Sinks;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::report::Collector;
use crate::telemetry::tap::Hub;
use crate::telemetry::trace::TraceSettings;
use crate::upstream::budget;
use crate::upstream::thread::Shared;
use crate::workload::check::{self, Reports};
use crate::workload::local::Documents;
use crate::workload::owner::SocketOwners;

/// How long the word that this proxy serves waits for the certificates of its workloads.
const CERTIFICATES: Duration = Duration::from_secs(5);
/// How long the end waits at most until callers have acknowledged that they leave this host alone, and for what part of
/// the time that the whole end may take.
const WITHDRAWAL: (Duration, u32) = (Duration::from_secs(12), 2);
/// How long it waits for a meshd that has gone to come back for that.
const GONE: Duration = Duration::from_secs(1);
/// How long requests have that were sent before callers knew, until sockets close.
const CALLERS: Duration = Duration::from_millis(300);
/// How long the last good snapshot may take to reach the disk at the end.
const LAST_WRITE: Duration = Duration::from_secs(2);
/// How long what waits for collectors may take to reach them at the end.
const LAST_EXPORT: Duration = Duration::from_secs(3);

/// Runs the proxy until a signal ends it.
pub async fn run(config: Config) -> anyhow::Result<()> {
    files::private_folder(&config.data_dir)?;
    let _lock = lock(&config.data_dir)?;
    let on = |kind| signal(kind).context("cannot take signals");
    let (mut terminate, mut interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    let logs_moved = on(SignalKind::user_defined1())?;

    let metrics = Arc::new(Metrics::new(config.series));
    let roots = Arc::new(Roots::new(Arc::clone(&metrics)));
    let svids = Arc::new(Svids::new());
    let drain = Drain::new();
    let (ending, has_ending) = watch::channel(false);
    let end = Arc::new(Notify::new());
    let mut tasks = JoinSet::new();

    let (interception, is_intercepted) = watch::channel(Interception::Off);
    intercept(&config).await?;
    let forwarder = Forwarder::new(Arc::new(HostResolvers::new(config.dns_upstream.clone(), config.dns)));
    let sockets = DnsSockets::bind(config.dns).await.with_context(|| cannot_listen(config.dns, "--dns"))?;
    let address_of = address_of(&config);
    // What is captured needs no socket of its own.
    let captured = config.rules.is_some() && !config.loopback;
    tasks.spawn(within::serve(
        config.dns,
        forwarder.clone(),
        Arc::clone(&roots),
        address_of.clone(),
        captured,
    ));
    tasks.spawn(dns::serve(sockets, forwarder.clone(), Arc::clone(&roots), address_of, captured));
    tasks.spawn(Arc::clone(&metrics).keep());
    let faults = metrics.proxy.certificate_faults.clone();
    let files = Arc::clone(roots.originations());
    tasks.spawn(files.keep_fresh(move |count| faults.set(count as f64)));
    tasks.spawn(keep_names(Arc::clone(&roots), forwarder.clone(), Arc::clone(&metrics)));
    tasks.spawn(keep::keep(Arc::clone(&roots)));
    tasks.spawn(limits::keep(Arc::clone(&roots)));
    let reach = Reach { roots: Arc::clone(&roots), svids: Arc::clone(&svids), forwarder: forwarder.clone() };
    let (exporter, exporting) = Exporting::start(config.otlp.clone(), reach, Arc::clone(&metrics));
    let (tell_ejected, ejected) = watch::channel(Ejected::new());
    tasks.spawn(ejection::keep(Arc::clone(&roots), tell_ejected));
    let taps = Hub::new(&config.node, &metrics, config.data_dir.join("flight"), config.remembered);
    if config.flight_alarm {
        tasks.spawn(alarm::keep(Arc::clone(&taps)));
    }
    let supply = Supply::find();
    let budget = config.limits.memory.unwrap_or_else(|| supply.budget());
    tracing::info!(budget, "memory beyond which this proxy gives way");
    let pressure = Pressure::default();
    tasks.spawn(pressure.clone().keep(supply, budget, tell_supplies(&metrics, budget)));
    let facts = Arc::new(Facts {
        node: config.node.clone(),
        roots: Arc::clone(&roots),
        metrics: Arc::clone(&metrics),
        ending: has_ending.clone(),
        end: Arc::clone(&end),
        may_end: Box::new(may_end),
        interception: is_intercepted,
        certificates: shown_certificates(&svids),
    });
    for (face, address, flag) in [
        (Face::Admin, config.admin_addr, "--admin-addr"),
        (Face::Ready, config.ready_addr, "--ready-addr"),
        (Face::Metrics, config.metrics_addr, "--metrics-addr"),
    ] {
        let listener = admin::bind(address).await.with_context(|| cannot_listen(address, flag))?;
        tasks.spawn(admin::serve(listener, face, Arc::clone(&facts)));
    }

    let certificates = Arc::new(Certificates::open(
        &config.data_dir,
        &config.node,
        config.address.to_string(),
        config.token_file.clone(),
        Arc::clone(&svids),
    )?);
    let apply = Arc::new(Apply::new(Arc::clone(&roots), Arc::clone(&svids), Arc::clone(&certificates)));
    let (health, reports) = watch::channel(Reports::new());
    tasks.spawn(check::run(config.checks.clone(), Arc::clone(&roots), health));
    let (withdrawn, mut has_withdrawn) = watch::channel(false);
    let (registered, mut is_registered) = watch::channel(false);
    let last_good = LastGood::in_folder(&config.data_dir);
    let held = last_good.load()?;
    let (traffic, gathered) = match config.report_interval {
        None => (None, None),
        Some(every) => {
            let dropped = metrics.proxy.reports_dropped.clone();
            let (collector, reports, gathered) =
                Collector::new(every, config.threads, config.report_cells, dropped);
            tasks.spawn(collector.run());
            (Some(reports), Some(gathered))
        }
    };
    let node = Node { name: config.node.as_str().into(), address: config.address, role: Role::Host };
    let control = Control {
        urls: config.control.clone(),
        resolve: resolve(&forwarder),
        certificates: Arc::clone(&certificates),
        report: Report {
            address: config.address,
            mesh_port: config.inbound_addr.port(),
            documents: Documents::new(config.workload.clone()),
            services: config.services.clone(),
            health: reports,
            ejected,
            draining: has_ending,
            registered,
            withdrawn,
        },
        discovery: Discovery::new(
            Subscriber::new(node, held.clone()),
            Arc::clone(&apply),
            Arc::clone(&roots),
        ),
        roots: Arc::clone(&roots),
        reporting: Reporting::new(gathered, Arc::clone(&metrics)),
        taps: Arc::clone(&taps),
        apply: Arc::clone(&apply),
        last_good: (last_good.clone(), held),
    };
    let shared = Shared {
        roots: Arc::clone(&roots),
        svids: Arc::clone(&svids),
        metrics: Arc::clone(&metrics),
        access: access(&config)?,
        exporter,
        reports: traffic,
        taps,
        tracing: TraceSettings { node: config.node.as_str().into(), tail: config.tail },
        drain: drain.clone(),
        forwarder: forwarder.clone(),
        most_age: config.most_age,
        limits: config.limits,
        identities: Arc::default(),
        pressure,
        kept_bodies: kept_bodies(budget, config.threads),
    };
    tasks.spawn(reopen(logs_moved, shared.access.sinks().clone()));
    let listeners = listen(&config, shared)?;
    if let Some(rules) = config.rules.as_ref().filter(|rules| rules.fail_open) {
        tasks.spawn(pulse(Arc::clone(&roots), rules.outbound));
    }
    let keeper =
        config.rules.is_some().then(|| tasks.spawn(keeper::keep(interception, Arc::clone(&metrics))));
    let (stop_keeping, keeping) = keep(&last_good, &apply);
    tasks.spawn(say_ready(config.node.clone(), Arc::clone(&apply), certificates));

    let (outcome, ends) = {
        let mut control = std::pin::pin!(control.run());
        let outcome = tokio::select! {
            error = &mut control => Err(anyhow::Error::new(error)),
            () = either(&mut terminate, &mut interrupt) => Ok(()),
            () = end.notified() => Ok(()),
        };
        ending.send_replace(true);
        let ends = Instant::now() + config.drain_time;
        if outcome.is_ok() && *is_registered.borrow() {
            tracing::info!("ending: telling meshd");
            // The session goes on meanwhile, for it carries the message.
            let told = async {
                let patience = WITHDRAWAL.0.min(config.drain_time / WITHDRAWAL.1);
                let known = tokio::time::timeout(patience, has_withdrawn.wait_for(|done| *done)).await;
                match known {
                    Ok(_) => tokio::time::sleep(CALLERS.min(config.drain_time / WITHDRAWAL.1)).await,
                    Err(_late) => tracing::warn!("some callers may not know that this proxy ends"),
                }
            };
            let lost = async {
                loop {
                    drop(is_registered.wait_for(|registered| !*registered).await);
                    let back = is_registered.wait_for(|registered| *registered);
                    if tokio::time::timeout(GONE, back).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = told => {}
                () = lost => tracing::warn!("ending: meshd has gone"),
                _ = &mut control => {}
                () = either(&mut terminate, &mut interrupt) => {}
            }
        }
        (outcome, ends)
    };
    if let Some(keeper) = keeper {
        // What comes next is no other tool.
        keeper.abort();
    }
    // First: what is opened from now on is not led to sockets that close.
    release(&config, outcome.is_ok() || !served(&roots)).await;
    tracing::info!("draining");
    drain.begin();
    let left = tokio::select! {
        left = drain.finished(ends.saturating_duration_since(Instant::now())) => left,
        // Asked twice is asked at once.
        () = either(&mut terminate, &mut interrupt) => drain.open(),
    };
    if left > 0 {
        tracing::warn!(left, "connections were still open at the end");
    }
    listeners.end().await;
    exporting.finish(LAST_EXPORT).await;
    drop(stop_keeping);
    if tokio::time::timeout(LAST_WRITE, keeping).await.is_err() {
        tracing::warn!("the last good snapshot was not written in time");
    }
    tasks.shutdown().await;
    tracing::info!("ended");
    outcome
}

/// Has this host's connections led here, before anything else is opened, and our own left alone.
async fn intercept(config: &Config) -> anyhow::Result<()> {
    let Some(rules) = config.rules.clone() else { return Ok(()) };
    dial::mark_with(rules.mark)
        .context("--capture transparent: packets cannot be marked (CAP_NET_ADMIN is needed)")?;
    if config.installs_rules {
        let installed = tokio::task::spawn_blocking(move || nft::install(&rules)).await?;
        installed.context("--capture transparent: the rules cannot be installed")?;
        tracing::info!("this host's connections are led to this proxy");
    }
    Ok(())
}

/// An application of this host must not take the proxy away from the others: only root and our own user end it. Who is on
/// another host was let in by whoever opened the port to others.
fn may_end(peer: SocketAddr, local: SocketAddr) -> bool {
    let owner = SocketOwners::open().ok().and_then(|owners| owners.owner(peer, local));
    match owner {
        Some(owner) => owner.user == 0 || owner.user == rustix::process::geteuid().as_raw(),
        None => !peer.ip().is_loopback() && peer.ip() != local.ip(),
    }
}

/// Whether this proxy has come to carry traffic.
fn served(roots: &Roots) -> bool {
    roots.sockets().serial > 0
}

/// Takes the rules away again. After an end that is none they stay: what they lead here is refused from then on.
async fn release(config: &Config, is_clean: bool) {
    let Some(rules) = config.rules.as_ref().filter(|_| config.installs_rules) else { return };
    if !is_clean && !rules.fail_open {
        tracing::warn!("the rules of interception stay: `meshproxy intercept remove` takes them away");
        return;
    }
    match tokio::task::spawn_blocking(nft::remove).await {
        Ok(Ok(())) => tracing::info!("this host's connections are led here no more"),
        Ok(Err(error)) => tracing::error!(%error, "the rules of interception could not be removed"),
        Err(error) => tracing::error!(%error, "removing the rules of interception has failed"),
    }
}

/// Says that this proxy is alive once its sockets are open.
async fn pulse(roots: Arc<Roots>, port: u16) {
    roots.opened(1).await;
    keeper::beat(port).await;
}

/// Where access logs go, by what the proxy was started with.
fn access(config: &Config) -> anyhow::Result<AccessSink> {
    let format = match config.access_log {
        AccessLog::Off => Format::Off,
        AccessLog::Text => Format::Text,
        AccessLog::Json => Format::Json,
    };
    let sink = AccessSink::start(format, std::io::stdout()).context("cannot start the access log")?;
    Ok(sink.sampled(config.access_log_sample).on(config.node.as_str().into()))
}

/// Opens access logs anew whenever the operator has moved them away.
async fn reopen(mut asked: Signal, sinks: Sinks) {
    while asked.recv().await.is_some() {
        tracing::info!("access logs are opened anew");
        sinks.reopen();
    }
}

/// Starts the traffic half. Its sockets open with the first snapshot.
fn listen(config: &Config, shared: Shared) -> anyhow::Result<Listeners> {
    let settings = Settings {
        inbound: config.inbound_addr,
        explicit: config.explicit.then_some(config.explicit_addr),
        loopback: config.loopback.then_some(config.loopback_net),
        transparent: config.rules.as_ref().map(|rules| Transparent {
            outbound: rules.outbound,
            inbound: rules.inbound,
            services: rules.services,
            six: transparent::speaks_six(),
        }),
        threads: config.threads,
    };
    Listeners::start(settings, shared).context("cannot start the data threads")
}

/// What bodies may take of the memory, for each data thread.
fn kept_bodies(budget: u64, threads: usize) -> usize {
    let share = budget / 8 / threads.max(1) as u64;
    usize::try_from(share).unwrap_or(usize::MAX).min(budget::MOST)
}

/// What is measured of memory and descriptors becomes metrics.
fn tell_supplies(metrics: &Arc<Metrics>, budget: u64) -> impl Fn(&Seen) + use<> {
    let metrics = Arc::clone(metrics);
    metrics.supplies.memory_budget.set(budget as f64);
    move |seen| {
        let supplies = &metrics.supplies;
        supplies.memory.set(seen.used.memory as f64);
        supplies.descriptors.set(seen.used.descriptors as f64);
        supplies.most_descriptors.set(seen.used.most_descriptors as f64);
        supplies.gives_way.set(f64::from(u8::from(seen.memory.any() || seen.descriptors.any())));
    }
}

fn cannot_listen(address: SocketAddr, flag: &str) -> String {
    match address.port() {
        1..1024 => {
            format!("cannot listen on {address} ({flag}; below port 1024 CAP_NET_BIND_SERVICE is needed)")
        }
        _ => format!("cannot listen on {address} ({flag})"),
    }
}

/// Two proxies with one data directory would overwrite each other's keys.
fn lock(data_dir: &Path) -> anyhow::Result<std::fs::File> {
    let path = data_dir.join("lock");
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            anyhow::bail!("another meshproxy uses {}; give each its own --data-dir", data_dir.display())
        }
        Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

/// Services have addresses here only where these are listened on, or captured.
fn address_of(config: &Config) -> Option<AddressOf> {
    let net = config.loopback_net;
    (config.loopback || config.rules.is_some())
        .then(|| -> AddressOf { Arc::new(move |service| loopback::address(net, service)) })
}

/// The host's resolver may be this proxy, so meshd's name is asked of the resolvers behind it.
fn resolve(forwarder: &Forwarder) -> Resolve {
    let forwarder = forwarder.clone();
    Arc::new(move |name| {
        let forwarder = forwarder.clone();
        Box::pin(async move { forwarder.resolve(&name).await })
    })
}

fn shown_certificates(svids: &Arc<Svids>) -> Box<dyn Fn() -> Vec<Certificate> + Send + Sync> {
    let svids = Arc::clone(svids);
    Box::new(move || {
        let material = svids.load();
        let certificate = |svid: &Arc<crate::identity::svid::Svid>| Certificate {
            identity: svid.id().to_string(),
            not_before: svid.not_before(),
            not_after: svid.not_after(),
        };
        material.svids().map(certificate).collect()
    })
}

/// Keeps what comes in force on disk until the returned sender is dropped.
fn keep(
    last_good: &LastGood,
    apply: &Arc<Apply>,
) -> (watch::Sender<()>, impl Future<Output = ()> + Send + use<>) {
    let (stop, mut stopped) = watch::channel(());
    let (forward, receiver) = watch::channel(None);
    let mut in_force = apply.in_force();
    let following = async move {
        loop {
            tokio::select! {
                changed = in_force.changed() => match changed {
                    Ok(()) => {
                        forward.send_replace(in_force.borrow_and_update().clone());
                    }
                    Err(_) => return,
                },
                _ = stopped.changed() => return,
            }
        }
    };
    let keeping = tokio::spawn(last_good.clone().keep(receiver));
    let following = tokio::spawn(following);
    let both = async move {
        if following.await.is_err() || keeping.await.is_err() {
            tracing::error!("keeping the last good snapshot failed");
        }
    };
    (stop, both)
}

/// Says once on stdout that this proxy serves.
async fn say_ready(node: String, apply: Arc<Apply>, certificates: Arc<Certificates>) {
    let mut in_force = apply.in_force();
    let Ok(version) = in_force.wait_for(Option::is_some).await.map(|first| version(first.as_ref())) else {
        return;
    };
    if tokio::time::timeout(CERTIFICATES, certificates.wait_settled()).await.is_err() {
        tracing::warn!("some workloads of this host have no certificate yet");
    }
    let line = format!("ready node={node} version={}\n", version.number);
    // A reader that went away does not end the proxy.
    let mut out = std::io::stdout().lock();
    drop(out.write_all(line.as_bytes()).and_then(|()| out.flush()));
}

fn version(first: Option<&crate::control::apply::InForce>) -> Version {
    first.map(|in_force| in_force.snapshot.version).unwrap_or_default()
}
