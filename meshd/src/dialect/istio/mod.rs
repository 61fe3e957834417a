//! Istio's kinds. Field names, types and checks follow Istio's schemas and admission.

pub(crate) mod destination_rule;
mod header;
mod http;
pub(crate) mod networking;
mod reach;
mod redirect;
mod resilience;
pub(crate) mod security;
pub(crate) mod service_entry;
pub(crate) mod workload;
