//! What a data thread has open and how busy it is: figures of its own, or its part of those of all threads.

use std::cell::Cell;
use std::time::Duration;

use metrics::{Counter, Gauge, Key, Label, Recorder as _};

use super::{METADATA, Metrics};

/// What a data thread has at a moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Work {
    /// Clients' connections.
    pub clients: usize,
    /// Idle connections of HTTP/1 to endpoints; shared ones of HTTP/2; those to other proxies.
    pub http1: usize,
    /// See `http1`.
    pub http2: usize,
    /// See `http1`.
    pub mesh: usize,
    /// Exchanges on shared connections.
    pub streams: u32,
    /// How long it was at work since it began.
    pub busy: Duration,
}

/// Where a data thread tells of its work.
#[derive(Debug)]
pub struct WorkerGauges {
    clients: Gauge,
    busy: Counter,
    http1: Gauge,
    http2: Gauge,
    mesh: Gauge,
    streams: Gauge,
    /// What was told last.
    told: Cell<Work>,
}

impl WorkerGauges {
    /// Those of a thread.
    pub fn new(metrics: &Metrics, worker: &str) -> WorkerGauges {
        let of_worker = || vec![Label::new("worker", worker.to_owned())];
        let gauge = |name: &'static str, labels: Vec<Label>| {
            metrics.recorder.register_gauge(&Key::from_parts(name, labels), &METADATA)
        };
        let pool = |kind: &'static str| gauge("mesh_proxy_pool_connections", vec![Label::new("kind", kind)]);
        let busy = Key::from_parts("mesh_proxy_worker_busy_milliseconds_total", of_worker());
        WorkerGauges {
            clients: gauge("mesh_proxy_worker_connections", of_worker()),
            busy: metrics.recorder.register_counter(&busy, &METADATA),
            http1: pool("http1_idle"),
            http2: pool("http2"),
            mesh: pool("mesh"),
            streams: gauge("mesh_proxy_pool_streams", Vec::new()),
            told: Cell::default(),
        }
    }

    /// It is so now.
    pub fn tell(&self, now: Work) {
        let before = self.told.replace(now);
        self.clients.set(now.clients as f64);
        let millis = |busy: Duration| u64::try_from(busy.as_millis()).unwrap_or(u64::MAX);
        self.busy.increment(millis(now.busy).saturating_sub(millis(before.busy)));
        for (gauge, now, before) in [
            (&self.http1, now.http1, before.http1),
            (&self.http2, now.http2, before.http2),
            (&self.mesh, now.mesh, before.mesh),
            (&self.streams, now.streams as usize, before.streams as usize),
        ] {
            // Other threads have their parts in it.
            gauge.increment(now as f64 - before as f64);
        }
    }
}

impl Drop for WorkerGauges {
    fn drop(&mut self) {
        self.tell(Work { busy: self.told.get().busy, ..Work::default() });
    }
}
