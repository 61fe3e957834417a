//! Limits of a destination (`connectionPool`), counted by all data threads together: connections, requests that wait for
//! one, requests under way. What is not limited is not counted.

use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use mesh_core::resilience::pool::{Limited, PoolLimits};
use metrics::Counter;
use tokio::sync::Notify;

use super::destination::DestinationState;
use super::endpoint::EndpointState;

/// How much of what is limited is taken; outlives the tables that limit it.
#[derive(Debug, Default)]
pub struct Counts {
    connections: AtomicU32,
    pending: AtomicU32,
    requests: AtomicU32,
    retries: AtomicU32,
}

/// Requests that wait for a connection to one endpoint, and how many have one.
#[derive(Debug, Default)]
pub struct Line {
    taken: AtomicU32,
    waiting: AtomicU32,
    freed: Notify,
}

/// There is as much under way as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("overflow")]
pub struct Overflow;

impl Counts {
    fn of(&self, what: Limited) -> &AtomicU32 {
        match what {
            Limited::Connections => &self.connections,
            Limited::Pending => &self.pending,
            Limited::Requests => &self.requests,
            Limited::Retries => &self.retries,
        }
    }

    /// How much is taken.
    pub fn taken(&self, what: Limited) -> u32 {
        self.of(what).load(Ordering::Relaxed)
    }

    fn take(&self, what: Limited, limits: &PoolLimits) -> bool {
        // SeqCst: who waits in line looks at this count and at the line, and who frees at both the other way round.
        let one_more = |taken| limits.one_more(what, taken);
        self.of(what).fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).is_ok()
    }

    fn free(&self, what: Limited) {
        self.of(what).fetch_sub(1, Ordering::SeqCst);
    }
}

/// The limits of a destination as its tables have them.
#[derive(Debug)]
pub struct Breaker {
    limits: PoolLimits,
    state: Arc<DestinationState>,
    overflows: [Counter; 4],
}

impl Breaker {
    /// How much is taken of what is limited.
    pub fn taken(&self) -> impl Iterator<Item = (Limited, u32)> {
        let limited = Limited::ALL.into_iter().filter(|what| self.limits.limits(*what));
        limited.map(|what| (what, self.state.counts.taken(what)))
    }

    /// The breaker of a destination that limits anything. `overflow` counts what was too much.
    pub(super) fn of(
        limits: &PoolLimits,
        state: &Arc<DestinationState>,
        overflow: impl Fn(Limited) -> Counter,
    ) -> Option<Arc<Breaker>> {
        limits.limits_traffic().then(|| {
            let overflows = Limited::ALL.map(overflow);
            Arc::new(Breaker { limits: *limits, state: Arc::clone(state), overflows })
        })
    }

    /// A place for a request at an endpoint. One that has a connection to itself waits for it if there are too many,
    /// unless too many wait.
    pub async fn request(
        self: &Arc<Breaker>,
        endpoint: &Arc<EndpointState>,
        alone: bool,
    ) -> Result<Box<Place>, Overflow> {
        let mut place = self.place(endpoint);
        if alone && self.limits.limits(Limited::Connections) {
            self.connect(&mut place).await?;
        }
        if self.limits.limits(Limited::Requests) {
            self.take(Limited::Requests)?;
            place.request = true;
        }
        Ok(place)
    }

    /// A place for a byte stream at an endpoint. Nothing waits for one.
    pub fn stream(self: &Arc<Breaker>, endpoint: &Arc<EndpointState>) -> Result<Box<Place>, Overflow> {
        let mut place = self.place(endpoint);
        if self.limits.limits(Limited::Connections) {
            self.take(Limited::Connections)?;
            endpoint.line.taken.fetch_add(1, Ordering::SeqCst);
            place.connection = true;
        }
        Ok(place)
    }

    fn place(self: &Arc<Breaker>, endpoint: &Arc<EndpointState>) -> Box<Place> {
        Box::new(Place {
            breaker: Arc::clone(self),
            endpoint: Arc::clone(endpoint),
            connection: false,
            request: false,
            pending: Cell::new(false),
        })
    }

