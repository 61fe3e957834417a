//! What a matched request or byte stream gets.

pub mod cors;
pub mod header;
pub mod rewrite;
pub mod rule;
pub mod split;
