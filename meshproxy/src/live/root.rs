//! Tables joined with live state: the one root that requests read. Only here it is stored.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use mesh_core::balancing::locality::Preference;
use mesh_core::decide::captured::{self, Captured};
use mesh_core::matching::request::Caller;
use mesh_core::policy::mtls::ClientTls;
use mesh_core::snapshot::view::Bind;
use mesh_core::tables::Tables;
use mesh_core::tables::addresses::Addresses;
use mesh_core::tables::destinations::Destination;
use mesh_core::tables::routes::EndpointKey;
use mesh_core::tables::workloads::HostedWorkload;
use mesh_core::vocab::name::{Text, WorkloadKey};
use mesh_core::vocab::resolution::Resolution;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::chain::Chain;
use super::destination::{Joined, LiveDestination};
use super::endpoint::LiveEndpoint;
use super::layout::Callers;
use super::limits::RuleLimits;
use super::local::LocalWorkload;
use super::registry::Registry;
use crate::identity::origination::{Originated, Originations};
use crate::telemetry::labels::ServiceLabels;
use crate::telemetry::metrics::Metrics;

/// Everything that a request reads, at one version. Immutable but for the counters inside.
#[derive(Debug)]
pub struct Root {
    /// Counts the roots of this process; 0 is the empty one from before the first snapshot.
    pub serial: u64,
    /// What decisions read.
    pub tables: Arc<Tables>,
    /// Destinations by the index that plans name.
    pub destinations: Vec<Arc<LiveDestination>>,
    /// Workloads of this host, by key.
    pub locals: Vec<Arc<LocalWorkload>>,
    /// Where they are.
    callers: Arc<Callers>,
    /// Rate limits of rules.
    pub rule_limits: RuleLimits,
    /// Names that endpoints have in the place of addresses.
    pub names: BTreeSet<Text>,
    /// Those of which the first address counts, as it comes: resolvers turn the order, and that spreads the load.
    pub turning: BTreeSet<Text>,
    /// How many of them nobody has tried to resolve yet.
    pub untried: usize,
    /// The version as text.
    pub version: Text,
    /// Made when the first captured connection asks: most hosts have none.
    addresses: OnceLock<Addresses>,
}

impl Root {
    /// The live side of a workload of this root's tables.
    pub fn local(&self, hosted: &Arc<HostedWorkload>) -> Option<&Arc<LocalWorkload>> {
        self.locals.iter().find(|local| Arc::ptr_eq(&local.hosted, hosted))
    }

    /// The namespace of a caller that is not known: that of this host's workloads if they share one, else the default one.
    pub fn namespace(&self) -> Text {
        let mut namespaces = self.locals.iter().map(|local| &local.hosted.section.key.namespace);
        match namespaces.next() {
            Some(first) if namespaces.all(|other| other == first) => first.clone(),
            Some(_) | None => "default".into(),
        }
    }

    /// Whose addresses are.
    pub fn addresses(&self) -> &Addresses {
        self.addresses.get_or_init(|| Addresses::of(&self.tables))
    }

    /// The endpoint that a connection to its own address is for, as a destination with no other.
    pub fn pinned(&self, to: SocketAddr, caller: Option<Caller<'_>>) -> Option<Arc<LiveDestination>> {
        match captured::outbound(&self.tables, self.addresses(), to, None, caller) {
            Captured::Endpoint(place) => {
                let destination = self.destinations.get(place.destination)?;
                let is_there = |endpoint: &&LiveEndpoint| endpoint.address.is_some_and(|at| at == to);
                let endpoint = destination.endpoints.iter().find(is_there)?;
                Some(Arc::new(destination.only(endpoint)))
            }
            Captured::Service(_) | Captured::Elsewhere { .. } => None,
        }
    }

    /// The workload with this key.
    pub fn local_named(&self, key: &WorkloadKey) -> Option<&Arc<LocalWorkload>> {
        self.locals.iter().find(|local| local.hosted.section.key == *key)
    }
}

