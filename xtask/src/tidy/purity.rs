//! What the core may not name: no socket, file, thread, lock, clock, environment, runtime or wire type.

use super::Source;

const FORBIDDEN: [&str; 21] = [
    "std::fs",
    "std::env",
    "std::thread",
    "std::process",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "Mutex<",
    "RwLock<",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "Instant::now",
    "SystemTime::now",
    "tokio::",
    "serde::",
    "prost::",
    "thread_rng",
    "rand::rng",
    "OnceLock",
    "LazyLock",
    "thread_local!",
];

/// Faults of one file.
pub(super) fn check(source: &Source) -> Vec<String> {
    if source.package != "mesh-core" {
        return Vec::new();
    }
    let named = FORBIDDEN.iter().filter(|name| source.code.contains(*name));
    named.map(|name| format!("{}: the core may not name {name}", source.name)).collect()
}
