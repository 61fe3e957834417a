//! Trust, and what else holds for every request of the mesh.

use crate::message::path::Normalization;
use crate::vocab::identity::{Mark, TrustDomain};

/// The trust domain and the roots that verify its identities.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TrustBundle {
    /// Trust domain.
    pub domain: TrustDomain,
    /// Further domains whose identities are of the mesh (MeshConfig `trustDomainAliases`).
    pub aliases: Vec<TrustDomain>,
    /// Root certificates, DER.
    pub roots: Vec<Vec<u8>>,
    /// How far paths are brought into one form before anything judges them.
    pub normalization: Normalization,
    /// Marks of the certificates of hosts that were thrown out, sorted.
    pub revoked: Vec<Mark>,
}

impl TrustBundle {
    /// Whether identities of a domain are of the mesh.
    pub fn trusts(&self, domain: &str) -> bool {
        self.domain.as_str() == domain || self.aliases.iter().any(|alias| alias.as_str() == domain)
    }
}
