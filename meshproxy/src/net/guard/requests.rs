//! What a client of HTTP/1 sends: one request at a time. What it sends behind a request stays unread until that one has
//! been answered, but for what came in one read with its end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use mesh_core::framing::body::Body;
use mesh_core::framing::refusal::Refusal;
use mesh_core::framing::request::{Request, RequestHead};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::feed::Feed;
use super::refused;
use crate::net::activity::Activity;
use crate::net::limits;

/// What the library reads in the place of a head that was refused.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";
/// What it reads in the place of a head that broke off.
const HALF: &[u8] = b"G";
/// So much is read to see whether a client that waits for its answer is still there.
const LOOK: usize = 1024;
/// So much is read and thrown away behind what was refused: closing with unread bytes would take the answer back.
const MOST_UNREAD: usize = 256 * 1024;

/// The guard of one connection.
#[derive(Debug)]
pub struct Requests<T> {
    feed: Feed<T>,
    activity: Arc<Activity>,
    state: State,
    head: RequestHead,
    /// A head that has begun must be whole after so long.
    patience: Duration,
    /// Runs while one is not.
    slow: Option<Pin<Box<Sleep>>>,
    /// Who waits for the answer to be over.
    waits: Option<Waker>,
}

#[derive(Debug)]
enum State {
    /// A head comes.
    Head,
    /// So many bytes of what is kept are a head; then comes the body.
    Pass(usize, Body),
    Body(Body),
    /// The request is whole; the next one comes after its answer.
    Whole,
    /// What stands in for a refused request is passed on.
    StandIn,
    /// Nothing more is read, but so many bytes thrown away.
    Refused(usize),
    /// Bytes of a body were refused.
    Broken(Refusal),
    Tunnel,
}

impl<T> Requests<T> {
    /// Guards a stream.
    pub fn new(inner: T, activity: Arc<Activity>, patience: Duration) -> Requests<T> {
        Requests {
            feed: Feed::new(inner),
            activity,
            state: State::Head,
            head: RequestHead::within(limits::sizes()),
            patience,
            slow: None,
            waits: None,
        }
    }

    fn refuse_head(&mut self, refusal: Refusal) {
        self.activity.refuse_head(refusal);
        self.slow = None;
        self.feed.replace(STAND_IN);
        self.state = State::StandIn;
    }

    /// Goes through what was read of a body; tells how much of it is the body's.
    fn judge(&mut self, mut body: Body, bytes: &[u8]) -> io::Result<usize> {
        if body.is_over() {
            self.state = State::Whole;
            return Ok(0);
        }
        match body.advance(bytes) {
            Ok(reached) => {
                self.state = if reached.is_over { State::Whole } else { State::Body(body) };
                Ok(reached.length)
            }
            Err(refusal) => Err(self.broken(refusal)),
        }
    }

    fn broken(&mut self, refusal: Refusal) -> io::Error {
        self.activity.refuse(refusal);
        self.state = State::Broken(refusal);
        refused(refusal)
    }
}

