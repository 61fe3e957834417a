//! Records for collectors of OpenTelemetry: how data threads hand them over. `otlp` sends them.

use std::sync::Arc;
use std::time::Duration;

use mesh_core::telemetry::tracing::Collector;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::metrics::Metrics;

pub mod counters;
pub mod parcel;
pub mod settings;

use counters::Lost;
use parcel::{Parcel, Place, Signal};
use settings::Settings;

/// So many records go into one parcel.
pub const PARCEL: usize = 128;
/// How long a data thread keeps a parcel that does not fill.
pub const LONGEST_WAIT: Duration = Duration::from_millis(200);
/// Parcels that wait to be led to their collectors.
const QUEUE: usize = 128;

/// Where data threads hand parcels over. Made once, cloned for each.
#[derive(Debug, Clone)]
pub struct Exporter {
    sender: mpsc::Sender<Parcel>,
    started: Arc<Started>,
    metrics: Arc<Metrics>,
}

/// What the environment says.
#[derive(Debug, Default)]
struct Started {
    traces: Option<Arc<Place>>,
    logs: Option<Arc<Place>>,
    settings: Settings,
}

impl Exporter {
    /// A way, and where what is handed over comes out.
    pub fn new(settings: Settings, metrics: Arc<Metrics>) -> (Exporter, mpsc::Receiver<Parcel>) {
        let (sender, parcels) = mpsc::channel(QUEUE);
        let started = Started {
            traces: settings.traces.clone().map(Arc::new),
            logs: settings.logs.clone().map(Arc::new),
            settings,
        };
        (Exporter { sender, started: Arc::new(started), metrics }, parcels)
    }

    /// What the environment says.
    pub fn settings(&self) -> &Settings {
        &self.started.settings
    }

    /// The collector of a signal: the one that is named, else what the proxy was started with.
    pub fn place(&self, signal: Signal, named: Option<&Collector>) -> Option<Arc<Place>> {
        match named {
            Some(collector) => Some(Arc::new(Place::from(collector))),
            None => self.started(signal).cloned(),
        }
    }

    /// The collector that the proxy was started with.
    pub fn started(&self, signal: Signal) -> Option<&Arc<Place>> {
        match signal {
            Signal::Traces => self.started.traces.as_ref(),
            Signal::Logs => self.started.logs.as_ref(),
        }
    }

    /// Hands a parcel over and never waits. Where there is no room it is lost, and counted.
    pub fn hand_over(&self, parcel: Parcel) {
        if parcel.records.is_empty() {
            return;
        }
        let (parcel, why) = match self.sender.try_send(parcel) {
            Ok(()) => return,
            Err(TrySendError::Full(parcel)) => (parcel, Lost::Queue),
            Err(TrySendError::Closed(parcel)) => (parcel, Lost::Ended),
        };
        self.metrics.exports.dropped(parcel.records.signal(), why, parcel.records.len());
    }
}
