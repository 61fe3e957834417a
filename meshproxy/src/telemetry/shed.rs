//! What a proxy does not take because it has too little, and how much it has.

use metrics::{Counter, Gauge, Key, Label, Metadata, Recorder};

/// Why a connection was closed at once, or an idle one ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shed {
    /// There are as many as there may be.
    Connections,
    /// One identity has as many as it may have.
    Identity,
    /// Its thread is too far behind.
    Queue,
    /// Memory is scarce.
    Memory,
    /// Descriptors are scarce.
    Descriptors,
    /// Memory or descriptors are scarce, and it was idle.
    Idle,
    /// Memory is used up, and it was the busiest.
    Busy,
}

impl Shed {
    const ALL: [Shed; 7] = [
        Shed::Connections,
        Shed::Identity,
        Shed::Queue,
        Shed::Memory,
        Shed::Descriptors,
        Shed::Idle,
        Shed::Busy,
    ];

    fn name(self) -> &'static str {
        match self {
            Shed::Connections => "connections",
            Shed::Identity => "identity",
            Shed::Queue => "queue",
            Shed::Memory => "memory",
            Shed::Descriptors => "descriptors",
            Shed::Idle => "idle",
            Shed::Busy => "busy",
        }
    }
}

/// Counters of what is not taken, and gauges of what there is.
pub struct Supplies {
    connections: [Counter; 7],
    memory_streams: Counter,
    descriptor_streams: Counter,
    /// Bytes of memory in use.
    pub memory: Gauge,
    /// Bytes that there may be.
    pub memory_budget: Gauge,
    /// Descriptors in use.
    pub descriptors: Gauge,
    /// Descriptors that there may be.
    pub most_descriptors: Gauge,
    /// 1 while the proxy gives way.
    pub gives_way: Gauge,
}

impl Supplies {
    pub(super) fn new(recorder: &impl Recorder, metadata: &Metadata<'_>) -> Supplies {
        let counter = |name: &'static str, reason: &'static str| {
            let key = Key::from_parts(name, vec![Label::new("reason", reason)]);
            recorder.register_counter(&key, metadata)
        };
        let gauge = |name: &'static str| recorder.register_gauge(&Key::from_name(name), metadata);
        Supplies {
            connections: Shed::ALL.map(|why| counter("mesh_proxy_connections_shed_total", why.name())),
            memory_streams: counter("mesh_proxy_streams_shed_total", "memory"),
            descriptor_streams: counter("mesh_proxy_streams_shed_total", "descriptors"),
            memory: gauge("mesh_proxy_memory_bytes"),
            memory_budget: gauge("mesh_proxy_memory_budget_bytes"),
            descriptors: gauge("mesh_proxy_descriptors"),
            most_descriptors: gauge("mesh_proxy_descriptors_limit"),
            gives_way: gauge("mesh_proxy_gives_way"),
        }
    }

    /// So many connections were closed for this reason.
    pub fn shed(&self, why: Shed, count: u64) {
        self.connections[why as usize].increment(count);
    }

    /// A request or a tunnel was refused for want of memory, or else of descriptors.
    pub fn shed_stream(&self, for_memory: bool) {
        let counter = if for_memory { &self.memory_streams } else { &self.descriptor_streams };
        counter.increment(1);
    }
}
