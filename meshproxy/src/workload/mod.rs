//! The workloads of this host: what is declared about them, how they fare, whose a connection is.

pub mod check;
pub mod groups;
pub mod local;
pub mod owner;
pub mod probe;
pub mod users;
