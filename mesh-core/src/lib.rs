//! The pure model of the mesh and every decision over it.
//!
//! Nothing here does I/O, reads a clock, spawns, locks or keeps global state: time, randomness and
//! configuration are arguments. The control plane compiles [`state`] into [`snapshot`] sections; the data
//! plane arranges them as [`tables`] and asks [`decide`]; `explain` asks the same functions.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod analysis;
pub mod balancing;
pub mod compile;
pub mod decide;
pub mod framing;
pub mod matching;
pub mod message;
pub mod policy;
pub mod resilience;
pub mod resource;
pub mod routing;
pub mod snapshot;
pub mod state;
pub mod sync;
pub mod tables;
pub mod telemetry;
pub mod vocab;
