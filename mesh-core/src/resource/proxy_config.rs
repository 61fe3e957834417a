//! ProxyConfig: settings of proxies that need a restart.

use std::collections::BTreeMap;

use crate::vocab::label::Labels;
use crate::vocab::name::Text;

/// Settings of the proxies of the selected workloads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProxyConfig {
    /// Workloads; none for the namespace, or for the mesh in the root namespace.
    pub selector: Option<Labels>,
    /// Threads; 0 for one a core.
    pub concurrency: Option<u32>,
    /// Environment.
    pub environment: BTreeMap<Text, Text>,
    /// `image.imageType`.
    pub image_type: Option<Text>,
}