/// A socket that the tables ask for and that could not be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerFault {
    /// Where it should listen.
    pub address: Bind,
    /// What for: the service and port, or what kind of listener.
    pub purpose: Text,
    /// Why it does not.
    pub reason: String,
    /// The process that has the address, where it can be told.
    pub holder: Option<String>,
}

/// Which root the sockets follow, and what they could not open.
#[derive(Debug, Clone, Default)]
pub struct SocketReport {
    /// Serial of the root.
    pub serial: u64,
    /// Faults, by address.
    pub faults: Vec<ListenerFault>,
    /// Addresses that are listened on. Nothing here is ever dialled.
    pub open: Vec<SocketAddr>,
}

/// The holder of the current root, and what must stay when it changes.
#[derive(Debug)]
pub struct Roots {
    current: ArcSwap<Root>,
    registry: Mutex<Registry>,
    metrics: Arc<Metrics>,
    originations: Arc<Originations>,
    changed: watch::Sender<u64>,
    /// Hears that other endpoints of a destination are usable.
    health: Arc<Notify>,
    /// What is told of retries along a chain of calls.
    pub chain: Chain,
    sockets: watch::Sender<Arc<SocketReport>>,
}

impl Roots {
    /// The metrics of this proxy.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// A holder of an empty root: it routes nothing and admits nothing.
    pub fn new(metrics: Arc<Metrics>) -> Roots {
        let empty = Root {
            serial: 0,
            tables: Arc::default(),
            destinations: Vec::new(),
            locals: Vec::new(),
            callers: Arc::default(),
            rule_limits: RuleLimits::default(),
            names: BTreeSet::new(),
            turning: BTreeSet::new(),
            untried: 0,
            version: "0".into(),
            addresses: OnceLock::new(),
        };
        Roots {
            current: ArcSwap::from_pointee(empty),
            registry: Mutex::default(),
            metrics,
            originations: Arc::default(),
            changed: watch::Sender::new(0),
            health: Arc::default(),
            chain: Chain::default(),
            sockets: watch::Sender::default(),
        }
    }

    /// The current root. Requests use a data thread's view instead.
    pub fn load(&self) -> Arc<Root> {
        self.current.load_full()
    }

    /// Whether `known` is still the current root.
    pub fn is_current(&self, known: &Arc<Root>) -> bool {
        Arc::ptr_eq(&self.current.load(), known)
    }

    /// Joins tables with what is known of their endpoints and makes them current. Returns the root's serial, to be
    /// waited for with [`Roots::opened`].
    pub fn install(&self, tables: Arc<Tables>) -> u64 {
        // Installers come one after another: the lock is held until the root is stored.
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let previous = self.current.load_full();
        let given = Arc::clone(&tables.credentials);
        let changed = given != previous.tables.credentials;
        self.originations.provide(&given);
        let root = self.join(tables, &previous, &mut registry);
        let serial = root.serial;
        self.current.store(Arc::new(root));
        if changed {
            self.originations.refresh();
        }
        self.changed.send_replace(serial);
        serial
    }

