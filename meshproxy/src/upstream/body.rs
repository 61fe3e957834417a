//! The body of a request on its way to an endpoint: streamed, counted, and kept up to a limit so that another attempt
//! can send it again.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// A body is kept for another attempt up to this size; a longer one is sent once.
const KEEP: usize = 64 * 1024;

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client broke off.
    #[error("the client broke off")]
    Client(#[source] hyper::Error),
    /// Another attempt has taken over.
    #[error("another attempt has taken over")]
    Superseded,
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

#[derive(Debug)]
struct Shared {
    incoming: RefCell<Incoming>,
    exact: Option<u64>,
    kept: RefCell<Vec<Piece>>,
    size: Cell<usize>,
    keeps: Cell<bool>,
    attempt: Cell<u32>,
    received: Cell<u64>,
    complete: Cell<bool>,
    broken: Cell<bool>,
}

#[derive(Debug, Clone)]
enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Upload {
    /// Takes over a client's body; `None` if there is nothing in it.
    pub fn of(incoming: Incoming) -> Option<Upload> {
        if incoming.is_end_stream() {
            return None;
        }
        Some(Upload(Rc::new(Shared {
            exact: incoming.size_hint().exact(),
            incoming: RefCell::new(incoming),
            kept: RefCell::default(),
            size: Cell::new(0),
            keeps: Cell::new(true),
            attempt: Cell::new(0),
            received: Cell::new(0),
            complete: Cell::new(false),
            broken: Cell::new(false),
        })))
    }

    /// The body of the next attempt; that of the attempt before ends with an error.
    pub fn attempt(&self) -> RequestBody {
        let attempt = self.0.attempt.get() + 1;
        self.0.attempt.set(attempt);
        RequestBody::Streamed(Attempted { shared: Rc::clone(&self.0), attempt, next: 0 })
    }

    /// Whether everything that was read of it can be sent again.
    pub fn can_repeat(&self) -> bool {
        self.0.keeps.get() && !self.0.broken.get()
    }

    /// There will be no other attempt: keeps nothing more. What was kept the last attempt may still need.
    pub fn settle(&self) {
        self.0.keeps.set(false);
    }

    /// Bytes that came from the client.
    pub fn received(&self) -> u64 {
        self.0.received.get()
    }

    /// Whether the client broke off.
    pub fn is_broken(&self) -> bool {
        self.0.broken.get()
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
        if shared.attempt.get() != self.attempt {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if let Some(piece) = shared.kept.borrow().get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(piece.clone().frame())));
        }
        if shared.complete.get() {
            return Poll::Ready(None);
        }
        match ready!(Pin::new(&mut *shared.incoming.borrow_mut()).poll_frame(cx)) {
            Some(Ok(frame)) => {
                self.next += shared.keep(&frame);
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                shared.broken.set(true);
                Poll::Ready(Some(Err(BodyError::Client(error))))
            }
            None => {
                shared.complete.set(true);
                Poll::Ready(None)
            }
        }
    }
}

impl Shared {
    /// Keeps a frame while there is room; returns by how much the list of kept pieces grew.
    fn keep(&self, frame: &Frame<Bytes>) -> usize {
        let length = frame.data_ref().map_or(0, Bytes::len);
        self.received.set(self.received.get() + length as u64);
        if !self.keeps.get() {
            return 0;
        }
        let size = self.size.get() + length;
        if size > KEEP {
            // The current attempt has sent all that was kept, and no other may come.
            self.keeps.set(false);
            self.kept.borrow_mut().clear();
            return 0;
        }
        self.size.set(size);
        let piece = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Piece::Data(data.clone()),
            (None, Some(trailers)) => Piece::Trailers(trailers.clone()),
            (None, None) => return 0,
        };
        self.kept.borrow_mut().push(piece);
        1
    }
}

impl Piece {
    fn frame(self) -> Frame<Bytes> {
        match self {
            Piece::Data(data) => Frame::data(data),
            Piece::Trailers(trailers) => Frame::trailers(trailers),
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
