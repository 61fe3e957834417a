//! The time of a request or a try. It runs from the moment the whole request was read (Envoy, route `timeout`), so that a
//! stream whose client still sends is not cut, and a slow upload is not taken for a slow upstream.

use std::cell::RefCell;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::runtime::{Handle, Id};
use tokio::time::{Instant, Sleep};

use crate::upstream::body::Upload;

/// So many timers are kept for other deadlines.
const MOST_KEPT: usize = 64;

thread_local! {
    /// Timers that nobody waits for any more. They run on: to set one again for later is far cheaper than to take it out
    /// and put in another, and whoever is woken by one in vain looks, and waits on.
    static KEPT: RefCell<Vec<Timer>> = const { RefCell::new(Vec::new()) };
}

/// A timer, and the runtime that it belongs to.
#[derive(Debug)]
struct Timer {
    sleep: Pin<Box<Sleep>>,
    runtime: Id,
}

impl Timer {
    fn until(at: Instant) -> Timer {
        let runtime = Handle::current().id();
        match KEPT.with_borrow_mut(Vec::pop) {
            Some(mut kept) if kept.runtime == runtime => {
                kept.sleep.as_mut().reset(at);
                kept
            }
            Some(_) | None => Timer { sleep: Box::pin(tokio::time::sleep_until(at)), runtime },
        }
    }
}

/// When something must be over. A timer only runs once something is waited for.
#[derive(Debug)]
pub struct Deadline {
    time: Duration,
    since: Instant,
    /// The body that must have been read before the time runs.
    upload: Option<Upload>,
    timer: Option<Timer>,
}

impl Deadline {
    /// Over after `time` since `since`, and since the whole of `upload` was read.
    pub fn new(time: Duration, since: Instant, upload: Option<&Upload>) -> Deadline {
        if let Some(upload) = upload {
            upload.note_end();
        }
        Deadline { time, since, upload: upload.cloned(), timer: None }
    }

    /// The moment, once it is known.
    pub fn at(&self) -> Option<Instant> {
        let begins = match &self.upload {
            None => self.since,
            Some(upload) => upload.ended()?.max(self.since),
        };
        Some(begins + self.time)
    }

    /// The time.
    pub fn time(&self) -> Duration {
        self.time
    }

    /// What is left of the time.
    pub fn left(&self) -> Duration {
        self.at().map_or(self.time, |at| at.saturating_duration_since(Instant::now()))
    }

    /// Ready when the time is over.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.timer.is_none() {
            if let Some(upload) = &self.upload {
                ready!(upload.poll_ended(cx));
            }
            let Some(at) = self.at() else { return Poll::Pending };
            self.timer = Some(Timer::until(at));
        }
        match &mut self.timer {
            Some(timer) => timer.sleep.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let Some(timer) = self.timer.take() else { return };
        // The thread may be at its end.
        KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < MOST_KEPT {
                kept.push(timer);
            }
        })
        .unwrap_or(());
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_was_kept_counts_for_the_next_deadline_only() {
        let now = Instant::now();
        for (time, over_at) in [(3, None), (9, Some(9)), (20, None), (10, Some(10)), (2, Some(2))] {
            let since = Instant::now();
            let mut deadline = Deadline::new(Duration::from_secs(time), since, None);
            let over = poll_fn(|cx| deadline.poll(cx));
            match over_at {
                Some(seconds) => {
                    over.await;
                    let took = since.elapsed();
                    assert!(
                        took >= Duration::from_secs(seconds)
                            && took < Duration::from_millis(seconds * 1000 + 5)
                    );
                }
                None => assert!(tokio::time::timeout(Duration::from_secs(1), over).await.is_err()),
            }
        }
        assert_eq!(KEPT.with_borrow(Vec::len), 1);
        drop(Deadline::new(Duration::from_secs(1), now, None));
        assert_eq!(KEPT.with_borrow(Vec::len), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_body_the_time_runs_at_once() {
        let now = Instant::now();
        let mut deadline = Deadline::new(Duration::from_secs(3), now, None);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(deadline.left(), Duration::from_secs(2));
        poll_fn(|cx| deadline.poll(cx)).await;
        assert!(Instant::now() - now >= Duration::from_secs(3));
    }
}
