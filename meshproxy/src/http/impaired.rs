//! The body of an answer that is slow or breaks off on purpose.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use mesh_core::resilience::connection_fault::{ConnectionFaultKind, Injected, Pace};
use tokio::time::{Instant, Sleep};

use super::body::{ReplyError, UpstreamBody};

/// A body with a fault, as long as that lasts.
#[derive(Debug)]
pub struct Impaired {
    inner: UpstreamBody,
    began: Instant,
    ends: Instant,
    /// How fast its bytes pass.
    pace: Option<Pace>,
    /// How many of them; `None` for all.
    left: Option<u64>,
    held: Option<Bytes>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Impaired {
    /// Gives a body the fault.
    pub fn new(inner: UpstreamBody, injected: Injected) -> Impaired {
        let began = Instant::now();
        let (pace, left) = match injected.kind {
            ConnectionFaultKind::Bandwidth(rate) => (Some(Pace::new(rate, Duration::ZERO)), None),
            ConnectionFaultKind::Reset { after } => (None, Some(after)),
            ConnectionFaultKind::Blackhole | ConnectionFaultKind::Latency(_) => (None, None),
        };
        Impaired { inner, began, ends: began + injected.left, pace, left, held: None, sleep: None }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReplyError>>> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
                self.sleep = None;
            }
            if let Some(held) = self.held.take() {
                return Poll::Ready(Some(Ok(Frame::data(self.piece(held)))));
            }
            if self.left == Some(0) && Instant::now() < self.ends {
                return Poll::Ready(Some(Err(ReplyError::Injected)));
            }
            let frame = match ready!(self.inner.poll(cx)) {
                Some(Ok(frame)) if Instant::now() < self.ends => frame,
                other => return Poll::Ready(other),
            };
            match frame.into_data() {
                Err(frame) => return Poll::Ready(Some(Ok(frame))),
                Ok(data) => self.hold(data),
            }
        }
    }

    /// Keeps what came until the first of it may pass.
    fn hold(&mut self, mut data: Bytes) {
        if let Some(left) = &mut self.left {
            data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= data.len() as u64;
        }
        if data.is_empty() {
            return;
        }
        self.wait_for(&data);
        self.held = Some(data);
    }

    /// The part that may pass now; the rest waits.
    fn piece(&mut self, mut data: Bytes) -> Bytes {
        let most = self.pace.map_or(usize::MAX, |pace| pace.piece());
        if data.len() > most {
            let rest = data.split_off(most);
            self.wait_for(&rest);
            self.held = Some(rest);
        }
        data
    }

    fn wait_for(&mut self, data: &Bytes) {
        let Some(pace) = &mut self.pace else { return };
        let length = data.len().min(pace.piece());
        let at = self.began + pace.pass(length, Instant::now() - self.began);
        self.sleep = Some(Box::pin(tokio::time::sleep_until(at.min(self.ends))));
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.held.is_none() && self.inner.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match (&self.held, self.left) {
            (None, None) => self.inner.size_hint(),
            // How much will come is still what was said: that it does not come is the fault.
            (None, Some(_)) => self.inner.size_hint(),
            (Some(_), _) => SizeHint::default(),
        }
    }
}
