//! What a matched request or byte stream gets.

pub mod cors;
pub mod format;
pub mod header;
pub mod limit;
pub mod mirror;
pub mod rewrite;
pub mod rule;
pub mod split;
