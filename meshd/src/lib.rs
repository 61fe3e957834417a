//! The control plane: turns what operators declare into versioned snapshots and issues identities.
//!
//! A library with a thin `main.rs`, so that tests can run a whole mesh inside one process.
#![forbid(unsafe_code)]

pub mod admin;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod controller;
pub mod dialect;
pub mod discovery;
pub mod grpc;
pub mod identity;
pub mod registry;
pub mod source;
pub mod store;
pub mod tap;
pub mod telemetry;
pub mod traffic;
