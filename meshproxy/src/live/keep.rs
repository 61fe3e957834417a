//! Lays endpoints out anew while their destinations stay: when other ones are usable, and from time to time where they
//! report their load or warm up.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::vocab::name::DestinationKey;
use tokio::time::Instant;

use super::destination::LiveDestination;
use super::load::until;
use super::root::Roots;

/// Keeps the layouts of the current root as its endpoints are, until dropped.
pub async fn keep(roots: Arc<Roots>) {
    let mut changed = roots.subscribe();
    let mut due: BTreeMap<DestinationKey, Instant> = BTreeMap::new();
    loop {
        changed.borrow_and_update();
        let root = roots.load();
        due.retain(|key, _| root.tables.destination(key).is_some());
        loop {
            // Each time, as others may have become usable while a root was made.
            for live in root.destinations.iter().filter(|live| live.is_stale()) {
                live.lay_anew();
            }
            let next = lay_due(&root.destinations, &mut due);
            tokio::select! {
                result = changed.changed() => match result {
                    Ok(()) => break,
                    Err(_) => return,
                },
                () = roots.health_changed() => {}
                () = until(next) => {}
            }
        }
    }
}

/// Lays out what is due; when the next is.
fn lay_due(
    destinations: &[Arc<LiveDestination>],
    due: &mut BTreeMap<DestinationKey, Instant>,
) -> Option<Instant> {
    let now = Instant::now();
    for (live, period) in destinations.iter().filter_map(|live| Some((live, live.period()?))) {
        let key = &live.destination.policy.key;
        let at = due.get(key).copied().unwrap_or(now + period);
        let is_due = at <= now;
        if is_due {
            live.lay_anew();
        }
        due.insert(key.clone(), if is_due { now + period } else { at.min(now + period) });
    }
    // What no longer changes by itself is not waited for.
    due.retain(|_, at| *at > now);
    due.values().min().copied()
}
