//! TLS that the proxy begins towards servers that are not the mesh's (DestinationRule `tls`, SIMPLE and MUTUAL).
//!
//! What a rule names are files of this host, or credentials of the control plane. They are read when tables name them
//! and again when they change, never by a request. While one cannot be used there is no connection at all: what was to
//! be encrypted never goes in the clear. A file that goes bad leaves what it held before in use; a credential that was
//! taken away is not used again.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use mesh_core::policy::mtls::{ClientCertificate, ClientTls, CredentialKey, ServerRoots, TlsOrigination};
use mesh_core::snapshot::credential::Credential;
use mesh_core::tables::Credentials;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use super::server::ServerVerifier;
use super::tls::{OneKey, provider};

/// Files are looked at so often.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// No certificate file is longer.
const LONGEST_FILE: u64 = 4 * 1024 * 1024;
/// Where the host's system keeps the roots that it trusts; the first that is there counts, as in Istio's agent.
const SYSTEM_ROOTS: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why TLS cannot be begun.
#[derive(Debug, thiserror::Error)]
pub enum OriginationError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// There is something else in a file.
    #[error("{} holds no {what}", path.display())]
    Nothing {
        /// Which.
        path: PathBuf,
        /// What should be in it.
        what: &'static str,
    },
    /// The certificate and the key do not fit, or cannot be used.
    #[error("the certificate of {} cannot be used with its key: {source}", path.display())]
    Key {
        /// The certificate's file.
        path: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// This host has no roots.
    #[error("this host's system has no roots to verify servers with")]
    NoRoots,
    /// The control plane has no such credential, or gives it to others only.
    #[error("there is no credential {0}")]
    Credential(Box<str>),
    /// The server cannot be asked for by that name.
    #[error("{0} is no name to ask a server for")]
    Name(Box<str>),
}

/// What is spoken inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inside {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Bytes.
    Opaque,
}

/// What connections are begun with, made of the files as they are.
#[derive(Debug)]
pub struct Ready {
    /// Tells it from all others of this process, so that connections are shared only where it is the same.
    pub serial: u64,
    configs: [Arc<rustls::ClientConfig>; 3],
    sni: Option<ServerName<'static>>,
}

impl Ready {
    /// The configuration for what is spoken inside.
    pub fn config(&self, inside: Inside) -> &Arc<rustls::ClientConfig> {
        &self.configs[match inside {
            Inside::Http1 => 0,
            Inside::Http2 => 1,
            Inside::Opaque => 2,
        }]
    }

    /// The name that the server is asked for: the rule's, else the one that the request is for.
    pub fn name(&self, asked: &str) -> Result<ServerName<'static>, OriginationError> {
        match &self.sni {
            Some(name) => Ok(name.clone()),
            None => server_name(asked),
        }
    }
}

fn server_name(text: &str) -> Result<ServerName<'static>, OriginationError> {
    let bare = text.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    ServerName::try_from(bare.to_owned()).map_err(|_| OriginationError::Name(text.into()))
}

/// One way of beginning TLS, in its present state.
#[derive(Debug)]
pub struct Originated {
    declared: TlsOrigination,
    state: ArcSwap<State>,
}

#[derive(Debug)]
struct State {
    sources: Sources,
    outcome: Result<Arc<Ready>, Arc<str>>,
    /// Why the newest files are not in use, where older ones are.
    stale: Option<Arc<str>>,
}

/// What it was made of.
#[derive(Debug, PartialEq, Eq)]
struct Sources {
    stamps: Vec<Stamp>,
    credentials: Vec<Option<Arc<Credential>>>,
}

impl Sources {
    /// As they are now.
    fn of(declared: &TlsOrigination, known: &Credentials) -> Sources {
        let keys = ClientTls::Originate(declared.clone()).credentials(false);
        Sources {
            stamps: files(declared).iter().map(|path| stamp(path)).collect(),
            credentials: keys.iter().map(|key| known.get(key).cloned()).collect(),
        }
    }

    fn is_complete(&self) -> bool {
        self.credentials.iter().all(Option::is_some)
    }
}

/// Tells one content of a file from another; `None` where there is no file.
type Stamp = Option<(u64, u64, i64, i64)>;

fn stamp(path: &Path) -> Stamp {
    let found = fs::metadata(path).ok()?;
    Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
}

