//! What a data thread remembers of its exchanges, and shows of them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use http::HeaderMap;
use mesh_core::telemetry::alarm::{Tally, is_failure};
use tokio::sync::{mpsc, watch};

use super::entry::Entry;
use super::flight::Ring;
use super::metrics::{Metrics, Reporter, SeriesCache};
use super::tap::{Hub, List, Question, Tapped, Watched, recalls};

/// A data thread's memory of exchanges, and its taps.
#[derive(Debug)]
pub struct Recorder {
    hub: Arc<Hub>,
    keeps: bool,
    ring: RefCell<Ring>,
    taps: RefCell<Arc<List>>,
    tapped: Cell<bool>,
    wants_fields: Cell<bool>,
    fared: RefCell<Fared>,
}

/// How requests have fared. Many in a row are of one service.
#[derive(Debug)]
struct Fared {
    last: Watched,
    tally: Tally,
    others: HashMap<Watched, Tally>,
}

impl Default for Fared {
    fn default() -> Fared {
        Fared { last: (0, Reporter::Source), tally: Tally::default(), others: HashMap::new() }
    }
}

impl Fared {
    fn note(&mut self, watched: Watched, failed: bool) {
        if self.last != watched {
            self.turn(watched);
        }
        self.tally.total += 1;
        self.tally.failed += u64::from(failed);
    }

    fn turn(&mut self, watched: Watched) {
        let tally = std::mem::take(&mut self.tally);
        if tally.total > 0 {
            self.others.entry(self.last).or_default().add(tally);
        }
        self.last = watched;
    }

    fn take(&mut self) -> HashMap<Watched, Tally> {
        self.turn(self.last);
        std::mem::take(&mut self.others)
    }
}

impl Recorder {
    /// One that answers what the hub asks, as long as its data thread runs. Must run in a `LocalSet`.
    pub fn start(hub: &Arc<Hub>, metrics: &Arc<Metrics>) -> Rc<Recorder> {
        let (taps, questions) = hub.enter();
        let recorder = Rc::new(Recorder {
            hub: Arc::clone(hub),
            keeps: hub.keeps > 0,
            ring: RefCell::new(Ring::new(hub.keeps)),
            taps: RefCell::default(),
            tapped: Cell::default(),
            wants_fields: Cell::default(),
            fared: RefCell::default(),
        });
        let series = SeriesCache::new(Arc::clone(metrics));
        tokio::task::spawn_local(serve(Rc::downgrade(&recorder), taps, questions, series));
        recorder
    }

    /// Whether anybody wants to know of the head of a request.
    pub fn is_on(&self) -> bool {
        self.keeps || self.tapped.get()
    }

    /// A request begins.
    pub fn look(&self, headers: &HeaderMap) -> Option<Box<Tapped>> {
        if !self.wants_fields.get() {
            return None;
        }
        List::look(&self.taps.borrow(), &self.hub, headers)
    }

    /// An exchange has ended.
    pub fn exchange(&self, entry: &Entry<'_>, series: &SeriesCache) {
        if self.keeps {
            let grpc = if entry.grpc { entry.grpc_status } else { None };
            if let Some(failed) = is_failure(entry.code, grpc) {
                self.fared.borrow_mut().note((entry.service, entry.reporter), failed);
            }
        }
        self.stream(entry, series);
    }

    /// A byte stream has ended.
    pub fn stream(&self, entry: &Entry<'_>, series: &SeriesCache) {
        if self.keeps {
            self.ring.borrow_mut().push(entry);
        }
        if self.tapped.get() {
            self.taps.borrow().show(&self.hub, entry, series);
        }
    }

    fn tap(&self, list: Arc<List>) {
        self.tapped.set(!list.is_empty());
        self.wants_fields.set(list.wants_fields());
        *self.taps.borrow_mut() = list;
    }

    fn answer(&self, question: Question, series: &SeriesCache) {
        match question {
            Question::Past { filter, since, answer } => {
                let ring = self.ring.borrow();
                let late = |since| move |end| end >= since;
                let found = ring.iter().filter(|one| {
                    since.map(late).is_none_or(|late| late(one.started + one.duration))
                        && filter.as_deref().is_none_or(|filter| recalls(filter, one, series))
                });
                // Who asked may have gone.
                drop(answer.send(found.cloned().collect()));
            }
            Question::Tallies(answer) => drop(answer.send(self.fared.borrow_mut().take())),
        }
    }
}

/// Takes new lists of taps and answers questions until the data thread or the hub is gone.
async fn serve(
    recorder: Weak<Recorder>,
    mut taps: watch::Receiver<Arc<List>>,
    mut questions: mpsc::Receiver<Question>,
    series: SeriesCache,
) {
    taps.mark_changed();
    loop {
        tokio::select! {
            changed = taps.changed() => {
                let (Ok(()), Some(recorder)) = (changed, recorder.upgrade()) else { return };
                recorder.tap(Arc::clone(&taps.borrow_and_update()));
            }
            question = questions.recv() => {
                let (Some(question), Some(recorder)) = (question, recorder.upgrade()) else { return };
                recorder.answer(question, &series);
            }
        }
    }
}
