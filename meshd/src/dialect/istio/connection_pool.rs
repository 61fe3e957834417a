//! `connectionPool`: limits of connections and requests, of a DestinationRule, a Sidecar or the mesh.

use std::time::Duration;

use mesh_core::resilience::pool::{ConnectionPool, H2Upgrade, TcpKeepalive};

use crate::dialect::field::{Field, Message, Note, Object};
use crate::dialect::scalar;

pub(crate) static CONNECTION_POOL: Message =
    Message { name: "a connectionPool", fields: &["http", "tcp"], later: &[], skipped: &[] };

static TCP: Message = Message {
    name: "tcp of a connectionPool",
    fields: &["connectTimeout", "idleTimeout", "maxConnectionDuration", "maxConnections", "tcpKeepalive"],
    later: &[],
    skipped: &[],
};

pub(crate) static TCP_KEEPALIVE: Message =
    Message { name: "a tcpKeepalive", fields: &["interval", "probes", "time"], later: &[], skipped: &[] };

static HTTP: Message = Message {
    name: "http of a connectionPool",
    fields: &[
        "h2UpgradePolicy",
        "http1MaxPendingRequests",
        "http2KeepAlive",
        "http2MaxRequests",
        "idleTimeout",
        "maxConcurrentStreams",
        "maxRequestsPerConnection",
        "maxRetries",
        "useClientProtocol",
    ],
    later: &[],
    skipped: &[],
};

static HTTP2_KEEPALIVE: Message =
    Message { name: "a http2KeepAlive", fields: &["interval", "timeout"], later: &[], skipped: &[] };

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&CONNECTION_POOL, "tcp", &TCP),
    Note::Holds(&CONNECTION_POOL, "http", &HTTP),
    Note::Holds(&TCP, "tcpKeepalive", &TCP_KEEPALIVE),
    Note::Holds(&HTTP, "http2KeepAlive", &HTTP2_KEEPALIVE),
];

/// Reads `connectionPool`.
pub(crate) fn connection_pool(field: &Field<'_>) -> Option<ConnectionPool> {
    let object = field.object(&CONNECTION_POOL)?;
    if object.is_empty() {
        field.fault("a connectionPool needs tcp or http");
    }
    let mut pool = ConnectionPool::default();
    if let Some(tcp) = object.get("tcp").and_then(|field| field.object(&TCP)) {
        read_tcp(&tcp, &mut pool);
    }
    if let Some(http) = object.get("http").and_then(|field| field.object(&HTTP)) {
        read_http(&http, &mut pool);
    }
    Some(pool)
}

fn read_tcp(tcp: &Object<'_>, pool: &mut ConnectionPool) {
    pool.max_connections = limit(tcp, "maxConnections");
    pool.connect_timeout = duration(tcp, "connectTimeout");
    pool.max_connection_duration = duration(tcp, "maxConnectionDuration");
    // Zero is a value here: no limit.
    pool.tcp_idle_timeout = tcp.get("idleTimeout").and_then(|field| scalar::duration_or_zero(&field));
    pool.tcp_keepalive = tcp.get("tcpKeepalive").and_then(|field| tcp_keepalive(&field));
}

/// Reads `tcpKeepalive`.
pub(crate) fn tcp_keepalive(field: &Field<'_>) -> Option<TcpKeepalive> {
    let keepalive = field.object(&TCP_KEEPALIVE)?;
    let probes = keepalive.get("probes").and_then(|field| field.integer(0..=i64::from(u32::MAX)));
    Some(TcpKeepalive {
        probes: probes.filter(|probes| *probes > 0).and_then(|probes| u32::try_from(probes).ok()),
        time: duration(&keepalive, "time"),
        interval: duration(&keepalive, "interval"),
    })
}

fn read_http(http: &Object<'_>, pool: &mut ConnectionPool) {
    pool.max_pending_requests = limit(http, "http1MaxPendingRequests");
    pool.max_requests = limit(http, "http2MaxRequests");
    pool.max_requests_per_connection = limit(http, "maxRequestsPerConnection");
    pool.max_retries = limit(http, "maxRetries");
    pool.max_concurrent_streams = limit(http, "maxConcurrentStreams");
    pool.http_idle_timeout = duration(http, "idleTimeout");
    pool.use_client_protocol =
        http.get("useClientProtocol").and_then(|field| field.boolean()).unwrap_or(false);
    if let Some(field) = http.get("h2UpgradePolicy") {
        pool.h2_upgrade = match field.choice(&["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"]) {
            Some("UPGRADE") => H2Upgrade::Upgrade,
            Some("DO_NOT_UPGRADE") => H2Upgrade::DoNotUpgrade,
            _ => H2Upgrade::Default,
        };
        if pool.h2_upgrade == H2Upgrade::Upgrade && pool.use_client_protocol {
            field.fault("UPGRADE and useClientProtocol cannot both be set: one changes the protocol, the other keeps it");
        }
    }
    pool.http2_keepalive = http.get("http2KeepAlive").and_then(|field| {
        let keepalive = field.object(&HTTP2_KEEPALIVE)?;
        let interval = keepalive.require("interval").and_then(|field| scalar::duration(&field));
        let timeout = keepalive.require("timeout").and_then(|field| scalar::duration(&field));
        Some((interval?, timeout?))
    });
}

/// A number of things at once; 0 is the default.
fn limit(object: &Object<'_>, key: &'static str) -> Option<u32> {
    let limit = object.get(key)?.integer(0..=i64::from(i32::MAX))?;
    u32::try_from(limit).ok().filter(|limit| *limit > 0)
}

fn duration(object: &Object<'_>, key: &'static str) -> Option<Duration> {
    scalar::duration(&object.get(key)?)
}
