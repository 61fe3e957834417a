//! Sections and the tables before -> the next tables, or what cannot be built.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::destinations::Destination;
use super::gateway::GatewayTable;
use super::governance::Policies;
use super::routes::{HostRoutes, Named, Resolved, RouteTable, ServiceTable, Unowned};
use super::views::ViewTable;
use super::workloads;
use super::{Credentials, Index, Tables};
use crate::routing::limit::RateLimit;
use crate::routing::rule::RuleAction;
use crate::snapshot::Snapshot;
use crate::snapshot::credential::Credential;
use crate::snapshot::endpoints::Endpoint as Declared;
use crate::snapshot::section::{Section, SectionKey};
use crate::snapshot::workload::Workload;
use crate::telemetry::Telemetry;
use crate::telemetry::wanted::Wanted;
use crate::vocab::name::{DestinationKey, Text};

/// A section that cannot be built into tables, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The section.
    pub key: SectionKey,
    /// What is wrong with it.
    pub reason: String,
}

/// Builds the tables of a snapshot. Parts that did not change are shared with `previous`. Fails whole: on any
/// rejection nothing is built.
pub fn build(snapshot: &Snapshot, previous: Option<&Tables>) -> Result<Tables, Vec<Rejection>> {
    let rejections = reject(snapshot);
    if !rejections.is_empty() {
        return Err(rejections);
    }
    let sorted = Sorted::of(snapshot);
    let mut tables = Tables { version: snapshot.version, ..Tables::default() };
    tables.trust = sorted.trust.clone();
    tables.credentials = credentials(&sorted, previous);
    tables.telemetry = Arc::new(sorted.telemetry.cloned().unwrap_or_default());
    tables.wanted = Wanted::of(sorted.telemetries());
    add_destinations(&mut tables, &sorted, previous);
    let resolver = Resolver::new(&sorted);
    add_routes(&mut tables, &sorted, &resolver);
    tables.rule_limits = rule_limits(&sorted);
    let mut policies = policies(snapshot, previous);
    workloads::add(&mut tables, &sorted.workloads, &mut policies, previous);
    add_gateways(&mut tables, &sorted, &resolver, &mut policies);
    tables.tokens = policies.tokens();
    Ok(tables)
}

fn reject(snapshot: &Snapshot) -> Vec<Rejection> {
    let reason = |key: &SectionKey, section: &Section| -> Option<String> {
        if section.key() != *key {
            return Some(format!("its content belongs to {}", section.key()));
        }
        let Section::Routes(routes) = section else { return None };
        let empty =
            |action: &RuleAction| matches!(action, RuleAction::Route { backends, .. } if backends.is_empty());
        let http = routes.http.iter().position(|rule| empty(&rule.action));
        let streams = [&routes.tcp, &routes.tls];
        let streams = streams.iter().find_map(|rules| rules.iter().position(|rule| rule.backends.is_empty()));
        http.or(streams).map(|rule| format!("rule {rule} has no backend"))
    };
    let sections = snapshot.sections.iter();
    sections
        .filter_map(|(key, entry)| {
            reason(key, &entry.section).map(|reason| Rejection { key: key.clone(), reason })
        })
        .collect()
}

/// The rate limits of all rules, each resource and target once.
fn rule_limits(sorted: &Sorted<'_>) -> Vec<RateLimit> {
    let rules = sorted.routes.iter().flat_map(|routes| &routes.http);
    let limits = rules.flat_map(|rule| &rule.limits);
    let distinct: BTreeMap<_, _> = limits.map(|limit| ((&limit.origin, &limit.target), limit)).collect();
    distinct.into_values().cloned().collect()
}

/// The policies of a snapshot, ready to be handed out.
fn policies(snapshot: &Snapshot, previous: Option<&Tables>) -> Policies {
    let mut policies = Policies::default();
    let before = previous.map(|tables| tables.tokens.clone()).unwrap_or_default();
    for entry in snapshot.sections.values() {
        match &*entry.section {
            Section::Authorization(policy) => policies.add(policy),
            Section::Tokens(policy) => policies.add_tokens(policy, &before),
            _ => {}
        }
    }
    policies
}

