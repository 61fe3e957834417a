//! The per-host data plane: carries what the snapshot says.
#![warn(missing_docs)]

pub mod admin;
pub mod app;
pub mod capture;
pub mod cli;
pub mod config;
pub mod control;
pub mod dial;
pub mod dns;
pub mod http;
pub mod identity;
pub mod intercept;
pub mod listener;
pub mod live;
pub mod net;
pub mod netns;
pub mod otlp;
pub mod runtime;
pub mod tcp;
pub mod telemetry;
pub mod upstream;
pub mod workload;

#[cfg(test)]
mod tests;
