//! What one data thread works with. Nothing here is shared, so nothing is locked.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::resilience::age;
use mesh_core::vocab::random::Random;
use tokio::time::Instant;

use super::budget::Budget;
use super::pool::Pool;
use super::resolve::Lookups;
use crate::dns::forward::Forwarder;
use crate::identity::svid::Svids;
use crate::live::root::Roots;
use crate::live::standing::Standings;
use crate::live::view::View;
use crate::net::hop::Written;
use crate::net::limits::{self, Identities, Limits};
use crate::net::served::Served;
use crate::runtime::drain::Drain;
use crate::runtime::pressure::Pressure;
use crate::runtime::{allocator, clock, panics};
use crate::telemetry::access::{AccessLog, AccessSink};
use crate::telemetry::export::Exporter;
use crate::telemetry::metrics::{Metrics, SeriesCache, Work, WorkerGauges};
use crate::telemetry::observers::Observers;
use crate::telemetry::recorder::Recorder;
use crate::telemetry::report::{Cells, Reports};
use crate::telemetry::shed::Shed;
use crate::telemetry::tap::Hub;
use crate::telemetry::trace::{TraceSettings, Tracer};

/// What all data threads of a proxy share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The root.
    pub roots: Arc<Roots>,
    /// Keys and trust.
    pub svids: Arc<Svids>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Where the access log goes.
    pub access: AccessSink,
    /// How live traffic is told of, if it is.
    pub reports: Option<Reports>,
    /// Where taps and what data threads remember meet.
    pub taps: Arc<Hub>,
    /// Where what goes to collectors is handed over.
    pub exporter: Exporter,
    /// What is traced with.
    pub tracing: TraceSettings,
    /// The end.
    pub drain: Drain,
    /// Asks the host's resolvers.
    pub forwarder: Forwarder,
    /// Connections take new requests for so long; `None` for ever.
    pub most_age: Option<Duration>,
    /// How much is taken, and how long is waited.
    pub limits: Limits,
    /// Connections by proven identity.
    pub identities: Arc<Identities>,
    /// What there is too little of.
    pub pressure: Pressure,
    /// So many bytes of bodies each data thread may keep.
    pub kept_bodies: usize,
}

/// What one data thread works with.
#[derive(Debug)]
pub struct DataThread {
    /// The root as this thread sees it.
    pub view: View,
    /// Its connections.
    pub pool: Rc<Pool>,
    /// Who hears of its traffic.
    pub observers: Observers,
    /// Keys and trust.
    pub svids: Arc<Svids>,
    /// The end.
    pub drain: Drain,
    /// What it keeps of requests' bodies.
    pub bodies: Rc<Budget>,
    /// Copies of requests that are under way.
    pub mirrors: Rc<Cell<usize>>,
    /// How much is taken, and how long is waited.
    pub limits: Limits,
    /// Connections by proven identity, of all threads.
    pub identities: Arc<Identities>,
    /// What there is too little of.
    pub pressure: Pressure,
    /// The connections of clients.
    pub served: Rc<Served>,
    /// Names that requests asked for.
    pub lookups: Lookups,
    /// What was let in and still goes on.
    pub standings: Rc<Standings>,
    /// What it told other proxies.
    pub told: Written,
    most_age: Option<Duration>,
    random: RefCell<Random>,
}

impl DataThread {
    /// Makes one and starts its small tasks. Must run in a `LocalSet`.
    pub fn start(shared: &Shared) -> Rc<DataThread> {
        limits::settle(shared.limits);
        panics::count_here(shared.metrics.proxy.panics.clone());
        let thread = DataThread {
            view: View::new(Arc::clone(&shared.roots)),
            pool: Pool::new(
                Arc::clone(&shared.svids),
                Arc::clone(&shared.roots),
                Arc::clone(&shared.metrics),
                shared.most_age,
            ),
            most_age: shared.most_age,
            observers: observers(shared),
            svids: Arc::clone(&shared.svids),
            drain: shared.drain.clone(),
            bodies: Budget::new(shared.kept_bodies, shared.metrics.proxy.bodies_not_kept.clone()),
            mirrors: Rc::default(),
            limits: shared.limits,
            identities: Arc::clone(&shared.identities),
            pressure: shared.pressure.clone(),
            served: Rc::default(),
            lookups: Lookups::new(shared.forwarder.clone()),
            standings: Rc::default(),
            told: Written::default(),
            random: RefCell::new(Random::seeded(rand::random())),
        };
        tokio::task::spawn_local(Rc::clone(&thread.pool).keep_sweeping());
        tokio::task::spawn_local(Rc::clone(&thread.observers.series).keep());
        tokio::task::spawn_local(Rc::clone(&thread.observers.log).keep_flushing());
        if let Some(reports) = &thread.observers.reports {
            tokio::task::spawn_local(Rc::clone(reports).keep_handing_over());
        }
        tokio::task::spawn_local(Rc::clone(&thread.observers.traces).keep_flushing());
        let thread = Rc::new(thread);
        let (standings, roots) = (Rc::clone(&thread.standings), Arc::clone(thread.view.roots()));
        let seen = Rc::clone(&thread);
        tokio::task::spawn_local(standings.keep_judging(roots, move || seen.view.root()));
        tokio::task::spawn_local(give_way(Rc::downgrade(&thread)));
        tokio::task::spawn_local(tell_work(Rc::downgrade(&thread)));
        thread
    }

