//! What is read of a stream and not passed on yet.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// A buffer that grew beyond this is given back.
const KEEP: usize = 4 * 1024;

/// A stream, and what was read of it too early.
#[derive(Debug)]
pub(super) struct Feed<T> {
    pub(super) inner: T,
    held: Vec<u8>,
    at: usize,
}

impl<T> Feed<T> {
    pub(super) fn new(inner: T) -> Feed<T> {
        Feed { inner, held: Vec::new(), at: 0 }
    }

    /// What is kept.
    pub(super) fn held(&self) -> &[u8] {
        &self.held[self.at..]
    }

    /// Keeps these bytes and nothing else.
    pub(super) fn replace(&mut self, bytes: &[u8]) {
        self.drop_held();
        self.held.extend_from_slice(bytes);
    }

    pub(super) fn drop_held(&mut self) {
        self.held.clear();
        self.held.shrink_to(KEEP);
        self.at = 0;
    }

    /// Passes on so much of what is kept as there is room for, at most `most`; tells how much that was.
    pub(super) fn pass(&mut self, buf: &mut ReadBuf<'_>, most: usize) -> usize {
        let length = self.held().len().min(buf.remaining()).min(most);
        buf.put_slice(&self.held[self.at..self.at + length]);
        self.at += length;
        if self.at == self.held.len() {
            self.drop_held();
        }
        length
    }
}

impl<T: AsyncRead + Unpin> Feed<T> {
    /// Reads what comes, what was kept first. 0 is the end.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        if !self.held().is_empty() {
            return Poll::Ready(Ok(self.pass(buf, usize::MAX)));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        Poll::Ready(Ok(buf.filled().len() - before))
    }

    /// Reads what comes behind what is kept. 0 is the end.
    pub(super) fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let read = &buf.filled()[before..];
        let length = read.len();
        self.held.extend_from_slice(read);
        buf.set_filled(before);
        Poll::Ready(Ok(length))
    }

    /// Takes back what was filled in behind `keep`, to be read again.
    pub(super) fn take_back(&mut self, buf: &mut ReadBuf<'_>, keep: usize) {
        let back = &buf.filled()[keep..];
        if back.is_empty() {
            return;
        }
        if self.at >= back.len() {
            // It was kept, and still is.
            self.at -= back.len();
        } else {
            let rest = self.held.split_off(self.at);
            self.held.clear();
            self.held.extend_from_slice(back);
            self.held.extend_from_slice(&rest);
            self.at = 0;
        }
        buf.set_filled(keep);
    }
}
