//! Why there is no certificate, and whether trying on is worth anything.

use std::path::PathBuf;

use mesh_core::vocab::identity::SpiffeId;
use mesh_proto::token::TokenError;

use super::keys::KeyError;
use crate::identity::svid::SvidError;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Keys cannot be kept or made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// First join without a token.
    #[error("this host has not joined the mesh yet: give the join token with --token-file")]
    NoToken,
    /// The token's file cannot be read.
    #[error("cannot read the join token from {}: {source}", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It holds no token.
    #[error("{}: {source}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: TokenError,
    },
    /// Whoever answers there is not the control plane that made the token.
    #[error("the join token is of another mesh: {0}")]
    OtherMesh(String),
    /// The control plane says no.
    #[error("the control plane refused: {0}")]
    Refused(String),
    /// The control plane cannot answer.
    #[error("the control plane does not answer: {0}")]
    Unavailable(String),
    /// The answer proves something else than was asked for.
    #[error("the control plane answered with a certificate that does not fit: {0}")]
    Unfit(String),
    /// Certificates and this host's time do not fit.
    #[error(
        "the certificate of {id} is valid from {from} to {to}, this host's clock says {now}; set the clock"
    )]
    Clock {
        /// Whose.
        id: SpiffeId,
        /// Seconds since 1970.
        from: i64,
        /// Seconds since 1970.
        to: i64,
        /// Seconds since 1970.
        now: i64,
    },
}

impl CertificateError {
    /// Whether trying again without the operator's help is worth nothing.
    pub fn is_final(&self) -> bool {
        match self {
            CertificateError::NoToken
            | CertificateError::TokenFile { .. }
            | CertificateError::Token { .. }
            | CertificateError::OtherMesh(_)
            | CertificateError::Refused(_) => true,
            CertificateError::Key(_)
            | CertificateError::Unavailable(_)
            | CertificateError::Unfit(_)
            | CertificateError::Clock { .. } => false,
        }
    }
}

impl From<SvidError> for CertificateError {
    fn from(error: SvidError) -> CertificateError {
        CertificateError::Unfit(error.to_string())
    }
}

impl From<tonic::Status> for CertificateError {
    fn from(status: tonic::Status) -> CertificateError {
        use tonic::Code;
        let text = status.message().to_owned();
        match status.code() {
            Code::PermissionDenied
            | Code::Unauthenticated
            | Code::InvalidArgument
            | Code::AlreadyExists
            | Code::FailedPrecondition => CertificateError::Refused(text),
            code => CertificateError::Unavailable(if text.is_empty() { code.to_string() } else { text }),
        }
    }
}
