//! Connections of HTTP/2 that many exchanges share, and their streams.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::resilience::pool::ConnectionSettings;
use tokio::time::Instant;

use super::Pair;
use crate::upstream::connect::STREAMS;
use crate::upstream::failure::ConnectError;
use crate::upstream::http2::{Http2, Sending};

/// The shared connections of one key.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) connections: RefCell<Vec<Rc<Shared>>>,
    pub(super) dialing: tokio::sync::Mutex<()>,
    pub(super) failed: RefCell<Option<(Instant, ConnectError)>>,
}

/// One shared connection.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) sender: Http2,
    pub(super) pair: Option<Rc<Pair>>,
    pub(super) streams: Cell<u32>,
    /// Whether a request was sent over it.
    pub(super) has_begun: Cell<bool>,
    /// Whether a request has had its answer over it.
    pub(super) has_served: Cell<bool>,
    /// Looks at which it had no stream, since it last had one.
    pub(super) idle: Cell<u32>,
    /// How it is kept, where a rule says anything of it.
    pub(super) settings: Option<Arc<ConnectionSettings>>,
    /// Streams that it may still take.
    pub(super) left: Cell<u32>,
    /// Since when it has had no stream; known where a rule says how long that may last.
    pub(super) rests: Cell<Option<Instant>>,
}

/// One stream of a shared connection; counted until it is dropped.
#[derive(Debug)]
pub struct Stream {
    pub(super) shared: Rc<Shared>,
    pub(super) sending: Option<Sending>,
    pub(super) fresh: bool,
}

impl Stream {
    pub(super) fn new(shared: Rc<Shared>, fresh: bool) -> Stream {
        Stream { shared, sending: None, fresh }
    }

    /// The connection.
    pub fn connection(&self) -> &Http2 {
        &self.shared.sender
    }

    /// Whether the connection was made for this stream and has been of no use to any: then it cannot have been about to
    /// close for long, and a peer that closes it at once would do so again.
    pub fn is_fresh(&self) -> bool {
        self.fresh && !self.shared.has_served.get()
    }

    /// Whether it is the first of its connection to be asked so.
    pub fn is_first(&self) -> bool {
        !self.shared.has_begun.replace(true)
    }

    /// The answer has come. The request's body is sent as long as this stream is held.
    pub fn hold(&mut self, sending: Sending) {
        self.shared.has_served.set(true);
        self.sending = Some(sending);
    }

    /// Whether the request has not been sent whole.
    pub fn is_sending(&self) -> bool {
        self.sending.as_ref().is_some_and(Sending::goes_on)
    }

    /// The answer was read whole. What the peer still takes of the request it gets.
    pub fn finish(mut self) {
        if let Some(sending) = self.sending.take() {
            sending.let_go();
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.streams.set(self.shared.streams.get().saturating_sub(1));
        if self.shared.streams.get() == 0 && self.shared.idle_timeout().is_some() {
            self.shared.rests.set(Some(Instant::now()));
        }
    }
}

impl Shared {
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    pub(super) fn idle_timeout(&self) -> Option<Duration> {
        self.settings.as_ref()?.idle_timeout
    }

    pub(super) fn rests_too_long(&self) -> bool {
        let (Some(since), Some(most)) = (self.rests.get(), self.idle_timeout()) else { return false };
        self.streams.get() == 0 && since.elapsed() >= most
    }

    pub(super) fn take(&self) {
        self.streams.set(self.streams.get() + 1);
        self.left.set(self.left.get().saturating_sub(1));
        self.idle.set(0);
    }

    /// Other proxies allow what we open at most; other servers say what they allow.
    pub(super) fn most_streams(&self) -> u32 {
        let most = match self.pair {
            Some(_) => STREAMS,
            None => u32::try_from(self.sender.most_streams()).unwrap_or(STREAMS).min(STREAMS),
        };
        self.settings.as_ref().map_or(most, |settings| most.min(settings.most_streams))
    }

    /// A server that allows no stream at all has done with a connection, whatever it may allow later.
    pub(super) fn is_of_use(&self) -> bool {
        self.left.get() > 0 && (self.streams.get() > 0 || self.most_streams() > 0)
    }

    pub(super) fn was_made_with(&self, pair: Option<&Rc<Pair>>) -> bool {
        match (&self.pair, pair) {
            (Some(made), Some(now)) => Rc::ptr_eq(made, now),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

impl Slot {
    /// A stream of a new connection. Whoever waits for the same connection shares it, or its failure.
    pub(super) async fn dial<F>(
        &self,
        pair: Option<Rc<Pair>>,
        settings: Option<&Arc<ConnectionSettings>>,
        dial: impl FnOnce() -> F,
    ) -> Result<Stream, ConnectError>
    where
        F: Future<Output = Result<Http2, ConnectError>>,
    {
        let asked = Instant::now();
        let _dialing = self.dialing.lock().await;
        if let Some(stream) = self.room(pair.as_ref()) {
            return Ok(stream);
        }
        if let Some((when, error)) = &*self.failed.borrow()
            && *when > asked
        {
            return Err(error.clone());
        }
        match dial().await {
            Ok(sender) => {
                let shared = Rc::new(Shared {
                    sender,
                    pair,
                    streams: Cell::new(0),
                    has_begun: Cell::new(false),
                    has_served: Cell::new(false),
                    idle: Cell::new(0),
                    settings: settings.cloned(),
                    left: Cell::new(settings.and_then(|s| s.most_requests).unwrap_or(u32::MAX)),
                    rests: Cell::new(None),
                });
                shared.take();
                self.connections.borrow_mut().push(Rc::clone(&shared));
                Ok(Stream::new(shared, true))
            }
            Err(error) => {
                *self.failed.borrow_mut() = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    pub(super) fn room(&self, pair: Option<&Rc<Pair>>) -> Option<Stream> {
        let mut connections = self.connections.borrow_mut();
        // Those that are closed or were made with other keys end with their last stream.
        connections.retain(|one| one.is_open() && one.was_made_with(pair) && one.is_of_use());
        let free = connections.iter().find(|one| one.streams.get() < one.most_streams())?;
        free.take();
        Some(Stream::new(Rc::clone(free), false))
    }
}
