//! The current keys, chains and trust bundle: written by `control`, read by every handshake.
//!
//! One value holds all of it and is replaced whole, so that a handshake never sees a new bundle with an
//! old verifier. TLS sessions that could be resumed live in the configurations made from one such value
//! and die with it.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use mesh_core::vocab::hello::Offered;
use mesh_core::vocab::identity::{Mark, SpiffeId, TrustDomain};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use super::{peer, tls};

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
        reason: peer::PeerError,
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
            peer::read_leaf(leaf).map_err(|reason| SvidError::Identity { expected: id.clone(), reason })?;
        if leaf.id != id {
            return Err(SvidError::Identity { expected: id, reason: peer::PeerError::Other(leaf.id) });
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
    /// Marks of certificates that are worth nothing any more, sorted.
    revoked: Vec<Mark>,
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
        Ok(Trust { domain, aliases: Vec::new(), roots, revoked: Vec::new(), anchors: store.roots })
    }

    /// The same, believing identities of further domains whose certificates these roots verify.
    #[must_use]
    pub fn with_aliases(self, aliases: Vec<TrustDomain>) -> Trust {
        Trust { aliases, ..self }
    }

    /// The same, believing no certificate with one of these marks, which are sorted.
    #[must_use]
    pub fn without(self, revoked: Vec<Mark>) -> Trust {
        Trust { revoked, ..self }
    }

    /// Whether certificates with this mark are worth nothing any more.
    pub fn revokes(&self, mark: &Mark) -> bool {
        self.revoked.binary_search(mark).is_ok()
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
    /// Made when the first one is asked for: most hosts never are.
    direct: OnceLock<BTreeMap<SpiffeId, Arc<rustls::ServerConfig>>>,
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

    /// What a connection straight to a port of this workload is shown, and what it must show, where its client offers
    /// these protocols; `None` without a bundle or the workload's key.
    pub fn direct(&self, own: &SpiffeId, offered: Offered) -> Option<Arc<rustls::ServerConfig>> {
        let trust = self.trust.as_ref()?;
        let configs = self.direct.get_or_init(|| {
            let workloads = self.svids.iter().filter(|(id, _)| id.account().is_some());
            workloads.map(|(id, svid)| (id.clone(), tls::direct_config(svid, trust))).collect()
        });
        configs.get(own).map(|config| tls::for_client(config, offered))
    }
}

/// The holder of the current [`Material`].
#[derive(Debug, Default)]
pub struct Svids {
    current: ArcSwap<Material>,
    /// Counts trust bundles.
    bundles: watch::Sender<u64>,
}

impl Svids {
    /// A holder with nothing in it.
    pub fn new() -> Svids {
        Svids::default()
    }

    /// The current material.
    pub fn load(&self) -> Arc<Material> {
        self.current.load_full()
    }

    /// Whether `known` is still the current material.
    pub fn is_current(&self, known: &Arc<Material>) -> bool {
        Arc::ptr_eq(&self.current.load(), known)
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
        if self.current.load().svids.keys().all(&keep) {
            return;
        }
        self.change(|next| next.svids.retain(|id, _| keep(id)));
    }

    /// Replaces the trust bundle. The same bundle again changes nothing and keeps sessions alive.
    pub fn trust(&self, trust: Trust) {
        let same = self.current.load().trust.as_ref().is_some_and(|current| {
            current.domain == trust.domain
                && current.aliases == trust.aliases
                && current.roots == trust.roots
                && current.revoked == trust.revoked
        });
        if same {
            return;
        }
        let trust = Arc::new(trust);
        self.change(|next| next.trust = Some(Arc::clone(&trust)));
        self.bundles.send_modify(|count| *count += 1);
    }

    /// The same for a bundle of which only the roots are known: the further names of its domain stay, and what is
    /// revoked.
    pub fn trust_roots(&self, trust: Trust) {
        let known = self.current.load().trust.clone().filter(|known| known.domain == trust.domain);
        let (aliases, revoked) =
            known.map(|known| (known.aliases.clone(), known.revoked.clone())).unwrap_or_default();
        self.trust(trust.with_aliases(aliases).without(revoked));
    }

    /// Resolves when another bundle than this one does not let in any more whom this chain proved to be.
    pub async fn distrust(&self, trust: &Arc<Trust>, chain: &[CertificateDer<'static>]) {
        let mut bundles = self.bundles.subscribe();
        let trusts = || match self.load().trust() {
            Some(current) => Arc::ptr_eq(current, trust) || peer::still_trusts(current, chain),
            None => false,
        };
        // The sender lives as long as self.
        while trusts() && bundles.changed().await.is_ok() {}
    }

    /// Whether whom this chain proved to be was thrown out.
    pub fn revokes(&self, chain: &[CertificateDer<'static>]) -> bool {
        let current = self.load();
        let leaf = chain.first().and_then(|leaf| peer::read_leaf(leaf).ok());
        current.trust().zip(leaf).is_some_and(|(trust, leaf)| trust.revokes(&leaf.mark))
    }

    /// Copies, changes and stores; runs the change again if another writer was faster.
    fn change(&self, change: impl Fn(&mut Material)) {
        self.current.rcu(|current| {
            let mut next = Material {
                trust: current.trust.clone(),
                svids: current.svids.clone(),
                ..Material::default()
            };
            change(&mut next);
            next.server = tls::server_config(&next);
            next
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::SerialNumber;

    use super::super::tls::tests::TestCa;
    use super::*;

    const ID: &str = "spiffe://cluster.local/ns/default/sa/a";

    #[tokio::test]
    async fn a_host_that_was_thrown_out_is_not_trusted_from_then_on() {
        let ca = TestCa::new();
        let marked = |mark: u8| {
            ca.svid_with(ID, |params| {
                params.serial_number = Some(SerialNumber::from_slice(&[[mark; 8], [7; 8]].concat()));
            })
        };
        let (out, stays) = (marked(0x41), marked(0x42));
        let svids = Arc::new(Svids::new());
        svids.trust(ca.trust());
        let trust = svids.load().trust().cloned().unwrap();
        let lost = |svid: &Svid| {
            let (svids, trust, chain) =
                (Arc::clone(&svids), Arc::clone(&trust), svid.certified().cert.clone());
            tokio::spawn(async move { svids.distrust(&trust, &chain).await })
        };
        let (out_lost, stays_lost) = (lost(&out), lost(&stays));
        assert!(!svids.revokes(&out.certified().cert));
        svids.trust(ca.trust().without(vec![[0x41; 8]]));
        out_lost.await.unwrap();
        assert!(svids.revokes(&out.certified().cert) && !svids.revokes(&stays.certified().cert));
        assert!(tokio::time::timeout(Duration::from_millis(50), stays_lost).await.is_err());
        // Renewing the node's certificate tells of the roots only.
        svids.trust_roots(ca.trust());
        assert!(svids.revokes(&out.certified().cert));
        let now = svids.load();
        let trust = now.trust().unwrap();
        let refused = peer::peer(Some(&out.certified().cert), trust, rustls::pki_types::UnixTime::now());
        assert!(matches!(refused, Err(peer::PeerError::Revoked(_))), "{refused:?}");
    }
}
