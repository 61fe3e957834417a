//! This host's certificates: the node's, bought with a join token and renewed by itself, and one SVID for each
//! identity of its workloads. Keys are made here and never leave the host.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh_core::vocab::identity::{SpiffeId, TrustDomain};
use mesh_proto::generated::identity_client::IdentityClient;
use mesh_proto::generated::{IssueRequest, JoinRequest, RenewRequest, Svid as WireSvid};
use mesh_proto::token::JoinToken;
use rand::Rng;
use rustls::sign::CertifiedKey;
use tokio::sync::{Notify, watch};
use tonic::transport::Channel;

use super::certificate_error::CertificateError;
use super::channel::Expected;
use super::keys::{KeyFolder, Pair};
use crate::identity::svid::{Svid, Svids, Trust};

const NODE: &str = "node";
/// How long a call to the control plane may take.
const CALL: Duration = Duration::from_secs(10);
/// An identity that was refused is asked for again after so long: the operator may allow it meanwhile.
const REFUSED_AGAIN: Duration = Duration::from_secs(10);
/// After a failure that may pass.
const AGAIN: Duration = Duration::from_secs(2);
/// The longest sleep between looks at the clock, which may be set at any time.
const LOOK: Duration = Duration::from_secs(30);

/// The node's own certificate, and what it verifies the control plane with.
#[derive(Clone)]
pub struct NodeIdentity {
    svid: Arc<Svid>,
    domain: TrustDomain,
    roots: Vec<rustls::pki_types::CertificateDer<'static>>,
    renew_at: i64,
}

impl NodeIdentity {
    /// Chain and key for the channel.
    pub fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(self.svid.certified())
    }

    /// What the control plane must prove.
    pub fn expected(&self) -> Expected {
        Expected::Roots(self.domain.clone(), self.roots.clone())
    }

    /// End of its validity, in seconds since 1970.
    pub fn not_after(&self) -> i64 {
        self.svid.not_after()
    }
}

/// How an identity of this host's workloads fares.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Missing,
    Refused { again_at: i64 },
    Valid { renew_at: i64 },
}

/// The certificates of this host.
pub struct Certificates {
    node_name: String,
    address: String,
    token_file: Option<PathBuf>,
    folder: KeyFolder,
    svids: Arc<Svids>,
    node: Mutex<Option<NodeIdentity>>,
    wanted: Mutex<BTreeMap<SpiffeId, State>>,
    changed: Notify,
    settled: watch::Sender<bool>,
}

impl Certificates {
    /// Reads what is kept in the data directory.
    pub fn open(
        data_dir: &std::path::Path,
        node_name: &str,
        address: String,
        token_file: Option<PathBuf>,
        svids: Arc<Svids>,
    ) -> Result<Certificates, CertificateError> {
        let certificates = Certificates {
            node_name: node_name.to_owned(),
            address,
            token_file,
            folder: KeyFolder::open(data_dir)?,
            svids,
            node: Mutex::new(None),
            wanted: Mutex::default(),
            changed: Notify::new(),
            settled: watch::channel(true).0,
        };
        match certificates.kept_node() {
            Ok(node) => *certificates.node.lock().unwrap_or_else(PoisonError::into_inner) = node,
            Err(error @ CertificateError::Key(_)) => return Err(error),
            Err(error) => tracing::warn!(%error, "the kept node certificate cannot be used"),
        }
        Ok(certificates)
    }

    fn kept_node(&self) -> Result<Option<NodeIdentity>, CertificateError> {
        let Some(pair) = self.folder.load(NODE)? else { return Ok(None) };
        if pair.chain.is_empty() {
            return Ok(None);
        }
        let leaf = crate::identity::peer::read_leaf(&pair.chain[0])
            .map_err(|error| CertificateError::Unfit(error.to_string()))?;
        if leaf.id.node_name() != Some(&self.node_name) {
            return Err(CertificateError::Unfit(format!("it is of {}, not of {}", leaf.id, self.node_name)));
        }
        let roots = self.folder.load_bundle()?.iter().map(|root| root.to_vec()).collect();
        self.node_identity(leaf.id, &pair, roots).map(Some)
    }

