//! The order of decisions, written once: the proxy decides with it, `explain` foretells with it.

pub mod affinity;
pub mod aim;
pub mod captured;
pub mod entry;
pub mod explain;
pub mod facts;
pub mod gateway;
pub mod inbound;
pub mod limits;
pub mod plan;
pub mod refusal;
pub mod request;
pub mod stream;
pub mod witness;

#[cfg(test)]
mod tests;
