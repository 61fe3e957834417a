//! Trust bundles.

use crate::vocab::identity::TrustDomain;

/// The trust domain and the roots that verify its identities.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TrustBundle {
    /// Trust domain.
    pub domain: TrustDomain,
    /// Root certificates, DER.
    pub roots: Vec<Vec<u8>>,
}