    fn node_identity(
        &self,
        id: SpiffeId,
        pair: &Pair,
        roots: Vec<Vec<u8>>,
    ) -> Result<NodeIdentity, CertificateError> {
        let unfit =
            |error: mesh_core::vocab::identity::IdentityError| CertificateError::Unfit(error.to_string());
        let domain = TrustDomain::new(id.trust_domain()).map_err(unfit)?;
        let svid = Svid::new(id, pair.chain.iter().map(|der| der.to_vec()).collect(), pair.key())?;
        let trust = Trust::new(domain.clone(), roots)?;
        let roots = trust.roots().to_vec();
        self.svids.trust_roots(trust);
        let renew_at = renewal(svid.not_before(), svid.not_after());
        Ok(NodeIdentity { svid: Arc::new(svid), domain, roots, renew_at })
    }

    /// The node's certificate, if it has joined and the certificate is still valid.
    pub fn node(&self) -> Option<NodeIdentity> {
        let node = self.node.lock().unwrap_or_else(PoisonError::into_inner).clone();
        node.filter(|node| node.not_after() > now())
    }

    /// Whether this host ever joined, its certificate perhaps expired since.
    pub fn has_joined(&self) -> bool {
        self.node.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// The join token. It pins the control plane's root.
    pub fn token(&self) -> Result<JoinToken, CertificateError> {
        let path = self.token_file.as_ref().ok_or(CertificateError::NoToken)?;
        let text = std::fs::read_to_string(path)
            .map_err(|source| CertificateError::TokenFile { path: path.clone(), source })?;
        text.parse().map_err(|source| CertificateError::Token { path: path.clone(), source })
    }

    /// Buys the node's certificate with the token. The key is kept before the call, so that an answer that gets
    /// lost does not cost a second use of the token.
    pub async fn join(&self, channel: Channel, token: &JoinToken) -> Result<(), CertificateError> {
        let mut pair = match self.folder.load(NODE)? {
            Some(pair) => pair,
            None => {
                let pair = Pair::generate()?;
                self.folder.store(NODE, &pair)?;
                pair
            }
        };
        let request = JoinRequest {
            token: token.to_string(),
            node: self.node_name.clone(),
            csr: pair.request()?,
            address: self.address.clone(),
        };
        let answer = call(IdentityClient::new(channel).join(request)).await?;
        self.take_node(&mut pair, answer.svid)?;
        tracing::info!(node = self.node_name, trust_domain = answer.trust_domain, "joined the mesh");
        Ok(())
    }

    fn take_node(&self, pair: &mut Pair, svid: Option<WireSvid>) -> Result<(), CertificateError> {
        let svid = svid.ok_or_else(|| CertificateError::Unfit("the answer is empty".to_owned()))?;
        let id =
            SpiffeId::parse(&svid.spiffe_id).map_err(|error| CertificateError::Unfit(error.to_string()))?;
        if id.node_name() != Some(&self.node_name) {
            return Err(CertificateError::Unfit(format!("it is of {id}")));
        }
        check_clock(&id, &svid)?;
        pair.chain = svid.chain.into_iter().map(Into::into).collect();
        let identity = self.node_identity(id, pair, svid.bundle.clone())?;
        self.folder.store_bundle(&svid.bundle)?;
        self.folder.store(NODE, pair)?;
        *self.node.lock().unwrap_or_else(PoisonError::into_inner) = Some(identity);
        Ok(())
    }

    /// Says which identities the workloads of this host have. Kept SVIDs are in place when this returns.
    pub fn want(&self, identities: &BTreeSet<SpiffeId>) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted.keys().eq(identities) {
            return;
        }
        wanted.retain(|id, _| identities.contains(id));
        for id in identities {
            wanted.entry(id.clone()).or_insert_with(|| self.kept(id));
        }
        self.svids.retain(|id| identities.contains(id));
        self.settled.send_replace(settled(&wanted));
        drop(wanted);
        self.changed.notify_one();
    }

