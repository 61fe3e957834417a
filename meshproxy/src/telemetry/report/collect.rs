//! Asks all data threads at once, adds up, and keeps it until it is sent.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use metrics::Counter;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::{Batch, Key, Portion, Reports};

/// How long what was gathered is kept for a meshd that cannot be reached.
pub const KEPT: Duration = Duration::from_secs(5);
/// How long threads are waited for that are busy.
const PATIENCE: Duration = Duration::from_millis(300);

/// What all data threads have counted in a round.
#[derive(Debug)]
pub struct Gathered {
    /// When.
    pub at: Instant,
    /// Cell by cell.
    pub cells: Vec<Portion>,
}

/// Asks data threads.
#[derive(Debug)]
pub struct Collector {
    every: Duration,
    threads: usize,
    round: watch::Sender<u64>,
    batches: mpsc::Receiver<Batch>,
    out: mpsc::Sender<Gathered>,
    dropped: Counter,
}

impl Collector {
    /// A collector for so many threads, how these come by their cells, and where what is gathered comes out. `dropped`
    /// counts reports that nobody took.
    pub fn new(
        every: Duration,
        threads: usize,
        most: usize,
        dropped: Counter,
    ) -> (Collector, Reports, mpsc::Receiver<Gathered>) {
        let (round, asked) = watch::channel(0);
        let (sender, batches) = mpsc::channel(threads.max(1) * 2);
        let (out, gathered) = mpsc::channel(1);
        let reports = Reports {
            state: RandomState::default(),
            most,
            round: asked,
            batches: sender,
            next: Arc::default(),
        };
        (Collector { every, threads, round, batches, out, dropped }, reports, gathered)
    }

    /// Gathers until dropped.
    pub async fn run(mut self) {
        let mut tick = tokio::time::interval(self.every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut kept: VecDeque<Gathered> = VecDeque::new();
        let out = self.out.clone();
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    let gathered = self.gather().await;
                    if !gathered.cells.is_empty() {
                        kept.push_back(gathered);
                    }
                    while kept.front().is_some_and(|oldest| oldest.at.elapsed() > KEPT) {
                        kept.pop_front();
                        self.dropped.increment(1);
                    }
                }
                Ok(place) = out.reserve(), if !kept.is_empty() => {
                    if let Some(oldest) = kept.pop_front() {
                        place.send(oldest);
                    }
                }
            }
        }
    }

    async fn gather(&mut self) -> Gathered {
        self.round.send_modify(|round| *round += 1);
        let round = *self.round.borrow();
        let at = Instant::now();
        let mut sums = Sums::default();
        let mut answered = 0;
        while answered < self.threads {
            let Ok(Some(batch)) = tokio::time::timeout_at(at + PATIENCE, self.batches.recv()).await else {
                break;
            };
            answered += usize::from(batch.round == round);
            sums.add(batch);
        }
        Gathered { at, cells: sums.into_cells() }
    }
}

/// Cells of several threads, added up.
#[derive(Debug, Default)]
struct Sums {
    cells: HashMap<Key, Portion, RandomState>,
    /// What is open in each thread, by its latest word.
    open: HashMap<(Key, usize), (u32, u32), RandomState>,
}

impl Sums {
    fn add(&mut self, batch: Batch) {
        for portion in batch.cells {
            self.open.insert((portion.key, batch.thread), (portion.connections, portion.streams));
            match self.cells.get_mut(&portion.key) {
                Some(sum) => sum.counts.merge(&portion.counts),
                None => drop(self.cells.insert(portion.key, portion)),
            }
        }
    }

    fn into_cells(mut self) -> Vec<Portion> {
        for cell in self.cells.values_mut() {
            (cell.connections, cell.streams) = (0, 0);
        }
        for ((key, _), (connections, streams)) in self.open {
            if let Some(cell) = self.cells.get_mut(&key) {
                cell.connections = cell.connections.saturating_add(connections);
                cell.streams = cell.streams.saturating_add(streams);
            }
        }
        self.cells.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::super::Cells;
    use super::*;
    use crate::telemetry::entry::{Entry, sample};

    #[tokio::test(start_paused = true)]
    async fn threads_are_added_up_and_reports_are_kept_for_a_while() {
        let every = Duration::from_secs(1);
        let (collector, reports, mut gathered) = Collector::new(every, 2, 100, Counter::noop());
        let here = ([127, 0, 0, 1], 80).into();
        tokio::task::LocalSet::new()
            .run_until(async move {
                let threads = [0, 1].map(|_| Rc::new(Cells::new(&reports, Counter::noop())));
                for thread in &threads {
                    tokio::task::spawn_local(Rc::clone(thread).keep_handing_over());
                }
                tokio::task::spawn_local(collector.run());
                let connections: [Rc<str>; 2] = ["a".into(), "b".into()];
                for (thread, connection) in threads.iter().zip(&connections) {
                    let connection = Some(connection);
                    thread.exchange(&Entry { code: 200, connection, ..sample(Instant::now(), here, here) });
                }
                let first = gathered.recv().await.unwrap();
                assert_eq!((first.cells.len(), first.cells[0].counts.requests), (1, 2));
                assert_eq!(first.cells[0].connections, 2);
                // Nobody takes anything for a while: the newest seconds are kept, behind the one that was offered.
                tokio::time::sleep(Duration::from_secs(60)).await;
                let stale = gathered.recv().await.unwrap();
                assert!(stale.at.elapsed() > KEPT);
                let next = gathered.recv().await.unwrap();
                assert!(next.at.elapsed() <= KEPT + every, "{:?}", next.at.elapsed());
            })
            .await;
    }
}
