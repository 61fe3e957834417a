//! Everything that talks to meshd.

pub mod backoff;
pub mod certificates;
pub mod channel;
pub mod files;
pub mod keys;
