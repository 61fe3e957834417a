//! What a server of HTTP/1 sends: one answer to each request and nothing else. After anything else the connection is of
//! no use: what would be read on it could be the answer to somebody else's request.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mesh_core::framing::MOST_INTERIM;
use mesh_core::framing::body::Body;
use mesh_core::framing::refusal::Refusal;
use mesh_core::framing::response::{Asked, ResponseHead, Then};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::feed::Feed;
use super::refused;
use crate::net::limits;

/// What was asked on a connection, and what is wrong with it. Who asks and who reads never run at the same time.
#[derive(Debug, Default)]
pub struct Question {
    asked: AtomicU8,
    refusal: AtomicU8,
}

impl Question {
    /// A request is about to be sent.
    pub fn ask(&self, asked: Asked) {
        let number = match asked {
            Asked::Plain => 1,
            Asked::Head => 2,
            Asked::Connect => 3,
            Asked::Upgrade => 4,
        };
        self.asked.store(number, Relaxed);
    }

    /// Why the connection is of no use any more, if it is of none.
    pub fn refusal(&self) -> Option<Refusal> {
        Refusal::numbered(self.refusal.load(Relaxed))
    }

    fn take(&self) -> Option<Asked> {
        let asked = match self.asked.load(Relaxed) {
            1 => Asked::Plain,
            2 => Asked::Head,
            3 => Asked::Connect,
            4 => Asked::Upgrade,
            _ => return None,
        };
        self.asked.store(0, Relaxed);
        Some(asked)
    }

    fn refuse(&self, refusal: Refusal) {
        if self.refusal.load(Relaxed) == 0 {
            self.refusal.store(refusal.number(), Relaxed);
        }
    }
}

/// The guard of one connection.
#[derive(Debug)]
pub struct Answers<T> {
    feed: Feed<T>,
    question: Arc<Question>,
    state: State,
    head: ResponseHead,
    /// A head that has begun must be whole after so long.
    patience: Duration,
    /// Runs while one is not.
    slow: Option<Pin<Box<Sleep>>>,
    interim: u8,
}

#[derive(Debug)]
enum State {
    /// Nothing was asked.
    Idle,
    /// A head comes.
    Head(Asked),
    /// So many bytes of what is kept are a head; then comes this.
    Pass(usize, Next),
    Body(Body),
    /// Bytes were refused.
    Broken(Refusal),
    Tunnel,
}

#[derive(Debug, Clone, Copy)]
enum Next {
    Head(Asked),
    Body(Body),
    Tunnel,
}

impl<T> Answers<T> {
    /// Guards a stream.
    pub fn new(inner: T, question: Arc<Question>) -> Answers<T> {
        Answers {
            feed: Feed::new(inner),
            question,
            state: State::Idle,
            head: ResponseHead::within(limits::sizes()),
            patience: limits::here().patience.head,
            slow: None,
            interim: 0,
        }
    }

    fn broken(&mut self, refusal: Refusal) -> io::Error {
        self.question.refuse(refusal);
        self.feed.drop_held();
        self.state = State::Broken(refusal);
        refused(refusal)
    }

    /// A head is whole: what comes then.
    fn next(&mut self, then: Then, asked: Asked) -> Result<Next, Refusal> {
        self.head = ResponseHead::within(limits::sizes());
        self.slow = None;
        Ok(match then {
            Then::Body(body) => Next::Body(body),
            Then::Tunnel => Next::Tunnel,
            Then::Head => {
                self.interim += 1;
                if self.interim > MOST_INTERIM {
                    return Err(Refusal::Interim);
                }
                Next::Head(asked)
            }
        })
    }

    fn enter(&mut self, next: Next) {
        self.state = match next {
            Next::Head(asked) => State::Head(asked),
            Next::Body(body) if body.is_over() => State::Idle,
            Next::Body(body) => State::Body(body),
            Next::Tunnel => State::Tunnel,
        };
    }

    /// Goes through what was read of a body; tells how much of it is the body's.
    fn judge(&mut self, mut body: Body, bytes: &[u8]) -> io::Result<usize> {
        match body.advance(bytes) {
            Ok(reached) => {
                self.enter(if reached.is_over { Next::Body(Body::Length(0)) } else { Next::Body(body) });
                Ok(reached.length)
            }
            Err(refusal) => Err(self.broken(refusal)),
        }
    }
}