    /// Notes what names were resolved to; `None` for one that could not be, which keeps what it had. Destinations with
    /// these names get other endpoints, in a root of the same tables.
    pub fn answer(&self, answers: Vec<(Text, Option<Arc<[IpAddr]>>)>) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let previous = self.current.load_full();
        let mut changed = false;
        for (name, answer) in answers {
            let known = registry.answers.get(&name);
            let before = known.filter(|_| !previous.turning.contains(&name));
            let answer = answer.map(|answer| in_order(&answer, before.map_or(&[], |before| before)));
            match answer {
                Some(answer) if known.is_none_or(|known| *known != answer) => {
                    registry.answers.insert(name, answer);
                    changed = true;
                }
                None if known.is_none() => {
                    registry.answers.insert(name, Arc::default());
                    changed = true;
                }
                Some(_) | None => {}
            }
        }
        if !changed {
            return;
        }
        let root = self.join(Arc::clone(&previous.tables), &previous, &mut registry);
        let serial = root.serial;
        self.current.store(Arc::new(root));
        self.changed.send_replace(serial);
    }

    /// Resolves when every name of the current root has been tried once.
    pub async fn resolved(&self) {
        let mut changed = self.changed.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        drop(changed.wait_for(|_| self.current.load().untried == 0).await);
    }

    /// A destination with the addresses of what a caller means as its endpoints.
    pub fn aimed(&self, live: &LiveDestination, name: &str, addresses: &[SocketAddr]) -> LiveDestination {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let destination = Arc::new(live.destination.aimed(name, addresses));
        let endpoints = destination.endpoints.iter();
        let endpoints =
            endpoints.map(|e| LiveEndpoint::new(e, Arc::default(), &mut registry, &self.metrics)).collect();
        let joined = Joined {
            state: Arc::clone(&live.state),
            endpoints,
            service: live.service.clone(),
            tls: live.tls.clone(),
            before: None,
            callers: &Callers::default(),
            changed: &self.health,
        };
        LiveDestination::new(&destination, joined).guarded(&self.metrics)
    }

    /// Resolves when other endpoints have become usable in any destination since this was last waited for.
    pub(super) async fn health_changed(&self) {
        self.health.notified().await;
    }

    /// TLS that the proxy begins towards the endpoints of a destination.
    fn tls(&self, destination: &Destination) -> Option<Arc<Originated>> {
        match destination.tls_of(false) {
            ClientTls::Originate(declared) => Some(self.originations.of(declared)),
            ClientTls::Auto | ClientTls::Disable | ClientTls::IstioMutual { .. } => None,
        }
    }

    /// The files of certificates that destinations name.
    pub fn originations(&self) -> &Arc<Originations> {
        &self.originations
    }

    /// Hears of every new root by its serial.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Tells what became of the sockets of a root.
    pub fn report_sockets(&self, report: SocketReport) {
        self.sockets.send_replace(Arc::new(report));
    }

    /// The last report of the sockets.
    pub fn sockets(&self) -> Arc<SocketReport> {
        Arc::clone(&self.sockets.borrow())
    }

    /// Hears of every change of the sockets.
    pub fn subscribe_sockets(&self) -> watch::Receiver<Arc<SocketReport>> {
        self.sockets.subscribe()
    }

    /// Resolves when the sockets follow this root or a newer one.
    pub async fn opened(&self, serial: u64) -> Arc<SocketReport> {
        let mut reports = self.sockets.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        match reports.wait_for(|report| report.serial >= serial).await {
            Ok(report) => Arc::clone(&report),
            Err(_) => Arc::default(),
        }
    }

    fn join(&self, tables: Arc<Tables>, previous: &Root, registry: &mut Registry) -> Root {
        let now = Instant::now();
        registry.begin(now);
        let callers = match Callers::of(&tables, registry) {
            same if same == *previous.callers => Arc::clone(&previous.callers),
            other => Arc::new(other),
        };
        let same_callers = Arc::ptr_eq(&callers, &previous.callers);
        let mut destinations = Vec::with_capacity(tables.destinations.len());
        let (mut names, mut turning) = (BTreeSet::new(), BTreeSet::new());
        for declared in &tables.destinations {
            let before = previous.tables.destination(&declared.policy.key);
            let before = before.and_then(|index| previous.destinations.get(index));
            let has_names = declared.names().next().is_some();
            let destination = if has_names {
                names.extend(declared.names().cloned());
                if declared.policy.resolution == Resolution::DnsRoundRobin {
                    turning.extend(declared.names().cloned());
                }
                resolved(declared, before, registry)
            } else {
                Arc::clone(declared)
            };
            let destination = &destination;
            let key = &destination.policy.key;
            let state = registry.destination(key.clone(), now);
            let name: Text = key.to_string().into();
            let states: Vec<_> = destination
                .endpoints
                .iter()
                .map(|endpoint| {
                    let key = EndpointKey {
                        destination: name.clone(),
                        workload: endpoint.workload.clone(),
                        address: endpoint.address.ip().map(|address| address.ip()),
                        port: endpoint.address.port(),
                    };
                    registry.endpoint(key, now)
                })
                .collect();
            let stays = |before: &&Arc<LiveDestination>| {
                let policy = &destination.policy;
                let is_same_for_all = policy.preference == Preference::None && !policy.node_local;
                Arc::ptr_eq(&before.destination, destination) && (is_same_for_all || same_callers)
            };
            if let Some(before) = before.filter(stays) {
                destinations.push(Arc::clone(before));
                continue;
            }
            let endpoints = destination.endpoints.iter().zip(states);
            let endpoints = endpoints.map(|(e, state)| LiveEndpoint::new(e, state, registry, &self.metrics));
            let namespace = tables.service(&key.host).map(|table| table.service.namespace.clone());
            let labels = ServiceLabels::of(&key.host, &namespace.unwrap_or_else(|| "unknown".into()));
            let (endpoints, service) = (endpoints.collect(), self.metrics.service(labels));
            let tls = self.tls(destination);
            let before = before.map(Arc::as_ref);
            let (callers, changed) = (&*callers, &self.health);
            let joined = Joined { state, endpoints, service, tls, before, callers, changed };
            let live = LiveDestination::new(destination, joined);
            destinations.push(Arc::new(live.guarded(&self.metrics)));
        }
        let locals = tables.workloads.values().map(|hosted| match previous.local(hosted) {
            Some(before) => {
                before.limits.keep(registry);
                Arc::clone(before)
            }
            None => Arc::new(LocalWorkload::new(
                hosted,
                previous.local_named(&hosted.section.key).map(Arc::as_ref),
                registry,
                &self.metrics,
            )),
        });
        let locals = locals.collect();
        let rule_limits = RuleLimits::of(&tables.rule_limits, registry, &self.metrics);
        registry.answers.retain(|name, _| names.contains(name));
        registry.end(now);
        Root {
            untried: names.iter().filter(|name| !registry.answers.contains_key(*name)).count(),
            names,
            turning,
            serial: previous.serial + 1,
            version: tables.version.number.to_string().into(),
            addresses: OnceLock::new(),
            destinations,
            locals,
            callers,
            rule_limits,
            tables,
        }
    }
}

