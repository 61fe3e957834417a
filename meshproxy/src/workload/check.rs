//! Health checks of this host's workloads: what is asked follows from the flags and from the ports that services
//! reach; how they fare goes to meshd.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::snapshot::workload::Workload;
use mesh_core::tables::Tables;
use mesh_core::vocab::health::{Health, Probe, ProbeAction};
use mesh_core::vocab::name::{Text, WorkloadKey};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::probe::{Question, probe};
use crate::config::{CheckKind, PortCheck};
use crate::live::root::Roots;
use crate::netns::Netns;

/// How a workload is asked that no WorkloadGroup says anything of.
const PACE: Pace = Pace {
    delay: Duration::ZERO,
    patience: Duration::from_secs(1),
    period: Duration::from_secs(2),
    // It is wanted back soon.
    period_unwell: Duration::from_millis(500),
    successes: 1,
    failures: 2,
    first_decides: true,
};

/// How often a workload is asked, and how many answers in a row count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pace {
    delay: Duration,
    patience: Duration,
    period: Duration,
    period_unwell: Duration,
    successes: u32,
    failures: u32,
    /// Whether the very first answer counts alone.
    first_decides: bool,
}

impl Pace {
    fn of(probe: &Probe) -> Pace {
        let seconds = |count: u32| Duration::from_secs(count.into());
        Pace {
            delay: seconds(probe.initial_delay),
            patience: seconds(probe.timeout.max(1)),
            period: seconds(probe.period.max(1)),
            period_unwell: seconds(probe.period.max(1)),
            successes: probe.success_threshold.max(1),
            failures: probe.failure_threshold.max(1),
            first_decides: false,
        }
    }
}

/// How a workload fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The verdict.
    pub health: Health,
    /// What was asked: `tcp:9080`.
    pub check: String,
    /// Why it is not healthy.
    pub reason: String,
}

/// Reports by workload.
pub type Reports = BTreeMap<WorkloadKey, Report>;

/// A verdict that answers move: state + answer -> state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Verdict {
    health: Health,
    /// Answers of one kind in a row.
    row: u32,
    was_well: bool,
}

impl Verdict {
    const UNKNOWN: Verdict = Verdict { health: Health::Unknown, row: 0, was_well: true };

    fn after(self, is_well: bool, pace: &Pace) -> Verdict {
        let row = if is_well == self.was_well { self.row.saturating_add(1) } else { 1 };
        let enough = row >= if is_well { pace.successes } else { pace.failures };
        let first = pace.first_decides && self.health == Health::Unknown;
        let health = match (is_well, enough || first) {
            (true, true) => Health::Healthy,
            (false, true) => Health::Unhealthy,
            (_, false) => self.health,
        };
        Verdict { health, row, was_well: is_well }
    }
}

/// A check of one workload.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Planned {
    name: String,
    kind: Question,
    targets: Vec<SocketAddr>,
    /// A name in the place of addresses.
    at: Option<(Text, u16)>,
    /// The network namespace that the workload lives in, if not in ours.
    netns: Option<Arc<Netns>>,
}

impl Planned {
    async fn ask(&self, patience: Duration) -> Result<(), String> {
        let netns = self.netns.as_deref();
        let Some((name, port)) = &self.at else {
            return probe(&self.kind, (netns, &self.targets), patience).await;
        };
        let found = tokio::time::timeout(patience, tokio::net::lookup_host((&**name, *port))).await;
        let found = found.map_err(|_elapsed| format!("{name}: no answer within {patience:?}"))?;
        let found: Vec<SocketAddr> = found.map_err(|error| format!("{name}: {error}"))?.collect();
        probe(&self.kind, (netns, &found), patience).await
    }
}

