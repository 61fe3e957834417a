//! The current keys, chains and trust bundle: written by `control`, read by every handshake.
//!
//! One value holds all of it and is replaced whole, so that a handshake never sees a new bundle with an
//! old verifier. TLS sessions that could be resumed live in the configurations made from one such value
//! and die with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use mesh_core::vocab::identity::{SpiffeId, TrustDomain};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::tls;

/// Why a key or a bundle was refused.
#[derive(Debug, thiserror::Error)]
pub enum SvidError {
    /// The chain has no certificate.
    #[error("the chain of {0} is empty")]
    EmptyChain(SpiffeId),
    /// The leaf does not name the identity.
    #[error("the certificate does not prove {expected}: {reason}")]
    Identity {
        /// Whom it should prove.
        expected: SpiffeId,
        /// What is wrong with it.
        reason: tls::PeerError,
    },
    /// Key and certificate do not fit, or the key is of an unknown kind.
    #[error("the key of {id} cannot be used")]
    Key {
        /// Whose key.
        id: SpiffeId,
        /// Why not.
        #[source]
        source: rustls::Error,
    },
    /// A root certificate cannot be read.
    #[error("a root of trust domain {domain} cannot be read")]
    Root {
        /// The trust domain.
        domain: TrustDomain,
        /// Why not.
        #[source]
        source: rustls::Error,
    },
}

/// A document that proves an identity, with its key.
#[derive(Debug)]
pub struct Svid {
    id: SpiffeId,
    certified: Arc<CertifiedKey>,
    not_before: i64,
    not_after: i64,
}

impl Svid {
    /// Joins a chain (leaf first, DER) and its private key (PKCS#8 DER). The leaf must prove `id`.
    pub fn new(id: SpiffeId, chain: Vec<Vec<u8>>, key: PrivateKeyDer<'static>) -> Result<Svid, SvidError> {
        let chain: Vec<CertificateDer<'static>> = chain.into_iter().map(CertificateDer::from).collect();
        let Some(leaf) = chain.first() else { return Err(SvidError::EmptyChain(id)) };
        let leaf =
            tls::read_leaf(leaf).map_err(|reason| SvidError::Identity { expected: id.clone(), reason })?;
        if leaf.id != id {
            return Err(SvidError::Identity { expected: id, reason: tls::PeerError::Other(leaf.id) });
        }
        let certified = CertifiedKey::from_der(chain, key, &tls::provider())
            .map_err(|source| SvidError::Key { id: id.clone(), source })?;
        Ok(Svid {
            id,
            certified: Arc::new(certified),
            not_before: leaf.not_before,
            not_after: leaf.not_after,
        })
    }

    /// Whose it is.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// When it begins to be valid, in seconds since 1970.
    pub fn not_before(&self) -> i64 {
        self.not_before
    }

    /// When it expires, in seconds since 1970.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// Chain and key as rustls takes them.
    pub fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

/// The roots that verify peers.
#[derive(Debug)]
pub struct Trust {
    domain: TrustDomain,
    aliases: Vec<TrustDomain>,
    roots: Vec<CertificateDer<'static>>,
    pub(super) anchors: Vec<rustls::pki_types::TrustAnchor<'static>>,
}

impl Trust {
    /// Reads root certificates (DER) of a trust domain.
    pub fn new(domain: TrustDomain, roots: Vec<Vec<u8>>) -> Result<Trust, SvidError> {
        let roots: Vec<CertificateDer<'static>> = roots.into_iter().map(CertificateDer::from).collect();
        let mut store = rustls::RootCertStore::empty();
        for root in &roots {
            store.add(root.clone()).map_err(|source| SvidError::Root { domain: domain.clone(), source })?;
        }
        Ok(Trust { domain, aliases: Vec::new(), roots, anchors: store.roots })
    }

    /// The same, believing identities of further domains whose certificates these roots verify.
    #[must_use]
    pub fn with_aliases(self, aliases: Vec<TrustDomain>) -> Trust {
        Trust { aliases, ..self }
    }

    /// Whether identities of a domain are of the mesh.
    pub fn covers(&self, domain: &str) -> bool {
        self.domain.as_str() == domain || self.aliases.iter().any(|alias| alias.as_str() == domain)
    }

    /// The trust domain.
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The roots, DER.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }
}

/// Everything that handshakes need, at one moment.
#[derive(Debug, Default)]
pub struct Material {
    trust: Option<Arc<Trust>>,
    svids: BTreeMap<SpiffeId, Arc<Svid>>,
    server: Option<Arc<rustls::ServerConfig>>,
}

impl Material {
    /// The trust bundle; `None` before the first.
    pub fn trust(&self) -> Option<&Arc<Trust>> {
        self.trust.as_ref()
    }

    /// The current document of an identity of this host.
    pub fn svid(&self, id: &SpiffeId) -> Option<&Arc<Svid>> {
        self.svids.get(id)
    }

    /// All documents, by identity.
    pub fn svids(&self) -> impl Iterator<Item = &Arc<Svid>> {
        self.svids.values()
    }

    /// What the mesh port presents and demands; `None` while there is nothing to present or no bundle.
    pub fn server(&self) -> Option<&Arc<rustls::ServerConfig>> {
        self.server.as_ref()
    }
}

/// The holder of the current [`Material`].
#[derive(Debug, Default)]
pub struct Svids(ArcSwap<Material>);

impl Svids {
    /// A holder with nothing in it.
    pub fn new() -> Svids {
        Svids::default()
    }

    /// The current material.
    pub fn load(&self) -> Arc<Material> {
        self.0.load_full()
    }

    /// Whether `known` is still the current material.
    pub fn is_current(&self, known: &Arc<Material>) -> bool {
        Arc::ptr_eq(&self.0.load(), known)
    }

    /// Puts a new or renewed document in place.
    pub fn install(&self, svid: Svid) {
        let svid = Arc::new(svid);
        self.change(|next| {
            next.svids.insert(svid.id.clone(), Arc::clone(&svid));
        });
    }

    /// Forgets the identities that `keep` does not name.
    pub fn retain(&self, keep: impl Fn(&SpiffeId) -> bool) {
        if self.0.load().svids.keys().all(&keep) {
            return;
        }
        self.change(|next| next.svids.retain(|id, _| keep(id)));
    }

    /// Replaces the trust bundle. The same bundle again changes nothing and keeps sessions alive.
    pub fn trust(&self, trust: Trust) {
        let same = self.0.load().trust.as_ref().is_some_and(|current| {
            current.domain == trust.domain && current.aliases == trust.aliases && current.roots == trust.roots
        });
        if same {
            return;
        }
        let trust = Arc::new(trust);
        self.change(|next| next.trust = Some(Arc::clone(&trust)));
    }

    /// Copies, changes and stores; runs the change again if another writer was faster.
    fn change(&self, change: impl Fn(&mut Material)) {
        self.0.rcu(|current| {
            let mut next =
                Material { trust: current.trust.clone(), svids: current.svids.clone(), server: None };
            change(&mut next);
            next.server = tls::server_config(&next);
            next
        });
    }
}
