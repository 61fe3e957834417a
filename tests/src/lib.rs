//! Suites that need more than one crate, and the lab that they run in.

pub mod bench;
pub mod claims;
pub mod demo;
pub mod harness;
pub mod messages;
pub mod report;
