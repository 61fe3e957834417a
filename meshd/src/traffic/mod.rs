//! Live traffic: what proxies report every second, kept for an hour, in memory only. A meshd that starts knows nothing of
//! what was before; proxies report on, and so a minute later the last minute is whole again.

pub mod ingest;
pub mod ledger;
pub mod service;
pub mod window;
