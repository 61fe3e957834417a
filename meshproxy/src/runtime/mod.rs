//! Threads and how they end.

pub mod clock;
pub mod drain;
pub mod worker;