/// The destination with what its names were last resolved to; the one from before if nothing of it has changed.
fn resolved(
    declared: &Arc<Destination>,
    before: Option<&Arc<LiveDestination>>,
    registry: &Registry,
) -> Arc<Destination> {
    let next = declared.resolved(|name| registry.answers.get(name).map_or(&[], |found| found));
    match before {
        Some(before) if *before.destination == next => Arc::clone(&before.destination),
        Some(_) | None => Arc::new(next),
    }
}

/// Addresses in an order that only changes with them: resolvers turn it with every answer. The first of before stays
/// the first while it is there, so that nothing changes for those who use them all.
fn in_order(answer: &[IpAddr], before: &[IpAddr]) -> Arc<[IpAddr]> {
    let kept = before.first().filter(|first| answer.contains(first));
    let first = kept.or(answer.first()).copied();
    let others: BTreeSet<IpAddr> = answer.iter().copied().filter(|address| Some(*address) != first).collect();
    first.into_iter().chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_addresses_changes_with_them_only() {
        let addresses = |list: &[&str]| -> Vec<IpAddr> { list.iter().map(|a| a.parse().unwrap()).collect() };
        let check = |answer: &[&str], before: &[&str], expected: &[&str]| {
            assert_eq!(*in_order(&addresses(answer), &addresses(before)), *addresses(expected));
        };
        check(&["1.0.0.3", "1.0.0.2", "1.0.0.1"], &[], &["1.0.0.3", "1.0.0.1", "1.0.0.2"]);
        check(&["1.0.0.1", "1.0.0.3"], &["1.0.0.3", "1.0.0.1"], &["1.0.0.3", "1.0.0.1"]);
        check(&["1.0.0.1", "1.0.0.2"], &["1.0.0.3", "1.0.0.1"], &["1.0.0.1", "1.0.0.2"]);
        check(&[], &["1.0.0.3"], &[]);
    }
}
