//! Streams that can be broken off so that the other side notices.

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::rewind::Rewind;

/// A stream of a client.
pub trait Cut {
    /// Dropped from now on it is broken off and not ended: a reset where it is TCP's.
    fn cut(&self);
}

impl Cut for TcpStream {
    fn cut(&self) {
        // Where the socket is gone there is nothing left to break off.
        drop(self.set_zero_linger());
    }
}

impl<T: Cut> Cut for Rewind<T> {
    fn cut(&self) {
        self.inner().cut();
    }
}

/// What was asked for with CONNECT: without an end of its own kind it just ends.
impl<T> Cut for TokioIo<T> {
    fn cut(&self) {}
}
