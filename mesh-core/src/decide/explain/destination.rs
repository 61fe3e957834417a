//! What is said of a destination.

use super::DestinationFound;
use crate::decide::witness::{Remembering, Witness};
use crate::routing::rule::Backend;
use crate::tables::destinations::{Destination, Transport};
use crate::vocab::health::Health;

fn share(backend: &Backend, of: usize) -> u32 {
    if of == 1 { 100 } else { backend.weight }
}

/// A backend without a destination.
pub(super) fn missing(backend: &Backend, of: usize) -> DestinationFound {
    DestinationFound {
        host: backend.host.to_string(),
        subset: backend.subset.as_ref().map(ToString::to_string),
        port: backend.port,
        weight: share(backend, of),
        cluster: backend.cluster(),
        tls: "none",
        load_balancer: None,
        endpoints: Vec::new(),
    }
}

/// A backend with its destination.
pub(super) fn found(backend: &Backend, of: usize, destination: &Destination) -> DestinationFound {
    let mutual =
        destination.endpoints.iter().any(|endpoint| matches!(endpoint.transport, Transport::Mesh { .. }));
    DestinationFound {
        tls: if mutual { "mutual" } else { "none" },
        load_balancer: Some(destination.policy.load_balancer.name()),
        endpoints: destination.endpoints.clone(),
        ..missing(backend, of)
    }
}

/// Tells where a share of the traffic goes.
pub(super) fn note_destination(
    destination: &Destination,
    backend: &Backend,
    of: usize,
    witness: &mut Remembering,
) {
    let healthy = destination.endpoints.iter().filter(|endpoint| endpoint.health == Health::Healthy).count();
    witness.note(|| {
        let weight = share(backend, of);
        let rule =
            destination.policy.origin.as_deref().map(|rule| format!(" shaped by {rule}")).unwrap_or_default();
        format!(
            "weight {weight} goes to {}{rule}: {healthy} of {} endpoints healthy, {}",
            destination.cluster,
            destination.endpoints.len(),
            destination.policy.load_balancer.name()
        )
    });
}