/// The sections of a snapshot by kind.
#[derive(Default)]
struct Sorted<'s> {
    trust: Option<Arc<crate::snapshot::security::TrustBundle>>,
    services: Vec<&'s crate::snapshot::service::Service>,
    elsewhere: Vec<&'s crate::snapshot::service::Service>,
    routes: Vec<&'s crate::snapshot::routes::Routes>,
    destinations: Vec<&'s crate::snapshot::destination::Destination>,
    /// By host and view.
    endpoints: HashMap<(&'s Text, Option<&'s Text>), Vec<&'s Declared>>,
    views: Vec<&'s crate::snapshot::view::View>,
    gateways: Vec<&'s crate::snapshot::gateway::Gateway>,
    workloads: Vec<&'s Workload>,
    credentials: Vec<&'s Credential>,
    telemetry: Option<&'s Telemetry>,
}

impl<'s> Sorted<'s> {
    /// All that says what is told.
    fn telemetries(&self) -> impl Iterator<Item = &'s Telemetry> {
        self.telemetry.into_iter().chain(self.workloads.iter().map(|workload| &workload.telemetry))
    }

    fn of(snapshot: &'s Snapshot) -> Sorted<'s> {
        let mut sorted = Sorted::default();
        for entry in snapshot.sections.values() {
            match &*entry.section {
                Section::Trust(trust) => sorted.trust = Some(Arc::new(trust.clone())),
                Section::Service(service) if service.stands_for.is_some() => sorted.elsewhere.push(service),
                Section::Service(service) => sorted.services.push(service),
                Section::Routes(routes) => sorted.routes.push(routes),
                Section::View(view) => sorted.views.push(view),
                Section::Gateway(gateway) => sorted.gateways.push(gateway),
                Section::Destination(destination) => sorted.destinations.push(destination),
                Section::Endpoints(slice) => {
                    let held = sorted.endpoints.entry((&slice.host, slice.scope.as_ref())).or_default();
                    held.extend(&slice.endpoints);
                }
                Section::Authorization(_) | Section::Tokens(_) => {}
                Section::Credential(credential) => sorted.credentials.push(credential),
                Section::Workload(workload) => sorted.workloads.push(workload),
                Section::Telemetry(telemetry) => sorted.telemetry = Some(telemetry),
            }
        }
        for endpoints in sorted.endpoints.values_mut() {
            endpoints.sort_by(|a, b| a.workload.cmp(&b.workload));
        }
        sorted
    }
}

/// Those of before where they stay.
fn credentials(sorted: &Sorted<'_>, previous: Option<&Tables>) -> Arc<Credentials> {
    let before = previous.map(|tables| tables.credentials.clone()).unwrap_or_default();
    let held = |credential: &Credential| match before.get(&credential.key) {
        Some(before) if **before == *credential => before.clone(),
        _ => Arc::new(credential.clone()),
    };
    let next: Credentials = sorted.credentials.iter().map(|one| (one.key.clone(), held(one))).collect();
    if *before == next { before } else { Arc::new(next) }
}

fn add_destinations(tables: &mut Tables, sorted: &Sorted<'_>, previous: Option<&Tables>) {
    let services = sorted.services.iter().filter(|service| service.scope.is_some());
    let variants: HashSet<_> = services.map(|service| (&service.host, service.scope.as_ref())).collect();
    for policy in &sorted.destinations {
        // A view that finds another service of the name finds the endpoints of that one.
        let own = (&policy.key.host, policy.key.scope.as_ref());
        let at = if variants.contains(&own) { own } else { (own.0, None) };
        let declared = sorted.endpoints.get(&at).into_iter().flatten().copied();
        let built = Destination::new(policy, declared);
        let before = previous.and_then(|tables| Some(&tables.destinations[tables.destination(&policy.key)?]));
        let shared = match before {
            Some(before) if **before == built => before.clone(),
            _ => Arc::new(built),
        };
        tables.destination_index.insert(policy.key.clone(), tables.destinations.len());
        tables.destinations.push(shared);
    }
}

/// Rules with their port and the view that they are for.
type Placed = (u16, Option<Text>, Arc<RouteTable>);

