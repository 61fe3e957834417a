//! Limits of connections and requests to a destination (DestinationRule `connectionPool`).

use std::time::Duration;

/// `tcpKeepalive`; `None` for the system's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TcpKeepalive {
    /// Probes without an answer before the connection is dead.
    pub probes: Option<u32>,
    /// Idle time before the first.
    pub time: Option<Duration>,
    /// Time between them.
    pub interval: Option<Duration>,
}

/// Whether HTTP/1.1 requests are sent as HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum H2Upgrade {
    /// As the mesh says: not upgraded.
    #[default]
    Default,
    /// Never.
    DoNotUpgrade,
    /// Always.
    Upgrade,
}

/// `tcp` and `http` limits. `None` is Envoy's default: no limit, or the duration that stands at the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ConnectionPool {
    /// `tcp.maxConnections`; default 2^32-1.
    pub max_connections: Option<u32>,
    /// `tcp.connectTimeout`; default 10 s, or the mesh's.
    pub connect_timeout: Option<Duration>,
    /// `tcp.tcpKeepalive`; default off.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// `tcp.maxConnectionDuration`; default none.
    pub max_connection_duration: Option<Duration>,
    /// `tcp.idleTimeout`; default 1 h, zero for none.
    pub tcp_idle_timeout: Option<Duration>,
    /// `http.http1MaxPendingRequests`; default 2^32-1.
    pub max_pending_requests: Option<u32>,
    /// `http.http2MaxRequests`; default 2^32-1.
    pub max_requests: Option<u32>,
    /// `http.maxRequestsPerConnection`; default no limit.
    pub max_requests_per_connection: Option<u32>,
    /// `http.maxRetries` at once; default 2^32-1.
    pub max_retries: Option<u32>,
    /// `http.idleTimeout`; default the one of `tcp`, else 1 h.
    pub http_idle_timeout: Option<Duration>,
    /// `http.h2UpgradePolicy`.
    pub h2_upgrade: H2Upgrade,
    /// `http.useClientProtocol`; default false.
    pub use_client_protocol: bool,
    /// `http.maxConcurrentStreams`; default 2^31-1.
    pub max_concurrent_streams: Option<u32>,
    /// `http.http2KeepAlive`: interval and timeout.
    pub http2_keepalive: Option<(Duration, Duration)>,
}

/// `retryBudget`: how many retries may be under way at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RetryBudget {
    /// Share of active and pending requests; default 20 %.
    pub share: crate::vocab::ratio::Ratio,
    /// Always allowed; default 3.
    pub min_concurrency: u32,
}
