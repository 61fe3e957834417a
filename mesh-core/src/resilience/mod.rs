//! Small machines and policies of resilience: state, event and now go in, an answer comes out.

pub mod age;
pub mod budget;
pub mod connection_fault;
pub mod ejection;
pub mod fault;
pub mod flap;
pub mod hedge;
pub mod outlier;
pub mod pool;
pub mod pressure;
pub mod ratelimit;
pub mod retry;
pub mod shares;
pub mod timeout;
