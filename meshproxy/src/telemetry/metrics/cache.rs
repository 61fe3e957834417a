//! A data thread's own way to its series.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::telemetry::labels::{Party, ServiceLabels};

use super::{Metrics, RequestKey, RequestSeries, StreamKey, StreamSeries};

/// So many series a data thread keeps at hand.
const MOST_CACHED: usize = 8192;

/// A data thread's way to the metrics: series that were used before are found without a lock.
#[derive(Debug)]
pub struct SeriesCache {
    metrics: Arc<Metrics>,
    requests: RefCell<HashMap<RequestKey, Arc<RequestSeries>, RandomState>>,
    streams: RefCell<HashMap<StreamKey, Arc<StreamSeries>, RandomState>>,
    parties: RefCell<HashMap<u32, Arc<Party>, RandomState>>,
    services: RefCell<HashMap<u32, Arc<ServiceLabels>, RandomState>>,
}

impl SeriesCache {
    /// An empty cache.
    pub fn new(metrics: Arc<Metrics>) -> SeriesCache {
        SeriesCache {
            metrics,
            requests: RefCell::default(),
            streams: RefCell::default(),
            parties: RefCell::default(),
            services: RefCell::default(),
        }
    }

    /// The party of a number.
    pub fn party(&self, number: u32) -> Arc<Party> {
        let mut cache = self.parties.borrow_mut();
        Arc::clone(cache.entry(number).or_insert_with(|| self.metrics.party_of(number)))
    }

    /// The service of a number.
    pub fn service(&self, number: u32) -> Arc<ServiceLabels> {
        let mut cache = self.services.borrow_mut();
        Arc::clone(cache.entry(number).or_insert_with(|| self.metrics.service_of(number)))
    }

    /// The metrics behind it.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Writes into the series of a key.
    pub fn requests(&self, key: RequestKey, write: impl FnOnce(&RequestSeries)) {
        let mut cache = self.requests.borrow_mut();
        if let Some(series) = cache.get(&key) {
            return write(series);
        }
        if cache.len() >= MOST_CACHED {
            cache.clear();
        }
        let series = self.metrics.request_series(key);
        write(&series);
        cache.insert(key, series);
    }

    /// The series of a key.
    pub fn streams(&self, key: StreamKey) -> Arc<StreamSeries> {
        let mut cache = self.streams.borrow_mut();
        if cache.len() >= MOST_CACHED {
            cache.clear();
        }
        Arc::clone(cache.entry(key).or_insert_with(|| self.metrics.stream_series(key)))
    }
}
