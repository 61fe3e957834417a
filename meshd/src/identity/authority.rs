//! The signing half: the mesh's root, its intermediate, and the certificates that they sign.
//!
//! The root signs one intermediate and is not used again. What a certificate says is decided here from an identity
//! that the caller has already checked; a request gives its public key and nothing else. Leaves carry one URI SAN,
//! critical because their subject is empty (X509-SVID sections 2 and 4).

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use mesh_core::vocab::identity::{Mark, SpiffeId, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use x509_parser::prelude::FromDer;

use super::csr::RequestedKey;
use super::files::{self, CaFiles, FileError};
use crate::clock;

/// How far a host's clock may lag behind ours before a fresh certificate looks not yet valid to it.
const BACKDATED: Duration = Duration::from_secs(60);
const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Why the authority cannot work.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Its files cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Making(#[from] rcgen::Error),
    /// This host's clock and the authority's validity do not fit.
    #[error(
        "this host's clock says {now}, but the certificate authority is valid from {from} to {to}; set the clock"
    )]
    Clock {
        /// The clock.
        now: String,
        /// Validity of the authority.
        from: String,
        /// Validity of the authority.
        to: String,
    },
    /// Given certificates that do not fit together.
    #[error("{0}")]
    Unfit(String),
}

/// A certificate with what verifies it.
#[derive(Debug, Clone)]
pub struct Issued {
    /// Whose it is.
    pub id: SpiffeId,
    /// Leaf first, root excluded.
    pub chain: Vec<CertificateDer<'static>>,
    /// Start of its validity, in seconds since 1970.
    pub not_before: i64,
    /// End of its validity, in seconds since 1970.
    pub not_after: i64,
}

/// Files of an authority that the operator brings.
#[derive(Debug, Clone)]
pub struct Brought<'a> {
    /// `--ca-cert`: the certificate that signs.
    pub certificate: &'a Path,
    /// `--ca-key`: its key.
    pub key: &'a Path,
    /// `--ca-chain`: from its issuer up to the root; none if the certificate is itself the root.
    pub chain: Option<&'a Path>,
}

/// The root, the intermediate and what they sign.
pub struct Authority {
    domain: TrustDomain,
    issuer: Issuer<'static, KeyPair>,
    /// What follows the leaf: the signing certificate up to the root, root excluded.
    above: Vec<CertificateDer<'static>>,
    root: CertificateDer<'static>,
    not_before: i64,
    not_after: i64,
}

impl Authority {
    /// Reads the authority in `directory`, or makes one there.
    pub fn open(directory: &Path, domain: &TrustDomain) -> Result<Authority, AuthorityError> {
        let made = match files::read(directory)? {
            Some(found) => found,
            None => {
                let made = make(domain, clock::now())?;
                files::write(directory, &made)?;
                tracing::info!(directory = %directory.display(), trust_domain = %domain, "made a certificate authority");
                made
            }
        };
        let intermediate_path = directory.join("intermediate.pem");
        let mut chain = files::certificates(&intermediate_path, &made.intermediate)?;
        chain.extend(files::certificates(&directory.join("root.pem"), &made.root)?);
        Authority::from_parts(
            domain,
            &intermediate_path,
            &directory.join("intermediate.key"),
            &made.intermediate_key,
            chain,
        )
    }

    /// Takes the operator's own authority.
    pub fn bring(brought: &Brought<'_>, domain: &TrustDomain) -> Result<Authority, AuthorityError> {
        let pem = files::text(brought.certificate)?;
        let mut chain = files::certificates(brought.certificate, &pem)?;
        if let Some(path) = brought.chain {
            for certificate in files::certificates(path, &files::text(path)?)? {
                // Many tools repeat the signing certificate at the head of the chain file.
                if !chain.contains(&certificate) {
                    chain.push(certificate);
                }
            }
        }
        let key = files::text(brought.key)?;
        Authority::from_parts(domain, brought.certificate, brought.key, &key, chain)
    }

    fn from_parts(
        domain: &TrustDomain,
        certificate_path: &Path,
        key_path: &Path,
        key_pem: &str,
        mut chain: Vec<CertificateDer<'static>>,
    ) -> Result<Authority, AuthorityError> {
        let bad_key =
            |error: rcgen::Error| FileError::Content { path: key_path.to_owned(), reason: error.to_string() };
        let key = KeyPair::from_pem(key_pem).map_err(bad_key)?;
        let (not_before, not_after) = check_chain(certificate_path, &chain)?;
        check_clock(not_before, not_after, clock::now_seconds())?;
        let (_, signing) = x509_parser::parse_x509_certificate(&chain[0])
            .map_err(|error| AuthorityError::Unfit(error.to_string()))?;
        if signing.public_key().raw != key.subject_public_key_info() {
            return Err(AuthorityError::Unfit(format!(
                "{} is not the key of {}",
                key_path.display(),
                certificate_path.display()
            )));
        }
        let issuer = Issuer::from_ca_cert_der(&chain[0], key)?;
        let Some(root) = chain.pop() else {
            return Err(AuthorityError::Unfit("no certificate".to_owned()));
        };
        Ok(Authority { domain: domain.clone(), issuer, above: chain, root, not_before, not_after })
    }

