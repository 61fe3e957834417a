//! What happened of one kind, step by step: seconds for the last two minutes, ten seconds each for the last hour.

use std::collections::VecDeque;

use mesh_core::telemetry::sketch::{Packed, Sketch};

/// Milliseconds since meshd began.
pub type Moment = u64;

/// Length of a fine step.
const SECOND: Moment = 1000;
/// Length of a coarse step.
pub const TEN: Moment = 10 * SECOND;
/// Fine steps reach back so far.
const FINE: Moment = 120 * SECOND;
/// Coarse steps reach back so far: all that is known.
pub const COARSE: Moment = 3600 * SECOND;
/// What is said of open connections holds for so long: a proxy that has gone has none.
const OPEN: Moment = 5 * SECOND;

/// Counts that add up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Requests that ended.
    pub requests: u64,
    /// Those of them that went well.
    pub successes: u64,
    /// Attempts that counted.
    pub attempts: u64,
    /// Attempts after others that had failed.
    pub retries: u64,
    /// Shortest duration of a request, in microseconds.
    pub shortest: u64,
    /// Longest one.
    pub longest: u64,
    /// Byte streams that began.
    pub streams: u64,
    /// Those that came to nothing or broke off.
    pub streams_failed: u64,
    /// Bytes of streams from clients.
    pub received: u64,
    /// Bytes of streams to clients.
    pub sent: u64,
}

impl Numbers {
    /// Adds others.
    pub fn merge(&mut self, other: &Numbers) {
        if other.requests > 0 {
            self.shortest =
                if self.requests == 0 { other.shortest } else { self.shortest.min(other.shortest) };
            self.longest = self.longest.max(other.longest);
        }
        // What a proxy says is not believed so far that a sum may overflow.
        self.requests = self.requests.saturating_add(other.requests);
        self.successes = self.successes.saturating_add(other.successes);
        self.attempts = self.attempts.saturating_add(other.attempts);
        self.retries = self.retries.saturating_add(other.retries);
        self.streams = self.streams.saturating_add(other.streams);
        self.streams_failed = self.streams_failed.saturating_add(other.streams_failed);
        self.received = self.received.saturating_add(other.received);
        self.sent = self.sent.saturating_add(other.sent);
    }
}

/// What a report says of one kind of traffic.
#[derive(Debug, Clone, Default)]
pub struct News {
    /// Counts.
    pub numbers: Numbers,
    /// Durations, in microseconds.
    pub durations: Sketch,
    /// Duration of the last request.
    pub last: u64,
    /// Clients' connections that are open.
    pub connections: u64,
    /// Byte streams that are open.
    pub streams: u64,
}

/// What happened in a stretch of time.
#[derive(Debug, Clone, Default)]
pub struct Total {
    /// Counts.
    pub numbers: Numbers,
    /// Durations, in microseconds.
    pub durations: Sketch,
    /// Duration of the last request, and when it was reported.
    pub last: (Moment, u64),
    /// What is open now, connections and streams.
    pub open: u64,
}

impl Total {
    /// Adds another one of the same stretch.
    pub fn merge(&mut self, other: &Total) {
        self.numbers.merge(&other.numbers);
        self.durations.merge(&other.durations);
        self.last = self.last.max(other.last);
        self.open = self.open.saturating_add(other.open);
    }
}

#[derive(Debug, Clone)]
enum Durations {
    /// Still added to.
    Open(Sketch),
    /// Nothing is added any more, or seldom.
    Over(Packed),
}

#[derive(Debug, Clone)]
struct Step {
    at: Moment,
    numbers: Numbers,
    durations: Durations,
}

impl Step {
    fn add(&mut self, news: &News) {
        self.numbers.merge(&news.numbers);
        if let Durations::Over(packed) = &self.durations {
            let mut sketch = Sketch::default();
            packed.merge_into(&mut sketch);
            self.durations = Durations::Open(sketch);
        }
        if let Durations::Open(sketch) = &mut self.durations {
            sketch.merge(&news.durations);
        }
    }

    fn close(&mut self) {
        if let Durations::Open(sketch) = &self.durations {
            self.durations = Durations::Over(sketch.packed());
        }
    }

    fn add_to(&self, numbers: &mut Numbers, durations: &mut Sketch) {
        numbers.merge(&self.numbers);
        match &self.durations {
            Durations::Open(sketch) => durations.merge(sketch),
            Durations::Over(packed) => packed.merge_into(durations),
        }
    }
}

/// One kind of traffic.
#[derive(Debug, Default)]
pub struct Series {
    fine: VecDeque<Step>,
    coarse: VecDeque<Step>,
    last: (Moment, u64),
    /// What is open, and when that was said.
    open: (Moment, u64),
}

impl Series {
    /// Takes in what happened at a moment. `now` is not before it.
    pub fn add(&mut self, at: Moment, now: Moment, news: &News) {
        if news.numbers != Numbers::default() {
            add(&mut self.fine, at / SECOND * SECOND, news);
            add(&mut self.coarse, at / TEN * TEN, news);
        }
        if news.numbers.requests > 0 {
            self.last = self.last.max((at, news.last));
        }
        if at >= self.open.0 {
            self.open = (at, news.connections.saturating_add(news.streams));
        }
        self.forget(now);
    }

    /// Forgets what is too old; says whether anything is left.
    pub fn forget(&mut self, now: Moment) -> bool {
        while self.fine.front().is_some_and(|step| step.at + FINE < now) {
            self.fine.pop_front();
        }
        while self.coarse.front().is_some_and(|step| step.at + COARSE < now) {
            self.coarse.pop_front();
        }
        !self.coarse.is_empty() || self.is_open(now)
    }

