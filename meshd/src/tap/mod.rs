//! Single exchanges out of proxies: who asks, whom, and what comes of it.

pub mod hub;
pub mod service;
