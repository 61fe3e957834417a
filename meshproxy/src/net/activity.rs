//! What goes on on a connection of a client: enough to see with one look in a while that nothing does. Shared by what
//! guards its bytes and what serves it, which never run at the same time: so plain loads and stores do.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use mesh_core::framing::refusal::Refusal;

/// How often a connection is looked at. A timer for each request, or for each read, would cost more than the look.
const LOOK: Duration = Duration::from_secs(15);

/// Looks that take this time.
fn looks(time: Duration) -> u64 {
    time.as_secs().div_ceil(LOOK.as_secs()).max(1)
}

/// What is known of one connection.
#[derive(Debug, Default)]
pub struct Activity {
    begun: AtomicU32,
    under_way: AtomicU32,
    /// Whether the rest of a body is waited for.
    waits: AtomicBool,
    /// Reads that brought something.
    heard: AtomicU32,
    /// Nothing came for too long.
    is_overdue: AtomicBool,
    /// The connection goes on with another protocol.
    is_tunnel: AtomicBool,
    refusal: AtomicU8,
    /// It must end if nothing is under way, and in any case.
    must_end: AtomicBool,
    must_cut: AtomicBool,
    /// The next request that comes stands for one that was refused.
    stands_in: AtomicBool,
}

impl Activity {
    /// An exchange begins; it is under way until the guard is dropped.
    pub fn begin(self: &Arc<Activity>) -> UnderWay {
        add(&self.begun);
        add(&self.under_way);
        UnderWay(Arc::clone(self))
    }

    /// Whether an exchange is under way.
    pub fn is_busy(&self) -> bool {
        self.under_way.load(Relaxed) > 0
    }

    /// The connection goes on with another protocol.
    pub fn becomes_tunnel(&self) {
        self.is_tunnel.store(true, Relaxed);
    }

    /// Whether it goes on with another protocol.
    pub fn is_tunnel(&self) -> bool {
        self.is_tunnel.load(Relaxed)
    }

    /// Bytes of the client are refused. The first reason counts.
    pub fn refuse(&self, refusal: Refusal) {
        if self.refusal.load(Relaxed) == 0 {
            self.refusal.store(refusal.number(), Relaxed);
        }
    }

    /// Bytes of a head are refused: the next request that is read stands in for the one that they were.
    pub fn refuse_head(&self, refusal: Refusal) {
        self.refuse(refusal);
        self.stands_in.store(true, Relaxed);
    }

    /// Why bytes of the client were refused, if any were.
    pub fn refusal(&self) -> Option<Refusal> {
        Refusal::numbered(self.refusal.load(Relaxed))
    }

    /// Why the request that was just read is none of the client's, if it is none.
    pub fn refused_head(&self) -> Option<Refusal> {
        if self.stands_in.load(Relaxed) { self.refusal() } else { None }
    }

    /// The rest of a body is waited for; `true` if that went on for too long.
    pub fn waits(&self) -> bool {
        self.waits.store(true, Relaxed);
        self.is_overdue.load(Relaxed)
    }

    /// Lets the connection end if nothing is under way; whether it does and did not already. Its task must be woken then.
    pub fn end_if_idle(&self) -> bool {
        !self.is_busy() && !self.must_end.swap(true, Relaxed)
    }

    /// Lets the connection end at once, whatever is under way. Its task must be woken then.
    pub fn cut(&self) {
        self.must_end.store(true, Relaxed);
        self.must_cut.store(true, Relaxed);
    }

    /// Whether it was cut.
    pub fn is_cut(&self) -> bool {
        self.must_cut.load(Relaxed)
    }

    /// How many exchanges are under way.
    pub fn under_way(&self) -> u32 {
        self.under_way.load(Relaxed)
    }

    /// Ready when the connection must end.
    fn poll_end(&self) -> Poll<()> {
        let ends = self.must_end.load(Relaxed) && (!self.is_busy() || self.is_cut());
        if ends { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Something came.
    pub fn hears(&self) {
        self.waits.store(false, Relaxed);
        add(&self.heard);
    }

    /// Resolves when nothing has begun or been under way for so long, or is and must not be. A body that stands still is marked, and whoever
    /// reads it told. Either may take a look longer.
    pub async fn idle(&self, idle: Duration, body: Duration) {
        let (idle, body) = (looks(idle), looks(body));
        let (mut seen, mut since, mut heard, mut silent) = (None, 0, None, 0);
        loop {
            tokio::select! {
                () = poll_fn(|_| self.poll_end()) => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let now = (!self.is_busy()).then(|| self.begun.load(Relaxed));
            since = if now.is_some() && seen == now { since + 1 } else { 0 };
            seen = now;
            if since >= idle {
                return;
            }
            let now = self.waits.load(Relaxed).then(|| self.heard.load(Relaxed));
            silent = if now.is_some() && heard == now { silent + 1 } else { 0 };
            heard = now;
            if silent >= body {
                self.is_overdue.store(true, Relaxed);
                // The reader shares this task: it is polled again with it.
                NextPoll(false).await;
            }
        }
    }
}

/// Wakes its own task once.
struct NextPoll(bool);

impl Future for NextPoll {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// No two threads add at a time.
fn add(count: &AtomicU32) {
    count.store(count.load(Relaxed).wrapping_add(1), Relaxed);
}

/// An exchange that is under way, until its answer has been written.
#[derive(Debug)]
pub struct UnderWay(Arc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.store(self.0.under_way.load(Relaxed).wrapping_sub(1), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn idle_only_when_nothing_begins_or_goes_on() {
        let activity = Arc::new(Activity::default());
        let long = activity.begin();
        let still_busy = tokio::time::timeout(LOOK * 20, activity.idle(MINUTE, MINUTE)).await;
        assert!(still_busy.is_err());
        drop(long);
        let begins_again = async {
            for _ in 0..5 {
                tokio::time::sleep(MINUTE - Duration::from_secs(1)).await;
                drop(activity.begin());
            }
        };
        tokio::select! {
            () = activity.idle(MINUTE, MINUTE) => panic!("not idle"),
            () = begins_again => {}
        }
        let limit = MINUTE + LOOK * 2;
        assert!(tokio::time::timeout(limit, activity.idle(MINUTE, MINUTE)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stands_still_is_marked() {
        let activity = Arc::new(Activity::default());
        let _under_way = activity.begin();
        assert!(!activity.waits());
        let comes_slowly = async {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(50)).await;
                activity.hears();
                assert!(!activity.waits());
            }
            tokio::time::sleep(Duration::from_secs(95)).await;
            assert!(activity.waits());
        };
        tokio::select! {
            () = activity.idle(MINUTE, MINUTE) => panic!("not idle"),
            () = comes_slowly => {}
        }
    }
}
