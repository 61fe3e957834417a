//! Resources of our own (`mesh.io`).

pub(crate) mod rate_limit;
