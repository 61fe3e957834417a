//! Whether a certificate that operators brought along can be presented.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::clock;

/// Why a certificate (PEM) cannot be presented; `None` where it can.
pub fn judge(certificate: &[u8]) -> Option<String> {
    let chain: Result<Vec<CertificateDer<'_>>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    let chain = match chain {
        Ok(chain) if chain.is_empty() => return Some("there is no certificate in it (PEM)".to_owned()),
        Ok(chain) => chain,
        Err(error) => return Some(format!("the certificate is not PEM: {error}")),
    };
    let now = clock::now_seconds();
    for der in &chain {
        let Ok((_, certificate)) = x509_parser::parse_x509_certificate(der) else {
            return Some("the certificate cannot be read".to_owned());
        };
        let validity = certificate.validity();
        if validity.not_after.timestamp() < now {
            let end = clock::text(validity.not_after.timestamp());
            return Some(format!("the certificate ended at {end}"));
        }
        if validity.not_before.timestamp() > now {
            let begin = clock::text(validity.not_before.timestamp());
            return Some(format!("the certificate is not valid before {begin}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(from: i32, to: i32) -> String {
        let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn what_can_be_presented() {
        assert_eq!(judge(made(2020, 2200).as_bytes()), None);
        let says = |pem: &[u8], expected: &str| {
            let found = judge(pem).unwrap();
            assert!(found.contains(expected), "{found}");
        };
        says(made(2000, 2001).as_bytes(), "ended at 2001-01-01");
        says(made(2150, 2200).as_bytes(), "not valid before 2150-01-01");
        says(b"", "no certificate");
        says(b"nonsense", "no certificate");
        says(b"-----BEGIN CERTIFICATE-----\naGFsbG8=\n-----END CERTIFICATE-----\n", "cannot be read");
    }
}
