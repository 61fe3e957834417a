//! PeerAuthentication and AuthorizationPolicy.

use super::reach::TargetRef;
use crate::policy::authorization::{AuthorizationRule, PolicyAction};
use crate::policy::jwt::JwtRule;
use crate::policy::mtls::MtlsMode;
use crate::vocab::label::Labels;
use crate::vocab::name::Text;

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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuthorizationPolicy {
    /// Workloads; none for the namespace, or for the mesh in the root namespace.
    pub selector: Option<Labels>,
    /// Objects instead of workloads.
    pub targets: Vec<TargetRef>,
    /// What a match leads to.
    pub action: PolicyAction,
    /// `provider.name`: who is asked, for action CUSTOM.
    pub provider: Option<Text>,
    /// Annotation `istio.io/dry-run`: judged and counted, not enforced.
    pub dry_run: bool,
    /// Rules; none never matches.
    pub rules: Vec<AuthorizationRule>,
}

/// Which tokens the selected workloads accept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestAuthentication {
    /// Workloads; none for the namespace, or for the mesh in the root namespace.
    pub selector: Option<Labels>,
    /// Objects instead of workloads.
    pub targets: Vec<TargetRef>,
    /// Rules; a token must be accepted by one.
    pub rules: Vec<JwtRule>,
}