fn add_routes(tables: &mut Tables, sorted: &Sorted<'_>, resolver: &Resolver<'_>) {
    let mut by_host: HashMap<&Text, Vec<Placed>> = HashMap::new();
    for routes in &sorted.routes {
        let resolve = |named: Named<'_>| resolver.resolve(named, &tables.destination_index);
        let table = Arc::new(RouteTable::new(Arc::new((*routes).clone()), resolve));
        by_host.entry(&routes.at.host).or_default().push((routes.at.port, routes.scope.clone(), table));
    }
    for view in &sorted.views {
        let resolve = |named: Named<'_>| resolver.resolve(named, &tables.destination_index);
        let table = ViewTable::new(view, resolve);
        tables.views.insert(view.key.clone(), table);
    }
    let variants: HashSet<(&Text, &Text)> =
        sorted.services.iter().filter_map(|service| Some((&service.host, service.scope.as_ref()?))).collect();
    for service in &sorted.services {
        let (mut ports, mut scoped) = (Vec::new(), Vec::new());
        for (port, scope, routes) in by_host.get(&service.host).into_iter().flatten() {
            match scope {
                _ if *scope == service.scope => ports.push((*port, routes.clone())),
                Some(scope) if service.scope.is_none() && !variants.contains(&(&service.host, scope)) => {
                    scoped.push((*port, scope.clone(), routes.clone()));
                }
                _ => {}
            }
        }
        scoped.sort_by(|(port, scope, _), (other, of, _)| (port, scope).cmp(&(other, of)));
        let index = tables.services.len();
        match &service.scope {
            None => tables.names.add(index, service),
            Some(scope) => {
                let of_view: &mut Index<Text, usize> = tables.variants.entry(scope.clone()).or_default();
                of_view.insert(service.host.clone(), index);
            }
        }
        tables.services.push(ServiceTable { service: Arc::new((*service).clone()), ports, scoped });
    }
    for service in &sorted.services {
        by_host.remove(&service.host);
    }
    let unowned = by_host.into_iter().flat_map(|(host, ports)| {
        ports.into_iter().map(|(port, scope, routes)| HostRoutes { host: host.clone(), port, scope, routes })
    });
    tables.unowned = Unowned::new(unowned);
    sorted.elsewhere.iter().for_each(|service| tables.names.add_elsewhere(service));
    tables.names.arrange();
}

fn add_gateways(tables: &mut Tables, sorted: &Sorted<'_>, resolver: &Resolver<'_>, policies: &mut Policies) {
    for section in &sorted.gateways {
        let resolve = |named: Named<'_>| resolver.resolve(named, &tables.destination_index);
        let table = GatewayTable::new(section, policies, resolve);
        tables.gateways.insert((section.namespace.clone(), section.name.clone()), table);
    }
}

/// Finds what rules name.
struct Resolver<'s> {
    /// The views that shape a host for their own callers.
    scopes: HashMap<&'s Text, Vec<&'s Text>>,
    /// Hosts that are exported to some namespaces only, with the views of callers there.
    restricted: HashMap<&'s Text, Vec<&'s Text>>,
}

impl<'s> Resolver<'s> {
    fn new(sorted: &Sorted<'s>) -> Resolver<'s> {
        let mut scopes: HashMap<&Text, Vec<&Text>> = HashMap::new();
        for destination in &sorted.destinations {
            if let Some(scope) = &destination.key.scope {
                let of_host = scopes.entry(&destination.key.host).or_default();
                if !of_host.contains(&scope) {
                    of_host.push(scope);
                }
            }
        }
        let common = sorted.services.iter().filter(|service| service.scope.is_none());
        let restricted = common.filter(|service| service.exported_to.is_some()).map(|service| {
            let seeing = sorted.views.iter().filter(|view| service.is_exported_to(&view.namespace));
            (&service.host, seeing.map(|view| &view.key).collect())
        });
        Resolver { restricted: restricted.collect(), scopes }
    }

    fn resolve(&self, (host, port, subset): Named<'_>, index: &Index<DestinationKey, usize>) -> Resolved {
        let mut key = DestinationKey { host: host.clone(), port, subset: subset.cloned(), scope: None };
        let general = index.get(&key).copied();
        let own = self.scopes.get(host).map_or(&[][..], Vec::as_slice);
        let mut scoped: Vec<(Text, Option<usize>)> = Vec::with_capacity(own.len());
        for scope in own {
            key.scope = Some((*scope).clone());
            scoped.push(((*scope).clone(), index.get(&key).copied()));
        }
        let seeing = self.restricted.get(host);
        let others = seeing.into_iter().flatten().filter(|view| !own.contains(view));
        scoped.extend(others.map(|view| ((*view).clone(), general)));
        scoped.sort_by(|(a, _), (b, _)| a.cmp(b));
        Resolved { general: general.filter(|_| seeing.is_none()), scoped }
    }
}
