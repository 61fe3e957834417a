//! The task that leads what data threads hand over to its collectors.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::lane::Lane;
pub use super::reach::Reach;
use crate::telemetry::export::Exporter;
use crate::telemetry::export::counters::Lost;
use crate::telemetry::export::parcel::{Parcel, Place, Signal};
use crate::telemetry::export::settings::Settings;
use crate::telemetry::metrics::Metrics;

/// Parcels that wait in one lane.
const LANE: usize = 64;
/// Collectors by signal, at one time.
const MOST_LANES: usize = 32;

/// The task that sends, to be ended by its owner.
#[derive(Debug)]
pub struct Exporting {
    ending: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Exporting {
    /// Starts it on this runtime.
    pub fn start(settings: Settings, reach: Reach, metrics: Arc<Metrics>) -> (Exporter, Exporting) {
        let (exporter, parcels) = Exporter::new(settings, Arc::clone(&metrics));
        let (ending, ends) = watch::channel(false);
        let router = Router { reach, metrics, ends, lanes: HashMap::default(), tasks: JoinSet::new() };
        (exporter, Exporting { ending, task: tokio::spawn(router.run(parcels)) })
    }

    /// Sends what waits, once, and ends; gives up after `limit`.
    pub async fn finish(mut self, limit: Duration) {
        self.ending.send_replace(true);
        if tokio::time::timeout(limit, &mut self.task).await.is_err() {
            tracing::warn!("not everything was exported at the end");
            self.task.abort();
        }
    }
}

struct Router {
    reach: Reach,
    metrics: Arc<Metrics>,
    ends: watch::Receiver<bool>,
    lanes: HashMap<(Signal, Arc<Place>), mpsc::Sender<Parcel>, RandomState>,
    tasks: JoinSet<()>,
}

impl Router {
    async fn run(mut self, mut parcels: mpsc::Receiver<Parcel>) {
        let mut ends = self.ends.clone();
        loop {
            tokio::select! {
                parcel = parcels.recv() => match parcel {
                    Some(parcel) => self.lead(parcel),
                    None => break,
                },
                // The sender that is gone has ended everything too.
                _ = ends.wait_for(|ending| *ending) => break,
                Some(_) = self.tasks.join_next() => self.lanes.retain(|_, lane| !lane.is_closed()),
            }
        }
        parcels.close();
        while let Ok(parcel) = parcels.try_recv() {
            self.lead(parcel);
        }
        self.lanes.clear();
        while self.tasks.join_next().await.is_some() {}
    }

    /// Puts a parcel into the lane to its collector.
    fn lead(&mut self, parcel: Parcel) {
        let (signal, count) = (parcel.records.signal(), parcel.records.len());
        let key = (signal, Arc::clone(&parcel.place));
        let lane = match self.lanes.get(&key).filter(|lane| !lane.is_closed()) {
            Some(lane) => lane,
            None if self.lanes.len() >= MOST_LANES => {
                return self.metrics.exports.dropped(signal, Lost::Collectors, count);
            }
            None => {
                let (sender, receiver) = mpsc::channel(LANE);
                let lane = Lane {
                    signal,
                    place: Arc::clone(&parcel.place),
                    reach: self.reach.clone(),
                    metrics: Arc::clone(&self.metrics),
                    ending: self.ends.clone(),
                };
                self.tasks.spawn(lane.run(receiver));
                self.lanes.entry(key).insert_entry(sender).into_mut()
            }
        };
        let many = i32::try_from(count).unwrap_or(i32::MAX);
        self.metrics.exports.waiting(signal, many);
        if lane.try_send(parcel).is_err() {
            self.metrics.exports.waiting(signal, -many);
            self.metrics.exports.dropped(signal, Lost::Queue, count);
        }
    }
}
