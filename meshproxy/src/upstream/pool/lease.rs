//! A connection of HTTP/1: idle, or lent to one exchange.

use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::Duration;

use mesh_core::resilience::pool::ConnectionSettings;
use tokio::time::Instant;

use super::{Http1Key, Pool};
use crate::upstream::connect::Http1;

#[derive(Debug)]
pub(super) struct Idle {
    pub(super) sender: Http1,
    pub(super) since: u32,
    pub(super) last: u32,
    pub(super) kept: Instant,
    pub(super) life: Option<Box<Life>>,
}

/// What a rule leaves of an HTTP/1 connection.
#[derive(Debug)]
pub(super) struct Life {
    /// Requests, the present one included.
    pub(super) left: u32,
    pub(super) ends: Option<Instant>,
}

impl Life {
    pub(super) fn new(settings: &ConnectionSettings) -> Box<Life> {
        let ends = settings.most_age.and_then(|age| Instant::now().checked_add(age));
        Box::new(Life { left: settings.most_requests.unwrap_or(u32::MAX), ends })
    }

    pub(super) fn is_over(&self) -> bool {
        self.left == 0 || self.ends.is_some_and(|ends| ends <= Instant::now())
    }
}

/// An HTTP/1 connection that belongs to one exchange at a time.
#[derive(Debug)]
pub struct Lease {
    pub(super) sender: Option<Http1>,
    pub(super) key: Option<Http1Key>,
    /// The last look at which it may serve another exchange.
    pub(super) last: u32,
    /// Whether it had served another exchange before: then it may have been closed in the meantime.
    pub reused: bool,
    /// Whether it had nothing to do for a while: then its server may be about to close it.
    pub rested: bool,
    pub(super) life: Option<Box<Life>>,
    pub(super) pool: Weak<Pool>,
}

impl Lease {
    /// Sends the request.
    pub fn sender(&mut self) -> Option<&mut Http1> {
        self.sender.as_mut()
    }

    /// From where its connection goes out.
    pub fn local(&self) -> Option<SocketAddr> {
        self.sender.as_ref()?.local
    }

    /// The exchange is over and its answer was read whole: the connection may serve another.
    pub fn give_back(&mut self) {
        let (Some(mut sender), Some(key), Some(pool)) =
            (self.sender.take(), self.key.take(), self.pool.upgrade())
        else {
            return;
        };
        let mut life = self.life.take();
        if let Some(life) = &mut life {
            life.left = life.left.saturating_sub(1);
            if life.is_over() {
                return;
            }
        }
        if sender.is_ready() {
            return pool.keep(key, sender, self.last, life);
        }
        if sender.is_closed() {
            return;
        }
        let (pool, last) = (Rc::downgrade(&pool), self.last);
        tokio::task::spawn_local(async move {
            // The connection's task needs another turn to see that the answer has ended.
            let ready = tokio::time::timeout(Duration::from_secs(1), sender.ready()).await;
            if let (Ok(Ok(())), Some(pool)) = (ready, pool.upgrade())
                && sender.is_ready()
            {
                pool.keep(key, sender, last, life);
            }
        });
    }
}
