//! Health checks of this host's workloads: what is asked follows from the flags and from the ports that services
//! reach; how they fare goes to meshd.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::snapshot::workload::Workload;
use mesh_core::tables::Tables;
use mesh_core::vocab::health::Health;
use mesh_core::vocab::name::WorkloadKey;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::probe::probe;
use crate::config::{CheckKind, PortCheck};
use crate::live::root::Roots;

/// How often a healthy workload is asked.
const PERIOD: Duration = Duration::from_secs(2);
/// How often one that is not is asked: it is wanted back soon.
const PERIOD_UNWELL: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(1);
/// So many failures in a row make a healthy workload unhealthy; one success makes it healthy.
const FAILURES: u32 = 2;

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
    failures: u32,
}

impl Verdict {
    const UNKNOWN: Verdict = Verdict { health: Health::Unknown, failures: 0 };

    /// The first answer decides alone; later it takes several failures in a row.
    fn after(self, is_well: bool) -> Verdict {
        if is_well {
            return Verdict { health: Health::Healthy, failures: 0 };
        }
        let failures = self.failures.saturating_add(1);
        let health = match self.health {
            Health::Healthy if failures < FAILURES => Health::Healthy,
            Health::Healthy | Health::Unhealthy | Health::Unknown => Health::Unhealthy,
        };
        Verdict { health, failures }
    }
}

/// A check of one workload.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Planned {
    name: String,
    kind: CheckKind,
    targets: Vec<SocketAddr>,
}

/// The checks of a workload: those of the flags where they fit, TCP on each of its ports otherwise.
fn plan(workload: &Workload, flags: &[PortCheck], tables: &Tables) -> Vec<Planned> {
    let is_only = tables.workloads.len() == 1;
    let one = |check: &PortCheck, port: u16| {
        let targets = targets(SocketAddr::new(workload.address, port), tables);
        Planned { name: check.describe(port), kind: check.kind.clone(), targets }
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

/// Where a workload's port is looked for, as traffic is delivered: its own address; the loopback address if that
/// refuses and no other workload of this host has the port.
fn targets(address: SocketAddr, tables: &Tables) -> Vec<SocketAddr> {
    let same_port = |workload: &Workload| {
        workload.address != address.ip() && workload.ports.iter().any(|port| port.number == address.port())
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
    let mut running: BTreeMap<WorkloadKey, (Vec<Planned>, AbortHandle)> = BTreeMap::new();
    let mut changed = roots.subscribe();
    loop {
        changed.mark_unchanged();
        let tables = Arc::clone(&roots.load().tables);
        running.retain(|key, (_, handle)| {
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
            if running.get(key).is_some_and(|(known, _)| *known == planned) {
                continue;
            }
            if let Some((_, handle)) = running.remove(key) {
                handle.abort();
            }
            let handle = tasks.spawn(watch_one(key.clone(), planned.clone(), reports.clone()));
            running.insert(key.clone(), (planned, handle));
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
async fn watch_one(key: WorkloadKey, planned: Vec<Planned>, reports: watch::Sender<Reports>) {
    let mut verdict = reports
        .borrow()
        .get(&key)
        .map_or(Verdict::UNKNOWN, |known| Verdict { health: known.health, failures: 0 });
    let names: Vec<&str> = planned.iter().map(|check| check.name.as_str()).collect();
    let check = if names.is_empty() { "none".to_owned() } else { names.join(",") };
    loop {
        let mut failure = None;
        for one in &planned {
            if let Err(reason) = probe(&one.kind, &one.targets, PATIENCE).await {
                let several = planned.len() > 1;
                failure = Some(if several { format!("{}: {reason}", one.name) } else { reason });
                break;
            }
        }
        verdict = verdict.after(failure.is_none());
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
        let period = if verdict.health == Health::Healthy { PERIOD } else { PERIOD_UNWELL };
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
            view: None,
            recognition: mesh_core::snapshot::workload::Recognition::default(),
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
    }

    #[test]
    fn loopback_is_tried_unless_another_has_the_port() {
        let address: SocketAddr = "10.0.0.1:80".parse().unwrap();
        let one = workload("a", "10.0.0.1", &[80]);
        let other = workload("b", "10.0.0.2", &[80]);
        assert_eq!(targets(address, &tables(std::slice::from_ref(&one))).len(), 2);
        assert_eq!(targets(address, &tables(&[one, other])), [address]);
    }

    #[test]
    fn the_first_answer_decides_and_one_failure_is_forgiven() {
        let well = Verdict::UNKNOWN.after(true);
        assert_eq!(Verdict::UNKNOWN.after(false).health, Health::Unhealthy);
        assert_eq!(well.after(false).health, Health::Healthy);
        assert_eq!(well.after(false).after(false).health, Health::Unhealthy);
        assert_eq!(well.after(false).after(true).after(false).health, Health::Healthy);
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
