//! Choosing one of many endpoints.

pub mod balancer;
pub mod locality;
pub mod policy;
