//! Live traffic: what is told to meshd once a second.
//!
//! Each data thread counts in cells of its own, without a lock, keyed by numbers. Once a second a collector on the control
//! runtime asks all threads for what they have counted since, adds it up, and keeps it for at most a few seconds for who
//! sends it. Every stage is bounded; what does not fit is counted in one cell, or dropped and counted.

mod cells;
mod collect;

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use mesh_core::telemetry::sketch::Sketch;
use mesh_core::vocab::name::Text;
use mesh_core::vocab::origin::Origin;
use tokio::sync::{mpsc, watch};

use super::metrics::Reporter;

pub use cells::{Cells, Stream};
pub use collect::{Collector, Gathered, KEPT};

/// Number of the service of the cell for what did not fit.
pub const OTHER: u32 = u32::MAX;

/// What tells one cell from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// Who speaks.
    pub reporter: Reporter,
    /// Number of the calling party.
    pub source: u32,
    /// Number of the called party.
    pub destination: u32,
    /// Number of the service.
    pub service: u32,
    /// Whether both ends know each other by certificates.
    pub mutual_tls: bool,
    /// Cluster and rule as one number, so that no text is compared: of a hash that nobody outside can foresee.
    texts: u64,
}

impl Key {
    fn new(state: &RandomState, told: &Told<'_>) -> Key {
        let rule = told.rule.map(|origin| (&*origin.resource, origin.rule));
        Key {
            reporter: told.reporter,
            source: told.source,
            destination: told.destination,
            service: told.service,
            mutual_tls: told.mutual_tls,
            texts: state.hash_one((told.cluster, rule)),
        }
    }

    /// The cell for what did not fit.
    fn other(reporter: Reporter) -> Key {
        Key { reporter, source: 0, destination: 0, service: OTHER, mutual_tls: false, texts: 0 }
    }
}

/// What a cell is found by, before texts have become a number.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// Who speaks.
    pub reporter: Reporter,
    /// Number of the calling party.
    pub source: u32,
    /// Number of the called party.
    pub destination: u32,
    /// Number of the service.
    pub service: u32,
    /// Whether both ends know each other by certificates.
    pub mutual_tls: bool,
    /// `outbound|PORT|SUBSET|HOST`, `inbound|PORT||`.
    pub cluster: &'a str,
    /// Where the rule was declared that decided.
    pub rule: Option<&'a Origin>,
}

/// What was counted.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Requests that ended.
    pub requests: u64,
    /// Those of them that went well.
    pub successes: u64,
    /// Attempts that counted, at least one a request.
    pub attempts: u64,
    /// Attempts after others that had failed.
    pub retries: u64,
    /// Shortest, longest and last duration of a request, in microseconds.
    pub shortest: u64,
    /// See `shortest`.
    pub longest: u64,
    /// See `shortest`.
    pub last: u64,
    /// Durations of requests, in microseconds.
    pub durations: Sketch,
    /// Byte streams that began.
    pub streams: u64,
    /// Those that came to nothing or broke off.
    pub streams_failed: u64,
    /// Bytes of streams from the client.
    pub received: u64,
    /// Bytes of streams to the client.
    pub sent: u64,
}

impl Counts {
    fn request(&mut self, duration: u64, went_well: bool, attempts: u64, retries: u64) {
        self.shortest = if self.requests == 0 { duration } else { self.shortest.min(duration) };
        self.longest = self.longest.max(duration);
        self.last = duration;
        self.requests += 1;
        self.successes += u64::from(went_well);
        self.attempts += attempts;
        self.retries += retries;
        self.durations.record(duration);
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.requests + self.streams + self.streams_failed + self.received + self.sent == 0
    }

    fn merge(&mut self, other: &Counts) {
        if other.requests > 0 {
            self.shortest =
                if self.requests == 0 { other.shortest } else { self.shortest.min(other.shortest) };
            self.longest = self.longest.max(other.longest);
            self.last = other.last;
        }
        self.requests += other.requests;
        self.successes += other.successes;
        self.attempts += other.attempts;
        self.retries += other.retries;
        self.durations.merge(&other.durations);
        self.streams += other.streams;
        self.streams_failed += other.streams_failed;
        self.received += other.received;
        self.sent += other.sent;
    }
}

/// What a thread has counted in one cell since it was last asked, and what is open now.
#[derive(Debug, Clone)]
pub struct Portion {
    /// The cell.
    pub key: Key,
    /// Its cluster.
    pub cluster: Text,
    /// Its rule.
    pub rule: Option<Origin>,
    /// What was counted.
    pub counts: Counts,
    /// Clients' connections that are open and whose last request was such a one.
    pub connections: u32,
    /// Byte streams that are open.
    pub streams: u32,
}

/// What one data thread hands over when it is asked.
#[derive(Debug)]
pub struct Batch {
    thread: usize,
    round: u64,
    cells: Vec<Portion>,
}

/// How data threads come by their cells.
#[derive(Debug, Clone)]
pub struct Reports {
    state: RandomState,
    most: usize,
    round: watch::Receiver<u64>,
    batches: mpsc::Sender<Batch>,
    next: Arc<std::sync::atomic::AtomicUsize>,
}
