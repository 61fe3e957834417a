//! Byte streams: accepted ones with their facts, bytes that were looked at, writes put off, two-way copies.

pub mod activity;
pub mod copy;
pub mod corked;
pub mod cut;
pub mod downstream;
pub mod guard;
pub mod hop;
pub mod impaired;
pub mod limits;
pub mod patient;
pub mod proxy_header;
pub mod rewind;
pub mod served;
pub mod socket;
