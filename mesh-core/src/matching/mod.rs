//! Predicates over a request or a peer. Matching knows nothing of what a match leads to.

pub mod authority;
pub mod claims;
pub mod path;
pub mod pseudo;
pub mod request;
pub mod scope;
pub mod text;
