//! Predicates over a request or a peer. Matching knows nothing of what a match leads to.

pub mod authority;
pub mod path;
pub mod request;
pub mod text;