impl Originated {
    /// Reads what it is made of.
    fn new(declared: TlsOrigination, known: &Credentials) -> Originated {
        let sources = Sources::of(&declared, known);
        let outcome = load(&declared, known).map(Arc::new).map_err(|error| {
            tracing::warn!(%error, "TLS to servers cannot be begun; what needs it is refused");
            error.to_string().into()
        });
        Originated { declared, state: ArcSwap::from_pointee(State { sources, outcome, stale: None }) }
    }

    /// What connections are begun with, or why there can be none.
    pub fn ready(&self) -> Result<Arc<Ready>, Arc<str>> {
        self.state.load().outcome.clone()
    }

    /// What is wrong with what it is made of.
    pub fn fault(&self) -> Option<Arc<str>> {
        let state = self.state.load();
        state.outcome.as_ref().err().or(state.stale.as_ref()).cloned()
    }

    /// Reads again what has changed. What cannot be used does not replace what can, but what was taken away is gone.
    fn refresh(&self, known: &Credentials, taking_away: bool) {
        let before = self.state.load_full();
        let sources = Sources::of(&self.declared, known);
        if sources == before.sources || !(taking_away || sources.is_complete()) {
            return;
        }
        let (outcome, stale) = match (load(&self.declared, known), &before.outcome) {
            (Ok(ready), _) => {
                tracing::info!("certificates for TLS to servers were read again");
                (Ok(Arc::new(ready)), None)
            }
            (Err(error @ OriginationError::Credential(_)), _) => {
                tracing::warn!(%error, "TLS to servers cannot be begun; what needs it is refused");
                (Err(error.to_string().into()), None)
            }
            (Err(error), Ok(ready)) => {
                tracing::warn!(%error, "certificates for TLS to servers cannot be read; those from before stay");
                (Ok(Arc::clone(ready)), Some(error.to_string().into()))
            }
            (Err(error), Err(_)) => (Err(error.to_string().into()), None),
        };
        self.state.store(Arc::new(State { sources, outcome, stale }));
    }
}

/// All ways that tables name.
#[derive(Debug, Default)]
pub struct Originations {
    known: Mutex<HashMap<TlsOrigination, Weak<Originated>>>,
    credentials: ArcSwap<Credentials>,
    changed: watch::Sender<()>,
}

impl Originations {
    /// The one that is declared so; its files are read if it is new.
    pub fn of(&self, declared: &TlsOrigination) -> Arc<Originated> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(declared).and_then(Weak::upgrade) {
            return found;
        }
        known.retain(|_, one| one.strong_count() > 0);
        let made = Arc::new(Originated::new(declared.clone(), &self.credentials.load()));
        known.insert(declared.clone(), Arc::downgrade(&made));
        made
    }

    /// What is wrong with the files of any.
    pub fn faults(&self) -> Vec<Arc<str>> {
        let mut faults: Vec<Arc<str>> = self.alive().iter().filter_map(|one| one.fault()).collect();
        faults.sort_unstable();
        faults.dedup();
        faults
    }

    /// Takes the credentials of tables that are about to be in force. What they do not have any more stays in use until
    /// [`Originations::refresh`], which follows when they are: requests go on with what they began with.
    pub fn provide(&self, credentials: &Arc<Credentials>) {
        if Arc::ptr_eq(&self.credentials.load(), credentials) {
            return;
        }
        self.credentials.store(Arc::clone(credentials));
        self.refresh_all(false);
    }

    /// Reads again what has changed.
    pub fn refresh(&self) {
        self.refresh_all(true);
    }

    fn refresh_all(&self, taking_away: bool) {
        let before = self.faults();
        let credentials = self.credentials.load_full();
        for one in self.alive() {
            one.refresh(&credentials, taking_away);
        }
        if self.faults() != before {
            self.changed.send_replace(());
        }
    }

    /// Hears of every change of what is wrong with files that are in use.
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    fn alive(&self) -> Vec<Arc<Originated>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().filter_map(Weak::upgrade).collect()
    }

    /// Looks at the files again and again; runs as long as the process.
    pub async fn keep_fresh(self: Arc<Self>, told: impl Fn(usize)) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let all = Arc::clone(&self);
            // Files may lie on something slow.
            let looked = tokio::task::spawn_blocking(move || {
                all.refresh();
                all.faults().len()
            });
            told(looked.await.unwrap_or(0));
        }
    }
}

