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

/// What there may be only so much of at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limited {
    /// Connections.
    Connections,
    /// Requests that wait for a connection.
    Pending,
    /// Requests under way.
    Requests,
    /// Retries under way.
    Retries,
}

impl Limited {
    /// Every one.
    pub const ALL: [Limited; 4] =
        [Limited::Connections, Limited::Pending, Limited::Requests, Limited::Retries];

    /// The word in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Limited::Connections => "connections",
            Limited::Pending => "pending",
            Limited::Requests => "requests",
            Limited::Retries => "retries",
        }
    }
}

/// How connections to endpoints are kept, where a rule says anything of it. Connections are shared only where it is the
/// same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConnectionSettings {
    /// Probes of the system.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// It takes nothing new after this.
    pub most_age: Option<Duration>,
    /// It is closed after so long with nothing to do; `None` for what is usual.
    pub idle_timeout: Option<Duration>,
    /// It takes so many requests.
    pub most_requests: Option<u32>,
    /// It takes so many at once, if it is HTTP/2.
    pub most_streams: u32,
    /// Pings of HTTP/2: interval and timeout.
    pub http2_keepalive: Option<(Duration, Duration)>,
}

impl PoolLimits {
    /// The most that there may be at once.
    pub fn most(&self, what: Limited) -> u32 {
        match what {
            Limited::Connections => self.max_connections,
            Limited::Pending => self.max_pending_requests,
            Limited::Requests => self.max_requests,
            Limited::Retries => self.max_retries,
        }
    }

    /// Whether there is a limit of it.
    pub fn limits(&self, what: Limited) -> bool {
        self.most(what) != u32::MAX
    }

    /// Whether anything is limited that requests or streams are counted for.
    pub fn limits_traffic(&self) -> bool {
        [Limited::Connections, Limited::Pending, Limited::Requests].into_iter().any(|what| self.limits(what))
    }

    /// The count after one more; `None` if there are as many as may be.
    pub fn one_more(&self, what: Limited, taken: u32) -> Option<u32> {
        (taken < self.most(what)).then_some(taken + 1)
    }

    /// Whether a request may occupy a connection to an endpoint when `taken` are to the destination and `own` to this
    /// endpoint: the first of an endpoint always may, else nothing would end what waits for it (as Envoy).
    pub fn may_connect(&self, taken: u32, own: u32) -> bool {
        own == 0 || taken < self.max_connections
    }

    /// How connections are kept; `None` if nothing was said of it.
    pub fn connection(&self) -> Option<ConnectionSettings> {
        let settings = ConnectionSettings {
            tcp_keepalive: self.tcp_keepalive,
            most_age: self.max_connection_duration,
            idle_timeout: self.http_idle_timeout.filter(|time| *time != IDLE_TIMEOUT),
            most_requests: self.max_requests_per_connection,
            most_streams: self.max_concurrent_streams,
            http2_keepalive: self.http2_keepalive,
        };
        let unsaid = ConnectionSettings {
            tcp_keepalive: None,
            most_age: None,
            idle_timeout: None,
            most_requests: None,
            most_streams: i32::MAX as u32,
            http2_keepalive: None,
        };
        (settings != unsaid).then_some(settings)
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
        assert!(unset.connection().is_none() && !unset.limits_traffic());
        let keepalive = TcpKeepalive { probes: Some(3), ..TcpKeepalive::default() };
        assert_eq!(ConnectionPool::default().limits(Some(keepalive)).tcp_keepalive, Some(keepalive));
    }

    #[test]
    fn every_limit_is_that_of_its_field() {
        let pool = ConnectionPool {
            max_connections: Some(1),
            max_pending_requests: Some(2),
            max_requests: Some(3),
            max_retries: Some(4),
            max_requests_per_connection: Some(5),
            max_concurrent_streams: Some(6),
            max_connection_duration: Some(Duration::from_secs(7)),
            tcp_idle_timeout: Some(Duration::from_secs(8)),
            http_idle_timeout: Some(Duration::from_secs(9)),
            http2_keepalive: Some((Duration::from_secs(10), Duration::from_secs(11))),
            ..ConnectionPool::default()
        };
        let limits = pool.limits(None);
        for (what, most) in Limited::ALL.into_iter().zip([1, 2, 3, 4]) {
            assert!(limits.limits(what) && limits.most(what) == most, "{what:?}");
            assert_eq!(limits.one_more(what, most - 1), Some(most), "{what:?}");
            assert_eq!(limits.one_more(what, most), None, "{what:?}");
        }
        let kept = limits.connection().unwrap();
        assert_eq!((kept.most_requests, kept.most_streams), (Some(5), 6));
        assert_eq!(kept.most_age, Some(Duration::from_secs(7)));
        assert_eq!(limits.tcp_idle_timeout, Some(Duration::from_secs(8)));
        assert_eq!(kept.idle_timeout, Some(Duration::from_secs(9)));
        assert_eq!(kept.http2_keepalive, pool.http2_keepalive);
        // Retries are none that a request without one is counted for.
        let retries = ConnectionPool { max_retries: Some(4), ..ConnectionPool::default() };
        assert!(!retries.limits(None).limits_traffic());
    }

    #[test]
    fn the_first_connection_of_an_endpoint_is_always_allowed() {
        let two = ConnectionPool { max_connections: Some(2), ..ConnectionPool::default() }.limits(None);
        assert!(two.limits_traffic() && two.limits(Limited::Connections) && !two.limits(Limited::Requests));
        for (taken, own, expected) in [(0, 0, true), (1, 1, true), (2, 0, true), (2, 1, false), (9, 1, false)]
        {
            assert_eq!(two.may_connect(taken, own), expected, "{taken} {own}");
        }
        let more: Vec<_> = (0..3).map(|taken| two.one_more(Limited::Connections, taken)).collect();
        assert_eq!(more, [Some(1), Some(2), None]);
        assert_eq!(two.one_more(Limited::Requests, 7), Some(8));
    }

    #[test]
    fn only_what_was_said_makes_connections_of_their_own() {
        let one = ConnectionPool { max_requests_per_connection: Some(1), ..ConnectionPool::default() };
        let settings = one.limits(None).connection().unwrap();
        assert_eq!((settings.most_requests, settings.idle_timeout), (Some(1), None));
        let limits = ConnectionPool { max_connections: Some(1), ..ConnectionPool::default() };
        assert!(limits.limits(None).connection().is_none());
    }
}
