//! What becomes of the records that go to collectors, counted.

use metrics::{Counter, Gauge, Key, Label, Metadata, Recorder};

/// A kind of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Log records.
    Logs,
}

impl Signal {
    const ALL: [Signal; 2] = [Signal::Traces, Signal::Logs];

    /// The label's value.
    pub fn name(self) -> &'static str {
        match self {
            Signal::Traces => "traces",
            Signal::Logs => "logs",
        }
    }
}

/// Why records did not reach their collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// More wait already than may wait.
    Queue,
    /// There are more collectors than may be.
    Collectors,
    /// The collector could not be reached, or had no room, for too long.
    Unreachable,
    /// The collector does not want them.
    Refused,
    /// The proxy ended first.
    Ended,
    /// More than tail sampling may keep.
    Tail,
}

impl Lost {
    const ALL: [Lost; 6] =
        [Lost::Queue, Lost::Collectors, Lost::Unreachable, Lost::Refused, Lost::Ended, Lost::Tail];

    fn name(self) -> &'static str {
        match self {
            Lost::Queue => "queue",
            Lost::Collectors => "collectors",
            Lost::Unreachable => "unreachable",
            Lost::Refused => "refused",
            Lost::Ended => "ended",
            Lost::Tail => "tail",
        }
    }
}

/// Counters of records, by kind.
pub struct Exports {
    exported: [Counter; 2],
    waiting: [Gauge; 2],
    dropped: [[Counter; 6]; 2],
}

impl Exports {
    pub(in crate::telemetry) fn new(recorder: &impl Recorder, metadata: &Metadata<'_>) -> Exports {
        let counter = |name: &'static str, labels: Vec<Label>| {
            recorder.register_counter(&Key::from_parts(name, labels), metadata)
        };
        let signal = |signal: Signal| Label::new("signal", signal.name());
        Exports {
            exported: Signal::ALL.map(|of| counter("mesh_proxy_otlp_exported_total", vec![signal(of)])),
            waiting: Signal::ALL.map(|of| {
                let key = Key::from_parts("mesh_proxy_otlp_waiting", vec![signal(of)]);
                recorder.register_gauge(&key, metadata)
            }),
            dropped: Signal::ALL.map(|of| {
                Lost::ALL.map(|why| {
                    let labels = vec![signal(of), Label::new("reason", why.name())];
                    counter("mesh_proxy_otlp_dropped_total", labels)
                })
            }),
        }
    }

    /// So many records more wait for their collector; less, if it is negative.
    pub fn waiting(&self, signal: Signal, change: i32) {
        self.waiting[signal as usize].increment(f64::from(change));
    }

    /// So many records were taken by their collector.
    pub fn exported(&self, signal: Signal, count: usize) {
        self.exported[signal as usize].increment(count as u64);
    }

    /// So many records were lost.
    pub fn dropped(&self, signal: Signal, why: Lost, count: usize) {
        self.dropped[signal as usize][why as usize].increment(count as u64);
    }
}
