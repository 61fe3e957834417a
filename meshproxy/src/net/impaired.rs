//! A stream that is slow or breaks off on purpose.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use mesh_core::resilience::connection_fault::{ConnectionFaultKind, Injected, Pace};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// So much is read at once at most.
const PIECE: usize = 64 * 1024;

/// A stream with a fault, as long as that lasts.
#[derive(Debug)]
pub struct Impaired<T> {
    inner: T,
    kind: ConnectionFaultKind,
    began: Instant,
    ends: Instant,
    /// What was read and may not be had yet.
    held: Vec<u8>,
    given: usize,
    reading: Gate,
    writing: Gate,
    passed: u64,
    broken: bool,
    /// Waits for bytes while the other direction passes on the last that may pass.
    reader: Option<Waker>,
}

/// One direction.
#[derive(Debug, Default)]
struct Gate {
    pace: Option<Pace>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// What waits has waited.
    open: bool,
}

impl Gate {
    fn of(kind: ConnectionFaultKind) -> Gate {
        let pace = match kind {
            ConnectionFaultKind::Bandwidth(rate) => Some(Pace::new(rate, Duration::ZERO)),
            ConnectionFaultKind::Reset { .. }
            | ConnectionFaultKind::Blackhole
            | ConnectionFaultKind::Latency(_) => None,
        };
        Gate { pace, sleep: None, open: false }
    }

    fn close_until(&mut self, at: Instant) {
        self.sleep = Some(Box::pin(tokio::time::sleep_until(at)));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(sleep) = &mut self.sleep {
            ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
        }
        Poll::Ready(())
    }
}

impl<T> Impaired<T> {
    /// Gives a stream the fault.
    pub fn new(inner: T, injected: Injected) -> Impaired<T> {
        let now = Instant::now();
        Impaired {
            inner,
            kind: injected.kind,
            began: now,
            ends: now + injected.left,
            held: Vec::new(),
            given: 0,
            reading: Gate::of(injected.kind),
            writing: Gate::of(injected.kind),
            passed: 0,
            broken: false,
            reader: None,
        }
    }

    /// Whether it broke off as it should.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.ends
    }

    /// How much may pass at once; nothing once it breaks off.
    fn room(&self, wanted: usize) -> usize {
        match self.kind {
            ConnectionFaultKind::Reset { after } => {
                usize::try_from(after.saturating_sub(self.passed)).unwrap_or(usize::MAX).min(wanted)
            }
            ConnectionFaultKind::Bandwidth(_) => {
                self.reading.pace.map_or(wanted, |pace| pace.piece()).min(wanted)
            }
            ConnectionFaultKind::Blackhole | ConnectionFaultKind::Latency(_) => wanted,
        }
    }

    fn note(&mut self, bytes: usize) {
        self.passed = self.passed.saturating_add(bytes as u64);
        if self.room(1) == 0
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
    }

    /// Breaks off where as much has passed as may.
    fn check(&mut self) -> io::Result<()> {
        if self.broken || (self.room(1) == 0 && !self.is_over()) {
            self.broken = true;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }

    fn pass(&mut self, bytes: usize, reads: bool) {
        let (now, began, kind) = (Instant::now(), self.began, self.kind);
        let gate = if reads { &mut self.reading } else { &mut self.writing };
        match (kind, &mut gate.pace) {
            (_, Some(pace)) => {
                let at = began + pace.pass(bytes, now - began);
                gate.close_until(at);
            }
            (ConnectionFaultKind::Latency(time), None) if reads => gate.close_until(now + time),
            (_, None) => {}
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Impaired<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.given < this.held.len() {
                ready!(this.reading.poll(cx));
                let length = (this.held.len() - this.given).min(buffer.remaining());
                buffer.put_slice(&this.held[this.given..this.given + length]);
                this.given += length;
                if this.given == this.held.len() {
                    this.held = Vec::new();
                    this.given = 0;
                }
                return Poll::Ready(Ok(()));
            }
            this.check()?;
            if this.is_over() {
                return Pin::new(&mut this.inner).poll_read(cx, buffer);
            }
            this.reader = Some(cx.waker().clone());
            let mut piece = vec![0; this.room(PIECE)];
            let mut room = ReadBuf::new(&mut piece);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut room))?;
            let length = room.filled().len();
            if length == 0 {
                return Poll::Ready(Ok(()));
            }
            piece.truncate(length);
            (this.held, this.given) = (piece, 0);
            this.note(length);
            this.pass(length, true);
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Impaired<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check()?;
        if this.is_over() {
            return Pin::new(&mut this.inner).poll_write(cx, bytes);
        }
        if let (ConnectionFaultKind::Latency(time), false, None) =
            (this.kind, this.writing.open, &this.writing.sleep)
        {
            this.writing.close_until(Instant::now() + time);
        }
        ready!(this.writing.poll(cx));
        this.writing.open = true;
        let room = this.room(bytes.len());
        let length = ready!(Pin::new(&mut this.inner).poll_write(cx, &bytes[..room]))?;
        this.writing.open = false;
        this.note(length);
        this.pass(length, false);
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn impaired(kind: ConnectionFaultKind) -> (Impaired<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(1 << 20);
        (Impaired::new(near, Injected { kind, left: Duration::from_secs(100) }), far)
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_come_later_each_way() {
        let (mut near, mut far) = impaired(ConnectionFaultKind::Latency(Duration::from_secs(2)));
        let begun = Instant::now();
        near.write_all(b"there").await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), 2);
        let mut read = [0; 5];
        far.read_exact(&mut read).await.unwrap();
        far.write_all(b"and back").await.unwrap();
        let mut read = [0; 8];
        near.read_exact(&mut read).await.unwrap();
        assert_eq!((&read, begun.elapsed().as_secs()), (b"and back", 4));
        tokio::time::advance(Duration::from_secs(100)).await;
        let begun = Instant::now();
        near.write_all(b"over").await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_bytes_pass_a_second() {
        let (mut near, mut far) = impaired(ConnectionFaultKind::Bandwidth(10_000));
        let begun = Instant::now();
        far.write_all(&[7; 50_000]).await.unwrap();
        let mut read = vec![0; 50_000];
        near.read_exact(&mut read).await.unwrap();
        let took = begun.elapsed();
        assert!((4_900..5_200).contains(&took.as_millis()), "{took:?}");
        near.write_all(&[7; 20_000]).await.unwrap();
        let took = begun.elapsed() - took;
        assert!((1_800..2_200).contains(&took.as_millis()), "{took:?}");
    }

    #[tokio::test]
    async fn it_breaks_off_after_so_many_bytes() {
        let (mut near, mut far) = impaired(ConnectionFaultKind::Reset { after: 10 });
        near.write_all(b"1234").await.unwrap();
        far.write_all(b"123456789").await.unwrap();
        let mut read = Vec::new();
        let error = near.read_to_end(&mut read).await.unwrap_err();
        assert_eq!((read.as_slice(), error.kind()), (&b"123456"[..], io::ErrorKind::ConnectionReset));
        assert!(near.is_broken() && near.write_all(b"1").await.is_err());
    }
}
