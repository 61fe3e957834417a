//! The body of a request on its way to an endpoint: streamed, counted, and kept up to a limit so that another attempt
//! can send it again.

use std::cell::{Cell, OnceCell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use mesh_core::framing::refusal::Refusal;
use mesh_core::message::trailers::{self, TooLarge};
use metrics::Counter;
use tokio::time::{Instant, Sleep};

use super::budget::{Budget, Share};
use super::copied::{Copied, Filler, Piece, Watch, copy};
use super::failure;
use crate::net::guard;
use crate::net::limits;
use crate::telemetry::messages::Messages;

/// A body is kept for another attempt up to this size; a longer one is sent once. (Envoy's buffer of a stream.)
const KEEP: usize = 1024 * 1024;

/// So much of a body is read before there is a connection for it.
const AHEAD: usize = 64 * 1024;

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client broke off.
    #[error("the client broke off")]
    Client(#[source] hyper::Error),
    /// The client's trailers.
    #[error("the client's trailers cannot be passed on")]
    Trailers(#[from] TooLarge),
    /// Nothing came for too long.
    #[error("nothing came for too long")]
    Silent,
    /// Another attempt has taken over.
    #[error("another attempt has taken over")]
    Superseded,
    /// It is a copy, and the rest of what it is a copy of will not come.
    #[error("the rest of what is copied will not come")]
    Copy,
}

/// The body of one attempt.
#[derive(Debug)]
pub enum RequestBody {
    /// None.
    Empty,
    /// What the client sends.
    Streamed(Attempted),
}

/// What the client sends, shared by the attempts of one exchange.
#[derive(Debug, Clone)]
pub struct Upload(Rc<Shared>);

/// Where a body comes from.
#[derive(Debug)]
enum Source {
    /// From a client.
    Client(Incoming),
    /// From a request that it is a copy of.
    Copy(Copied),
}

#[derive(Debug)]
struct Shared {
    source: RefCell<Source>,
    exact: Option<u64>,
    kept: RefCell<Vec<Piece>>,
    share: Share,
    keeps: Cell<bool>,
    /// Several attempts read all of it, each for itself.
    shared: Cell<bool>,
    attempt: Cell<u32>,
    /// Pieces that the current attempt has taken of what is kept.
    taken: Cell<usize>,
    received: Cell<u64>,
    complete: Cell<bool>,
    /// Whether somebody wants to know when it was complete, when it was, and who waits for that.
    noted: Cell<bool>,
    ended: Cell<Option<Instant>>,
    waiting: RefCell<Option<Waker>>,
    /// Whether an attempt has asked the client for some of it, and what reading ahead of that has met.
    asked: Cell<bool>,
    failed: RefCell<Option<BodyError>>,
    broken: Cell<bool>,
    malformed: Cell<bool>,
    refused: Cell<Option<Refusal>>,
    copies: RefCell<Vec<Filler>>,
    silence: RefCell<Option<Box<Silence>>>,
    /// Counts messages of gRPC.
    messages: OnceCell<Rc<Messages>>,
}

/// How long the client may be silent, and since when it is. Made for few bodies, and its timer only where one is silent:
/// that is left to run when something comes, and looked at when nothing does.
#[derive(Debug)]
struct Silence {
    most: Duration,
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    counter: Counter,
}

impl Upload {
    /// Takes over a client's body; `None` if there is nothing in it.
    pub fn of(incoming: Incoming, budget: &Rc<Budget>) -> Option<Upload> {
        if incoming.is_end_stream() {
            return None;
        }
        let exact = incoming.size_hint().exact();
        Some(Upload::new(Source::Client(incoming), exact, budget, true))
    }

    /// Has the messages counted that come: it is the body of a gRPC request.
    pub fn count_messages(&self, messages: &Rc<Messages>) {
        self.0.messages.get_or_init(|| Rc::clone(messages));
    }

    /// The same for a body that is sent once, so that nothing is kept.
    pub fn once(incoming: Incoming, budget: &Rc<Budget>) -> Option<Upload> {
        let upload = Upload::of(incoming, budget)?;
        upload.settle();
        Some(upload)
    }

    fn new(source: Source, exact: Option<u64>, budget: &Rc<Budget>, keeps: bool) -> Upload {
        Upload(Rc::new(Shared {
            exact,
            source: RefCell::new(source),
            kept: RefCell::default(),
            share: budget.share(),
            keeps: Cell::new(keeps),
            shared: Cell::new(false),
            attempt: Cell::new(0),
            taken: Cell::new(0),
            received: Cell::new(0),
            complete: Cell::new(false),
            noted: Cell::new(false),
            ended: Cell::new(None),
            waiting: RefCell::default(),
            asked: Cell::new(false),
            failed: RefCell::default(),
            broken: Cell::new(false),
            malformed: Cell::new(false),
            refused: Cell::new(None),
            copies: RefCell::default(),
            silence: RefCell::default(),
            messages: OnceCell::new(),
        }))
    }

    /// A body that gets what this one reads from now on, without ever holding it up. It is sent once.
    pub fn copy(&self, budget: &Rc<Budget>) -> (Upload, Watch) {
        let (filler, copied) = copy(budget.share());
        self.0.copies.borrow_mut().push(filler);
        let watch = copied.watch();
        (Upload::new(Source::Copy(copied), self.0.exact, budget, false), watch)
    }

    /// The body of the next attempt; that of the attempt before ends with an error.
    pub fn attempt(&self) -> RequestBody {
        let attempt = self.0.attempt.get() + 1;
        self.0.attempt.set(attempt);
        self.0.taken.set(0);
        RequestBody::Streamed(Attempted { shared: Rc::clone(&self.0), attempt, next: 0 })
    }

    /// Whether everything that was read of it can be sent again.
    pub fn can_repeat(&self) -> bool {
        self.0.keeps.get() && !self.0.broken.get()
    }

    /// Whether all of it is here, so that several attempts can send it side by side.
    pub fn can_be_shared(&self) -> bool {
        self.can_repeat() && self.0.complete.get()
    }

    /// From now on attempts do not end those before them. What is kept stays until the last has gone.
    pub fn share(&self) {
        self.0.shared.set(true);
    }

    /// There will be no other attempt: keeps nothing more. What was kept the last attempt may still need.
    pub fn settle(&self) {
        self.0.keeps.set(false);
        if !self.0.shared.get() && self.0.taken.get() >= self.0.kept.borrow().len() {
            self.0.forget();
        }
    }

    /// Between two pieces the client may be silent for so long, unless it is answered meanwhile and has not said how much
    /// it will send: then both may talk as they like.
    /// `counter` counts who is silent for longer.
    pub fn limit_silence(&self, most: Duration, counter: &Counter) {
        let silence = Silence { most, since: None, timer: None, counter: counter.clone() };
        *self.0.silence.borrow_mut() = Some(Box::new(silence));
    }

    /// The answer has begun.
    pub fn answered(&self) {
        if self.0.exact.is_none() {
            *self.0.silence.borrow_mut() = None;
        }
    }

    /// Bytes that came from the client.
    pub fn received(&self) -> u64 {
        self.0.received.get()
    }

    /// From now on it is noted when all of it was read.
    pub fn note_end(&self) {
        self.0.noted.set(true);
        if self.0.complete.get() && self.0.ended.get().is_none() {
            self.0.ended.set(Some(Instant::now()));
        }
    }

    /// When all of it was read, if it was.
    pub fn ended(&self) -> Option<Instant> {
        self.0.ended.get()
    }

    /// Ready when all of it was read. One task waits for that: the exchange's. Before an attempt has asked for any of it,
    /// which no attempt does without a connection, a small body is read ahead.
    pub fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.read_ahead(cx);
        if self.0.ended.get().is_some() {
            return Poll::Ready(());
        }
        *self.0.waiting.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Why bytes of the client were refused, if any were.
    pub fn refused(&self) -> Option<Refusal> {
        self.0.refused.get()
    }

    /// Whether the client broke off.
    pub fn is_broken(&self) -> bool {
        self.0.broken.get()
    }

    /// Whether it broke off because what it sent is no body.
    pub fn is_malformed(&self) -> bool {
        self.0.malformed.get()
    }
}

/// The body of one attempt: what was kept first, then what the client sends.
#[derive(Debug)]
pub struct Attempted {
    shared: Rc<Shared>,
    attempt: u32,
    next: usize,
}

impl Attempted {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let shared = &*self.shared;
        if shared.attempt.get() != self.attempt && !shared.shared.get() {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if let Some(piece) = shared.kept.borrow().get(self.next) {
            self.next += 1;
            shared.taken.set(self.next);
            return Poll::Ready(Some(Ok(piece.clone().frame())));
        }
        if shared.complete.get() {
            return Poll::Ready(None);
        }
        shared.asked.set(true);
        if let Some(error) = shared.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match ready!(shared.read(cx)) {
            Some(Ok(frame)) => {
                self.next += shared.keep(&frame);
                shared.taken.set(self.next);
                // Whoever knows the length, or has seen trailers, does not ask for more.
                if frame.is_trailers() || shared.is_over() {
                    shared.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                shared.note_broken(&error);
                Poll::Ready(Some(Err(error)))
            }
            None => {
                shared.finish();
                Poll::Ready(None)
            }
        }
    }
}

impl Shared {
    fn read(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self.source.borrow_mut() {
            Source::Client(incoming) => {
                let mut silence = self.silence.borrow_mut();
                let Poll::Ready(frame) = Pin::new(incoming).poll_frame(cx) else {
                    let Some(silence) = &mut *silence else { return Poll::Pending };
                    return silence.poll(cx).map(|()| Some(Err(BodyError::Silent)));
                };
                if let Some(silence) = &mut *silence {
                    silence.since = None;
                }
                match frame {
                    Some(Ok(mut frame)) => {
                        let fields = frame.trailers_mut();
                        let checked =
                            fields.map_or(Ok(()), |fields| trailers::canonical(fields, &limits::sizes()));
                        Poll::Ready(Some(checked.map(|()| frame).map_err(BodyError::Trailers)))
                    }
                    Some(Err(error)) => Poll::Ready(Some(Err(BodyError::Client(error)))),
                    None => Poll::Ready(None),
                }
            }
            Source::Copy(copied) => copied
                .poll(cx)
                .map(|piece| piece.map(|piece| piece.map(Piece::frame).map_err(|()| BodyError::Copy))),
        }
    }

    fn is_over(&self) -> bool {
        match &*self.source.borrow() {
            Source::Client(incoming) => incoming.is_end_stream(),
            Source::Copy(copied) => copied.is_over(),
        }
    }

    /// Reads up to a bound of what no attempt has asked for yet.
    fn read_ahead(&self, cx: &mut Context<'_>) {
        while !self.asked.get() && !self.complete.get() && !self.broken.get() && self.share.taken() < AHEAD {
            let Poll::Ready(frame) = self.read(cx) else { return };
            match frame {
                Some(Ok(frame)) => {
                    let length = frame.data_ref().map_or(0, Bytes::len);
                    self.received.set(self.received.get() + length as u64);
                    self.count(&frame);
                    if let Some(piece) = Piece::of(&frame) {
                        self.copies.borrow().iter().for_each(|copy| copy.push(piece.clone()));
                        self.kept.borrow_mut().push(piece);
                    }
                    // It is here already, so it is held whether or not it fits; but then no more is asked for.
                    let fits = self.share.take(length);
                    if frame.is_trailers() || self.is_over() {
                        self.finish();
                    }
                    if !fits {
                        return;
                    }
                }
                Some(Err(error)) => {
                    self.note_broken(&error);
                    *self.failed.borrow_mut() = Some(error);
                }
                None => self.finish(),
            }
        }
    }

    fn count(&self, frame: &Frame<Bytes>) {
        if let (Some(messages), Some(data)) = (self.messages.get(), frame.data_ref()) {
            messages.request(data);
        }
    }

    fn note_broken(&self, error: &BodyError) {
        self.broken.set(true);
        if matches!(error, BodyError::Silent) {
            self.refused.set(Some(Refusal::SlowBody));
        }
        if let BodyError::Client(error) = error {
            self.malformed.set(failure::is_malformed(error));
            self.refused.set(guard::cause(error));
        }
        self.copies.borrow_mut().clear();
    }

    fn finish(&self) {
        self.complete.set(true);
        if self.noted.get() && self.ended.get().is_none() {
            self.ended.set(Some(Instant::now()));
            if let Some(waiting) = self.waiting.take() {
                waiting.wake();
            }
        }
        self.copies.borrow_mut().drain(..).for_each(|copy| copy.finish());
    }

    /// Keeps a frame while there is room; returns by how much the list of kept pieces grew.
    fn keep(&self, frame: &Frame<Bytes>) -> usize {
        let length = frame.data_ref().map_or(0, Bytes::len);
        self.received.set(self.received.get() + length as u64);
        self.count(frame);
        let copies = self.copies.borrow();
        if !self.keeps.get() && copies.is_empty() {
            return 0;
        }
        let Some(piece) = Piece::of(frame) else { return 0 };
        copies.iter().for_each(|copy| copy.push(piece.clone()));
        if !self.keeps.get() {
            return 0;
        }
        if self.share.taken() + length > KEEP || !self.share.take(length) {
            // The current attempt has sent all that was kept, and no other may come.
            self.keeps.set(false);
            self.forget();
            return 0;
        }
        self.kept.borrow_mut().push(piece);
        1
    }

    fn forget(&self) {
        self.kept.borrow_mut().clear();
        self.share.give(self.share.taken());
    }
}

impl Silence {
    /// Ready when it goes on for too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = *self.since.get_or_insert_with(Instant::now) + self.most;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= until {
                self.counter.increment(1);
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            RequestBody::Empty => Poll::Ready(None),
            RequestBody::Streamed(attempted) => attempted.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Streamed(attempted) => {
                attempted.shared.complete.get() && attempted.next >= attempted.shared.kept.borrow().len()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Streamed(attempted) => match attempted.shared.exact {
                // Only asked for before the first piece.
                Some(exact) if attempted.next == 0 => SizeHint::with_exact(exact),
                Some(_) | None => SizeHint::default(),
            },
        }
    }
}
