//! A proxy on the way: streams wrapped in a request to it (DestinationRule `tunnel`).

use super::name::Text;

/// `tunnel`: streams are wrapped in a request to a proxy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tunnel {
    /// With POST instead of CONNECT.
    pub post: bool,
    /// `targetHost`.
    pub host: Text,
    /// `targetPort`.
    pub port: u16,
}
