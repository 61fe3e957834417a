//! Choosing one of many endpoints.

pub mod balancer;
