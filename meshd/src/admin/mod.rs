//! The face for people: a JSON API on a Unix socket, its client, and the public port with metrics and readiness.

pub mod analysis;
pub mod catalogue;
pub mod check;
pub mod client;
pub mod configuration;
mod describe;
pub mod explain;
mod figures;
pub mod fleet;
mod references;
mod registered;
pub mod server;
mod story;
mod telemetry;
pub mod view;