    /// The time since 1970, in whole seconds: for what other machines have dated.
    pub fn wall_clock(&self) -> Duration {
        Duration::from_secs(clock::seconds())
    }

    /// Uses the thread's generator.
    pub fn random<R>(&self, use_it: impl FnOnce(&mut Random) -> R) -> R {
        use_it(&mut self.random.borrow_mut())
    }

    /// How old a connection becomes that an application opened.
    pub fn age_of_applications(&self) -> Option<Duration> {
        self.most_age.map(|most| self.random(|random| age::retirement(most, random)))
    }

    /// How old a connection becomes that another proxy opened.
    pub fn age_of_peers(&self) -> Option<Duration> {
        self.most_age.map(|most| self.random(|random| age::later_retirement(most, random)))
    }

    /// The metrics.
    pub fn metrics(&self) -> &Arc<Metrics> {
        self.observers.series.metrics()
    }
}

/// Tells again and again what the thread has open.
async fn tell_work(thread: Weak<DataThread>) {
    const AGAIN: Duration = Duration::from_secs(5);
    let here = std::thread::current();
    let runtime = tokio::runtime::Handle::current().metrics();
    let Some(metrics) = thread.upgrade().map(|thread| Arc::clone(thread.metrics())) else { return };
    let gauges = WorkerGauges::new(&metrics, here.name().unwrap_or("data"));
    let mut before = (Instant::now(), Duration::ZERO);
    while let Some(thread) = thread.upgrade() {
        let (http1, http2, mesh, streams) = thread.pool.figures();
        let now = (Instant::now(), runtime.worker_total_busy_duration(0));
        let past = now.0.duration_since(before.0).as_secs_f64().max(0.001);
        let load = (now.1.saturating_sub(before.1).as_secs_f64() / past).min(1.0);
        before = now;
        gauges.tell(Work { clients: thread.served.count(), http1, http2, mesh, streams, load });
        drop(thread);
        tokio::time::sleep(AGAIN).await;
    }
}

fn observers(shared: &Shared) -> Observers {
    let series = Rc::new(SeriesCache::new(Arc::clone(&shared.metrics)));
    let log = AccessLog::new(shared.access.clone(), Rc::clone(&series), shared.exporter.clone());
    Observers {
        series,
        log: Rc::new(log),
        reports: shared.reports.as_ref().map(|reports| {
            let swallowed = shared.metrics.proxy.reports_swallowed.clone();
            Rc::new(Cells::new(reports, swallowed))
        }),
        recorder: Recorder::start(&shared.taps, &shared.metrics),
        traces: Rc::new(Tracer::new(shared.exporter.clone(), shared.tracing.clone())),
    }
}

/// While the process runs short of something, idle connections of this thread go, on both sides, then the busiest ones
/// one by one; and the allocator gives back what is free.
async fn give_way(thread: Weak<DataThread>) {
    const AGAIN: Duration = Duration::from_millis(100);
    const SOON: Duration = Duration::from_millis(20);
    loop {
        let Some(pressure) = thread.upgrade().map(|thread| thread.pressure.clone()) else { return };
        pressure.begins().await;
        let Some(thread) = thread.upgrade() else { return };
        let supplies = &thread.metrics().supplies;
        if pressure.closes_idle() {
            supplies.shed(Shed::Idle, thread.served.end_idle());
            thread.pool.drop_idle();
        }
        let cuts = pressure.cuts_busy();
        if cuts && thread.served.cut_busiest() {
            supplies.shed(Shed::Busy, 1);
        }
        drop(thread);
        tokio::time::sleep(if cuts { SOON } else { AGAIN }).await;
        if pressure.wants_memory() {
            allocator::give_back();
        }
    }
}
