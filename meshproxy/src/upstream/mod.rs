//! Towards an endpoint: connections by pool key, tunnels, and how attempts fail.

pub mod age;
pub mod body;
pub mod budget;
pub mod connect;
pub mod copied;
pub mod failure;
pub mod http2;
pub mod pool;
pub mod posted;
pub mod resolve;
pub mod thread;
pub mod tunnel;
pub mod way;
