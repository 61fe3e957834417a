//! Verifies servers that are not the mesh's: their chain, what is revoked, and one of the names that a rule demands.

use std::net::IpAddr;

use mesh_core::policy::mtls::ServerNames;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, TrustAnchor, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::peer::certificate_error;
use super::tls::algorithms;

/// What a server must prove.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    /// `None` takes every certificate.
    roots: Option<Vec<TrustAnchor<'static>>>,
    revoked: Vec<CertRevocationList<'static>>,
    names: ServerNames,
}

impl ServerVerifier {
    /// Demands a chain to one of these roots and one of these names. Roots that cannot be read are left out, as bundles
    /// of systems hold strange ones.
    pub(super) fn new(
        roots: Option<Vec<CertificateDer<'static>>>,
        revoked: &[CertificateRevocationListDer<'static>],
        names: ServerNames,
    ) -> ServerVerifier {
        let roots = roots.map(|roots| {
            let mut store = rustls::RootCertStore::empty();
            store.add_parsable_certificates(roots);
            store.roots
        });
        let revoked = revoked.iter().filter_map(|list| OwnedCertRevocationList::from_der(list).ok());
        ServerVerifier { roots, revoked: revoked.map(CertRevocationList::from).collect(), names }
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        asked: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let Some(roots) = &self.roots else { return Ok(()) };
        let refused = |error| rustls::Error::InvalidCertificate(certificate_error(error));
        let certificate = webpki::EndEntityCert::try_from(leaf).map_err(refused)?;
        let lists: Vec<&CertRevocationList<'_>> = self.revoked.iter().collect();
        // As in Envoy: where there are lists, one must speak of every certificate.
        let revocation = match lists.is_empty() {
            true => None,
            false => webpki::RevocationOptionsBuilder::new(&lists).ok().map(|builder| builder.build()),
        };
        let usage = webpki::KeyUsage::server_auth();
        certificate
            .verify_for_usage(algorithms().all, roots, intermediates, now, usage, revocation, None)
            .map_err(refused)?;
        match &self.names {
            ServerNames::Any => Ok(()),
            ServerNames::Requested => certificate.verify_is_valid_for_subject_name(asked).map_err(refused),
            ServerNames::OneOf(names) if has_one(leaf, names.iter().map(|name| &**name)) => Ok(()),
            ServerNames::OneOf(_) => {
                Err(rustls::Error::InvalidCertificate(CertificateError::NotValidForName))
            }
        }
    }
}

/// Whether a certificate has one of these among its names: DNS, URI, address or mail.
fn has_one<'n>(certificate: &CertificateDer<'_>, mut names: impl Iterator<Item = &'n str>) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    let Ok(Some(found)) = parsed.subject_alternative_name() else { return false };
    let found = &found.value.general_names;
    names.any(|name| {
        found.iter().any(|found| match found {
            GeneralName::DNSName(dns) => dns_covers(dns, name),
            GeneralName::URI(text) | GeneralName::RFC822Name(text) => *text == name,
            GeneralName::IPAddress(bytes) => name.parse().is_ok_and(|address| match address {
                IpAddr::V4(address) => address.octets() == **bytes,
                IpAddr::V6(address) => address.octets() == **bytes,
            }),
            _ => false,
        })
    })
}

/// A name of a certificate may begin with `*.`, which stands for one label.
fn dns_covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(parent) => name
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent)),
        None => pattern.eq_ignore_ascii_case(name),
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify(end_entity, intermediates, server_name, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let check = |pattern: &str, name: &str, expected| {
            assert_eq!(dns_covers(pattern, name), expected, "{pattern} {name}");
        };
        check("a.example", "A.example", true);
        check("*.example", "a.example", true);
        check("*.example", "b.a.example", false);
        check("*.example", "example", false);
        check("*.example", ".example", false);
        check("a.example", "b.example", false);
    }
}