    fn take(&self, what: Limited) -> Result<(), Overflow> {
        if self.state.counts.take(what, &self.limits) {
            return Ok(());
        }
        self.overflows[what as usize].increment(1);
        Err(Overflow)
    }

    /// Waits in line for a connection of the endpoint. Whoever comes later stands behind.
    async fn connect(&self, place: &mut Place) -> Result<(), Overflow> {
        let endpoint = Arc::clone(&place.endpoint);
        let line = &endpoint.line;
        if line.waiting.load(Ordering::SeqCst) == 0 && self.open(line) {
            place.connection = true;
            return Ok(());
        }
        self.overflows[Limited::Connections as usize].increment(1);
        place.wait()?;
        let _waiting = Waiting::enter(line);
        let mut freed = pin!(line.freed.notified());
        loop {
            // Heard from here on: what is freed after the look is not missed.
            freed.as_mut().enable();
            if self.open(line) {
                place.connection = true;
                return Ok(());
            }
            freed.as_mut().await;
            freed.set(line.freed.notified());
        }
    }

    fn open(&self, line: &Line) -> bool {
        let first = |taken| (taken == 0).then_some(1);
        if line.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, first).is_ok() {
            self.state.counts.connections.fetch_add(1, Ordering::SeqCst);
            return true;
        }
        let more = self.state.counts.take(Limited::Connections, &self.limits);
        if more {
            line.taken.fetch_add(1, Ordering::SeqCst);
        }
        more
    }
}

/// What one request or stream takes of what is limited. It is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    breaker: Arc<Breaker>,
    endpoint: Arc<EndpointState>,
    connection: bool,
    request: bool,
    pending: Cell<bool>,
}

impl Place {
    /// It has to wait for a connection that is made for it, until the guard is dropped.
    pub fn dial(&self) -> Result<Dialing<'_>, Overflow> {
        self.wait()?;
        Ok(Dialing(self))
    }

    /// It has its connection.
    pub fn connected(&self) {
        if self.pending.replace(false) {
            self.breaker.state.counts.free(Limited::Pending);
        }
    }

    fn wait(&self) -> Result<(), Overflow> {
        if self.breaker.limits.limits(Limited::Pending) && !self.pending.get() {
            self.breaker.take(Limited::Pending)?;
            self.pending.set(true);
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connected();
        let counts = &self.breaker.state.counts;
        if self.request {
            counts.free(Limited::Requests);
        }
        if self.connection {
            let line = &self.endpoint.line;
            counts.free(Limited::Connections);
            line.taken.fetch_sub(1, Ordering::SeqCst);
            if line.waiting.load(Ordering::SeqCst) > 0 {
                line.freed.notify_one();
            }
        }
    }
}

/// A connection is made for a request.
#[derive(Debug)]
pub struct Dialing<'p>(&'p Place);

impl Drop for Dialing<'_> {
    fn drop(&mut self) {
        self.0.connected();
    }
}

/// One more in line.
struct Waiting<'l>(&'l Line);

