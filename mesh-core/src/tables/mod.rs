//! A snapshot arranged for look-up: what decisions read.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::message::path::Normalization;
use crate::policy::jwt::check::TokenRules;
use crate::policy::mtls::CredentialKey;
use crate::routing::limit::RateLimit;
use crate::snapshot::Version;
use crate::snapshot::credential::Credential;
use crate::snapshot::security::TrustBundle;
use crate::snapshot::workload::{Workload, WorkloadPort};
use crate::telemetry::Telemetry;
use crate::telemetry::wanted::Wanted;
use crate::vocab::health::Health;
use crate::vocab::identity::SpiffeId;
use crate::vocab::locality::Locality;
use crate::vocab::name::{DestinationKey, Text, WorkloadKey};

pub mod addresses;
mod affixes;
pub mod build;
mod condition_index;
pub mod destinations;
pub mod gateway;
pub mod governance;
mod hosts;
pub mod names;
pub mod owners;
mod resolved;
pub mod routes;
pub mod views;
pub mod workloads;

use destinations::Destination;
use gateway::GatewayTable;
use names::Names;
use routes::{ServiceTable, Unowned};
use views::ViewTable;
use workloads::HostedWorkload;

/// A map that is looked up on the request path. Its hash is fixed: the keys are the operator's, not the client's.
pub(crate) type Index<K, V> = HashMap<K, V, FixedState>;

/// Halves of credentials by what names them.
pub type Credentials = BTreeMap<CredentialKey, Arc<Credential>>;

/// Everything that a proxy decides with, at one version. Immutable; parts are shared with the tables before.
#[derive(Debug, Default)]
pub struct Tables {
    /// Version of the snapshot.
    pub version: Version,
    /// Trust domain and roots.
    pub trust: Option<Arc<TrustBundle>>,
    /// Services; plans and listeners name them by index.
    pub services: Vec<ServiceTable>,
    /// Destinations; plans name them by index.
    pub destinations: Vec<Arc<Destination>>,
    /// Workloads of this host.
    pub workloads: BTreeMap<WorkloadKey, Arc<HostedWorkload>>,
    pub(crate) destination_index: Index<DestinationKey, usize>,
    pub(crate) names: Names,
    /// Services that the callers of a view find in the place of others of the same host, by view and host.
    pub(crate) variants: Index<Text, Index<Text, usize>>,
    pub(crate) unowned: Unowned,
    pub(crate) views: Index<Text, ViewTable>,
    pub(crate) gateways: BTreeMap<(Text, Text), GatewayTable>,
    pub(crate) by_address: Index<SocketAddr, WorkloadKey>,
    /// Rate limits of rules, each resource and target once.
    pub rule_limits: Vec<RateLimit>,
    /// Halves of credentials that this host was given.
    pub credentials: Arc<Credentials>,
    pub(crate) tokens: BTreeMap<(Text, Text), Arc<TokenRules>>,
    /// What is told of traffic of which no workload of this host is known.
    pub telemetry: Arc<Telemetry>,
    /// Header fields that are told of.
    pub wanted: Wanted,
}

impl Tables {
    /// How far paths are brought into one form before anything judges them.
    pub fn normalization(&self) -> Normalization {
        self.trust.as_ref().map(|trust| trust.normalization).unwrap_or_default()
    }

    /// The service that a name means for callers of a namespace. The name is compared in lower case, without
    /// its trailing dot.
    pub fn service_named(&self, name: &str, namespace: Option<&str>) -> Option<usize> {
        self.names.service(name, namespace)
    }

    /// The host outside the mesh that a name stands for (ExternalName), for callers of a namespace.
    pub fn stands_for(&self, name: &str, namespace: Option<&str>) -> Option<&Text> {
        self.names.elsewhere(name, namespace)
    }

    /// The service that a connection to a host or address and a port is for: the one of that name or address, else
    /// for byte streams one whose network holds the address, or that takes every address on the port.
    pub fn service_addressed(&self, host: &str, port: u16, namespace: Option<&str>) -> Option<usize> {
        let around = || host.parse().ok().and_then(|address| self.names.around(address, port));
        self.service_named(host, namespace).or_else(around)
    }

