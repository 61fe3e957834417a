//! The face for operators on the host: readiness, metrics, what is in force, and the graceful end.

pub mod dump;
mod figures;
pub mod server;