    /// Puts the kept SVID of an identity in place, if it is valid.
    fn kept(&self, id: &SpiffeId) -> State {
        let install = || -> Result<Option<State>, CertificateError> {
            let Some(pair) = self.folder.load(&file_name(id))? else { return Ok(None) };
            let svid =
                Svid::new(id.clone(), pair.chain.iter().map(|der| der.to_vec()).collect(), pair.key())?;
            if svid.not_after() <= now() {
                return Ok(None);
            }
            let renew_at = renewal(svid.not_before(), svid.not_after());
            self.svids.install(svid);
            Ok(Some(State::Valid { renew_at }))
        };
        match install() {
            Ok(state) => state.unwrap_or(State::Missing),
            Err(error) => {
                tracing::warn!(identity = %id, %error, "the kept certificate cannot be used");
                State::Missing
            }
        }
    }

    /// Waits until each wanted identity has its SVID or was refused.
    pub async fn wait_settled(&self) {
        let mut settled = self.settled.subscribe();
        // The sender lives as long as self.
        let _ = settled.wait_for(|settled| *settled).await.is_ok();
    }

    /// Gets what is missing and renews what is due, for as long as the channel lasts.
    pub async fn run(&self, channel: Channel) -> CertificateError {
        let mut client = IdentityClient::new(channel);
        loop {
            match self.catch_up(&mut client).await {
                Ok(()) => {}
                Err(error @ CertificateError::Refused(_)) => return error,
                Err(error) => {
                    // The streams notice a channel that is gone; another failure passes, and must not end them.
                    tracing::warn!(%error, "certificates are not up to date; trying on");
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            }
            let sleep = self.next_due().clamp(0, LOOK.as_secs() as i64);
            let sleep = Duration::from_secs(sleep.unsigned_abs()).max(Duration::from_millis(500));
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    /// Seconds until something is due.
    fn next_due(&self) -> i64 {
        let now = now();
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let due = wanted.values().map(|state| match state {
            State::Missing => now,
            State::Refused { again_at } => *again_at,
            State::Valid { renew_at } => *renew_at,
        });
        let node =
            self.node.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|node| node.renew_at);
        due.chain(node).min().unwrap_or(i64::MAX).saturating_sub(now)
    }

    async fn catch_up(&self, client: &mut IdentityClient<Channel>) -> Result<(), CertificateError> {
        let now = now();
        let node =
            self.node.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|node| node.renew_at);
        if node.is_some_and(|renew_at| renew_at <= now) {
            let mut pair = Pair::generate()?;
            let answer = call(client.renew(RenewRequest { csr: pair.request()? })).await?;
            self.take_node(&mut pair, answer.svid)?;
            tracing::info!(node = self.node_name, "renewed the node's certificate");
        }
        let due: Vec<SpiffeId> = {
            let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            let is_due = |state: &State| match state {
                State::Missing => true,
                State::Refused { again_at: at } | State::Valid { renew_at: at } => *at <= now,
            };
            wanted.iter().filter(|(_, state)| is_due(state)).map(|(id, _)| id.clone()).collect()
        };
        for id in due {
            let state = match self.issue(client, &id).await {
                Ok(state) => state,
                Err(error @ (CertificateError::Unavailable(_) | CertificateError::Key(_))) => {
                    return Err(error);
                }
                Err(error) => {
                    tracing::error!(identity = %id, %error, "no certificate for an identity of this host");
                    // What it has stays in use until it expires.
                    State::Refused { again_at: now + REFUSED_AGAIN.as_secs() as i64 }
                }
            };
            let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = wanted.get_mut(&id) {
                *known = state;
            }
            self.settled.send_replace(settled(&wanted));
        }
        Ok(())
    }

    async fn issue(
        &self,
        client: &mut IdentityClient<Channel>,
        id: &SpiffeId,
    ) -> Result<State, CertificateError> {
        let (namespace, account) =
            id.account().ok_or_else(|| CertificateError::Unfit(format!("{id} is no workload")))?;
        let mut pair = Pair::generate()?;
        let request = IssueRequest {
            namespace: namespace.to_owned(),
            service_account: account.to_owned(),
            csr: pair.request()?,
        };
        let answer = call(client.issue(request)).await?;
        if answer.spiffe_id != id.as_str() {
            return Err(CertificateError::Unfit(format!("it is of {}", answer.spiffe_id)));
        }
        check_clock(id, &answer)?;
        let svid = Svid::new(id.clone(), answer.chain.clone(), pair.key())?;
        pair.chain = answer.chain.into_iter().map(Into::into).collect();
        self.folder.store(&file_name(id), &pair)?;
        let renew_at = renewal(svid.not_before(), svid.not_after());
        self.svids.install(svid);
        tracing::info!(identity = %id, not_after = answer.not_after, "certificate in place");
        Ok(State::Valid { renew_at })
    }
}

async fn call<T>(
    answer: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, CertificateError> {
    match tokio::time::timeout(CALL, answer).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => Err(CertificateError::Unavailable(format!("no answer within {CALL:?}"))),
    }
}

fn settled(wanted: &BTreeMap<SpiffeId, State>) -> bool {
    wanted.values().all(|state| *state != State::Missing)
}

/// `_` occurs in neither namespaces nor accounts.
fn file_name(id: &SpiffeId) -> String {
    let (namespace, account) = id.account().unwrap_or(("", id.path()));
    format!("{namespace}_{}", account.replace('/', "_"))
}

/// When to renew: at half of the lifetime, give or take a tenth of it, so that a fleet does not renew at once.
fn renewal(not_before: i64, not_after: i64) -> i64 {
    let lifetime = (not_after - not_before).max(0);
    let tenth = lifetime / 10;
    not_before + lifetime / 2 + rand::rng().random_range(-tenth..=tenth)
}

fn check_clock(id: &SpiffeId, svid: &WireSvid) -> Result<(), CertificateError> {
    let now = now();
    if (svid.not_before..svid.not_after).contains(&now) {
        return Ok(());
    }
    Err(CertificateError::Clock { id: id.clone(), from: svid.not_before, to: svid.not_after, now })
}

/// The wall clock, which certificates are valid by.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_about_half_way() {
        for _ in 0..100 {
            let at = renewal(1_000, 2_000);
            assert!((1_400..=1_600).contains(&at), "{at}");
        }
        assert_eq!(renewal(5, 5), 5);
    }

    #[test]
    fn file_names_are_one_an_identity() {
        let name = |text: &str| file_name(&SpiffeId::parse(text).unwrap());
        assert_eq!(name("spiffe://td/ns/default/sa/a.b"), "default_a.b");
        assert_ne!(name("spiffe://td/ns/a-b/sa/c"), name("spiffe://td/ns/a/sa/b-c"));
    }

    #[test]
    fn a_host_that_never_joined_needs_a_token() {
        let dir = tempfile::tempdir().unwrap();
        let svids = Arc::new(Svids::new());
        let open = |token: Option<PathBuf>| {
            Certificates::open(dir.path(), "h1", "10.0.0.1".into(), token, Arc::clone(&svids)).unwrap()
        };
        let none = open(None);
        assert!(none.node().is_none() && !none.has_joined());
        assert!(matches!(none.token(), Err(CertificateError::NoToken)));
        let missing = open(Some(dir.path().join("missing"))).token().unwrap_err();
        assert!(missing.is_final() && missing.to_string().contains("missing"));
        std::fs::write(dir.path().join("bad"), "hunter2").unwrap();
        let bad = open(Some(dir.path().join("bad"))).token().unwrap_err();
        assert!(!bad.to_string().contains("hunter2"));
    }
}
