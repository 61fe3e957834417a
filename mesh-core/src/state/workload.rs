//! A workload as the mesh knows it: whose it is and whether it may get traffic.

use std::net::SocketAddr;
use std::sync::Arc;

use super::service::service_entry;
use super::{MeshState, Registration};
use crate::resource::service::Location;
use crate::resource::workload::WorkloadEntry;
use crate::resource::{Resource, Spec};
use crate::vocab::health::{Health, HostStanding};
use crate::vocab::identity::SpiffeId;
use crate::vocab::name::{Text, WorkloadKey};
use crate::vocab::origin::{Kind, ResourceKey};

/// Label by which an endpoint says whether it speaks mutual TLS.
const TLS_MODE: &str = "security.istio.io/tlsMode";
/// Its value where it does.
const TLS_MODE_MESH: &str = "istio";

/// Whether a workload says that mutual TLS is spoken there: by its label, else by having an account.
pub fn speaks_mutual_tls(entry: &WorkloadEntry) -> bool {
    match entry.labels.value(TLS_MODE) {
        Some(mode) => mode == TLS_MODE_MESH,
        None => entry.service_account.is_some(),
    }
}

/// A workload as the mesh knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownWorkload {
    /// Namespace and name.
    pub key: WorkloadKey,
    /// Address, ports, labels.
    pub entry: Arc<WorkloadEntry>,
    /// The WorkloadEntry, or the ServiceEntry that it is written into.
    pub source: ResourceKey,
    /// Who it is; `None` if it has no service account.
    pub identity: Option<SpiffeId>,
    /// The joined host it belongs to.
    pub node: Option<Text>,
    /// Where the mesh hop to it ends.
    pub tunnel: Option<SocketAddr>,
    /// Whether it may get traffic.
    pub health: Health,
    /// Why it is not healthy; empty where it is.
    pub reason: Text,
    /// How its host stands towards callers.
    pub host: HostStanding,
}

impl KnownWorkload {
    /// Whether it is written into a ServiceEntry.
    pub fn is_inline(&self) -> bool {
        self.source.kind == Kind::ServiceEntry
    }

    /// The workload of that key: announced, else declared by the operator, else written into a ServiceEntry.
    pub(super) fn of(state: &MeshState, key: &WorkloadKey) -> Option<KnownWorkload> {
        let resource_key = ResourceKey {
            kind: Kind::WorkloadEntry,
            namespace: key.namespace.clone(),
            name: key.name.clone(),
        };
        let announcer = state.index.announced.get(&resource_key).and_then(|nodes| nodes.iter().next());
        let (source, entry, node) = match announcer {
            Some((node, resource)) => (resource.clone(), workload_entry(resource)?, Some(node.clone())),
            None => match state.resources.get(&resource_key) {
                Some(resource) => (resource.clone(), workload_entry(resource)?, None),
                None => {
                    let (source, entry) = inline_workload(state, key)?;
                    (source, entry, None)
                }
            },
        };
        let owner = node.or_else(|| {
            let address = entry.address.ip()?;
            let nodes = state.index.addresses.get(&address)?;
            let is_there = |node: &&Text| {
                state.registrations.get(*node).is_some_and(|here| here.standing != HostStanding::Away)
            };
            // Of several proxies of a host those that are gone come last.
            nodes.iter().find(is_there).or(nodes.iter().next()).cloned()
        });
        let registration = owner.as_ref().and_then(|node| state.registrations.get(node));
        let (health, reason) = health(registration.map(|r| &**r), key);
        Some(KnownWorkload {
            key: key.clone(),
            source: source.meta.key.clone(),
            identity: identity(state, &key.namespace, &entry),
            tunnel: registration.map(|registration| registration.inbound),
            node: owner,
            health,
            reason,
            host: registration.map_or(HostStanding::Serves, |registration| registration.standing),
            entry: Arc::new(entry),
        })
    }

    /// An endpoint that is no workload of the mesh: it is outside of it, its address is only written down, or its
    /// key is another's.
    pub(super) fn detached(
        state: &MeshState,
        source: &Resource,
        key: WorkloadKey,
        entry: WorkloadEntry,
    ) -> KnownWorkload {
        KnownWorkload {
            key,
            source: source.meta.key.clone(),
            identity: identity(state, &source.meta.key.namespace, &entry),
            node: None,
            tunnel: None,
            health: Health::Healthy,
            reason: "".into(),
            host: HostStanding::Serves,
            entry: Arc::new(entry),
        }
    }

    /// Records whether an address that is written down may get traffic.
    pub(super) fn set_ready(&mut self, ready: bool) {
        if !ready {
            (self.health, self.reason) = (Health::Unhealthy, "not ready".into());
        }
    }

    /// The word for its health that is shown to people.
    pub fn health_name(&self) -> &'static str {
        if self.host.is_draining() { "draining" } else { self.health.name() }
    }
}

/// The name of an endpoint that is written into a ServiceEntry.
pub(super) fn inline_key(source: &Resource, index: usize) -> WorkloadKey {
    let key = &source.meta.key;
    WorkloadKey { namespace: key.namespace.clone(), name: format!("{}-{index}", key.name).into() }
}

fn workload_entry(resource: &Resource) -> Option<WorkloadEntry> {
    match &resource.spec {
        Spec::WorkloadEntry(entry) => Some(entry.clone()),
        _ => None,
    }
}