    /// The trust domain that it speaks for.
    pub fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The trust bundle: what proxies verify others with.
    pub fn bundle(&self) -> Vec<CertificateDer<'static>> {
        vec![self.root.clone()]
    }

    /// The root, as meshd presents it so that a joining host can compare it with the pin in its token.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// Start and end of the time in which it can sign, in seconds since 1970.
    pub fn validity(&self) -> (i64, i64) {
        (self.not_before, self.not_after)
    }

    /// SHA-256 of the root's DER.
    pub fn pin(&self) -> [u8; 32] {
        Sha256::digest(&self.root).into()
    }

    /// Certifies the key of a request for an identity that the caller has checked. The serial number begins with the
    /// mark of the host that asks.
    pub fn issue(
        &self,
        id: &SpiffeId,
        key: &RequestedKey,
        ttl: Duration,
        mark: Mark,
    ) -> Result<Issued, AuthorityError> {
        self.sign(id, &[], &key.key, ttl, serial_of(mark))
    }

    /// Makes meshd's own certificate and key.
    pub fn serving(&self, names: &[String], ttl: Duration) -> Result<(Issued, KeyPair), AuthorityError> {
        let mut alternative = Vec::new();
        for name in names {
            alternative.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into()?),
            });
        }
        let key = KeyPair::generate()?;
        let issued = self.sign(&SpiffeId::control(&self.domain), &alternative, &key, ttl, serial())?;
        Ok((issued, key))
    }

    fn sign(
        &self,
        id: &SpiffeId,
        names: &[SanType],
        key: &impl PublicKeyData,
        ttl: Duration,
        serial: SerialNumber,
    ) -> Result<Issued, AuthorityError> {
        let now = clock::now_seconds();
        check_clock(self.not_before, self.not_after, now)?;
        let not_before = (now - seconds(BACKDATED)).max(self.not_before);
        let not_after = (now + seconds(ttl)).min(self.not_after);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.not_before = moment(not_before);
        params.not_after = moment(not_after);
        params.serial_number = Some(serial);
        params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
        params.subject_alt_names.extend_from_slice(names);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(key, &self.issuer)?;
        let mut chain = vec![leaf.der().clone()];
        chain.extend_from_slice(&self.above);
        Ok(Issued { id: id.clone(), chain, not_before, not_after })
    }
}

fn make(domain: &TrustDomain, now: OffsetDateTime) -> Result<CaFiles, AuthorityError> {
    let authority = |name: &str, constraint| -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, domain.as_str());
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = now - Duration::from_secs(3600);
        params.not_after = now + CA_LIFETIME;
        params.serial_number = Some(serial());
        params.is_ca = IsCa::Ca(constraint);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    };
    let root_key = KeyPair::generate()?;
    let root_params = authority("mesh root", BasicConstraints::Unconstrained);
    let root = root_params.self_signed(&root_key)?;
    let intermediate_key = KeyPair::generate()?;
    let mut params = authority("mesh intermediate", BasicConstraints::Constrained(0));
    params.use_authority_key_identifier_extension = true;
    let root_issuer = Issuer::from_params(&root_params, &root_key);
    let intermediate = params.signed_by(&intermediate_key, &root_issuer)?;
    Ok(CaFiles {
        root: root.pem(),
        root_key: root_key.serialize_pem(),
        intermediate: intermediate.pem(),
        intermediate_key: intermediate_key.serialize_pem(),
    })
}

/// The chain goes from the signing certificate to a self-signed root, each an authority signed by the next; answers
/// the time in which all are valid.
fn check_chain(path: &Path, chain: &[CertificateDer<'_>]) -> Result<(i64, i64), AuthorityError> {
    let unfit = |reason: &str| AuthorityError::Unfit(format!("{}: {reason}", path.display()));
    let mut parsed = Vec::new();
    for certificate in chain {
        let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(certificate)
            .map_err(|error| unfit(&error.to_string()))?;
        parsed.push(certificate);
    }
    let mut validity = (i64::MIN, i64::MAX);
    for (index, certificate) in parsed.iter().enumerate() {
        let is_ca = certificate.basic_constraints().ok().flatten().is_some_and(|found| found.value.ca);
        if !is_ca {
            return Err(unfit("not the certificate of an authority (CA:TRUE is missing)"));
        }
        let issuer = parsed.get(index + 1).unwrap_or(certificate);
        if certificate.issuer() != issuer.subject() {
            return Err(unfit(
                "the chain does not lead to a self-signed root; give the certificates up to the root with --ca-chain",
            ));
        }
        let (from, to) =
            (certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp());
        validity = (validity.0.max(from), validity.1.min(to));
    }
    Ok(validity)
}

fn check_clock(from: i64, to: i64, now: i64) -> Result<(), AuthorityError> {
    if (from..to).contains(&now) {
        return Ok(());
    }
    Err(AuthorityError::Clock { now: clock::text(now), from: clock::text(from), to: clock::text(to) })
}

fn serial() -> SerialNumber {
    serial_of(rand::random())
}

/// A serial number that begins with a mark; the rest is nobody's to guess.
fn serial_of(mark: Mark) -> SerialNumber {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&fit(mark));
    bytes[8..].copy_from_slice(&rand::random::<[u8; 8]>());
    SerialNumber::from_slice(&bytes)
}

