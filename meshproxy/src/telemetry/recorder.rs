//! What a data thread remembers of its exchanges, and shows of them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_core::telemetry::alarm::Tally;
use tokio::sync::{mpsc, watch};

use super::entry::Entry;
use super::flight::{Exchange, Part, Ring};
use super::metrics::{Metrics, Reporter, SeriesCache};
use super::tap::{Hub, List, Question, Tapped, Watched, recalls};

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

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

    /// Whether anybody wants to see requests as they end, and so to know of their heads.
    pub fn is_tapped(&self) -> bool {
        self.tapped.get()
    }

    /// A request begins: what taps see of its fields.
    pub fn look(&self, headers: &HeaderMap) -> Option<Box<Tapped>> {
        if !self.wants_fields.get() {
            return None;
        }
        List::look(&self.taps.borrow(), &self.hub, headers)
    }

    /// A request begins: what is remembered of its head.
    pub fn begin(
        &self,
        method: &str,
        authority: &str,
        path: &str,
        headers: &HeaderMap,
    ) -> Option<Box<Exchange>> {
        self.keeps.then(|| {
            let id = headers.get(&REQUEST_ID);
            self.ring.borrow_mut().begin(method, id, authority, path)
        })
    }

    /// An exchange has ended, of which this was remembered when it began.
    pub fn exchange(&self, entry: &Entry<'_>, begun: Option<Box<Exchange>>, series: &SeriesCache) {
        if self.tapped.get() {
            self.show(entry, begun.as_deref(), series);
        }
        if self.keeps {
            // Where there is no answer because the client left, that says nothing.
            if entry.code > 0 {
                self.fared.borrow_mut().note((entry.service, entry.reporter), !entry.is_success());
            }
            self.ring.borrow_mut().push(begun, entry);
        }
    }

    /// A byte stream has ended.
    pub fn stream(&self, entry: &Entry<'_>, series: &SeriesCache) {
        if self.tapped.get() {
            self.show(entry, None, series);
        }
        if self.keeps {
            self.ring.borrow_mut().push(None, entry);
        }
    }

    /// Shows it to those who want to see it. Of one that began before anybody did, only what is remembered is known.
    #[cold]
    fn show(&self, entry: &Entry<'_>, begun: Option<&Exchange>, series: &SeriesCache) {
        let taps = self.taps.borrow();
        match begun.filter(|_| entry.method.is_empty()) {
            None => taps.show(&self.hub, entry, series),
            Some(begun) => {
                let [method, id, authority, path] =
                    [Part::Method, Part::RequestId, Part::Authority, Part::Path].map(|part| begun.text(part));
                let id = HeaderValue::from_str(&id).ok();
                let entry = Entry {
                    method: &method,
                    request_id: id.as_ref(),
                    authority: &authority,
                    path: &path,
                    ..*entry
                };
                taps.show(&self.hub, &entry, series);
            }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh_core::telemetry::tap::{Filter, Wanted};
    use tokio::task::LocalSet;
    use tokio::time::Instant;

    use super::*;
    use crate::telemetry::entry::sample;
    use crate::telemetry::tap::Tap;

    fn entry(method: &'static str, code: u16) -> Entry<'static> {
        let at = "127.0.0.1:1".parse().unwrap();
        Entry { method, code, path: "/a", authority: "a", service: 3, ..sample(Instant::now(), at, at) }
    }

    fn tap(id: u64, wanted: &Wanted, most: u32) -> Arc<Tap> {
        Arc::new(Tap::new(id, Filter::new(wanted).unwrap(), most, true))
    }

    /// Lets the recorder's own task run.
    async fn settle() {
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
    }

    async fn with_recorder<F: Future<Output = ()>>(
        keeps: usize,
        test: impl FnOnce(Arc<Hub>, Rc<Recorder>, SeriesCache) -> F,
    ) {
        let metrics = Arc::new(Metrics::default());
        let hub = Hub::new("h1", &metrics, std::env::temp_dir(), keeps);
        let local = LocalSet::new();
        local
            .run_until(async {
                let recorder = Recorder::start(&hub, &metrics);
                test(hub, recorder, SeriesCache::new(metrics)).await;
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_matches_is_shown_within_the_limit() {
        with_recorder(0, |hub, recorder, series| async move {
            assert!(!recorder.is_tapped());
            recorder.exchange(&entry("GET", 200), None, &series);
            let wanted = Wanted { methods: vec!["GET".to_owned()], ..Wanted::default() };
            let limited = tap(7, &wanted, 2);
            assert!(hub.add(&limited));
            settle().await;
            assert!(recorder.is_tapped());
            for method in ["GET", "PUT", "GET", "GET", "GET"] {
                recorder.exchange(&entry(method, 200), None, &series);
            }
            let mut shown = hub.shown.lock().await;
            let taken: Vec<u64> = std::iter::from_fn(|| shown.try_recv().ok()).map(|one| one.tap).collect();
            assert_eq!(taken, [7, 7]);
            assert_eq!(limited.missed(), (2, 0));
            tokio::time::advance(Duration::from_secs(1)).await;
            recorder.exchange(&entry("GET", 200), None, &series);
            assert!(shown.try_recv().is_ok());
            assert!(hub.end(7).is_some());
            settle().await;
            assert!(!recorder.is_tapped());
            recorder.exchange(&entry("GET", 200), None, &series);
            assert!(shown.try_recv().is_err());
        })
        .await;
    }

    #[tokio::test]
    async fn fields_are_looked_at_when_a_request_begins() {
        with_recorder(0, |hub, recorder, series| async move {
            let mut headers = HeaderMap::new();
            headers.insert("x-user", HeaderValue::from_static("jason"));
            assert!(recorder.look(&headers).is_none());
            let wanted = Wanted { headers: vec!["x-user: jason".to_owned()], ..Wanted::default() };
            hub.add(&tap(1, &wanted, 100));
            settle().await;
            assert!(recorder.look(&HeaderMap::new()).is_none());
            let mut tapped = recorder.look(&headers).unwrap();
            tapped.answered(&headers);
            recorder.exchange(&Entry { tapped: Some(&tapped), ..entry("GET", 200) }, None, &series);
            // One that began when nobody looked.
            recorder.exchange(&entry("GET", 200), None, &series);
            let mut shown = hub.shown.lock().await;
            let fields = shown.try_recv().unwrap().fields.unwrap();
            assert_eq!((fields.request.len(), fields.answer.unwrap().len()), (1, 1));
            assert!(shown.try_recv().is_err());
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_remembered_is_told_and_tallied() {
        with_recorder(8, |hub, recorder, series| async move {
            for code in [200, 503, 0, 200] {
                let begun = recorder.begin("GET", "a", "/begun", &HeaderMap::new());
                recorder.exchange(&Entry { method: "", path: "", ..entry("", code) }, begun, &series);
            }
            let wanted = Wanted { statuses: vec!["5xx".to_owned()], ..Wanted::default() };
            let filter = Arc::new(Filter::new(&wanted).unwrap());
            let found = hub.past(Some(filter), None).await;
            assert_eq!(found.len(), 1);
            assert_eq!((found[0].code, &*found[0].text(Part::Path)), (503, "/begun"));
            assert_eq!(hub.past(None, Some(Instant::now())).await.len(), 0);
            assert_eq!(hub.past(None, None).await.len(), 4);
            let tallies = hub.tallies().await;
            assert_eq!(tallies[&(3, Reporter::Source)], Tally { total: 3, failed: 1 });
            assert!(hub.tallies().await.is_empty());
        })
        .await;
    }
}