    /// The service that the callers of a view find where others find that of `index`: another of the same host, if
    /// ServiceEntries of several namespaces claim it.
    pub fn service_in_view(&self, index: usize, view: Option<&str>) -> usize {
        let own = view
            .filter(|_| !self.variants.is_empty())
            .and_then(|view| self.variants.get(view)?.get(&self.services.get(index)?.service.host).copied());
        own.unwrap_or(index)
    }

    /// Index of the service with this host: one look-up, however many services there are.
    pub fn service_index(&self, host: &str) -> Option<usize> {
        self.names.host(host)
    }

    /// The service with this host.
    pub fn service(&self, host: &str) -> Option<&ServiceTable> {
        self.service_index(host).map(|index| &self.services[index])
    }

    /// Index of the destination with this key.
    pub fn destination(&self, key: &DestinationKey) -> Option<usize> {
        self.destination_index.get(key).copied()
    }

    /// How many healthy workloads of a workload's own service there are in each locality, itself included.
    pub fn siblings(&self, workload: &Workload) -> Vec<(Locality, u64)> {
        let own = |port: &WorkloadPort| {
            self.destinations.iter().find(|destination| {
                let key = &destination.policy.key;
                *key.host == *port.service && key.subset.is_none()
            })
        };
        let mut localities: Vec<(Locality, u64)> = Vec::new();
        let Some(destination) = workload.ports.iter().find_map(own) else { return localities };
        for endpoint in destination.endpoints.iter().filter(|e| e.health == Health::Healthy) {
            match localities.iter_mut().find(|(locality, _)| *locality == endpoint.locality) {
                Some((_, count)) => *count += 1,
                None => localities.push((endpoint.locality.clone(), 1)),
            }
        }
        localities
    }

    /// The workload of this host at an address and port, with what is known of the port. A port that no
    /// service reaches belongs to the workload with that address, if there is just one.
    pub fn workload_at(&self, address: SocketAddr) -> Option<&Arc<HostedWorkload>> {
        if let Some(key) = self.by_address.get(&address) {
            return self.workloads.get(key);
        }
        let mut there = self.workloads.values().filter(|workload| workload.section.address == address.ip());
        let only = there.next()?;
        there.next().is_none().then_some(only)
    }

    /// The same where several workloads have that address and port, each in a network namespace of its own: the one
    /// with the identity that the caller was shown.
    pub fn workload_shown(&self, address: SocketAddr, shown: &SpiffeId) -> Option<&Arc<HostedWorkload>> {
        let found = self.workload_at(address);
        let has = |workload: &HostedWorkload| workload.section.identity.as_ref() == Some(shown);
        if found.is_some_and(|found| has(found)) {
            return found;
        }
        let is_there = |workload: &HostedWorkload| {
            workload.section.address == address.ip() && workload.port(address.port()).is_some()
        };
        self.workloads.values().find(|workload| has(workload) && is_there(workload)).or(found)
    }

    /// The workload that a caller means which was shown an identity of this host, or none.
    pub fn workload_meant(
        &self,
        address: SocketAddr,
        shown: Option<&SpiffeId>,
    ) -> Option<&Arc<HostedWorkload>> {
        match shown {
            Some(shown) => self.workload_shown(address, shown),
            None => self.workload_at(address),
        }
    }

    /// The Gateway of that namespace and name.
    pub fn gateway(&self, namespace: &str, name: &str) -> Option<&GatewayTable> {
        self.gateways.get(&(Text::from(namespace), Text::from(name)))
    }

    /// The only workload of this host, if there is just one.
    pub fn only_workload(&self) -> Option<&Arc<HostedWorkload>> {
        let mut workloads = self.workloads.values();
        let only = workloads.next()?;
        workloads.next().is_none().then_some(only)
    }

    /// This host, if it has workloads.
    pub fn node(&self) -> Option<&str> {
        self.workloads.values().next().map(|workload| &*workload.section.node)
    }

    /// The namespaces of this host's workloads, sorted, each once: where bare names are looked for.
    pub fn namespaces(&self) -> Vec<Text> {
        let mut namespaces: Vec<Text> = self.workloads.keys().map(|key| key.namespace.clone()).collect();
        namespaces.dedup();
        namespaces
    }
}
