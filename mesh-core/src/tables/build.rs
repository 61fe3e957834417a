//! Sections and the tables before -> the next tables, or what cannot be built.

use std::collections::HashMap;
use std::sync::Arc;

use super::destinations::Destination;
use super::routes::{HostRoutes, Named, Resolved, RouteTable, ServiceTable};
use super::views::ViewTable;
use super::gateway::GatewayTable;
use super::governance::Policies;
use super::workloads;
use super::{Index, Tables};
use crate::matching::authority::specificity;
use crate::routing::rule::RuleAction;
use crate::snapshot::Snapshot;
use crate::snapshot::endpoints::Endpoint as Declared;
use crate::snapshot::section::{Section, SectionKey};
use crate::snapshot::workload::Workload;
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
    add_destinations(&mut tables, &sorted, previous);
    add_routes(&mut tables, &sorted);
    let mut policies = policies(snapshot, previous);
    workloads::add(&mut tables, &sorted.workloads, &mut policies, previous);
    add_gateways(&mut tables, &sorted, &mut policies);
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
    routes: Vec<&'s crate::snapshot::routes::Routes>,
    destinations: Vec<&'s crate::snapshot::destination::Destination>,
    endpoints: HashMap<&'s Text, Vec<&'s Declared>>,
    views: Vec<&'s crate::snapshot::view::View>,
    gateways: Vec<&'s crate::snapshot::gateway::Gateway>,
    workloads: Vec<&'s Workload>,
}

impl<'s> Sorted<'s> {
    fn of(snapshot: &'s Snapshot) -> Sorted<'s> {
        let mut sorted = Sorted::default();
        for entry in snapshot.sections.values() {
            match &*entry.section {
                Section::Trust(trust) => sorted.trust = Some(Arc::new(trust.clone())),
                Section::Service(service) => sorted.services.push(service),
                Section::Routes(routes) => sorted.routes.push(routes),
                Section::View(view) => sorted.views.push(view),
                Section::Gateway(gateway) => sorted.gateways.push(gateway),
                Section::Destination(destination) => sorted.destinations.push(destination),
                Section::Endpoints(slice) => {
                    sorted.endpoints.entry(&slice.host).or_default().extend(&slice.endpoints)
                }
                Section::Authorization(_) | Section::Tokens(_) => {}
                Section::Workload(workload) => sorted.workloads.push(workload),
            }
        }
        for endpoints in sorted.endpoints.values_mut() {
            endpoints.sort_by(|a, b| a.workload.cmp(&b.workload));
        }
        sorted
    }
}

fn add_destinations(tables: &mut Tables, sorted: &Sorted<'_>, previous: Option<&Tables>) {
    for policy in &sorted.destinations {
        let declared = sorted.endpoints.get(&policy.key.host).into_iter().flatten().copied();
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

fn add_routes(tables: &mut Tables, sorted: &Sorted<'_>) {
    let scopes = scopes(sorted);
    let mut by_host: HashMap<&Text, Vec<(u16, Option<Text>, Arc<RouteTable>)>> = HashMap::new();
    for routes in &sorted.routes {
        let resolve = |named: Named<'_>| resolve(named, &tables.destination_index, &scopes);
        let table = Arc::new(RouteTable::new(Arc::new((*routes).clone()), resolve));
        by_host.entry(&routes.at.host).or_default().push((routes.at.port, routes.scope.clone(), table));
    }
    for view in &sorted.views {
        let resolve = |named: Named<'_>| resolve(named, &tables.destination_index, &scopes);
        let table = ViewTable::new(view, resolve);
        tables.views.insert(view.key.clone(), table);
    }
    for service in &sorted.services {
        let (mut ports, mut scoped) = (Vec::new(), Vec::new());
        for (port, scope, routes) in by_host.remove(&service.host).unwrap_or_default() {
            match scope {
                Some(scope) => scoped.push((port, scope, routes)),
                None => ports.push((port, routes)),
            }
        }
        let index = tables.services.len();
        tables.names.add(index, service);
        tables.services.push(ServiceTable { service: Arc::new((*service).clone()), ports, scoped });
    }
    for (host, ports) in by_host {
        let host = |(port, scope, routes)| HostRoutes { host: host.clone(), port, scope, routes };
        tables.unowned.extend(ports.into_iter().map(host));
    }
    tables.unowned.sort_by(|a, b| {
        specificity(&b.host)
            .cmp(&specificity(&a.host))
            .then_with(|| (&a.host, a.port).cmp(&(&b.host, b.port)))
    });
}

fn add_gateways(tables: &mut Tables, sorted: &Sorted<'_>, policies: &mut Policies) {
    let scopes = scopes(sorted);
    for section in &sorted.gateways {
        let resolve = |named: Named<'_>| resolve(named, &tables.destination_index, &scopes);
        let table = GatewayTable::new(section, policies, resolve);
        tables.gateways.insert((section.namespace.clone(), section.name.clone()), table);
    }
}

/// Which namespaces shape a host for their own clients.
fn scopes<'s>(sorted: &Sorted<'s>) -> HashMap<&'s Text, Vec<&'s Text>> {
    let mut scopes: HashMap<&Text, Vec<&Text>> = HashMap::new();
    for destination in &sorted.destinations {
        if let Some(scope) = &destination.key.scope {
            let of_host = scopes.entry(&destination.key.host).or_default();
            if !of_host.contains(&scope) {
                of_host.push(scope);
            }
        }
    }
    scopes
}

fn resolve(
    (host, port, subset): Named<'_>,
    index: &Index<DestinationKey, usize>,
    scopes: &HashMap<&Text, Vec<&Text>>,
) -> Resolved {
    let mut key = DestinationKey { host: host.clone(), port, subset: subset.cloned(), scope: None };
    let general = index.get(&key).copied();
    let scoped = scopes.get(host).into_iter().flatten().map(|scope| {
        key.scope = Some((*scope).clone());
        ((*scope).clone(), index.get(&key).copied())
    });
    Resolved { general, scoped: scoped.collect() }
}
