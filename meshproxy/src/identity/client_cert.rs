//! `x-forwarded-client-cert`: what the application is told of the certificate that its caller has shown, as Istio's
//! sidecars write it.

use std::fmt::Write as _;

use http::HeaderValue;
use mesh_core::vocab::identity::SpiffeId;
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Name};

/// `By=OURS;Hash=SHA-256;Subject="..";URI=THEIRS`, then `;DNS=NAME` for each DNS name.
pub fn element(own: &SpiffeId, certificate: &CertificateDer<'_>, peer: &SpiffeId) -> Option<HeaderValue> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let mut text = format!("By={own};Hash=");
    for byte in Sha256::digest(certificate) {
        let _ = write!(text, "{byte:02x}");
    }
    let _ = write!(text, ";Subject=\"{}\";URI={peer}", subject(parsed.subject()));
    let names = parsed.subject_alternative_name().ok().flatten();
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        if let GeneralName::DNSName(name) = name {
            let _ = write!(text, ";DNS={name}");
        }
    }
    HeaderValue::from_str(&text).ok()
}

/// A name as RFC 2253 writes it, last part first.
fn subject(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().collect();
    let mut out = String::new();
    for part in parts.into_iter().rev() {
        for (index, attribute) in part.iter().enumerate() {
            if !out.is_empty() {
                out.push(if index == 0 { ',' } else { '+' });
            }
            match oid2abbrev(attribute.attr_type(), oid_registry()) {
                Ok(short) => out.push_str(short),
                Err(_) => out.push_str(&attribute.attr_type().to_id_string()),
            }
            out.push('=');
            for character in attribute.as_str().unwrap_or_default().chars() {
                if matches!(character, '"' | '\\' | ',' | '+' | '<' | '>' | ';') {
                    out.push('\\');
                }
                out.push(character);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tls::tests::TestCa;
    use rcgen::{DistinguishedName, DnType, SanType};

    #[test]
    fn everything_that_istio_tells() {
        let own = SpiffeId::parse("spiffe://cluster.local/ns/default/sa/b").unwrap();
        let check = |change: &dyn Fn(&mut rcgen::CertificateParams), end: &str| {
            let svid = TestCa::new().svid_with("spiffe://cluster.local/ns/default/sa/a", change);
            let certificate = &svid.certified().cert[0];
            let text = element(&own, certificate, svid.id()).unwrap();
            let text = text.to_str().unwrap();
            let hash: String = Sha256::digest(certificate).iter().map(|byte| format!("{byte:02x}")).collect();
            let expected = format!("By=spiffe://cluster.local/ns/default/sa/b;Hash={hash};Subject=");
            assert_eq!(text.strip_prefix(&*expected), Some(end));
        };
        let uri = "URI=spiffe://cluster.local/ns/default/sa/a";
        check(&|params| params.distinguished_name = DistinguishedName::new(), &format!("\"\";{uri}"));
        check(
            &|params| {
                params.distinguished_name = DistinguishedName::new();
                params.distinguished_name.push(DnType::OrganizationName, "a, \"b\"");
                params.distinguished_name.push(DnType::CommonName, "c");
                params.subject_alt_names.push(SanType::DnsName("a.example".try_into().unwrap()));
                params.subject_alt_names.push(SanType::DnsName("b.example".try_into().unwrap()));
            },
            &format!("\"CN=c,O=a\\, \\\"b\\\"\";{uri};DNS=a.example;DNS=b.example"),
        );
    }
}
