//! Certificates and keys that a DestinationRule's `credentialName` stands for.
//!
//! A node is given those only that the destinations of its own workloads name, and of each only what they need: who
//! merely verifies servers gets no key.

use std::fmt;

use crate::policy::mtls::CredentialKey;

/// One half of a credential, as PEM.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Credential {
    /// Which.
    pub key: CredentialKey,
    /// What it holds: a certificate chain, or the roots of an authority.
    pub certificates: Pem,
    /// What belongs to it: the private key, or what revokes certificates of the authority. Empty for none.
    pub other: Pem,
}

/// Text that is never shown.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Pem(pub Vec<u8>);

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} bytes)", self.0.len())
    }
}
