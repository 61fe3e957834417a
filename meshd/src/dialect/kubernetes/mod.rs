//! Kubernetes' own kinds, as far as they mean something without it. (ServiceAccount and Namespace have nothing but
//! metadata.)

pub(crate) mod config_map;
pub(crate) mod endpoints;
pub(crate) mod pod;
pub(crate) mod secret;
pub(crate) mod service;
