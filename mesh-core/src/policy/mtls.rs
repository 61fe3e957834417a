//! Mutual TLS on both sides: what a workload's port accepts (PeerAuthentication) and how a client connects
//! (DestinationRule `tls`).

use crate::vocab::name::Text;

/// Mode of a port after inheritance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub enum MtlsMode {
    /// Plaintext only.
    Disable,
    /// Both. The default of the mesh.
    #[default]
    Permissive,
    /// Mutual TLS only.
    Strict,
}

impl MtlsMode {
    /// The name in a PeerAuthentication.
    pub fn name(self) -> &'static str {
        match self {
            MtlsMode::Disable => "DISABLE",
            MtlsMode::Permissive => "PERMISSIVE",
            MtlsMode::Strict => "STRICT",
        }
    }

    /// Whether a connection with or without mutual TLS is let in.
    pub fn admits(self, mutual_tls: bool) -> bool {
        match self {
            MtlsMode::Disable => !mutual_tls,
            MtlsMode::Permissive => true,
            MtlsMode::Strict => mutual_tls,
        }
    }
}

/// The modes of a workload's ports.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct MtlsPolicy {
    /// For every port that is not listed.
    pub default: MtlsMode,
    /// What declared the default; `None` where nothing did.
    pub origin: Option<Text>,
    /// By port of the workload, sorted.
    pub ports: Vec<(u16, MtlsMode)>,
}

impl MtlsPolicy {
    /// The mode of a port of the workload.
    pub fn mode(&self, port: u16) -> MtlsMode {
        self.ports.iter().find(|(listed, _)| *listed == port).map_or(self.default, |(_, mode)| *mode)
    }
}

/// How connections to the endpoints are secured.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum ClientTls {
    /// Mutual TLS to every endpoint that has an identity and a proxy, plaintext to others (auto mTLS).
    #[default]
    Auto,
    /// Plaintext.
    Disable,
    /// Mutual TLS with the mesh's identities; an endpoint that has none cannot be reached.
    IstioMutual,
}

impl ClientTls {
    /// The word shown to people; `AUTO` where no DestinationRule says anything.
    pub fn name(&self) -> &'static str {
        match self {
            ClientTls::Auto => "AUTO",
            ClientTls::Disable => "DISABLE",
            ClientTls::IstioMutual => "ISTIO_MUTUAL",
        }
    }
}