/// Endpoints of entries outside the mesh are no workloads: no proxy stands before them.
fn inline_workload(state: &MeshState, key: &WorkloadKey) -> Option<(Arc<Resource>, WorkloadEntry)> {
    let (name, index) = key.name.rsplit_once('-')?;
    let source =
        ResourceKey { kind: Kind::ServiceEntry, namespace: key.namespace.clone(), name: name.into() };
    let source = state.resources.get(&source)?;
    let entry = service_entry(source).filter(|entry| entry.location == Location::Internal)?;
    let index: usize = index.parse().ok()?;
    // `01` is not how the key of an endpoint is written.
    (inline_key(source, index) == *key).then_some(())?;
    Some((source.clone(), entry.endpoints.get(index)?.clone()))
}

/// Who a workload is. One that says it takes part in the mesh and names no account has the default one.
fn identity(state: &MeshState, namespace: &str, entry: &WorkloadEntry) -> Option<SpiffeId> {
    let promised = (entry.labels.value(TLS_MODE) == Some(TLS_MODE_MESH)).then_some("default");
    let account = entry.service_account.as_deref().or(promised)?;
    SpiffeId::workload(&state.settings().trust_domain, namespace, account).ok()
}

/// A workload of no joined node is not subject to checks. One of a node is unknown until the node reports.
fn health(registration: Option<&Registration>, key: &WorkloadKey) -> (Health, Text) {
    match registration {
        None => (Health::Healthy, "".into()),
        Some(registration) if registration.standing.withholds() => {
            (Health::Unhealthy, registration.standing.reason().into())
        }
        Some(registration) => match registration.health.get(key) {
            Some(reported) => reported.clone(),
            None => (Health::Unknown, "not checked yet".into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Change;
    use crate::state::sample::{entry, joined, mesh, node};

    /// `node tunnel? health reason` of default/w.
    fn owner(state: &MeshState) -> String {
        let key = WorkloadKey { namespace: "default".into(), name: "w".into() };
        let Some(known) = state.workload(&key) else { return "unknown workload".to_owned() };
        let node = known.node.as_deref().unwrap_or("-");
        let tunnel = known.tunnel.map_or("-".to_owned(), |tunnel| tunnel.to_string());
        format!("{node} {tunnel} {} {}", known.health.name(), known.reason)
    }

    #[test]
    fn who_promises_mutual_tls_and_as_whom() {
        let check = |label: Option<&str>, account: Option<&str>, promises: bool, identity: Option<&str>| {
            let mut workload = crate::state::sample::workload("10.0.0.1", "app=a");
            workload.service_account = account.map(Text::from);
            if let Some(mode) = label {
                workload.labels.set("security.istio.io/tlsMode", mode);
            }
            assert_eq!(speaks_mutual_tls(&workload), promises, "{label:?} {account:?}");
            let state = mesh(vec![crate::state::sample::declare("default/w", Spec::WorkloadEntry(workload))]);
            let known = state.workloads().next().unwrap();
            let identity = identity.map(|account| format!("spiffe://cluster.local/ns/default/sa/{account}"));
            assert_eq!(known.identity.as_ref().map(ToString::to_string), identity, "{label:?} {account:?}");
        };
        check(None, Some("a"), true, Some("a"));
        check(None, None, false, None);
        check(Some("istio"), Some("a"), true, Some("a"));
        check(Some("istio"), None, true, Some("default"));
        check(Some("disabled"), Some("a"), false, Some("a"));
        check(Some(""), None, false, None);
    }

    #[test]
    fn a_workload_belongs_to_who_announced_it_else_to_the_node_of_its_address() {
        let declared = mesh(vec![entry("default/w", "10.0.0.1", "app=a")]);
        let announcing = || node("h2", "10.0.0.2", vec![entry("default/w", "10.0.0.9", "app=b")]);
        let by_address = || node("h1", "10.0.0.1", vec![]);
        let mut unreported = announcing();
        unreported.health.clear();
        let standing = |standing| Registration { standing, ..announcing() };
        let away = Registration { standing: HostStanding::Away, ..by_address() };
        for (nodes, expected) in [
            (vec![], "- - healthy "),
            (vec![node("h3", "10.0.0.3", vec![])], "- - healthy "),
            (vec![by_address()], "h1 10.0.0.1:15008 unknown not checked yet"),
            (vec![announcing()], "h2 10.0.0.2:15008 healthy "),
            (vec![by_address(), announcing()], "h2 10.0.0.2:15008 healthy "),
            (vec![unreported], "h2 10.0.0.2:15008 unknown not checked yet"),
            (vec![standing(HostStanding::Drained)], "h2 10.0.0.2:15008 unhealthy its host is drained"),
            (vec![standing(HostStanding::Leaves)], "h2 10.0.0.2:15008 unhealthy its proxy is ending"),
            (vec![away.clone(), node("h2", "10.0.0.1", vec![])], "h2 10.0.0.1:15008 unknown not checked yet"),
            (vec![away], "h1 10.0.0.1:15008 unhealthy nothing was heard of its host for a lease"),
        ] {
            assert_eq!(owner(&joined(&declared, nodes)), expected);
        }
        let moved = joined(&joined(&declared, vec![by_address()]), vec![node("h1", "10.0.0.7", vec![])]);
        assert_eq!(owner(&moved), "- - healthy ");
        let left = Change { registrations: vec![("h2".into(), None)], ..Change::default() };
        assert_eq!(owner(&joined(&mesh(vec![]), vec![announcing()]).apply(left).0), "unknown workload");
    }
}