/// A mark as a serial number can begin with it: positive, and never with a zero that encodings leave out
/// (RFC 5280 section 4.1.2.2).
pub fn fit(mut mark: Mark) -> Mark {
    mark[0] = mark[0] & 0x7f | 0x40;
    mark
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX / 4)
}

fn moment(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use x509_parser::extensions::GeneralName;

    use super::*;
    use crate::identity::csr::requested_key;

    fn domain() -> TrustDomain {
        TrustDomain::new("cluster.local").unwrap()
    }

    fn key() -> RequestedKey {
        let pair = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["evil.example".to_owned()]).unwrap();
        params
            .subject_alt_names
            .push(SanType::URI("spiffe://cluster.local/mesh/control".try_into().unwrap()));
        requested_key(params.serialize_request(&pair).unwrap().der()).unwrap()
    }

    #[test]
    fn a_leaf_says_what_we_decided_and_nothing_of_the_request() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(&dir.path().join("ca"), &domain()).unwrap();
        let id = SpiffeId::workload(&domain(), "default", "reviews").unwrap();
        let mark = fit([0xff; 8]);
        let issued = authority.issue(&id, &key(), Duration::from_secs(3600), mark).unwrap();
        assert_eq!(issued.chain.len(), 2);
        let (_, leaf) = x509_parser::parse_x509_certificate(&issued.chain[0]).unwrap();
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        assert!(names.critical);
        assert_eq!(names.value.general_names, [GeneralName::URI(id.as_str())]);
        assert!(!leaf.is_ca());
        assert_eq!((&leaf.raw_serial()[..8], leaf.raw_serial().len()), (&mark[..], 16));
        assert_eq!(leaf.subject().iter().count(), 0);
        let (_, intermediate) = x509_parser::parse_x509_certificate(&issued.chain[1]).unwrap();
        assert_eq!(intermediate.basic_constraints().unwrap().unwrap().value.path_len_constraint, Some(0));
        assert!(issued.not_before <= clock::now_seconds() - 59);
    }

    #[test]
    fn it_is_the_same_authority_after_a_restart_and_its_keys_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca");
        let first = Authority::open(&ca, &domain()).unwrap().pin();
        assert_eq!(Authority::open(&ca, &domain()).unwrap().pin(), first);
        for (name, mode) in [("", 0o700), ("root.key", 0o600), ("intermediate.key", 0o600)] {
            let found = std::fs::metadata(ca.join(name)).unwrap().permissions().mode() & 0o777;
            assert_eq!(found, mode, "{name}");
        }
        // The root signs nothing any more: its key may be moved to a safer place.
        std::fs::remove_file(ca.join("root.key")).unwrap();
        assert_eq!(Authority::open(&ca, &domain()).unwrap().pin(), first);
        std::fs::remove_file(ca.join("intermediate.key")).unwrap();
        let error = Authority::open(&ca, &domain()).err().unwrap();
        assert!(error.to_string().contains("restore it"), "{error}");
    }

    #[test]
    fn leaves_do_not_outlive_the_authority() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::open(&dir.path().join("ca"), &domain()).unwrap();
        let id = SpiffeId::node(&domain(), "h1").unwrap();
        let issued = authority.issue(&id, &key(), Duration::from_secs(u32::MAX.into()), [0; 8]).unwrap();
        assert_eq!(issued.not_after, authority.not_after);
    }

    #[test]
    fn an_authority_that_is_brought() {
        let dir = tempfile::tempdir().unwrap();
        let made = make(&domain(), clock::now()).unwrap();
        let (cert, key, chain) =
            (dir.path().join("c.pem"), dir.path().join("c.key"), dir.path().join("chain.pem"));
        std::fs::write(&cert, &made.intermediate).unwrap();
        std::fs::write(&key, &made.intermediate_key).unwrap();
        std::fs::write(&chain, &made.root).unwrap();
        let with = |chain| Authority::bring(&Brought { certificate: &cert, key: &key, chain }, &domain());
        with(Some(chain.as_path())).unwrap();
        let error = with(None).err().unwrap();
        assert!(error.to_string().contains("--ca-chain"), "{error}");
        std::fs::write(&key, &made.root_key).unwrap();
        let error = with(Some(chain.as_path())).err().unwrap();
        assert!(error.to_string().contains("is not the key of"), "{error}");
    }
}
