//! Threads and how they end; what the process has too little of.

pub mod allocator;
pub mod clock;
pub mod drain;
pub mod panics;
pub mod pressure;
pub mod supply;
pub mod worker;
