//! Who this host's workloads are, and how peers prove who they are.

pub mod origination;
mod server;
pub mod svid;
pub mod tls;
