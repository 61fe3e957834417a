//! ProxyConfig.

use mesh_core::resource::proxy_config::ProxyConfig;

use crate::dialect::field::Field;

/// Reads the spec of a ProxyConfig.
pub(crate) fn proxy_config(field: &Field<'_>) -> Option<ProxyConfig> {
    field.later("the kind ProxyConfig");
    Some(ProxyConfig::default())
}
