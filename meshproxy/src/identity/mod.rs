//! Who this host's workloads are, and how peers prove who they are.

pub mod client_cert;
pub mod fault;
mod near;
pub mod origination;
pub mod peer;
mod server;
pub mod svid;
pub mod tls;

#[cfg(test)]
pub(crate) mod tests;
