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

/// Idle connections are closed after this where nothing else was written.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// The limits of a destination with all defaults filled in. They hold for one proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolLimits {
    /// Connections at once; HTTP/2 needs few and is limited by requests.
    pub max_connections: u32,
    /// `tcpKeepalive`; `None` for off.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// A connection is drained after this; `None` for never.
    pub max_connection_duration: Option<Duration>,
    /// A byte stream is closed after so long without a byte; `None` for never.
    pub tcp_idle_timeout: Option<Duration>,
    /// Requests that wait for a connection.
    pub max_pending_requests: u32,
    /// Requests under way.
    pub max_requests: u32,
    /// Requests of one connection; `None` for no limit.
    pub max_requests_per_connection: Option<u32>,
    /// Retries at once.
    pub max_retries: u32,
    /// A connection without requests is closed after this; `None` for never.
    pub http_idle_timeout: Option<Duration>,
    /// Streams of one HTTP/2 connection.
    pub max_concurrent_streams: u32,
    /// HTTP/2 pings: interval and timeout; `None` for none.
    pub http2_keepalive: Option<(Duration, Duration)>,
}

impl Default for PoolLimits {
    fn default() -> PoolLimits {
        ConnectionPool::default().limits(None)
    }
}

impl ConnectionPool {
    /// The settings with Envoy's defaults; `mesh_keepalive` is the mesh's `tcpKeepalive`. Zero means unset for a
    /// count, and no limit for a duration.
    pub fn limits(&self, mesh_keepalive: Option<TcpKeepalive>) -> PoolLimits {
        let count = |value: Option<u32>| value.filter(|value| *value > 0);
        let limited = |time: Duration| (!time.is_zero()).then_some(time);
        let http_idle = self.http_idle_timeout.or(self.tcp_idle_timeout);
        PoolLimits {
            max_connections: count(self.max_connections).unwrap_or(u32::MAX),
            tcp_keepalive: self.tcp_keepalive.or(mesh_keepalive),
            max_connection_duration: self.max_connection_duration.and_then(limited),
            tcp_idle_timeout: limited(self.tcp_idle_timeout.unwrap_or(IDLE_TIMEOUT)),
            max_pending_requests: count(self.max_pending_requests).unwrap_or(u32::MAX),
            max_requests: count(self.max_requests).unwrap_or(u32::MAX),
            max_requests_per_connection: count(self.max_requests_per_connection),
            max_retries: count(self.max_retries).unwrap_or(u32::MAX),
            http_idle_timeout: limited(http_idle.unwrap_or(IDLE_TIMEOUT)),
            max_concurrent_streams: count(self.max_concurrent_streams).unwrap_or(i32::MAX as u32),
            http2_keepalive: self.http2_keepalive,
        }
    }
}

/// `retryBudget`: how many retries may be under way at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RetryBudget {
    /// Share of active and pending requests; default 20 %.
    pub share: crate::vocab::ratio::Ratio,
    /// Always allowed; default 3.
    pub min_concurrency: u32,
}

impl Default for RetryBudget {
    fn default() -> RetryBudget {
        let share = crate::vocab::ratio::Ratio::from_ppm(200_000).unwrap_or_default();
        RetryBudget { share, min_concurrency: 3 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_unset_for_counts_and_no_limit_for_times() {
        let unset = PoolLimits::default();
        assert_eq!(
            (unset.max_connections, unset.max_retries, unset.max_requests_per_connection),
            (u32::MAX, u32::MAX, None)
        );
        assert_eq!(unset.max_concurrent_streams, 2_147_483_647);
        let hour = Some(Duration::from_secs(3600));
        assert_eq!((unset.tcp_idle_timeout, unset.http_idle_timeout), (hour, hour));
        let zero = ConnectionPool {
            max_connections: Some(0),
            max_requests_per_connection: Some(0),
            tcp_idle_timeout: Some(Duration::ZERO),
            ..ConnectionPool::default()
        };
        let zero = zero.limits(None);
        assert_eq!((zero.max_connections, zero.max_requests_per_connection), (u32::MAX, None));
        // The idle time of requests falls back to that of streams.
        assert_eq!((zero.tcp_idle_timeout, zero.http_idle_timeout), (None, None));
        let keepalive = TcpKeepalive { probes: Some(3), ..TcpKeepalive::default() };
        assert_eq!(ConnectionPool::default().limits(Some(keepalive)).tcp_keepalive, Some(keepalive));
    }
}
