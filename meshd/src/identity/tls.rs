//! meshd's own TLS: its certificate, renewed in place, and the check of those who call.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig as Config};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::authority::{Authority, AuthorityError};

/// Why meshd cannot serve TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Its certificate could not be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// rustls refused what it was given.
    #[error("cannot set up TLS: {0}")]
    Setup(String),
}

/// The present TLS configuration of the gRPC port.
pub struct ServerTls {
    authority: Arc<Authority>,
    names: Vec<String>,
    ttl: Duration,
    current: ArcSwap<ServerConfig>,
}

impl ServerTls {
    /// Makes the first certificate.
    pub fn new(authority: Arc<Authority>, names: Vec<String>, ttl: Duration) -> Result<ServerTls, TlsError> {
        let current = ArcSwap::new(configuration(&authority, &names, ttl)?);
        Ok(ServerTls { authority, names, ttl, current })
    }

    /// What a new connection is to use.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Renews the certificate at half of its life, for ever.
    pub async fn keep_fresh(&self) {
        let mut pause = self.ttl / 2;
        loop {
            tokio::time::sleep(pause).await;
            pause = match configuration(&self.authority, &self.names, self.ttl) {
                Ok(fresh) => {
                    self.current.store(fresh);
                    self.ttl / 2
                }
                Err(error) => {
                    tracing::error!(%error, "meshd cannot renew its own certificate");
                    Duration::from_secs(10)
                }
            };
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn configuration(
    authority: &Authority,
    names: &[String],
    ttl: Duration,
) -> Result<Arc<ServerConfig>, TlsError> {
    let setup = |error: &dyn std::fmt::Display| TlsError::Setup(error.to_string());
    let mut roots = RootCertStore::empty();
    for root in authority.bundle() {
        roots.add(root).map_err(|error| setup(&error))?;
    }
    // Join is the one call without a certificate; every other call asks for it again in `attest`.
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| setup(&error))?;
    let (issued, key) = authority.serving(names, ttl)?;
    let mut chain = issued.chain;
    // A joining host knows the root by its pin only, so it is sent along.
    chain.push(authority.root().clone());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = Config::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| setup(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| setup(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would carry a verdict on a certificate past its revocation.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Arc::new(config))
}
