//! PeerAuthentication and AuthorizationPolicy.

use crate::policy::authorization::{AuthorizationRule, PolicyAction};
use crate::policy::mtls::MtlsMode;
use crate::vocab::label::Labels;

/// What workloads accept. `None` inherits (UNSET).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerAuthentication {
    /// Workloads; none for the namespace, or for the mesh in the root namespace.
    pub selector: Option<Labels>,
    /// Mode.
    pub mode: Option<MtlsMode>,
    /// By port of the workload.
    pub ports: Vec<(u16, Option<MtlsMode>)>,
}

/// Who may do what to the selected workloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    /// Workloads; none for the namespace, or for the mesh in the root namespace.
    pub selector: Option<Labels>,
    /// What a match leads to.
    pub action: PolicyAction,
    /// Rules; none never matches.
    pub rules: Vec<AuthorizationRule>,
}
