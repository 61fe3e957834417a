//! Reports of load in the fields of answers and in their trailers. They are passed on like every other field.

use http::HeaderMap;
use mesh_proto::load_report;

use super::headers::{LOAD_METRICS, LOAD_METRICS_BINARY};
use crate::live::load::Ear;
use crate::telemetry::metrics::ProxyCounters;

/// Takes the report that the fields carry, if they do.
pub fn hear(ear: &Ear, fields: &HeaderMap, counters: &ProxyCounters) {
    let read = match (fields.get(&LOAD_METRICS_BINARY), fields.get(&LOAD_METRICS)) {
        (Some(value), _) => load_report::binary(value.as_bytes()),
        (None, Some(value)) => load_report::read(value.as_bytes()),
        (None, None) => return,
    };
    match read.map(|report| ear.hear(&report)) {
        Ok(true) => counters.load_reports.increment(1),
        Ok(false) => counters.load_reports_lacking.increment(1),
        Err(_) => counters.load_reports_unreadable.increment(1),
    }
}
