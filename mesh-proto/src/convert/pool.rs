//! Limits of connections, outlier detection.

use std::time::Duration;

use mesh_core::resilience::outlier::OutlierDetection;
use mesh_core::resilience::pool::{ConnectionPool, H2Upgrade, PoolLimits, RetryBudget, TcpKeepalive};

use super::error::{ConvertError, Fault};
use super::vocab::wire_enum;
use super::{Wire, field, list, optional, required, to_wires};
use crate::generated as wire;

wire_enum!(H2Upgrade, wire::H2Upgrade, Default, DoNotUpgrade, Upgrade);

fn time(duration: &Option<Duration>) -> Option<wire::Duration> {
    duration.as_ref().map(Wire::to_wire)
}

impl Wire for PoolLimits {
    type Message = wire::PoolLimits;

    fn to_wire(&self) -> wire::PoolLimits {
        wire::PoolLimits {
            max_connections: self.max_connections,
            tcp_keepalive: self.tcp_keepalive.as_ref().map(Wire::to_wire),
            max_connection_duration: time(&self.max_connection_duration),
            tcp_idle_timeout: time(&self.tcp_idle_timeout),
            max_pending_requests: self.max_pending_requests,
            max_requests: self.max_requests,
            max_requests_per_connection: self.max_requests_per_connection,
            max_retries: self.max_retries,
            http_idle_timeout: time(&self.http_idle_timeout),
            max_concurrent_streams: self.max_concurrent_streams,
            http2_keepalive: self.http2_keepalive.as_ref().map(Wire::to_wire),
        }
    }

    fn from_wire(message: wire::PoolLimits) -> Result<PoolLimits, ConvertError> {
        Ok(PoolLimits {
            max_connections: message.max_connections,
            tcp_keepalive: optional(message.tcp_keepalive, "tcp_keepalive")?,
            max_connection_duration: optional(message.max_connection_duration, "max_connection_duration")?,
            tcp_idle_timeout: optional(message.tcp_idle_timeout, "tcp_idle_timeout")?,
            max_pending_requests: message.max_pending_requests,
            max_requests: message.max_requests,
            max_requests_per_connection: message.max_requests_per_connection,
            max_retries: message.max_retries,
            http_idle_timeout: optional(message.http_idle_timeout, "http_idle_timeout")?,
            max_concurrent_streams: message.max_concurrent_streams,
            http2_keepalive: optional(message.http2_keepalive, "http2_keepalive")?,
        })
    }
}

impl Wire for ConnectionPool {
    type Message = wire::ConnectionPool;

    fn to_wire(&self) -> wire::ConnectionPool {
        wire::ConnectionPool {
            max_connections: self.max_connections,
            connect_timeout: time(&self.connect_timeout),
            tcp_keepalive: self.tcp_keepalive.as_ref().map(Wire::to_wire),
            max_connection_duration: time(&self.max_connection_duration),
            tcp_idle_timeout: time(&self.tcp_idle_timeout),
            max_pending_requests: self.max_pending_requests,
            max_requests: self.max_requests,
            max_requests_per_connection: self.max_requests_per_connection,
            max_retries: self.max_retries,
            http_idle_timeout: time(&self.http_idle_timeout),
            h2_upgrade: self.h2_upgrade.to_wire(),
            use_client_protocol: self.use_client_protocol,
            max_concurrent_streams: self.max_concurrent_streams,
            http2_keepalive: self.http2_keepalive.as_ref().map(Wire::to_wire),
        }
    }

    fn from_wire(message: wire::ConnectionPool) -> Result<ConnectionPool, ConvertError> {
        Ok(ConnectionPool {
            max_connections: message.max_connections,
            connect_timeout: optional(message.connect_timeout, "connect_timeout")?,
            tcp_keepalive: optional(message.tcp_keepalive, "tcp_keepalive")?,
            max_connection_duration: optional(message.max_connection_duration, "max_connection_duration")?,
            tcp_idle_timeout: optional(message.tcp_idle_timeout, "tcp_idle_timeout")?,
            max_pending_requests: message.max_pending_requests,
            max_requests: message.max_requests,
            max_requests_per_connection: message.max_requests_per_connection,
            max_retries: message.max_retries,
            http_idle_timeout: optional(message.http_idle_timeout, "http_idle_timeout")?,
            h2_upgrade: field(message.h2_upgrade, "h2_upgrade")?,
            use_client_protocol: message.use_client_protocol,
            max_concurrent_streams: message.max_concurrent_streams,
            http2_keepalive: optional(message.http2_keepalive, "http2_keepalive")?,
        })
    }
}

impl Wire for TcpKeepalive {
    type Message = wire::TcpKeepalive;

    fn to_wire(&self) -> wire::TcpKeepalive {
        wire::TcpKeepalive { probes: self.probes, time: time(&self.time), interval: time(&self.interval) }
    }

    fn from_wire(message: wire::TcpKeepalive) -> Result<TcpKeepalive, ConvertError> {
        Ok(TcpKeepalive {
            probes: message.probes,
            time: optional(message.time, "time")?,
            interval: optional(message.interval, "interval")?,
        })
    }
}

/// Interval and timeout of HTTP/2 pings.
impl Wire for (Duration, Duration) {
    type Message = wire::Http2Keepalive;

    fn to_wire(&self) -> wire::Http2Keepalive {
        wire::Http2Keepalive { interval: Some(self.0.to_wire()), timeout: Some(self.1.to_wire()) }
    }

    fn from_wire(message: wire::Http2Keepalive) -> Result<(Duration, Duration), ConvertError> {
        Ok((required(message.interval, "interval")?, required(message.timeout, "timeout")?))
    }
}

impl Wire for RetryBudget {
    type Message = wire::RetryBudget;

    fn to_wire(&self) -> wire::RetryBudget {
        wire::RetryBudget { ppm: self.share.to_wire(), min_concurrency: self.min_concurrency }
    }

    fn from_wire(message: wire::RetryBudget) -> Result<RetryBudget, ConvertError> {
        Ok(RetryBudget { share: field(message.ppm, "ppm")?, min_concurrency: message.min_concurrency })
    }
}

impl Wire for OutlierDetection {
    type Message = wire::OutlierDetection;

    fn to_wire(&self) -> wire::OutlierDetection {
        wire::OutlierDetection {
            consecutive_5xx: self.consecutive_5xx,
            consecutive_gateway: self.consecutive_gateway,
            split_local_origin: self.split_local_origin,
            consecutive_local_origin: self.consecutive_local_origin,
            interval: Some(self.interval.to_wire()),
            base_ejection_time: Some(self.base_ejection_time.to_wire()),
            max_ejection_percent: self.max_ejection_percent,
            min_health_percent: self.min_health_percent,
            http_error_codes: to_wires(&self.http_error_codes),
        }
    }

    fn from_wire(message: wire::OutlierDetection) -> Result<OutlierDetection, ConvertError> {
        Ok(OutlierDetection {
            consecutive_5xx: message.consecutive_5xx,
            consecutive_gateway: message.consecutive_gateway,
            split_local_origin: message.split_local_origin,
            consecutive_local_origin: message.consecutive_local_origin,
            interval: required(message.interval, "interval")?,
            base_ejection_time: required(message.base_ejection_time, "base_ejection_time")?,
            max_ejection_percent: message.max_ejection_percent,
            min_health_percent: message.min_health_percent,
            http_error_codes: list(message.http_error_codes, "http_error_codes")?,
        })
    }
}
