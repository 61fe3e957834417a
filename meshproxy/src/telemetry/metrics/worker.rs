//! What a data thread has open and how busy it is: figures of its own, or its part of those of all threads.

use std::cell::Cell;

use metrics::{Gauge, Key, Label, Recorder as _};

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
    /// Part of the time that it was at work of late.
    pub load: f64,
}

/// Where a data thread tells of its work.
#[derive(Debug)]
pub struct WorkerGauges {
    clients: Gauge,
    load: Gauge,
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
        WorkerGauges {
            clients: gauge("mesh_proxy_worker_connections", of_worker()),
            load: gauge("mesh_proxy_worker_load", of_worker()),
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
        self.load.set(now.load);
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
        self.tell(Work::default());
    }
}
