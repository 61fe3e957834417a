//! Nodes announce their workloads and how these fare.

pub mod announcement;
pub mod fare;
pub mod lease;
pub mod limits;
pub mod record;
pub mod registrar;
pub mod service;