impl<T: AsyncRead + Unpin> Requests<T> {
    /// Reads a head; ready when something is to be passed on, or at the end.
    fn poll_head(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.feed.held().is_empty() {
            if ready!(self.feed.poll_fill(cx, buf))? == 0 {
                return Poll::Ready(Ok(()));
            }
            match self.head.scan(&buf.filled()[before..]) {
                Ok(Some(Request { length, body })) => {
                    self.head = RequestHead::within(limits::sizes());
                    let behind = before + length;
                    let judged = self.judge(body, &buf.filled()[behind..]);
                    self.feed.take_back(buf, behind + *judged.as_ref().unwrap_or(&0));
                    // A body that is bad from its first byte on is told with the next read.
                    return Poll::Ready(Ok(()));
                }
                Ok(None) => self.feed.take_back(buf, before),
                Err(refusal) => {
                    buf.set_filled(before);
                    self.refuse_head(refusal);
                    return Poll::Ready(Ok(()));
                }
            }
        }
        loop {
            match self.head.scan(self.feed.held()) {
                Ok(Some(Request { length, body })) => {
                    self.head = RequestHead::within(limits::sizes());
                    self.slow = None;
                    self.state = State::Pass(length, body);
                    return Poll::Ready(Ok(()));
                }
                Ok(None) => {}
                Err(refusal) => {
                    self.refuse_head(refusal);
                    return Poll::Ready(Ok(()));
                }
            }
            match self.feed.poll_more(cx, buf)? {
                Poll::Ready(0) => {
                    // A head that is not whole is no request: the library hears that there was one, and not what.
                    self.feed.replace(HALF);
                    self.state = State::Pass(HALF.len(), Body::Length(0));
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(_) => {}
                Poll::Pending => {
                    let patience = self.patience;
                    let slow = self.slow.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
                    ready!(slow.as_mut().poll(cx));
                    self.refuse_head(Refusal::SlowHead);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>, body: Body) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let Poll::Ready(read) = self.feed.poll_fill(cx, buf)? else {
            if self.activity.waits() {
                return Poll::Ready(Err(self.broken(Refusal::SlowBody)));
            }
            return Poll::Pending;
        };
        self.activity.hears();
        if read == 0 {
            return Poll::Ready(Ok(()));
        }
        match self.judge(body, &buf.filled()[before..]) {
            Ok(length) => self.feed.take_back(buf, before + length),
            Err(error) => {
                buf.set_filled(before);
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Looks whether a client that waits for its answer is still there.
    fn poll_whole(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.feed.held().is_empty() {
            let mut look = buf.take(LOOK);
            if ready!(self.feed.poll_more(cx, &mut look))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        self.waits = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_unread(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        mut left: usize,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        while left > 0 {
            let read = ready!(self.feed.poll_fill(cx, buf))?;
            buf.set_filled(before);
            left = if read == 0 { 0 } else { left.saturating_sub(read) };
            self.state = State::Refused(left);
        }
        Poll::Pending
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Requests<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        loop {
            match this.state {
                State::Body(body) => return this.poll_body(cx, buf, body),
                State::Head => {
                    ready!(this.poll_head(cx, buf))?;
                    let passes_on = matches!(this.state, State::Pass(..) | State::StandIn);
                    if !passes_on || buf.filled().len() > before {
                        return Poll::Ready(Ok(()));
                    }
                }
                State::Pass(left, body) => {
                    let passed = this.feed.pass(buf, left);
                    this.state = match left - passed {
                        0 if body.is_over() => State::Whole,
                        0 => State::Body(body),
                        left => State::Pass(left, body),
                    };
                    return Poll::Ready(Ok(()));
                }
                State::Whole if this.activity.is_tunnel() => this.state = State::Tunnel,
                State::Whole if this.activity.is_busy() => return this.poll_whole(cx, buf),
                State::Whole => this.state = State::Head,
                State::StandIn => {
                    this.feed.pass(buf, usize::MAX);
                    if this.feed.held().is_empty() {
                        this.state = State::Refused(MOST_UNREAD);
                    }
                    return Poll::Ready(Ok(()));
                }
                State::Refused(left) => return this.poll_unread(cx, buf, left),
                State::Broken(refusal) => return Poll::Ready(Err(refused(refusal))),
                State::Tunnel => return this.feed.poll_fill(cx, buf).map_ok(|_| ()),
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Requests<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.feed.inner).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.feed.inner).poll_flush(cx))?;
        // The library flushes behind an answer, but does not come back to read: it was told to wait.
        if let Some(waits) = this.waits.take_if(|_| !this.activity.is_busy()) {
            waits.wake();
        }
        Poll::Ready(Ok(()))
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
        Pin::new(&mut self.feed.inner).poll_write_vectored(cx, bufs)
    }
}
