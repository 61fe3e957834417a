//! The copy of a request's body that a mirror gets: filled as the request itself reads what the client sends, never
//! waited for. One that falls too far behind is given up.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tokio::sync::Notify;

use super::budget::Share;

/// So much of a copy may wait to be sent.
const MOST_WAITING: usize = 1024 * 1024;

/// A piece of a body, as it can be sent more than once.
#[derive(Debug, Clone)]
pub enum Piece {
    /// Content.
    Data(Bytes),
    /// What ends it.
    Trailers(HeaderMap),
}

impl Piece {
    /// The piece that a frame is.
    pub fn of(frame: &Frame<Bytes>) -> Option<Piece> {
        match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Some(Piece::Data(data.clone())),
            (None, Some(trailers)) => Some(Piece::Trailers(trailers.clone())),
            (None, None) => None,
        }
    }

    /// It as a frame.
    pub fn frame(self) -> Frame<Bytes> {
        match self {
            Piece::Data(data) => Frame::data(data),
            Piece::Trailers(trailers) => Frame::trailers(trailers),
        }
    }

    fn len(&self) -> usize {
        match self {
            Piece::Data(data) => data.len(),
            Piece::Trailers(_) => 0,
        }
    }
}

/// How far a copy is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filled {
    /// More may come.
    Open,
    /// That was all.
    Whole,
    /// The rest will not come.
    Broken,
    /// Nobody sends it any more.
    Gone,
}

#[derive(Debug)]
struct Shared {
    waiting: RefCell<VecDeque<Piece>>,
    share: Share,
    filled: Cell<Filled>,
    waker: RefCell<Option<Waker>>,
    behind: Cell<bool>,
    given_up: Notify,
    moved: Cell<u64>,
}

/// The end of a copy that is filled.
#[derive(Debug)]
pub struct Filler(Rc<Shared>);

/// The end of a copy that is sent.
#[derive(Debug)]
pub struct Copied(Rc<Shared>);

/// A look at a copy from outside.
#[derive(Debug, Clone)]
pub struct Watch(Rc<Shared>);

/// Both ends of a copy.
pub fn copy(share: Share) -> (Filler, Copied) {
    let shared = Rc::new(Shared {
        waiting: RefCell::default(),
        share,
        filled: Cell::new(Filled::Open),
        waker: RefCell::default(),
        behind: Cell::new(false),
        given_up: Notify::new(),
        moved: Cell::new(0),
    });
    (Filler(Rc::clone(&shared)), Copied(shared))
}

impl Shared {
    fn set(&self, filled: Filled) {
        self.filled.set(filled);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    fn clear(&self) {
        self.waiting.borrow_mut().clear();
        self.share.give(self.share.taken());
    }
}

impl Filler {
    /// Adds a piece. If there is no room the copy is given up.
    pub fn push(&self, piece: Piece) {
        let shared = &self.0;
        if shared.filled.get() != Filled::Open {
            return;
        }
        let length = piece.len();
        if shared.share.taken() + length > MOST_WAITING || !shared.share.take(length) {
            shared.behind.set(true);
            shared.given_up.notify_one();
            shared.clear();
            return shared.set(Filled::Broken);
        }
        shared.waiting.borrow_mut().push_back(piece);
        shared.set(Filled::Open);
    }

    /// That was all.
    pub fn finish(&self) {
        if self.0.filled.get() == Filled::Open {
            self.0.set(Filled::Whole);
        }
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        if self.0.filled.get() == Filled::Open {
            self.0.set(Filled::Broken);
        }
    }
}

impl Copied {
    /// The next piece; `None` after the last one, `Err` if the rest will not come.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, ()>>> {
        let shared = &self.0;
        if let Some(piece) = shared.waiting.borrow_mut().pop_front() {
            shared.share.give(piece.len());
            shared.moved.set(shared.moved.get() + 1);
            return Poll::Ready(Some(Ok(piece)));
        }
        match shared.filled.get() {
            Filled::Whole => Poll::Ready(None),
            Filled::Broken | Filled::Gone => Poll::Ready(Some(Err(()))),
            Filled::Open => {
                *shared.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Whether all of it has been taken.
    pub fn is_over(&self) -> bool {
        self.0.filled.get() == Filled::Whole && self.0.waiting.borrow().is_empty()
    }

    /// A look at it from outside.
    pub fn watch(&self) -> Watch {
        Watch(Rc::clone(&self.0))
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        self.0.clear();
        self.0.set(Filled::Gone);
    }
}

impl Watch {
    /// Whether it was given up because it fell behind.
    pub fn fell_behind(&self) -> bool {
        self.0.behind.get()
    }

    /// Resolves when it is given up.
    pub async fn given_up(&self) {
        self.0.given_up.notified().await;
    }

    /// Pieces that were sent.
    pub fn moved(&self) -> u64 {
        self.0.moved.get()
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::Budget;
    use super::*;

    fn ends() -> (Filler, Copied) {
        copy(Budget::new(usize::MAX, metrics::Counter::noop()).share())
    }

    fn next(copied: &mut Copied) -> String {
        match copied.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => "pending".to_owned(),
            Poll::Ready(None) => "end".to_owned(),
            Poll::Ready(Some(Err(()))) => "broken".to_owned(),
            Poll::Ready(Some(Ok(piece))) => piece.len().to_string(),
        }
    }

    fn piece(length: usize) -> Piece {
        Piece::Data(vec![0; length].into())
    }

    #[test]
    fn a_copy_ends_as_its_original() {
        let (filler, mut copied) = ends();
        assert_eq!(next(&mut copied), "pending");
        filler.push(piece(3));
        filler.push(piece(4));
        filler.finish();
        drop(filler);
        assert_eq!([next(&mut copied), next(&mut copied), next(&mut copied)], ["3", "4", "end"]);

        let (filler, mut copied) = ends();
        filler.push(piece(3));
        drop(filler);
        assert_eq!([next(&mut copied), next(&mut copied)], ["3", "broken"]);
    }

    #[test]
    fn one_that_falls_behind_is_given_up() {
        let (filler, mut copied) = ends();
        let watch = copied.watch();
        filler.push(piece(MOST_WAITING));
        assert!(!watch.fell_behind());
        filler.push(piece(1));
        assert!(watch.fell_behind());
        assert_eq!(next(&mut copied), "broken");

        // Nobody sends it: nothing is kept for it.
        let (filler, copied) = ends();
        drop(copied);
        filler.push(piece(1));
        assert_eq!(filler.0.share.taken(), 0);
    }
}
