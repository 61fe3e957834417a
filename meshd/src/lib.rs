//! The control plane: turns what operators declare into versioned snapshots and issues identities.
//!
//! A library with a thin `main.rs`, so that tests can run a whole mesh inside one process.
#![forbid(unsafe_code)]

pub mod clock;
pub mod identity;
pub mod store;