/// The checks of a workload: what its WorkloadGroup says, else those of the flags where they fit, else TCP on each of its
/// ports.
fn plan(workload: &Workload, flags: &[PortCheck], tables: &Tables) -> Vec<Planned> {
    if let Some(probe) = &workload.probe {
        return vec![of_group(workload, probe, tables)];
    }
    let is_only = tables.workloads.len() == 1;
    let one = |check: &PortCheck, port: u16| {
        let targets = targets(workload, port, tables);
        let kind = Question::Flag(check.kind.clone());
        Planned { name: check.describe(port), kind, targets, at: None, netns: netns(workload) }
    };
    let each = |check: &PortCheck| workload.ports.iter().map(|port| one(check, port.number)).collect();
    let fitting = |check: &PortCheck| -> Vec<Planned> {
        match (check.port, &check.kind) {
            (_, CheckKind::Exec(_)) => vec![one(check, 0)],
            (Some(port), _) if is_only || workload.ports.iter().any(|known| known.number == port) => {
                vec![one(check, port)]
            }
            (Some(_), _) => Vec::new(),
            (None, _) => each(check),
        }
    };
    let planned: Vec<Planned> = flags.iter().flat_map(fitting).collect();
    if planned.is_empty() { each(&PortCheck { port: None, kind: CheckKind::Tcp }) } else { planned }
}

/// The probe of a WorkloadGroup.
fn of_group(workload: &Workload, probe: &Probe, tables: &Tables) -> Planned {
    let place = |host: &Option<Text>, port: u16| match host {
        None => (targets(workload, port, tables), None),
        Some(host) => match host.trim_start_matches('[').trim_end_matches(']').parse() {
            Ok(address) => (vec![SocketAddr::new(address, port)], None),
            Err(_) => (Vec::new(), Some((host.clone(), port))),
        },
    };
    let (name, kind, (targets, at)) = match &probe.action {
        ProbeAction::Http { path, port, host, https, headers } => {
            // A path may be written without the slash that it begins with.
            let slash = if path.starts_with('/') { "" } else { "/" };
            let scheme = if *https { "https" } else { "http" };
            let path: Text = format!("{slash}{path}").into();
            let name = format!("{scheme}:{port}{path}");
            (name, Question::Get { path, https: *https, headers: headers.clone() }, place(host, *port))
        }
        ProbeAction::Tcp { host, port } => {
            (format!("tcp:{port}"), Question::Flag(CheckKind::Tcp), place(host, *port))
        }
        ProbeAction::Exec { command } => {
            (format!("exec:{}", command.join(" ")), Question::Command(command.clone()), (Vec::new(), None))
        }
        ProbeAction::Grpc { port, service } => {
            let port = port.or(workload.ports.first().map(|port| port.number)).unwrap_or(0);
            let service = service.as_deref().unwrap_or("").to_owned();
            (format!("grpc:{port}"), Question::Flag(CheckKind::Grpc(service)), place(&None, port))
        }
    };
    Planned { name, kind, targets, at, netns: netns(workload) }
}

fn netns(workload: &Workload) -> Option<Arc<Netns>> {
    workload.recognition.netns.as_ref().map(Netns::named)
}

/// Where a workload's port is looked for, as traffic is delivered: its own address; the loopback address if that
/// refuses and no other workload of this host has the port.
fn targets(checked: &Workload, port: u16, tables: &Tables) -> Vec<SocketAddr> {
    let address = SocketAddr::new(checked.address, port);
    let same_port = |workload: &Workload| {
        workload.address != address.ip()
            && workload.recognition.netns == checked.recognition.netns
            && workload.ports.iter().any(|port| port.number == address.port())
    };
    let mut targets = vec![address];
    let shared = tables.workloads.values().any(|workload| same_port(&workload.section));
    if !shared && !address.ip().is_loopback() {
        targets.push(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port()));
    }
    targets
}

