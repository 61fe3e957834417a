//! Keys and chains on disk. One file an identity holds its key and its chain, so that they are replaced together.
//!
//! ```text
//! DATA/identities/node.pem          the node's key, and its chain once it has joined
//! DATA/identities/bundle.pem        the roots that came with it
//! DATA/identities/NS_ACCOUNT.pem    a workload identity's key and chain
//! ```

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::files::{self, FileError};

/// Why keys cannot be kept or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The data directory.
    #[error(transparent)]
    File(#[from] FileError),
    /// No key can be made.
    #[error("cannot make a key: {0}")]
    Making(#[from] rcgen::Error),
}

/// A key with the chain that certifies it; the chain is empty before the first certificate.
pub struct Pair {
    key: PrivatePkcs8KeyDer<'static>,
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
}

impl Pair {
    /// A new P-256 key.
    pub fn generate() -> Result<Pair, KeyError> {
        let key = KeyPair::generate()?;
        Ok(Pair { key: PrivatePkcs8KeyDer::from(key.serialize_der()), chain: Vec::new() })
    }

    /// The key.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }

    /// A certificate request for the key, DER. It names nothing: the control plane decides what a certificate says.
    pub fn request(&self) -> Result<Vec<u8>, KeyError> {
        let key = KeyPair::try_from(&self.key)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        Ok(params.serialize_request(&key)?.der().to_vec())
    }
}

/// The folder of identities in the data directory.
pub struct KeyFolder(PathBuf);

impl KeyFolder {
    /// Makes the folder if it is missing.
    pub fn open(data_dir: &Path) -> Result<KeyFolder, KeyError> {
        let folder = data_dir.join("identities");
        files::private_folder(&folder)?;
        Ok(KeyFolder(folder))
    }

    /// Keeps a pair.
    pub fn store(&self, name: &str, pair: &Pair) -> Result<(), KeyError> {
        let mut text = pem("PRIVATE KEY", pair.key.secret_pkcs8_der());
        pair.chain.iter().for_each(|certificate| text.push_str(&pem("CERTIFICATE", certificate)));
        Ok(files::replace(&self.path(name), text.as_bytes())?)
    }

    /// A kept pair. One that cannot be read is set aside, as if there were none.
    pub fn load(&self, name: &str) -> Result<Option<Pair>, KeyError> {
        let path = self.path(name);
        let Some(content) = files::read(&path)? else { return Ok(None) };
        let key = PrivatePkcs8KeyDer::from_pem_slice(&content);
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content).collect();
        match (key, chain) {
            (Ok(key), Ok(chain)) => Ok(Some(Pair { key, chain })),
            _ => {
                let aside = files::set_aside(&path)?;
                tracing::warn!(file = %aside.display(), "a key file was damaged and is set aside; a new key is made");
                Ok(None)
            }
        }
    }

    /// Keeps the trust bundle.
    pub fn store_bundle(&self, roots: &[Vec<u8>]) -> Result<(), KeyError> {
        let text: String = roots.iter().map(|root| pem("CERTIFICATE", root)).collect();
        Ok(files::replace(&self.path("bundle"), text.as_bytes())?)
    }

    /// The kept trust bundle; empty if there is none.
    pub fn load_bundle(&self) -> Result<Vec<CertificateDer<'static>>, KeyError> {
        let content = files::read(&self.path("bundle"))?.unwrap_or_default();
        Ok(CertificateDer::pem_slice_iter(&content).filter_map(Result::ok).collect())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.pem"))
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in encoded.as_bytes().chunks(64) {
        // Base64 is ASCII.
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let folder = KeyFolder::open(dir.path()).unwrap();
        assert!(folder.load("node").unwrap().is_none());
        let mut pair = Pair::generate().unwrap();
        let certificate = CertificateParams::default()
            .self_signed(&KeyPair::try_from(&pair.key).unwrap())
            .unwrap()
            .der()
            .clone();
        pair.chain.push(certificate.clone());
        folder.store("node", &pair).unwrap();
        let back = folder.load("node").unwrap().unwrap();
        assert_eq!(back.chain, std::slice::from_ref(&certificate));
        assert_eq!(back.key.secret_pkcs8_der(), pair.key.secret_pkcs8_der());
        folder.store_bundle(&[certificate.to_vec()]).unwrap();
        assert_eq!(folder.load_bundle().unwrap(), [certificate]);
    }

    #[test]
    fn a_damaged_file_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let folder = KeyFolder::open(dir.path()).unwrap();
        std::fs::write(folder.path("node"), "garbage").unwrap();
        assert!(folder.load("node").unwrap().is_none());
        assert!(dir.path().join("identities/node.pem.damaged").exists());
    }

    #[test]
    fn a_request_is_signed_by_its_key() {
        use x509_parser::certification_request::X509CertificationRequest;
        use x509_parser::prelude::FromDer;
        let pair = Pair::generate().unwrap();
        let request = pair.request().unwrap();
        let (_, parsed) = X509CertificationRequest::from_der(&request).unwrap();
        let key = KeyPair::try_from(&pair.key).unwrap();
        use rcgen::PublicKeyData;
        assert_eq!(parsed.certification_request_info.subject_pki.raw, key.subject_public_key_info());
    }
}
