//! Writes put off to the end of the event-loop turn.
//!
//! An HTTP/2 connection flushes as often as it is woken, and each flush between TLS and the kernel costs a record and
//! a system call. Here writes go into a buffer and a flush answers at once; one small task of the same thread writes
//! everything after the other tasks of the turn have had theirs. Measured: a third fewer system calls, a third less
//! CPU for a pair of proxies, and lower latency (data-path notes). The buffer is bounded; a full one holds the writer back.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A writer that is so far ahead waits.
const MOST: usize = 256 * 1024;
/// A buffer that grew beyond this in a burst is given back.
const KEEP: usize = 32 * 1024;
/// The turn is given up so often before writing, so that every task that is ready adds its part.
const YIELDS: usize = 2;

/// A stream whose writes are put off. Must live in a `LocalSet`.
#[derive(Debug)]
pub struct Corked<T> {
    shared: Rc<RefCell<Shared<T>>>,
}

#[derive(Debug)]
struct Shared<T> {
    io: T,
    buffer: Vec<u8>,
    written: usize,
    /// Something waits to be written or flushed.
    dirty: bool,
    failed: Option<io::ErrorKind>,
    closed: bool,
    /// The writer, when it waits for room or for the last flush.
    writer: Option<Waker>,
    /// The task that writes, when it waits for work.
    flusher: Option<Waker>,
}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> Corked<T> {
    /// Wraps a stream and starts the task that writes for it. The task ends with the stream.
    pub fn new(io: T) -> Corked<T> {
        let shared = Rc::new(RefCell::new(Shared {
            io,
            buffer: Vec::with_capacity(16 * 1024),
            written: 0,
            dirty: false,
            failed: None,
            closed: false,
            writer: None,
            flusher: None,
        }));
        tokio::task::spawn_local(flush_each_turn(Rc::downgrade(&shared)));
        Corked { shared }
    }
}

async fn flush_each_turn<T: AsyncWrite + Unpin>(shared: Weak<RefCell<Shared<T>>>) {
    loop {
        let has_work = poll_fn(|cx| match shared.upgrade() {
            None => Poll::Ready(false),
            Some(shared) => shared.borrow_mut().poll_dirty(cx),
        });
        if !has_work.await {
            return;
        }
        for _ in 0..YIELDS {
            tokio::task::yield_now().await;
        }
        let written = poll_fn(|cx| match shared.upgrade() {
            None => Poll::Ready(false),
            Some(shared) => shared.borrow_mut().poll_write_out(cx),
        });
        if !written.await {
            return;
        }
    }
}

impl<T: AsyncWrite + Unpin> Shared<T> {
    /// Whether there is work; `false` when there never will be again.
    fn poll_dirty(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.dirty {
            return Poll::Ready(true);
        }
        if self.closed || self.failed.is_some() {
            return Poll::Ready(false);
        }
        self.flusher = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Writes and flushes everything; `false` if the stream has failed.
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let result = ready!(self.poll_drain(cx));
        if let Err(error) = &result {
            self.failed = Some(error.kind());
        }
        self.dirty = false;
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
        Poll::Ready(result.is_ok())
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.buffer.len() {
            let rest = &self.buffer[self.written..];
            match ready!(Pin::new(&mut self.io).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                length => self.written += length,
            }
        }
        self.written = 0;
        self.buffer.clear();
        if self.buffer.capacity() > KEEP {
            self.buffer.shrink_to(KEEP);
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Room for more bytes, or the failure that a put-off write met.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(kind) = self.failed {
            return Poll::Ready(Err(kind.into()));
        }
        if self.buffer.len() >= MOST {
            self.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn schedule(&mut self) {
        if !self.dirty {
            self.dirty = true;
            if let Some(flusher) = self.flusher.take() {
                flusher.wake();
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Corked<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.shared.borrow_mut().io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Corked<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut shared = self.shared.borrow_mut();
        ready!(shared.poll_room(cx))?;
        shared.buffer.extend_from_slice(buf);
        shared.schedule();
        Poll::Ready(Ok(buf.len()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut shared = self.shared.borrow_mut();
        ready!(shared.poll_room(cx))?;
        let before = shared.buffer.len();
        bufs.iter().for_each(|buf| shared.buffer.extend_from_slice(buf));
        shared.schedule();
        Poll::Ready(Ok(shared.buffer.len() - before))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.shared.borrow().failed {
            Some(kind) => Poll::Ready(Err(kind.into())),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.shared.borrow_mut();
        if let Some(kind) = shared.failed {
            return Poll::Ready(Err(kind.into()));
        }
        ready!(shared.poll_drain(cx))?;
        shared.dirty = false;
        shared.closed = true;
        if let Some(flusher) = shared.flusher.take() {
            flusher.wake();
        }
        Pin::new(&mut shared.io).poll_shutdown(cx)
    }
}

impl<T> Drop for Corked<T> {
    fn drop(&mut self) {
        // The task sees that nobody is left and ends.
        if let Some(flusher) = self.shared.borrow_mut().flusher.take() {
            flusher.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::task::LocalSet;

    #[tokio::test]
    async fn writes_of_a_turn_arrive_as_one() {
        let run = async {
            let (mut far, near) = tokio::io::duplex(1024);
            let mut corked = Corked::new(near);
            for _ in 0..3 {
                corked.write_all(b"abc").await.unwrap();
                corked.flush().await.unwrap();
            }
            let mut read = [0; 64];
            let length = far.read(&mut read).await.unwrap();
            assert_eq!(&read[..length], b"abcabcabc");
        };
        LocalSet::new().run_until(run).await;
    }

    #[tokio::test]
    async fn shutdown_writes_what_is_left() {
        let run = async {
            let (mut far, near) = tokio::io::duplex(1024);
            let mut corked = Corked::new(near);
            corked.write_all(b"last").await.unwrap();
            corked.shutdown().await.unwrap();
            drop(corked);
            let mut text = String::new();
            far.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "last");
        };
        LocalSet::new().run_until(run).await;
    }

    #[tokio::test]
    async fn a_full_buffer_holds_the_writer_back_and_errors_come_out() {
        let run = async {
            let (far, near) = tokio::io::duplex(16);
            let mut corked = Corked::new(near);
            let chunk = vec![0; MOST];
            corked.write_all(&chunk).await.unwrap();
            let more = tokio::time::timeout(std::time::Duration::from_millis(20), corked.write_all(b"x"));
            assert!(more.await.is_err());
            drop(far);
            assert!(corked.write_all(b"x").await.is_err());
        };
        LocalSet::new().run_until(run).await;
    }
}
