//! HBONE out: a byte stream as a CONNECT stream of the mesh hop.

use std::net::SocketAddr;

use http::{HeaderValue, Method, Request, StatusCode, Uri, Version};
use mesh_core::vocab::outcome::Outcome;

use super::failure::{self, ConnectError};
use super::http2::Duplex;
use super::pool::Stream;
use crate::live::local::LocalWorkload;

/// Why no tunnel came about.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The hop has no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection or stream broke.
    #[error("the tunnel broke: {0}")]
    Broken(#[source] h2::Error),
    /// The other proxy said no: 401 for policy, 503 for an application that does not answer.
    #[error("the tunnel was refused with {0}")]
    Refused(StatusCode),
}

impl TunnelError {
    /// The classification.
    pub fn outcome(&self) -> Outcome {
        match self {
            TunnelError::Connect(error) => error.outcome(),
            TunnelError::Broken(error) => failure::http2_outcome(error),
            TunnelError::Refused(_) => Outcome::Reset { before_request: true },
        }
    }
}

/// The stream as bytes, and what keeps it counted at the connection.
#[derive(Debug)]
pub struct Tunnel {
    /// The bytes.
    pub io: Duplex,
    _stream: Stream,
}

/// Opens a tunnel to a workload's own address and port. `from` says who calls, for the other side's telemetry.
pub async fn open(
    stream: Stream,
    to: SocketAddr,
    from: Option<&LocalWorkload>,
    version: &HeaderValue,
) -> Result<Tunnel, TunnelError> {
    let authority = to.to_string();
    let uri = Uri::builder().authority(authority.as_str()).build().expect("an address is an authority");
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = uri;
    if let Some(from) = from {
        request.headers_mut().insert("x-mesh-from", from.from.clone());
    }
    request.headers_mut().insert("x-mesh-version", version.clone());
    let (response, io) = stream.connection().connect(request).await.map_err(TunnelError::Broken)?;
    if response.status() != StatusCode::OK {
        return Err(TunnelError::Refused(response.status()));
    }
    Ok(Tunnel { io, _stream: stream })
}
