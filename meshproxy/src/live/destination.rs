//! A destination as the request path uses it: its policy, its endpoints with what is learned of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use mesh_core::balancing::balancer::LoadView;
use mesh_core::balancing::choice::{Choice, Member};
use mesh_core::balancing::policy::Algorithm;
use mesh_core::balancing::utilization::Utilization;
use mesh_core::tables::destinations::Destination;
use mesh_core::vocab::random::Random;

use super::endpoint::LiveEndpoint;
use super::load::{Ear, weigh};
use crate::identity::origination::Originated;
use crate::telemetry::labels::{Numbered, ServiceLabels};

/// What is learned of a destination; outlives the tables that name it.
#[derive(Debug, Default)]
pub struct DestinationState {
    turn: AtomicU64,
}

/// A destination of the tables with its state. The endpoints have the same indices as in the tables.
#[derive(Debug)]
pub struct LiveDestination {
    /// Policy and cluster name.
    pub destination: Arc<Destination>,
    /// What is learned of it.
    pub state: Arc<DestinationState>,
    /// Its endpoints.
    pub endpoints: Vec<LiveEndpoint>,
    /// The service, for metrics.
    pub service: Numbered<ServiceLabels>,
    /// TLS that connections to its endpoints begin with, where they are not the mesh's.
    pub tls: Option<Arc<Originated>>,
    choice: Arc<Choice>,
    /// In its place where endpoints report their weights: changes while the destination stays.
    shifting: Option<ArcSwap<Choice>>,
}

impl LiveDestination {
    /// Joins a destination with what is known of it. How its endpoints are chosen is taken from the one before, if the
    /// same endpoints may get traffic: a large table of hashes is made when something has changed only. `node` is this
    /// host, if it has workloads.
    pub fn new(
        destination: &Arc<Destination>,
        state: Arc<DestinationState>,
        endpoints: Vec<LiveEndpoint>,
        service: Numbered<ServiceLabels>,
        tls: Option<Arc<Originated>>,
        before: Option<&LiveDestination>,
        node: Option<&str>,
    ) -> LiveDestination {
        let algorithm = &destination.policy.load_balancer;
        let reached = |endpoint: &LiveEndpoint| {
            endpoint.may_get_traffic() && destination.reaches(&endpoint.endpoint, node)
        };
        let members = endpoints.iter().enumerate().filter(|(_, endpoint)| reached(endpoint));
        let mut members: Vec<Member> = members.map(|(index, endpoint)| member(index, endpoint)).collect();
        let utilization = algorithm.utilization();
        if let Some(utilization) = utilization {
            weigh(utilization, &endpoints, &mut members);
        }
        let choice = match before.map(|before| &before.choice) {
            Some(choice) if choice.is_of(algorithm, &members) => Arc::clone(choice),
            Some(_) | None => Arc::new(Choice::new(algorithm, members)),
        };
        let shifting = utilization.map(|_| ArcSwap::new(Arc::clone(&choice)));
        let destination = Arc::clone(destination);
        LiveDestination { destination, state, endpoints, service, tls, choice, shifting }
    }

    /// The destination with one of its endpoints, for a connection that is meant for no other.
    pub(super) fn only(&self, endpoint: &LiveEndpoint) -> LiveDestination {
        let mut policy = self.destination.policy.clone();
        // There is nothing to choose, and who was addressed is reached wherever it runs.
        policy.load_balancer = Algorithm::default();
        policy.node_local = false;
        let destination = Arc::new(Destination {
            policy,
            cluster: Arc::clone(&self.destination.cluster),
            endpoints: vec![Arc::clone(&endpoint.endpoint)],
        });
        let (state, service, tls) = (Arc::clone(&self.state), self.service.clone(), self.tls.clone());
        LiveDestination::new(&destination, state, vec![endpoint.clone()], service, tls, None, None)
    }

    /// How often reported weights come into force, where there are such.
    pub(super) fn period(&self) -> Option<Duration> {
        self.destination.policy.load_balancer.utilization().map(Utilization::period)
    }

    /// Lays the turns out anew by what endpoints have reported.
    pub(super) fn weigh_anew(&self) {
        let algorithm = &self.destination.policy.load_balancer;
        let (Some(shifting), Some(utilization)) = (&self.shifting, algorithm.utilization()) else { return };
        let mut members = self.choice.members().to_vec();
        weigh(utilization, &self.endpoints, &mut members);
        if !shifting.load().is_of(algorithm, &members) {
            shifting.store(Arc::new(Choice::new(algorithm, members)));
        }
    }

    /// Who hears the reports of an endpoint, where the destination goes by them.
    pub fn ear(&self, endpoint: &LiveEndpoint) -> Option<Ear> {
        self.shifting.as_ref().and_then(|_| Ear::of(&self.destination, endpoint))
    }

    /// The share of an endpoint by what all have reported, where the destination goes by that.
    pub fn reported_share(&self, index: usize) -> Option<u32> {
        let choice = self.shifting.as_ref()?.load();
        choice.members().iter().find(|member| member.index == index).map(|member| member.weight)
    }

    /// Chooses an endpoint that was not tried, by a hash where the destination goes by one; one that was tried if there
    /// is no other. `None` if none may get traffic.
    pub fn pick(&self, tried: &[usize], hash: Option<u64>, random: &mut Random) -> Option<usize> {
        // Relaxed: the cursor only spreads load.
        let turn = || self.state.turn.fetch_add(1, Ordering::Relaxed);
        let pick = |tried, random: &mut Random| {
            let view = Untried { endpoints: &self.endpoints, tried };
            match &self.shifting {
                None => self.choice.pick(&view, hash, turn, random),
                Some(shifting) => shifting.load().pick(&view, hash, turn, random),
            }
        };
        match pick(tried, random) {
            None if !tried.is_empty() => pick(&[], random),
            fresh => fresh,
        }
    }
}

/// What an endpoint is known by on every host is its address: the same key finds the same endpoint everywhere.
fn member(index: usize, endpoint: &LiveEndpoint) -> Member {
    Member { index, weight: endpoint.endpoint.weight, key: endpoint.endpoint.address.hash() }
}

/// The endpoints as the balancer sees them, those that were tried left out.
struct Untried<'a> {
    endpoints: &'a [LiveEndpoint],
    tried: &'a [usize],
}

impl LoadView for Untried<'_> {
    fn active(&self, index: usize) -> u32 {
        self.endpoints[index].state.in_flight()
    }

    fn usable(&self, index: usize) -> bool {
        self.endpoints[index].is_usable() && !self.tried.contains(&index)
    }
}
