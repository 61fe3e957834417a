//! Threads and how they end.

pub mod drain;
pub mod worker;
