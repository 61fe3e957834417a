//! The way to one collector for one signal: joins parcels to batches, sends them one after the other, and tries again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::reach::Reach;
use super::verdict::Failure;
use super::wire::{Connection, Message, Partial};
use crate::telemetry::export::counters::Lost;
use crate::telemetry::export::parcel::{Parcel, Place, Signal};
use crate::telemetry::metrics::Metrics;

/// A batch goes out when it holds so many records, or after [`LONGEST_WAIT`].
const BATCH: usize = 512;
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// A lane that has nothing to do for so long ends.
const IDLE: Duration = Duration::from_secs(300);
/// Waits between attempts, the first and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(8));
/// A batch is given up after so long.
const GIVE_UP: Duration = Duration::from_secs(30);

/// What a lane works with.
pub(super) struct Lane {
    pub(super) signal: Signal,
    pub(super) place: Arc<Place>,
    pub(super) reach: Reach,
    pub(super) metrics: Arc<Metrics>,
    /// True from when the proxy ends.
    pub(super) ending: watch::Receiver<bool>,
}

/// What was told of already.
#[derive(Default)]
struct Told {
    failing: bool,
    partial: bool,
}

impl Lane {
    /// Runs until nothing more comes, or nothing has come for long.
    pub(super) async fn run(mut self, mut parcels: mpsc::Receiver<Parcel>) {
        let mut connection = None;
        let mut told = Told::default();
        while let Ok(Some(first)) = tokio::time::timeout(IDLE, parcels.recv()).await {
            let mut count = first.records.len();
            let mut batch = vec![first];
            let until = Instant::now() + LONGEST_WAIT;
            while count < BATCH {
                match tokio::time::timeout_at(until, parcels.recv()).await {
                    Ok(Some(next)) => {
                        count += next.records.len();
                        batch.push(next);
                    }
                    Ok(None) | Err(_) => break,
                }
            }
            let message = Message::of(self.signal, batch);
            self.deliver(&message, count, &mut connection, &mut told).await;
            self.metrics.exports.waiting(self.signal, -i32::try_from(count).unwrap_or(i32::MAX));
        }
    }

    /// Sends one batch until it is taken, refused, or given up.
    async fn deliver(
        &mut self,
        message: &Message,
        count: usize,
        connection: &mut Option<Connection>,
        told: &mut Told,
    ) {
        let begun = Instant::now();
        let mut wait = BACKOFF.0;
        loop {
            let sent = tokio::time::timeout(self.place.collector.timeout, self.send(message, connection));
            let failure = match sent.await.unwrap_or_else(|_| Err(Failure::broken("no answer in time"))) {
                Ok(partial) => return self.taken(count, &partial, told),
                Err(failure) => failure,
            };
            let collector = self.place.authority();
            if !std::mem::replace(&mut told.failing, true) {
                let signal = self.signal.name();
                tracing::warn!(
                    signal,
                    collector,
                    reason = failure.reason,
                    "a collector does not take what is exported"
                );
            } else {
                tracing::debug!(collector, reason = failure.reason, "an export failed");
            }
            if !failure.again {
                return self.metrics.exports.dropped(self.signal, Lost::Refused, count);
            }
            // Perhaps to another endpoint next time.
            *connection = None;
            let pause = failure.wait.unwrap_or(wait).min(BACKOFF.1);
            if *self.ending.borrow() {
                return self.metrics.exports.dropped(self.signal, Lost::Ended, count);
            }
            if begun.elapsed() + pause > GIVE_UP {
                return self.metrics.exports.dropped(self.signal, Lost::Unreachable, count);
            }
            // At the end there is one more attempt, at once.
            drop(tokio::time::timeout(pause, self.ending.wait_for(|ending| *ending)).await);
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    async fn send(&self, message: &Message, connection: &mut Option<Connection>) -> Result<Partial, Failure> {
        let open = match connection {
            Some(open) => open,
            None => connection.insert(Connection::open(&self.reach, &self.place).await?),
        };
        open.send(&self.place, message).await
    }

    fn taken(&self, count: usize, partial: &Partial, told: &mut Told) {
        let collector = self.place.authority();
        let rejected = partial.rejected.min(count);
        self.metrics.exports.exported(self.signal, count - rejected);
        self.metrics.exports.dropped(self.signal, Lost::Refused, rejected);
        if (rejected > 0 || !partial.message.is_empty()) && !std::mem::replace(&mut told.partial, true) {
            let message = partial.message.as_str();
            tracing::warn!(collector, rejected, message, "a collector takes only a part of what is exported");
        }
        if std::mem::replace(&mut told.failing, false) {
            tracing::info!(
                signal = self.signal.name(),
                collector,
                "the collector takes what is exported again"
            );
        }
    }
}
