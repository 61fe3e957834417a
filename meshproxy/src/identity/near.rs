//! The intermediate certificates of our own chains, whose signatures the bundle's roots have been found to have made.
//! Peers mostly have the same, and verifying a signature is most of what a handshake costs.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::svid::{Svid, Trust};
use super::tls::algorithms;

/// One of them.
#[derive(Debug)]
pub(super) struct Near {
    certificate: CertificateDer<'static>,
    anchor: TrustAnchor<'static>,
    /// When it expires, in seconds since 1970.
    until: u64,
}

impl Near {
    /// Those that these documents have under a bundle.
    pub(super) fn of<'s>(trust: &Trust, svids: impl Iterator<Item = &'s Arc<Svid>>) -> Vec<Near> {
        let mut found: Vec<Near> = Vec::new();
        for svid in svids {
            let [leaf, between] = &svid.certified().cert[..] else { continue };
            if !found.iter().any(|near| near.certificate == *between) {
                found.extend(Near::new(trust, leaf, between));
            }
        }
        found
    }

    /// A chain that leads through it must hold by itself, for clients and for servers.
    fn new(trust: &Trust, leaf: &CertificateDer<'_>, between: &CertificateDer<'static>) -> Option<Near> {
        let leaf = webpki::EndEntityCert::try_from(leaf).ok()?;
        let (all, now) = (algorithms().all, UnixTime::now());
        for usage in [webpki::KeyUsage::client_auth(), webpki::KeyUsage::server_auth()] {
            let chain = std::slice::from_ref(between);
            let path = leaf.verify_for_usage(all, &trust.anchors, chain, now, usage, None, None).ok()?;
            path.intermediate_certificates().next()?;
        }
        let (_, parsed) = X509Certificate::from_der(between).ok()?;
        Some(Near {
            anchor: webpki::anchor_from_trusted_cert(between).ok()?.to_owned(),
            until: u64::try_from(parsed.validity().not_after.timestamp()).ok()?,
            certificate: between.clone(),
        })
    }

    /// What stands for the roots, where it is this one that a chain leads through.
    pub(super) fn anchor(&self, chain: &[CertificateDer<'_>], at: UnixTime) -> Option<&TrustAnchor<'static>> {
        let is_it = chain.first().is_some_and(|first| **first == *self.certificate);
        (is_it && at.as_secs() <= self.until).then_some(&self.anchor)
    }
}