    fn is_open(&self, now: Moment) -> bool {
        self.open.1 > 0 && now.saturating_sub(self.open.0) <= OPEN
    }

    /// What happened in the time of that length before `now`.
    pub fn total(&self, now: Moment, length: Moment) -> Total {
        let mut total = Total { last: self.last, ..Total::default() };
        let (steps, whole) = if length <= FINE { (&self.fine, SECOND) } else { (&self.coarse, TEN) };
        let begin = begin(now, length, whole);
        for step in steps.iter().filter(|step| step.at >= begin) {
            step.add_to(&mut total.numbers, &mut total.durations);
        }
        if self.is_open(now) {
            total.open = self.open.1;
        }
        total
    }

    /// Adds what happened in the coarse step that began at a moment.
    pub fn coarse(&self, at: Moment, numbers: &mut Numbers, durations: &mut Sketch) {
        // Steps are few enough, and in order.
        let found = self.coarse.binary_search_by_key(&at, |step| step.at);
        if let Some(step) = found.ok().and_then(|index| self.coarse.get(index)) {
            step.add_to(numbers, durations);
        }
    }
}

/// The beginning of the first step that counts: as many whole steps as the length has, the running one included.
fn begin(now: Moment, length: Moment, step: Moment) -> Moment {
    (now / step * step + step).saturating_sub(length.div_ceil(step) * step)
}

/// The time that counts of a window of that length cover: the last step is still running, and before the beginning there
/// was nothing.
pub fn covered(now: Moment, length: Moment) -> Moment {
    let step = if length <= FINE { SECOND } else { TEN };
    now - begin(now, length, step).min(now)
}

fn add(steps: &mut VecDeque<Step>, at: Moment, news: &News) {
    let place = steps.partition_point(|step| step.at < at);
    if steps.get(place).is_none_or(|step| step.at != at) {
        let fresh = Step { at, numbers: Numbers::default(), durations: Durations::Open(Sketch::default()) };
        steps.insert(place, fresh);
        // Only the newest is added to again and again.
        if let Some(before) = place.checked_sub(1).and_then(|index| steps.get_mut(index)) {
            before.close();
        }
    }
    if let Some(step) = steps.get_mut(place) {
        step.add(news);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(requests: u64, duration: u64) -> News {
        let mut durations = Sketch::default();
        (0..requests).for_each(|_| durations.record(duration));
        let numbers = Numbers { requests, shortest: duration, longest: duration, ..Numbers::default() };
        News { numbers, durations, last: duration, connections: 1, streams: 0 }
    }

    #[test]
    fn windows_hold_what_lies_in_them() {
        let mut series = Series::default();
        // One request every second of an hour and a half, each as long as its minute.
        let end = 5400;
        for second in 0..=end {
            series.add(second * SECOND, second * SECOND, &news(1, 1000 * (1 + second / 60)));
        }
        let now = end * SECOND + 500;
        for (length, expected) in [(1, 1), (10, 10), (60, 60), (120, 120)] {
            assert_eq!(series.total(now, length * SECOND).numbers.requests, expected, "{length}");
        }
        // Of coarse steps the running one has just begun.
        for (length, expected) in [(600, 591), (3600, 3591)] {
            assert_eq!(series.total(now, length * SECOND).numbers.requests, expected, "{length}");
        }
        let minute = series.total(now, 60 * SECOND);
        assert_eq!((minute.numbers.shortest, minute.numbers.longest), (90_000, 91_000));
        assert_eq!(minute.durations.count(), 60);
        let hour = series.total(now, 3600 * SECOND);
        let p50 = hour.durations.quantile(500).unwrap();
        assert!(p50.abs_diff(61_000) < 1_500, "{p50}");
        assert!(series.fine.len() <= 122 && series.coarse.len() <= 362);
    }

    #[test]
    fn what_comes_late_is_put_where_it_belongs() {
        let mut series = Series::default();
        series.add(10_000, 10_000, &news(1, 5));
        series.add(14_000, 14_000, &news(1, 5));
        series.add(11_000, 15_000, &news(2, 7));
        series.add(10_000, 15_000, &news(4, 9));
        assert_eq!(series.total(15_000, 5 * SECOND).numbers.requests, 3);
        assert_eq!(series.total(15_000, 10 * SECOND).numbers.requests, 8);
        assert_eq!(series.total(15_000, 10 * SECOND).durations.count(), 8);
        let (mut numbers, mut durations) = (Numbers::default(), Sketch::default());
        series.coarse(10_000, &mut numbers, &mut durations);
        assert_eq!((numbers.requests, durations.count()), (8, 8));
    }

    #[test]
    fn what_is_old_is_forgotten() {
        let mut series = Series::default();
        series.add(0, 0, &news(1, 5));
        assert!(series.forget(3_600_000));
        assert!(!series.forget(3_601_000));
        assert_eq!(series.total(3_601_000, COARSE).numbers.requests, 0);
    }

    #[test]
    fn connections_are_open_for_as_long_as_that_is_said() {
        let mut series = Series::default();
        series.add(1_000, 1_000, &news(1, 5));
        assert_eq!(series.total(5_000, 60_000).open, 1);
        assert_eq!(series.total(7_000, 60_000).open, 0);
        series.add(7_000, 7_000, &News { streams: 2, ..News::default() });
        assert_eq!(series.total(7_000, 60_000).open, 2);
    }
}
