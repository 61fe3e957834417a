//! Workloads that fall and rise again and again, and until when they are kept out. What is decided is
//! [`mesh_core::resilience::flap`]; here is who it is decided of, in memory: a new meshd begins anew.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mesh_core::resilience::flap::{FlapDamping, Flaps};
use mesh_core::vocab::name::{Text, WorkloadKey};
use tokio::time::Instant;

use crate::{clock, telemetry};

/// So many workloads that fell lately are remembered; further ones are not damped.
const MOST: usize = 16_384;

/// The workloads that fell lately.
#[derive(Debug)]
pub(super) struct Flapping {
    damping: FlapDamping,
    began: Instant,
    known: BTreeMap<WorkloadKey, Known>,
}

#[derive(Debug)]
struct Known {
    node: String,
    flaps: Flaps,
    /// Why it is kept out, if it is.
    reason: Text,
    /// It is let in all the same, until it falls again.
    let_in: bool,
}

impl Flapping {
    pub(super) fn new(damping: FlapDamping) -> Flapping {
        Flapping { damping, began: Instant::now(), known: BTreeMap::new() }
    }

    /// A workload was well and is not any more.
    pub(super) fn fell(&mut self, node: &str, workload: &WorkloadKey) {
        let now = self.began.elapsed();
        if self.damping.hold.is_zero() || (self.known.len() >= MOST && !self.known.contains_key(workload)) {
            return;
        }
        let known = self.known.entry(workload.clone()).or_insert_with(|| Known {
            node: node.to_owned(),
            flaps: Flaps::new(now),
            reason: "".into(),
            let_in: false,
        });
        node.clone_into(&mut known.node);
        known.flaps.fall(now, &self.damping);
        known.let_in = false;
    }

    /// A workload is well that was not.
    pub(super) fn rose(&mut self, workload: &WorkloadKey) {
        let now = self.began.elapsed();
        let Some(known) = self.known.get_mut(workload) else { return };
        known.flaps.rise(now, &self.damping);
        if let Some(until) = known.flaps.held_until(now, &self.damping) {
            let left = i64::try_from(until.saturating_sub(now).as_secs()).unwrap_or(i64::MAX);
            let until = clock::text(clock::now_seconds().saturating_add(left));
            let falls = known.flaps.falls();
            known.reason = format!("flapping: fell {falls} times, kept out until {until}").into();
            telemetry::flapped("kept_out");
            tracing::warn!(%workload, falls, until, "a workload flaps and is kept out");
        }
    }

    /// Why a workload is kept out although it is well; `None` if it is not.
    pub(super) fn held(&self, workload: &WorkloadKey) -> Option<&Text> {
        let known = self.known.get(workload).filter(|known| !known.let_in)?;
        known.flaps.held_until(self.began.elapsed(), &self.damping).map(|_until| &known.reason)
    }

    /// It is needed.
    pub(super) fn let_in(&mut self, workload: &WorkloadKey) {
        if let Some(known) = self.known.get_mut(workload) {
            known.let_in = true;
            telemetry::flapped("let_in");
            tracing::warn!(%workload, "a workload flaps and is let in: too few others are well");
        }
    }

    /// Whether nobody fell lately.
    pub(super) fn is_idle(&self) -> bool {
        self.known.is_empty()
    }

    /// The nodes of those that fell lately; what lies back is forgotten with this look.
    pub(super) fn nodes(&mut self) -> BTreeSet<String> {
        let nodes = self.known.values().map(|known| known.node.clone()).collect();
        let (now, damping) = (self.began.elapsed(), self.damping);
        self.known.retain(|_, known| !known.flaps.is_calm(now, &damping));
        nodes
    }
}

/// Damping as flags have it.
pub(super) fn damping(hold: Duration, longest: Duration) -> FlapDamping {
    FlapDamping { hold, longest: longest.max(hold), ..FlapDamping::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_flaps_is_kept_out_unless_it_is_needed() {
        let key = WorkloadKey { namespace: "default".into(), name: "a".into() };
        let mut flapping = Flapping::new(damping(Duration::from_secs(10), Duration::ZERO));
        let flap = |flapping: &mut Flapping| {
            flapping.fell("h1", &key);
            flapping.rose(&key);
        };
        flap(&mut flapping);
        flap(&mut flapping);
        assert_eq!(flapping.held(&key), None);
        flap(&mut flapping);
        assert!(
            flapping.held(&key).is_some_and(|why| why.starts_with("flapping: fell 3 times, kept out until "))
        );
        assert_eq!(flapping.nodes(), BTreeSet::from(["h1".to_owned()]));
        flapping.let_in(&key);
        assert_eq!(flapping.held(&key), None);
        flap(&mut flapping);
        assert!(flapping.held(&key).is_some());
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(flapping.held(&key), None);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(flapping.nodes().len(), 1);
        assert!(flapping.is_idle());
        let mut off = Flapping::new(damping(Duration::ZERO, Duration::ZERO));
        (0..9).for_each(|_| flap(&mut off));
        assert!(off.is_idle());
    }
}
