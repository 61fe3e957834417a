//! Small machines and policies of resilience: state, event and now go in, an answer comes out.

pub mod age;
pub mod budget;
pub mod ejection;
pub mod fault;
pub mod outlier;
pub mod pool;
pub mod pressure;
pub mod ratelimit;
pub mod retry;
pub mod shares;
pub mod timeout;
