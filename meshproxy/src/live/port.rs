//! What a port of a workload of this host demands of traffic to its application: limits, and how connections are kept
//! (`connectionPool` of the service's own rule, or of the Sidecar).

use std::sync::Arc;
use std::time::Duration;

use mesh_core::resilience::pool::{ConnectionSettings, PoolLimits};
use mesh_core::snapshot::workload::WorkloadPort;

use super::breaker::{Breaker, Overflow};
use super::destination::DestinationState;
use super::endpoint::{EndpointState, Permit};
use crate::telemetry::metrics::Metrics;

/// A port of which anything is said.
#[derive(Debug)]
pub struct Port {
    /// Its number.
    pub number: u16,
    /// The limits, with defaults.
    pub limits: PoolLimits,
    /// How long a connection may take, where that is said.
    pub connect_timeout: Option<Duration>,
    /// How connections to the application are kept, where anything is said of it.
    pub settings: Option<Arc<ConnectionSettings>>,
    breaker: Option<Arc<Breaker>>,
    state: Arc<DestinationState>,
    endpoint: Arc<EndpointState>,
}

impl Port {
    /// The port, if anything is said of it; with what is under way at the one before.
    pub(super) fn of(
        declared: &WorkloadPort,
        before: Option<&Arc<Port>>,
        metrics: &Metrics,
    ) -> Option<Arc<Port>> {
        let limits = declared.pool.limits(None);
        let connect_timeout = declared.pool.connect_timeout;
        if limits == PoolLimits::default() && connect_timeout.is_none() {
            return None;
        }
        let state = before.map(|before| Arc::clone(&before.state)).unwrap_or_default();
        let endpoint = before.map(|before| Arc::clone(&before.endpoint)).unwrap_or_default();
        let cluster = format!("inbound|{}||", declared.number);
        Some(Arc::new(Port {
            number: declared.number,
            connect_timeout,
            settings: limits.connection().map(Arc::new),
            breaker: Breaker::of(&limits, &state, |what| metrics.overflows(&cluster, what.name())),
            limits,
            state,
            endpoint,
        }))
    }

    /// A place for a request, which may have to be waited for.
    pub async fn request(&self, alone: bool) -> Result<Permit, Overflow> {
        let mut permit = self.endpoint.enter();
        if let Some(breaker) = &self.breaker {
            permit.take(Some(breaker.request(&self.endpoint, alone).await?));
        }
        Ok(permit)
    }

    /// A place for a byte stream.
    pub fn stream(&self) -> Result<Permit, Overflow> {
        let mut permit = self.endpoint.enter();
        if let Some(breaker) = &self.breaker {
            permit.take(Some(breaker.stream(&self.endpoint)?));
        }
        Ok(permit)
    }
}