impl<T: AsyncRead + Unpin> Answers<T> {
    fn poll_idle(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if ready!(self.feed.poll_fill(cx, buf))? == 0 {
            return Poll::Ready(Ok(()));
        }
        buf.set_filled(before);
        Poll::Ready(Err(self.broken(Refusal::Surplus)))
    }

    /// Reads a head; ready when something is to be passed on, or at the end.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        asked: Asked,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.feed.held().is_empty() {
            if ready!(self.feed.poll_fill(cx, buf))? == 0 {
                return Poll::Ready(Ok(()));
            }
            let found = self.head.scan(&buf.filled()[before..], asked);
            match found.and_then(|found| found.map(|f| Ok((f.length, self.next(f.then, asked)?))).transpose())
            {
                Ok(Some((length, next))) => {
                    self.enter(next);
                    let mut keep = before + length;
                    if let State::Body(body) = self.state {
                        // What is bad in it is told with the next read.
                        keep += self.judge(body, &buf.filled()[keep..]).unwrap_or(0);
                    }
                    self.keep(buf, keep);
                    return Poll::Ready(Ok(()));
                }
                Ok(None) => self.feed.take_back(buf, before),
                Err(refusal) => {
                    buf.set_filled(before);
                    return Poll::Ready(Err(self.broken(refusal)));
                }
            }
        }
        loop {
            let found = self.head.scan(self.feed.held(), asked);
            match found.and_then(|found| found.map(|f| Ok((f.length, self.next(f.then, asked)?))).transpose())
            {
                Ok(Some((length, next))) => {
                    self.state = State::Pass(length, next);
                    return Poll::Ready(Ok(()));
                }
                Ok(None) => {}
                Err(refusal) => return Poll::Ready(Err(self.broken(refusal))),
            }
            let Poll::Ready(read) = self.feed.poll_more(cx, buf)? else {
                let patience = self.patience;
                let slow = self.slow.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
                ready!(slow.as_mut().poll(cx));
                return Poll::Ready(Err(self.broken(Refusal::SlowHead)));
            };
            if read == 0 {
                // An answer that breaks off in its head is none.
                self.feed.drop_held();
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>, body: Body) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if ready!(self.feed.poll_fill(cx, buf))? == 0 {
            return Poll::Ready(Ok(()));
        }
        match self.judge(body, &buf.filled()[before..]) {
            Ok(length) => self.keep(buf, before + length),
            Err(error) => {
                buf.set_filled(before);
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Passes on what was filled in up to here. If the answer is whole with it, the rest answers nothing.
    fn keep(&mut self, buf: &mut ReadBuf<'_>, keep: usize) {
        self.feed.take_back(buf, keep);
        self.check_rest();
    }

    fn check_rest(&mut self) {
        if matches!(self.state, State::Idle) && !self.feed.held().is_empty() {
            drop(self.broken(Refusal::Surplus));
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Answers<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        loop {
            match this.state {
                State::Body(body) => return this.poll_body(cx, buf, body),
                State::Head(asked) => {
                    ready!(this.poll_head(cx, buf, asked))?;
                    if !matches!(this.state, State::Pass(..)) || buf.filled().len() > before {
                        return Poll::Ready(Ok(()));
                    }
                }
                State::Pass(left, next) => {
                    let passed = this.feed.pass(buf, left);
                    if left > passed {
                        this.state = State::Pass(left - passed, next);
                        return Poll::Ready(Ok(()));
                    }
                    this.enter(next);
                    this.check_rest();
                    return Poll::Ready(Ok(()));
                }
                State::Idle => return this.poll_idle(cx, buf),
                State::Broken(refusal) => return Poll::Ready(Err(refused(refusal))),
                State::Tunnel => return this.feed.poll_fill(cx, buf).map_ok(|_| ()),
            }
        }
    }
}

impl<T> Answers<T> {
    /// Only what comes after a request has been written can be its answer.
    fn writes(&mut self) {
        if matches!(self.state, State::Idle)
            && let Some(asked) = self.question.take()
        {
            self.interim = 0;
            self.state = State::Head(asked);
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Answers<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.writes();
        Pin::new(&mut self.feed.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.feed.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.feed.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.feed.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.writes();
        Pin::new(&mut self.feed.inner).poll_write_vectored(cx, bufs)
    }
}
