//! Istio's kinds. Field names, types and checks follow Istio's schemas and admission.

pub(crate) mod destination_rule;
pub(crate) mod gateway;
pub(crate) mod header;
pub(crate) mod http;
pub(crate) mod networking;
pub(crate) mod proxy_config;
mod reach;
pub(crate) mod redirect;
pub(crate) mod request_authentication;
pub(crate) mod resilience;
pub(crate) mod security;
pub(crate) mod service_entry;
pub(crate) mod sidecar;
pub(crate) mod telemetry;
pub(crate) mod workload;
pub(crate) mod workload_group;
