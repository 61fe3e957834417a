//! Who hears of an exchange or byte stream when it ends.

use std::rc::Rc;

use mesh_core::telemetry::Side;

use super::access::AccessLog;
use super::entry::Entry;
use super::metrics::SeriesCache;
use super::recorder::Recorder;
use super::report::Cells;
use super::trace::Tracer;

/// All that a data thread tells of its traffic.
#[derive(Debug)]
pub struct Observers {
    /// Its way to the metrics.
    pub series: Rc<SeriesCache>,
    /// Its access log.
    pub log: Rc<AccessLog>,
    /// What is told to meshd, if anything.
    pub reports: Option<Rc<Cells>>,
    /// What it remembers of single exchanges, and shows of them.
    pub recorder: Rc<Recorder>,
    /// Its traces.
    pub traces: Rc<Tracer>,
}

impl Observers {
    /// Whether anybody reads what only the head of a request tells: method, path, authority, some fields. What nobody
    /// reads is not kept.
    pub fn want_head(&self, _side: &Side) -> bool {
        self.log.is_on() || self.recorder.is_tapped()
    }

    /// An exchange has ended.
    pub fn exchange(&self, entry: &Entry<'_>, side: &Side) {
        self.series.exchange(entry, &side.metrics);
        if let Some(reports) = &self.reports {
            reports.exchange(entry);
        }
        self.traces.end(entry, side, &self.series);
        self.log.write(entry, side);
    }

    /// A byte stream has ended. What it carried was counted meanwhile.
    pub fn stream(&self, entry: &Entry<'_>, side: &Side) {
        self.recorder.stream(entry, &self.series);
        self.log.write(entry, side);
    }
}