fn files(declared: &TlsOrigination) -> Vec<PathBuf> {
    let mut files = Vec::new();
    if let Some(ClientCertificate::Files { chain, key }) = &declared.certificate {
        files.extend([PathBuf::from(&**chain), PathBuf::from(&**key)]);
    }
    match &declared.roots {
        ServerRoots::File(path) => files.push(PathBuf::from(&**path)),
        ServerRoots::System => files.extend(system_roots()),
        ServerRoots::Credential(_) | ServerRoots::Unverified => {}
    }
    files.extend(declared.crl.as_deref().map(PathBuf::from));
    files
}

/// The file of the system's roots: `SSL_CERT_FILE` as elsewhere, else one of the usual ones.
fn system_roots() -> Option<PathBuf> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    named.or_else(|| SYSTEM_ROOTS.iter().map(PathBuf::from).find(|path| path.exists()))
}

fn load(declared: &TlsOrigination, known: &Credentials) -> Result<Ready, OriginationError> {
    let credential = |key: CredentialKey| match known.get(&key) {
        Some(credential) => Ok((credential, PathBuf::from(key.to_string()))),
        None => Err(OriginationError::Credential(key.to_string().into())),
    };
    let mut revoking = None;
    let roots = match &declared.roots {
        ServerRoots::Unverified => None,
        ServerRoots::File(path) => Some(certificates(Path::new(&**path))?),
        ServerRoots::System => Some(certificates(&system_roots().ok_or(OriginationError::NoRoots)?)?),
        ServerRoots::Credential(name) => {
            let (found, place) = credential(CredentialKey::Authority(name.clone()))?;
            let other = &found.other.0;
            revoking = (!other.is_empty()).then(|| revoked_in(other, &place)).transpose()?;
            Some(certificates_in(&found.certificates.0, &place)?)
        }
    };
    let crls = match declared.crl.as_deref() {
        Some(path) => Some(revoked_in(&read(Path::new(path))?, Path::new(path))?),
        None => revoking,
    };
    let verifier = ServerVerifier::new(roots, crls.as_deref().unwrap_or_default(), declared.names.clone());
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("the provider has both versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &declared.certificate {
        None => builder.with_no_client_auth(),
        Some(ClientCertificate::Files { chain, key }) => {
            let key = certified(Path::new(&**chain), Path::new(&**key))?;
            builder.with_client_cert_resolver(Arc::new(OneKey::new(key)))
        }
        Some(ClientCertificate::Credential(name)) => {
            let (found, place) = credential(CredentialKey::Shown(name.clone()))?;
            let chain = certificates_in(&found.certificates.0, &place)?;
            let key = joined(chain, &found.other.0, &place, &place)?;
            builder.with_client_cert_resolver(Arc::new(OneKey::new(key)))
        }
    };
    config.enable_early_data = false;
    let speaking = |protocol: &[&[u8]]| {
        let mut config = config.clone();
        config.alpn_protocols = protocol.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    };
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Ok(Ready {
        // Relaxed: only that no number comes twice matters.
        serial: NEXT.fetch_add(1, Ordering::Relaxed),
        configs: [speaking(&[b"http/1.1"]), speaking(&[b"h2"]), speaking(&[])],
        sni: declared.sni.as_deref().map(server_name).transpose()?,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, OriginationError> {
    let failed = |source| OriginationError::Read { path: path.to_owned(), source };
    let found = fs::metadata(path).map_err(failed)?;
    if !found.is_file() || found.len() > LONGEST_FILE {
        return Err(failed(std::io::Error::other("not a file, or too long")));
    }
    fs::read(path).map_err(failed)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, OriginationError> {
    certificates_in(&read(path)?, path)
}

fn certificates_in(text: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, OriginationError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| nothing(path, "certificate"))
}

fn revoked_in(
    text: &[u8],
    path: &Path,
) -> Result<Vec<CertificateRevocationListDer<'static>>, OriginationError> {
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(text).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| nothing(path, "revocation list"))
}

fn certified(chain: &Path, key: &Path) -> Result<Arc<CertifiedKey>, OriginationError> {
    joined(certificates(chain)?, &read(key)?, chain, key)
}

fn joined(
    certificates: Vec<CertificateDer<'static>>,
    private: &[u8],
    chain: &Path,
    key: &Path,
) -> Result<Arc<CertifiedKey>, OriginationError> {
    let private = PrivateKeyDer::from_pem_slice(private).map_err(|_| nothing(key, "private key"))?;
    let joined = CertifiedKey::from_der(certificates, private, &provider());
    joined.map(Arc::new).map_err(|source| OriginationError::Key { path: chain.to_owned(), source })
}

fn nothing(path: &Path, what: &'static str) -> OriginationError {
    OriginationError::Nothing { path: path.to_owned(), what }
}
