//! Who is calling: the node behind the client certificate of a connection.
//!
//! TLS has verified the chain before a request is seen. Here the certificate is read: one URI SAN, ours, a node's,
//! and the node is in good standing with this very key.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::vocab::identity::{SpiffeId, TrustDomain};
use rustls_pki_types::CertificateDer;
use tonic::{Request, Status};
use x509_parser::extensions::GeneralName;

use super::csr::{Fingerprint, fingerprint};
use super::members::Members;
use crate::store::NodeRecord;

/// What is known of a connection; tonic puts it into every request of it.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Where it came from.
    pub remote: SocketAddr,
    /// The verified client certificate, if one was presented.
    pub certificate: Option<CertificateDer<'static>>,
}

/// A calling node.
#[derive(Clone, Debug)]
pub struct Caller {
    /// What is known of it.
    pub node: Arc<NodeRecord>,
    /// The key of its certificate.
    pub key: Fingerprint,
    /// Where the call came from.
    pub remote: SocketAddr,
}

/// The node that calls, or why it may not.
pub fn caller<T>(request: &Request<T>, domain: &TrustDomain, members: &Members) -> Result<Caller, Status> {
    let connection = request
        .extensions()
        .get::<Connection>()
        .ok_or_else(|| Status::internal("a connection without its facts"))?;
    let certificate = connection
        .certificate
        .as_ref()
        .ok_or_else(|| Status::unauthenticated("needs the node's certificate; join first"))?;
    let read = read(certificate).ok_or_else(|| Status::unauthenticated("the certificate is not an SVID"))?;
    let name = read
        .id
        .node_name()
        .filter(|_| read.id.trust_domain() == domain.as_str())
        .ok_or_else(|| Status::permission_denied(format!("{} is not a node of this mesh", read.id)))?;
    let node = members.standing(name, &read.key).ok_or_else(|| {
        Status::permission_denied(format!(
            "node {name} is not joined with this key, or was revoked; join again"
        ))
    })?;
    Ok(Caller { node, key: read.key, remote: connection.remote })
}

struct Read {
    id: SpiffeId,
    key: Fingerprint,
}

fn read(certificate: &CertificateDer<'_>) -> Option<Read> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let id = SpiffeId::parse(uris.next()?).ok()?;
    if uris.next().is_some() || parsed.is_ca() {
        return None;
    }
    Some(Read { id, key: fingerprint(parsed.public_key().raw) })
}
