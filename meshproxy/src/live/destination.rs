//! A destination as the request path uses it: its policy, its endpoints with what is learned of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mesh_core::balancing::balancer::{LoadBalancer, LoadView};
use mesh_core::balancing::policy::Algorithm;
use mesh_core::tables::destinations::Destination;
use mesh_core::vocab::random::Random;

use super::endpoint::LiveEndpoint;
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
}

impl LiveDestination {
    /// Chooses an endpoint that was not tried; one that was if there is no other. `None` if none may get traffic.
    pub fn pick(&self, tried: &[usize], random: &mut Random) -> Option<usize> {
        // Relaxed: the cursor only spreads load.
        let turn = self.state.turn.fetch_add(1, Ordering::Relaxed);
        let balancer = match &self.destination.policy.load_balancer {
            Algorithm::Simple(simple) => *simple,
            // Where no endpoint is chosen, or by a hash that no request has here, any will do.
            Algorithm::Passthrough | Algorithm::ConsistentHash { .. } => LoadBalancer::Random,
        };
        let fresh = balancer.pick(&Untried { endpoints: &self.endpoints, tried }, turn, random);
        match fresh {
            None if !tried.is_empty() => {
                balancer.pick(&Untried { endpoints: &self.endpoints, tried: &[] }, turn, random)
            }
            fresh => fresh,
        }
    }
}

/// The endpoints as the balancer sees them, those that were tried left out.
struct Untried<'a> {
    endpoints: &'a [LiveEndpoint],
    tried: &'a [usize],
}

impl LoadView for Untried<'_> {
    fn len(&self) -> usize {
        self.endpoints.len()
    }

    fn weight(&self, index: usize) -> u32 {
        self.endpoints[index].endpoint.weight
    }

    fn active(&self, index: usize) -> u32 {
        self.endpoints[index].state.in_flight()
    }

    fn usable(&self, index: usize) -> bool {
        self.endpoints[index].is_usable() && !self.tried.contains(&index)
    }
}
