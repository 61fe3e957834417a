//! Who hears of an exchange or byte stream when it ends.

use std::rc::Rc;

use mesh_core::telemetry::Side;

use super::access::AccessLog;
use super::entry::Entry;
use super::metrics::SeriesCache;
use super::trace::Tracer;

/// All that a data thread tells of its traffic.
#[derive(Debug)]
pub struct Observers {
    /// Its way to the metrics.
    pub series: SeriesCache,
    /// Its access log.
    pub log: Rc<AccessLog>,
    /// Its traces.
    pub traces: Rc<Tracer>,
}

impl Observers {
    /// Whether anybody reads what only the head of a request tells: method, path, authority, some fields. What nobody
    /// reads is not kept.
    pub fn want_head(&self, _side: &Side) -> bool {
        self.log.is_on()
    }

    /// An exchange has ended.
    pub fn exchange(&self, entry: &Entry<'_>, side: &Side) {
        self.series.requests(entry.key(), |series| {
            series.requests.increment(1);
            series.duration.record_thousandths(u64::try_from(entry.duration.as_micros()).unwrap_or(u64::MAX));
            series.request_bytes.record(entry.request_bytes);
            series.response_bytes.record(entry.response_bytes);
        });
        self.traces.end(entry, side, &self.series);
        self.log.write(entry);
    }

    /// A byte stream has ended. What it carried was counted meanwhile.
    pub fn stream(&self, entry: &Entry<'_>, _side: &Side) {
        self.log.write(entry);
    }
}