/// Checks every workload of this host for as long as it is one. Runs until dropped.
pub async fn run(flags: Vec<PortCheck>, roots: Arc<Roots>, reports: watch::Sender<Reports>) {
    let mut tasks: JoinSet<()> = JoinSet::new();
    let mut running: BTreeMap<WorkloadKey, (Pace, Vec<Planned>, AbortHandle)> = BTreeMap::new();
    let mut changed = roots.subscribe();
    loop {
        changed.mark_unchanged();
        let tables = Arc::clone(&roots.load().tables);
        running.retain(|key, (.., handle)| {
            let stays = tables.workloads.contains_key(key);
            if !stays {
                handle.abort();
            }
            stays
        });
        reports.send_if_modified(|reports| {
            let before = reports.len();
            reports.retain(|key, _| tables.workloads.contains_key(key));
            reports.len() != before
        });
        for (key, hosted) in &tables.workloads {
            let planned = plan(&hosted.section, &flags, &tables);
            let pace = hosted.section.probe.as_ref().map_or(PACE, Pace::of);
            if running.get(key).is_some_and(|(paced, known, _)| *known == planned && *paced == pace) {
                continue;
            }
            if let Some((.., handle)) = running.remove(key) {
                handle.abort();
            }
            let handle = tasks.spawn(watch_one(key.clone(), planned.clone(), pace, reports.clone()));
            running.insert(key.clone(), (pace, planned, handle));
        }
        loop {
            tokio::select! {
                // `roots` holds the sender.
                _ = changed.changed() => break,
                Some(_) = tasks.join_next() => {}
            }
        }
    }
}