impl<'l> Waiting<'l> {
    fn enter(line: &'l Line) -> Waiting<'l> {
        line.waiting.fetch_add(1, Ordering::SeqCst);
        Waiting(line)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh_core::resilience::pool::ConnectionPool;

    use super::*;

    fn breaker(pool: ConnectionPool) -> Arc<Breaker> {
        Breaker::of(&pool.limits(None), &Arc::default(), |_| Counter::noop()).unwrap()
    }

    fn taken(breaker: &Breaker) -> [u32; 4] {
        Limited::ALL.map(|what| breaker.state.counts.taken(what))
    }

    #[tokio::test]
    async fn one_connection_one_waits_the_third_is_too_much() {
        let pool = ConnectionPool {
            max_connections: Some(1),
            max_pending_requests: Some(1),
            ..ConnectionPool::default()
        };
        let breaker = breaker(pool);
        let endpoint = Arc::default();
        let first = breaker.request(&endpoint, true).await.unwrap();
        let mut second = pin!(breaker.request(&endpoint, true));
        assert!(futures_util::FutureExt::now_or_never(second.as_mut()).is_none());
        assert_eq!(breaker.request(&endpoint, true).await.unwrap_err(), Overflow);
        // Another endpoint always has its first; a stream never waits.
        let other = breaker.request(&Arc::default(), true).await.unwrap();
        assert_eq!(taken(&breaker), [2, 1, 0, 0]);
        assert!(breaker.stream(&endpoint).is_err());
        drop((first, other));
        let second = second.await.unwrap();
        assert_eq!(taken(&breaker), [1, 1, 0, 0]);
        second.connected();
        assert_eq!(taken(&breaker), [1, 0, 0, 0]);
        drop(second);
        assert_eq!(taken(&breaker), [0; 4]);
        // Whoever gives up waiting leaves nothing behind.
        let first = breaker.request(&endpoint, true).await.unwrap();
        let given_up = tokio::time::timeout(Duration::from_millis(1), breaker.request(&endpoint, true)).await;
        assert!(given_up.is_err());
        drop(first);
        assert_eq!(taken(&breaker), [0; 4]);
        assert!(breaker.stream(&endpoint).is_ok());
    }

    #[tokio::test]
    async fn a_place_is_counted_as_waiting_while_it_is_dialled_for() {
        let pool = ConnectionPool { max_pending_requests: Some(1), ..ConnectionPool::default() };
        let breaker = breaker(pool);
        let endpoint = Arc::default();
        let (one, two) = (
            breaker.request(&endpoint, true).await.unwrap(),
            breaker.request(&endpoint, true).await.unwrap(),
        );
        let dialing = one.dial().unwrap();
        assert!(two.dial().is_err());
        drop(dialing);
        assert!(two.dial().is_ok());
        let requests = ConnectionPool { max_requests: Some(1), ..ConnectionPool::default() };
        let breaker = self::breaker(requests);
        let one = breaker.request(&endpoint, false).await.unwrap();
        assert!(breaker.request(&endpoint, false).await.is_err());
        drop(one);
        assert!(breaker.request(&endpoint, false).await.is_ok());
    }

    #[test]
    fn permits_are_conserved_among_threads() {
        let pool = ConnectionPool {
            max_connections: Some(3),
            max_pending_requests: Some(40),
            max_requests: Some(2),
            ..ConnectionPool::default()
        };
        let breaker = breaker(pool);
        let endpoints: Vec<Arc<EndpointState>> = (0..2).map(|_| Arc::default()).collect();
        let run = |seed: usize| {
            let (breaker, endpoints) = (Arc::clone(&breaker), endpoints.clone());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                let local = tokio::task::LocalSet::new();
                let task = |turn: usize| {
                    let (breaker, endpoint) = (Arc::clone(&breaker), Arc::clone(&endpoints[turn % 2]));
                    async move {
                        for round in 0..200 {
                            let waiting = breaker.request(&endpoint, true);
                            let patience = if (round + turn).is_multiple_of(7) { 0 } else { 5_000 };
                            let place = tokio::time::timeout(Duration::from_millis(patience), waiting).await;
                            if let Ok(Ok(place)) = place {
                                let [connections, pending, requests, _] = taken(&breaker);
                                assert!(connections <= 4 && pending <= 40 && requests <= 2);
                                tokio::task::yield_now().await;
                                drop(place);
                            }
                        }
                    }
                };
                local.block_on(&runtime, async {
                    let tasks: Vec<_> =
                        (0..10).map(|turn| tokio::task::spawn_local(task(turn + seed))).collect();
                    for task in tasks {
                        task.await.unwrap();
                    }
                });
            }
        };
        let threads: Vec<_> = (0..4).map(|seed| std::thread::spawn(run(seed))).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(taken(&breaker), [0; 4]);
    }
}
