//! How much of everything a proxy takes, and how long it waits: defaults that are right for a laptop and a fleet, and
//! flags for who knows better.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mesh_core::framing::Sizes;
use mesh_core::framing::frames::Allowance;

/// What operators tune.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Accepted connections.
    pub connections: usize,
    /// Connections of one proven identity.
    pub of_identity: usize,
    /// Memory beyond which the proxy gives way; `None` where that follows from the machine.
    pub memory: Option<u64>,
    /// What waits in one direction of a client's connection.
    pub buffer: usize,
    /// Times of peers.
    pub patience: Patience,
    /// Sizes of messages.
    pub sizes: Sizes,
    /// HTTP/2 of applications.
    pub http2: Http2,
}

/// How long a peer may stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Before its first byte.
    pub first_byte: Duration,
    /// The same where the server may speak first.
    pub detection: Duration,
    /// In a handshake on the mesh port.
    pub handshake: Duration,
    /// In the middle of a head, a preface or a frame.
    pub head: Duration,
    /// In the middle of a body, while the client is waited for.
    pub body: Duration,
    /// Without a request, in HTTP/1.
    pub idle: Duration,
    /// Without a request, in HTTP/2.
    pub idle_http2: Duration,
    /// Without a word, in HTTP/2, before it is asked whether it lives.
    pub ping_every: Duration,
    /// Before it answers that.
    pub ping_within: Duration,
    /// While it is written to.
    pub write: Duration,
}

/// What applications may do over HTTP/2. Other proxies have windows of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2 {
    /// Streams of a connection at a time.
    pub streams: u32,
    /// What may be sent ahead on a stream.
    pub stream_window: u32,
    /// The same on a connection.
    pub window: u32,
    /// Size of a frame.
    pub frame: u32,
    /// Frames in ten seconds that carry and answer nothing.
    pub control: u32,
    /// Streams in ten seconds that are given up.
    pub resets: u32,
    /// Streams that we reset because of what was sent.
    pub local_resets: usize,
    /// Streams that were reset before they were looked at.
    pub pending_resets: usize,
}

impl Limits {
    /// Right for a laptop and a fleet.
    pub const DEFAULT: Limits = Limits {
        connections: 10_000,
        of_identity: 1_000,
        memory: None,
        buffer: 64 * 1024,
        patience: Patience {
            first_byte: Duration::from_secs(10),
            detection: Duration::from_secs(5),
            handshake: Duration::from_secs(5),
            head: Duration::from_secs(10),
            body: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            idle_http2: Duration::from_secs(300),
            ping_every: Duration::from_secs(30),
            ping_within: Duration::from_secs(10),
            write: Duration::from_secs(60),
        },
        sizes: Sizes::DEFAULT,
        http2: Http2 {
            streams: 100,
            stream_window: 64 * 1024,
            window: 1024 * 1024,
            frame: 16 * 1024,
            control: Allowance::OUTSIDE.control,
            resets: Allowance::OUTSIDE.resets,
            local_resets: 100,
            pending_resets: 20,
        },
    };

    /// What an application may send over HTTP/2 without a purpose.
    pub fn allowance(&self) -> Allowance {
        Allowance { control: self.http2.control, resets: self.http2.resets }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::DEFAULT
    }
}

thread_local! {
    static HERE: Cell<Limits> = const { Cell::new(Limits::DEFAULT) };
    static SIZES: Cell<Sizes> = const { Cell::new(Sizes::DEFAULT) };
}

/// The data thread that this is goes by these from now on. What lies deep below it asks for them here: a data thread
/// belongs to one proxy.
pub fn settle(limits: Limits) {
    HERE.set(limits);
    SIZES.set(limits.sizes);
}

/// The limits of this data thread.
pub fn here() -> Limits {
    HERE.get()
}

/// The sizes of messages that another proxy may have added fields to: who sent them was held to the others.
pub fn sizes_with_room() -> Sizes {
    const FIELDS: u32 = 32;
    const LIST: u32 = 8 * 1024;
    let sizes = SIZES.get();
    Sizes { fields: sizes.fields + FIELDS, list: sizes.list + LIST, field: sizes.field + LIST, ..sizes }
}

/// The sizes of messages on this data thread.
pub fn sizes() -> Sizes {
    SIZES.get()
}

/// Connections by proven identity. Asked once a connection.
#[derive(Debug, Default)]
pub struct Identities(Mutex<HashMap<Arc<str>, usize>>);

/// One of the connections that an identity may have; given back when it is dropped.
#[derive(Debug)]
pub struct Counted {
    all: Arc<Identities>,
    identity: Arc<str>,
}

impl Identities {
    /// A place for another connection of this identity. `None` if it has `most`.
    pub fn enter(self: &Arc<Identities>, identity: &str, most: usize) -> Option<Counted> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let identity = match counts.get_key_value(identity) {
            Some((_, count)) if *count >= most => return None,
            Some((identity, _)) => Arc::clone(identity),
            None => identity.into(),
        };
        *counts.entry(Arc::clone(&identity)).or_default() += 1;
        drop(counts);
        Some(Counted { all: Arc::clone(self), identity })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.identity) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.identity);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_has_so_many_places() {
        let all = Arc::new(Identities::default());
        let first = all.enter("a", 2).unwrap();
        let second = all.enter("a", 2).unwrap();
        assert!(all.enter("a", 2).is_none());
        assert!(all.enter("b", 2).is_some());
        drop(first);
        assert!(all.enter("a", 2).is_some());
        drop(second);
        assert!(all.0.lock().unwrap().is_empty());
    }
}