/// Checks one workload until aborted. All of its checks must be well.
async fn watch_one(key: WorkloadKey, planned: Vec<Planned>, pace: Pace, reports: watch::Sender<Reports>) {
    let mut verdict = reports
        .borrow()
        .get(&key)
        .map_or(Verdict::UNKNOWN, |known| Verdict { health: known.health, ..Verdict::UNKNOWN });
    let names: Vec<&str> = planned.iter().map(|check| check.name.as_str()).collect();
    let check = if names.is_empty() { "none".to_owned() } else { names.join(",") };
    tokio::time::sleep(pace.delay).await;
    loop {
        let mut failure = None;
        for one in &planned {
            if let Err(reason) = one.ask(pace.patience).await {
                let several = planned.len() > 1;
                failure = Some(if several { format!("{}: {reason}", one.name) } else { reason });
                break;
            }
        }
        verdict = verdict.after(failure.is_none(), &pace);
        let reason = match verdict.health {
            Health::Healthy => String::new(),
            Health::Unhealthy | Health::Unknown => failure.unwrap_or_default(),
        };
        let report = Report { health: verdict.health, check: check.clone(), reason };
        reports.send_if_modified(|reports| {
            let changed = reports.get(&key) != Some(&report);
            if changed {
                tracing::info!(workload = %key, health = report.health.name(), check = report.check,
                    reason = report.reason, "health");
                reports.insert(key.clone(), report);
            }
            changed
        });
        if planned.is_empty() {
            return;
        }
        let period = if verdict.health == Health::Healthy { pace.period } else { pace.period_unwell };
        tokio::time::sleep(period).await;
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::snapshot::section::Section;
    use mesh_core::snapshot::workload::WorkloadPort;
    use mesh_core::snapshot::{Entry, Snapshot};
    use mesh_core::vocab::protocol::Protocol;

    use super::*;

    fn workload(name: &str, address: &str, ports: &[u16]) -> Workload {
        Workload {
            key: WorkloadKey { namespace: "default".into(), name: name.into() },
            address: address.parse().unwrap(),
            identity: None,
            labels: mesh_core::vocab::label::Labels::default(),
            ports: ports
                .iter()
                .map(|&number| WorkloadPort {
                    number,
                    protocol: Protocol::Http,
                    service: "a".into(),
                    endpoint: None,
                    pool: Default::default(),
                })
                .collect(),
            mtls: mesh_core::policy::mtls::MtlsPolicy::default(),
            policies: Vec::new(),
            node: "b".into(),
            locality: Default::default(),
            network: None,
            tokens: Vec::new(),
            limits: Vec::new(),
            view: None,
            recognition: mesh_core::snapshot::workload::Recognition::default(),
            probe: None,
            telemetry: Default::default(),
        }
    }

    fn tables(workloads: &[Workload]) -> Tables {
        let mut snapshot = Snapshot::default();
        for workload in workloads {
            let section = Section::Workload(workload.clone());
            snapshot.sections.insert(section.key(), Entry::new(section));
        }
        mesh_core::tables::build::build(&snapshot, None).unwrap()
    }

    #[track_caller]
    fn check(workloads: &[Workload], flags: &[&str], expected: &[&str]) {
        let flags: Vec<PortCheck> = flags.iter().map(|flag| flag.parse().unwrap()).collect();
        let planned = plan(&workloads[0], &flags, &tables(workloads));
        let names: Vec<&str> = planned.iter().map(|check| check.name.as_str()).collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn what_is_asked() {
        let one = workload("a", "10.0.0.1", &[80, 81]);
        let two = workload("b", "10.0.0.1", &[90]);
        check(std::slice::from_ref(&one), &[], &["tcp:80", "tcp:81"]);
        check(std::slice::from_ref(&one), &["http:/x"], &["http:80/x", "http:81/x"]);
        check(std::slice::from_ref(&one), &["81/http:/x"], &["http:81/x"]);
        check(std::slice::from_ref(&one), &["99/tcp"], &["tcp:99"]);
        check(&[one.clone(), two.clone()], &["90/tcp"], &["tcp:80", "tcp:81"]);
        check(&[two, one], &["90/tcp"], &["tcp:90"]);
        check(&[workload("c", "10.0.0.1", &[])], &["exec:true"], &["exec:true"]);
        check(&[workload("c", "10.0.0.1", &[])], &[], &[]);
        let action =
            ProbeAction::Http { path: "x".into(), port: 8, host: None, https: true, headers: vec![] };
        let (initial_delay, timeout, period, success_threshold, failure_threshold) = (0, 1, 10, 1, 1);
        let probe = Probe { action, initial_delay, timeout, period, success_threshold, failure_threshold };
        let grouped = Workload { probe: Some(probe), ..workload("d", "10.0.0.1", &[80]) };
        check(&[grouped], &["80/tcp"], &["https:8/x"]);
    }

    #[test]
    fn loopback_is_tried_unless_another_has_the_port() {
        let one = workload("a", "10.0.0.1", &[80]);
        let other = workload("b", "10.0.0.2", &[80]);
        assert_eq!(targets(&one, 80, &tables(std::slice::from_ref(&one))).len(), 2);
        let address: SocketAddr = "10.0.0.1:80".parse().unwrap();
        assert_eq!(targets(&one, 80, &tables(&[one.clone(), other.clone()])), [address]);
        let mut apart = other;
        apart.recognition.netns = Some("elsewhere".into());
        assert_eq!(targets(&one, 80, &tables(&[one.clone(), apart])).len(), 2);
    }

    #[test]
    fn the_first_answer_decides_and_one_failure_is_forgiven() {
        let health = |pace: &Pace, answers: &[bool]| {
            answers.iter().fold(Verdict::UNKNOWN, |verdict, is_well| verdict.after(*is_well, pace)).health
        };
        assert_eq!(health(&PACE, &[false]), Health::Unhealthy);
        assert_eq!(health(&PACE, &[true, false]), Health::Healthy);
        assert_eq!(health(&PACE, &[true, false, false]), Health::Unhealthy);
        assert_eq!(health(&PACE, &[true, false, true, false]), Health::Healthy);
        let patient = Pace { successes: 2, failures: 3, first_decides: false, ..PACE };
        assert_eq!(health(&patient, &[true]), Health::Unknown);
        assert_eq!(health(&patient, &[true, true]), Health::Healthy);
        assert_eq!(health(&patient, &[true, true, false, false]), Health::Healthy);
        assert_eq!(health(&patient, &[false, false, false, true]), Health::Unhealthy);
    }

    #[tokio::test]
    async fn a_workload_without_ports_is_healthy() {
        let built = Arc::new(tables(&[workload("a", "10.0.0.1", &[])]));
        let roots = Arc::new(Roots::new(Arc::default()));
        roots.install(built);
        let (reports, mut seen) = watch::channel(Reports::new());
        let running = tokio::spawn(run(Vec::new(), roots, reports));
        let found = seen.wait_for(|reports| !reports.is_empty()).await.unwrap().clone();
        assert_eq!(found.values().next().unwrap().health, Health::Healthy);
        running.abort();
    }
}
