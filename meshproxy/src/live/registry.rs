//! Carried state by stable key: what was learned stays when tables are rebuilt, and is forgotten some time after the
//! last tables that named it. Only the builder of roots touches this; requests hold what they need.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use mesh_core::tables::routes::EndpointKey;
use mesh_core::vocab::identity::SpiffeId;
use mesh_core::vocab::name::{DestinationKey, Text};
use tokio::time::Instant;

use super::destination::DestinationState;
use super::endpoint::EndpointState;
use super::layout::CallerPlace;
use super::limits::{LimitKey, LimitState};

/// State is forgotten so long after the last tables that named it.
const FORGET_AFTER: Duration = Duration::from_secs(300);

type Map<K, V> = HashMap<K, V, RandomState>;

/// Everything that is carried from root to root.
#[derive(Debug, Default)]
pub struct Registry {
    endpoints: Map<EndpointKey, Carried<EndpointState>>,
    destinations: Map<DestinationKey, Carried<DestinationState>>,
    limits: Map<LimitKey, Carried<LimitState>>,
    /// When the present build began.
    now: Option<Instant>,
    identities: Map<SpiffeId, u32>,
    places: Map<CallerPlace, u32>,
    /// What names were last resolved to; empty where they never could be.
    pub(super) answers: Map<Text, Arc<[IpAddr]>>,
    build: u64,
}

#[derive(Debug)]
struct Carried<T> {
    state: Arc<T>,
    build: u64,
    named: Instant,
}

impl Registry {
    /// Begins a build: what it does not name counts as unnamed afterwards.
    pub(super) fn begin(&mut self, now: Instant) {
        self.build += 1;
        self.now = Some(now);
    }

    /// The state of an endpoint.
    pub(super) fn endpoint(&mut self, key: EndpointKey, now: Instant) -> Arc<EndpointState> {
        carried(&mut self.endpoints, key, self.build, now)
    }

    /// The state of a destination.
    pub(super) fn destination(&mut self, key: DestinationKey, now: Instant) -> Arc<DestinationState> {
        carried(&mut self.destinations, key, self.build, now)
    }

    /// The state of a rate limit.
    pub(super) fn limit(&mut self, key: &LimitKey) -> Arc<LimitState> {
        let now = self.now.unwrap_or_else(Instant::now);
        carried(&mut self.limits, key.clone(), self.build, now)
    }

    /// A number for an identity, from 1, for the life of the process.
    pub(super) fn identity(&mut self, id: &SpiffeId) -> u32 {
        if let Some(number) = self.identities.get(id) {
            return *number;
        }
        let number = self.identities.len() as u32 + 1;
        self.identities.insert(id.clone(), number);
        number
    }

    /// A number for a place of this host's callers, from 1, for the life of the process.
    pub(super) fn place(&mut self, place: &CallerPlace) -> u32 {
        if let Some(number) = self.places.get(place) {
            return *number;
        }
        let number = self.places.len() as u32 + 1;
        self.places.insert(place.clone(), number);
        number
    }

    /// Ends a build: marks what it did not name, and forgets what has not been named for long.
    pub(super) fn end(&mut self, now: Instant) {
        let build = self.build;
        let keep = |named: Instant| now.saturating_duration_since(named) < FORGET_AFTER;
        self.endpoints.retain(|_, carried| {
            carried.state.set_gone(carried.build != build);
            carried.build == build || keep(carried.named)
        });
        self.destinations.retain(|_, carried| carried.build == build || keep(carried.named));
        self.limits.retain(|_, carried| carried.build == build || keep(carried.named));
    }
}

fn carried<K: Eq + std::hash::Hash, T: Default>(
    map: &mut Map<K, Carried<T>>,
    key: K,
    build: u64,
    now: Instant,
) -> Arc<T> {
    let entry = map.entry(key).or_insert_with(|| Carried { state: Arc::default(), build, named: now });
    entry.build = build;
    entry.named = now;
    Arc::clone(&entry.state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::vocab::name::WorkloadKey;

    fn key(name: &str) -> EndpointKey {
        let workload = WorkloadKey { namespace: "default".into(), name: name.into() };
        EndpointKey { destination: "d".into(), workload, address: None, port: 80 }
    }

    #[test]
    fn state_is_kept_marked_and_forgotten() {
        let mut registry = Registry::default();
        let start = Instant::now();
        registry.begin(start);
        let first = registry.endpoint(key("a"), start);
        registry.end(start);
        let permit = first.enter();
        registry.begin(start);
        registry.end(start + Duration::from_secs(1));
        assert!(first.is_gone());
        registry.begin(start);
        let again = registry.endpoint(key("a"), start + Duration::from_secs(2));
        registry.end(start + Duration::from_secs(2));
        assert!(!again.is_gone() && again.in_flight() == 1);
        drop(permit);
        assert_eq!(first.in_flight(), 0);
        registry.begin(start);
        registry.end(start + Duration::from_secs(400));
        assert!(registry.endpoints.is_empty());
    }
}
