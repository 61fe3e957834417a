//! The time of a request or a try. It runs from the moment the whole request was read (Envoy, route `timeout`), so that a
//! stream whose client still sends is not cut, and a slow upload is not taken for a slow upstream.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::upstream::body::Upload;

/// When something must be over. A timer only runs once something is waited for.
#[derive(Debug)]
pub struct Deadline {
    time: Duration,
    since: Instant,
    /// The body that must have been read before the time runs.
    upload: Option<Upload>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Over after `time` since `since`, and since the whole of `upload` was read.
    pub fn new(time: Duration, since: Instant, upload: Option<&Upload>) -> Deadline {
        if let Some(upload) = upload {
            upload.note_end();
        }
        Deadline { time, since, upload: upload.cloned(), sleep: None }
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
        if self.sleep.is_none() {
            if let Some(upload) = &self.upload {
                ready!(upload.poll_ended(cx));
            }
            let Some(at) = self.at() else { return Poll::Pending };
            self.sleep = Some(Box::pin(tokio::time::sleep_until(at)));
        }
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

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
