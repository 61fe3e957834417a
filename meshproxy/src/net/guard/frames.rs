//! What a peer sends over HTTP/2, frame by frame ([`mesh_core::framing::frames`]). A client whose frames are refused gets
//! GOAWAY with ENHANCE_YOUR_CALM: the library says so to whoever never ends a header block, so it reads that instead.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mesh_core::framing::frames::{Allowance, Frames, Ledger, Pending};
use mesh_core::framing::refusal::Refusal;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::refused;

/// A HEADERS frame that does not end its header block, and more CONTINUATION frames than the library takes.
const ENDLESS: [[u8; 9]; 16] = {
    let mut frames = [[0, 0, 0, 9, 0, 0, 0, 0, 1]; 16];
    frames[0] = [0, 0, 0, 1, 0, 0, 0, 0, 1];
    frames
};

/// Why the bytes of a connection were refused, for who carries it.
pub type Cause = Rc<Cell<Option<Refusal>>>;

/// The guard of one connection.
#[derive(Debug)]
pub struct Framed<T> {
    inner: T,
    frames: Frames,
    account: Account,
    is_client: bool,
    state: State,
    patience: Duration,
    slow: Option<Slow>,
    cause: Cause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// So many bytes of [`ENDLESS`] have been passed on.
    Refused(usize),
    Broken(Refusal),
}

/// Something that has begun, and when it must be whole.
#[derive(Debug)]
struct Slow {
    what: Pending,
    sleep: Pin<Box<Sleep>>,
}

#[derive(Debug)]
struct Account {
    since: Instant,
    written: u64,
}

impl Ledger for Account {
    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn written(&self) -> u64 {
        self.written
    }
}

impl<T> Framed<T> {
    /// Guards a stream of a client.
    pub fn of_client(inner: T, allowance: Allowance, patience: Duration) -> Framed<T> {
        Framed::new(inner, Frames::of_client(allowance), true, patience)
    }

    /// The same of one outside the mesh.
    pub fn judging_trailers(self) -> Framed<T> {
        Framed { frames: self.frames.judging_trailers(), ..self }
    }

    /// Guards a stream of a server.
    pub fn of_server(inner: T, allowance: Allowance, patience: Duration) -> Framed<T> {
        Framed::new(inner, Frames::of_server(allowance, true), false, patience)
    }

    fn new(inner: T, frames: Frames, is_client: bool, patience: Duration) -> Framed<T> {
        let account = Account { since: Instant::now(), written: 0 };
        Framed {
            inner,
            frames,
            account,
            is_client,
            state: State::Open,
            patience,
            slow: None,
            cause: Cause::default(),
        }
    }

    /// Where it will be written why bytes were refused.
    pub fn cause(&self) -> Cause {
        Rc::clone(&self.cause)
    }

    fn broken(&mut self, refusal: Refusal) -> io::Error {
        self.cause.set(Some(refusal));
        self.state = State::Broken(refusal);
        refused(refusal)
    }

    /// Nothing more comes just now. Ready when that must not be so any longer. The timer of a frame is left to run when
    /// the frame is whole, and looked at only when another one is not: on a busy connection it is set once in a while.
    fn poll_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (what, patience) = (self.frames.pending(), self.patience);
        if what == Pending::Nothing {
            return Poll::Pending;
        }
        let slow =
            self.slow.get_or_insert_with(|| Slow { what, sleep: Box::pin(tokio::time::sleep(patience)) });
        if matches!(what, Pending::Head(_)) && slow.what != what {
            slow.what = what;
            slow.sleep.as_mut().reset(Instant::now() + patience);
        }
        loop {
            ready!(slow.sleep.as_mut().poll(cx));
            if slow.what == what {
                return Poll::Ready(());
            }
            slow.what = what;
            slow.sleep.as_mut().reset(Instant::now() + patience);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Framed<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.state {
            State::Open => {}
            State::Refused(passed) => {
                let rest = &ENDLESS.as_flattened()[passed..];
                let length = rest.len().min(buf.remaining());
                buf.put_slice(&rest[..length]);
                this.state = State::Refused(passed + length);
                return Poll::Ready(Ok(()));
            }
            State::Broken(refusal) => return Poll::Ready(Err(refused(refusal))),
        }
        let before = buf.filled().len();
        let Poll::Ready(read) = Pin::new(&mut this.inner).poll_read(cx, buf) else {
            ready!(this.poll_slow(cx));
            return Poll::Ready(Err(this.broken(Refusal::SlowHead)));
        };
        read?;
        let bytes = &buf.filled()[before..];
        let Err(stop) = this.frames.advance(bytes, &this.account) else { return Poll::Ready(Ok(())) };
        buf.set_filled(before);
        if this.is_client && !stop.begun {
            this.cause.set(Some(stop.refusal));
            // A header block that is open already goes on.
            let passed = if stop.refusal == Refusal::HeaderBlock { ENDLESS[0].len() } else { 0 };
            this.state = State::Refused(passed);
            // Whole frames that come before are passed on; where there are none the library would take it for the end.
            buf.set_filled(before + stop.at);
            return if stop.at > 0 { Poll::Ready(Ok(())) } else { Pin::new(this).poll_read(cx, buf) };
        }
        Poll::Ready(Err(this.broken(stop.refusal)))
    }
}

impl<T: AsyncWrite + Unpin> Framed<T> {
    fn count(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(length)) = written {
            self.account.written += length as u64;
        }
        written
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Framed<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.count(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.count(written)
    }
}
