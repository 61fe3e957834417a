//! Whether this process runs short of memory or descriptors, and what it does about it: measured by one task beside the
//! data path, looked at with one relaxed load wherever something new would begin.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use mesh_core::resilience::pressure::{DESCRIPTORS, MEMORY, Yielding, yielding};
use tokio::sync::watch;

use super::supply::{Supply, Used};

/// How often it is measured, and how often where a good part is in use: little can fill up in between.
const LOOK: Duration = Duration::from_millis(100);
const CLOSE_LOOK: Duration = Duration::from_millis(20);

/// What there is too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scarce {
    /// Memory.
    Memory,
    /// Descriptors.
    Descriptors,
}

impl Scarce {
    /// Label of metrics.
    pub fn name(self) -> &'static str {
        match self {
            Scarce::Memory => "memory",
            Scarce::Descriptors => "descriptors",
        }
    }
}

const STREAMS: u8 = 1;
const CONNECTIONS: u8 = 2;
const IDLE: u8 = 4;
const BUSY: u8 = 8;
/// The same bits say it of descriptors, so much further up.
const SHIFT: u8 = 4;

/// How this process gives way, for all of its threads.
#[derive(Debug, Clone)]
pub struct Pressure(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    gives: AtomicU8,
    changed: watch::Sender<u8>,
}

/// What was measured, and what follows.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// What is in use.
    pub used: Used,
    /// How the process gives way for want of memory.
    pub memory: Yielding,
    /// The same for want of descriptors.
    pub descriptors: Yielding,
}

impl Default for Pressure {
    fn default() -> Pressure {
        Pressure(Arc::new(Shared { gives: AtomicU8::new(0), changed: watch::Sender::new(0) }))
    }
}

impl Pressure {
    /// Why no new stream is taken, if none is.
    pub fn refuses_streams(&self) -> Option<Scarce> {
        self.bit(STREAMS)
    }

    /// Why no new connection is taken, if none is.
    pub fn refuses_connections(&self) -> Option<Scarce> {
        self.bit(CONNECTIONS)
    }

    /// Whether idle connections must go.
    pub fn closes_idle(&self) -> bool {
        self.bit(IDLE).is_some()
    }

    /// Whether connections must be cut.
    pub fn cuts_busy(&self) -> bool {
        self.bit(BUSY).is_some()
    }

    /// Whether memory is scarce.
    pub fn wants_memory(&self) -> bool {
        self.now() & ((1 << SHIFT) - 1) != 0
    }

    fn now(&self) -> u8 {
        // Relaxed: a hint that comes in time or a moment later.
        self.0.gives.load(Ordering::Relaxed)
    }

    fn bit(&self, bit: u8) -> Option<Scarce> {
        match self.now() {
            0 => None,
            now if now & bit != 0 => Some(Scarce::Memory),
            now if now & (bit << SHIFT) != 0 => Some(Scarce::Descriptors),
            _ => None,
        }
    }

    /// Says how the process gives way from now on.
    pub fn set(&self, memory: Yielding, descriptors: Yielding) {
        let bits = |gives: Yielding| {
            let bit = |holds: bool, bit: u8| if holds { bit } else { 0 };
            bit(gives.streams, STREAMS)
                | bit(gives.connections, CONNECTIONS)
                | bit(gives.idle, IDLE)
                | bit(gives.busy, BUSY)
        };
        let now = bits(memory) | bits(descriptors) << SHIFT;
        self.0.gives.store(now, Ordering::Relaxed);
        self.0.changed.send_if_modified(|before| std::mem::replace(before, now) != now);
    }

    /// Resolves when the process gives way, at once if it does already.
    pub async fn begins(&self) {
        let mut changed = self.0.changed.subscribe();
        // The sender lives in `self`, so this cannot fail.
        drop(changed.wait_for(|gives| *gives != 0).await);
    }

    /// Measures again and again; runs as long as the process.
    pub async fn keep(self, mut supply: Supply, budget: u64, tell: impl Fn(&Seen)) {
        let (mut memory, mut descriptors) = (Yielding::default(), Yielding::default());
        loop {
            let used = supply.used();
            let before = (memory, descriptors);
            memory = yielding(MEMORY, memory, used.memory, budget);
            descriptors = yielding(DESCRIPTORS, descriptors, used.descriptors, used.most_descriptors);
            self.set(memory, descriptors);
            tell(&Seen { used, memory, descriptors });
            say(before, (memory, descriptors), used, budget);
            let is_close = used.memory >= budget / 2 || used.descriptors >= used.most_descriptors / 2;
            tokio::time::sleep(if is_close { CLOSE_LOOK } else { LOOK }).await;
        }
    }
}

/// The operator hears when it begins and when it is over.
fn say(before: (Yielding, Yielding), now: (Yielding, Yielding), used: Used, budget: u64) {
    let Used { memory, descriptors, most_descriptors } = used;
    if !before.0.any() && now.0.any() {
        tracing::warn!(memory, budget, "memory is scarce: new streams are refused");
    }
    if !before.1.any() && now.1.any() {
        tracing::warn!(descriptors, most_descriptors, "descriptors are scarce: new connections are refused");
    }
    if (before.0.any() || before.1.any()) && !now.0.any() && !now.1.any() {
        tracing::info!(memory, descriptors, "nothing is scarce any more");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Yielding = Yielding { streams: true, connections: true, idle: true, busy: false };

    #[tokio::test]
    async fn what_is_said_is_seen() {
        let pressure = Pressure::default();
        assert_eq!(pressure.refuses_streams(), None);
        let none = Yielding::default();
        pressure.set(none, Yielding { connections: true, ..none });
        assert_eq!((pressure.refuses_streams(), pressure.closes_idle()), (None, false));
        assert_eq!(pressure.refuses_connections(), Some(Scarce::Descriptors));
        assert!(!pressure.wants_memory());
        pressure.begins().await;
        pressure.set(ALL, ALL);
        assert_eq!(pressure.refuses_streams(), Some(Scarce::Memory));
        assert!(pressure.closes_idle() && pressure.wants_memory());
        pressure.set(none, none);
        assert_eq!(pressure.refuses_connections(), None);
    }

    #[tokio::test]
    async fn a_budget_that_is_used_up_is_noticed() {
        let pressure = Pressure::default();
        let keeping = tokio::spawn(pressure.clone().keep(Supply::find(), 1, |_| ()));
        tokio::time::timeout(Duration::from_secs(5), pressure.begins()).await.unwrap();
        assert_eq!(pressure.refuses_streams(), Some(Scarce::Memory));
        keeping.abort();
    }
}
