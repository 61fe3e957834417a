//! Messages of gRPC, counted as they pass by: each has a head of five bytes, a flag and a length (gRPC over HTTP/2,
//! "Length-Prefixed-Message").

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::time::Duration;

use mesh_core::telemetry::metrics::REPORTING_INTERVAL;
use tokio::time::Instant;

use super::metrics::MessageSeries;

/// Bytes before a message.
const HEAD: u8 = 5;

/// Where one direction stands between its messages.
#[derive(Debug, Clone, Copy, Default)]
struct Frames {
    /// Bytes of the head that have come.
    seen: u8,
    /// The length, as far as it has come.
    length: u32,
    /// Bytes of the message that are still to come.
    left: u32,
}

impl Frames {
    /// Takes in bytes; says how many messages have begun with them.
    fn feed(&mut self, mut bytes: &[u8]) -> u64 {
        let mut begun = 0;
        while let Some((first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let passed = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= passed as u32;
                bytes = &bytes[passed..];
                continue;
            }
            bytes = rest;
            // The first is the flag.
            if self.seen > 0 {
                self.length = self.length << 8 | u32::from(*first);
            }
            self.seen += 1;
            if self.seen == HEAD {
                begun += 1;
                *self = Frames { left: self.length, ..Frames::default() };
            }
        }
        begun
    }
}

/// The messages of one exchange of gRPC.
#[derive(Debug)]
pub struct Messages {
    request: Cell<Frames>,
    response: Cell<Frames>,
    requests: Cell<u64>,
    responses: Cell<u64>,
    /// What the metrics know of already.
    flushed: Cell<(u64, u64)>,
    /// Known when both sides are.
    series: OnceCell<Option<Rc<MessageSeries>>>,
    every: Cell<Duration>,
    due: Cell<Instant>,
}

impl Default for Messages {
    fn default() -> Messages {
        Messages::new()
    }
}

impl Messages {
    /// None yet.
    pub fn new() -> Messages {
        Messages {
            request: Cell::default(),
            response: Cell::default(),
            requests: Cell::default(),
            responses: Cell::default(),
            flushed: Cell::default(),
            series: OnceCell::new(),
            every: Cell::new(REPORTING_INTERVAL),
            due: Cell::new(Instant::now() + REPORTING_INTERVAL),
        }
    }

    /// Bytes of the request pass by.
    pub fn request(&self, bytes: &[u8]) {
        let mut frames = self.request.get();
        self.requests.set(self.requests.get() + frames.feed(bytes));
        self.request.set(frames);
    }

    /// Bytes of the answer pass by.
    pub fn response(&self, bytes: &[u8]) {
        let mut frames = self.response.get();
        self.responses.set(self.responses.get() + frames.feed(bytes));
        self.response.set(frames);
    }

    /// Where they are counted, if anywhere, and how often; unless that is settled.
    pub fn settle(&self, settled: impl FnOnce() -> (Option<Rc<MessageSeries>>, Duration)) {
        self.series.get_or_init(|| {
            let (series, every) = settled();
            self.due.set((self.due.get() - self.every.get()) + every);
            self.every.set(every);
            series
        });
    }

    /// Tells the metrics what is new.
    pub fn flush(&self) {
        let Some(Some(series)) = self.series.get() else { return };
        let now = (self.requests.get(), self.responses.get());
        let before = self.flushed.replace(now);
        series.count(now.0 - before.0, now.1 - before.1);
    }

    /// How often the metrics hear of them.
    pub fn every(&self) -> Duration {
        self.every.get()
    }

    /// Flushes if it is time.
    pub fn flush_if_due(&self, now: Instant) {
        if now >= self.due.get() {
            self.due.set(now + self.every.get());
            self.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let mut bytes = Vec::new();
        for length in [0usize, 1, 300, 70_000] {
            bytes.push(0);
            bytes.extend_from_slice(&(length as u32).to_be_bytes());
            bytes.extend(std::iter::repeat_n(0xff, length));
        }
        for step in [1, 2, 3, 5, 7, 4096, bytes.len()] {
            let mut frames = Frames::default();
            let begun: u64 = bytes.chunks(step).map(|part| frames.feed(part)).sum();
            assert_eq!(begun, 4, "{step}");
        }
        // A message that breaks off has begun.
        assert_eq!(Frames::default().feed(&[0, 0, 0, 0, 9, 1]), 1);
    }
}
