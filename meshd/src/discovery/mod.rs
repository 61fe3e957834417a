//! Snapshots to proxies.

pub mod fanout;
pub mod roster;
pub mod service;
