//! DestinationRule.

use super::reach::ExportTo;
use crate::balancing::policy::LoadBalancerPolicy;
pub use crate::resilience::connection_fault::{ConnectionFault, ConnectionFaultKind};
use crate::resilience::outlier::OutlierDetection;
use crate::resilience::pool::{ConnectionPool, RetryBudget};
use crate::vocab::label::Labels;
use crate::vocab::name::Text;
pub use crate::vocab::tunnel::Tunnel;

/// `tls.mode` of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TlsMode {
    /// Plaintext. The value of an empty block.
    #[default]
    Disable,
    /// TLS, without a certificate of the client.
    Simple,
    /// TLS with a certificate from files or a secret.
    Mutual,
    /// Mutual TLS with the mesh's identities.
    IstioMutual,
}

impl TlsMode {
    /// The name in a DestinationRule.
    pub fn name(self) -> &'static str {
        match self {
            TlsMode::Disable => "DISABLE",
            TlsMode::Simple => "SIMPLE",
            TlsMode::Mutual => "MUTUAL",
            TlsMode::IstioMutual => "ISTIO_MUTUAL",
        }
    }
}

/// `tls` (ClientTLSSettings).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct TlsSettings {
    /// Mode.
    pub mode: TlsMode,
    /// `clientCertificate`: path of the chain.
    pub client_certificate: Option<Text>,
    /// `privateKey`: path of the key.
    pub private_key: Option<Text>,
    /// `caCertificates`: path of what verifies the server; `None` for the system's.
    pub ca_certificates: Option<Text>,
    /// `caCrl`.
    pub ca_crl: Option<Text>,
    /// `credentialName`.
    pub credential: Option<Text>,
    /// `subjectAltNames` that the server's certificate may have.
    pub subject_alt_names: Vec<Text>,
    /// `sni`.
    pub sni: Option<Text>,
    /// `insecureSkipVerify`.
    pub insecure_skip_verify: bool,
}

/// The blocks of a traffic policy; `None` where a block was not written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrafficBlocks {
    /// `loadBalancer`.
    pub load_balancer: Option<LoadBalancerPolicy>,
    /// `connectionPool`.
    pub connection_pool: Option<ConnectionPool>,
    /// `outlierDetection`.
    pub outlier_detection: Option<OutlierDetection>,
    /// `tls`.
    pub tls: Option<TlsSettings>,
}

/// `trafficPolicy` at the top or of a subset.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrafficPolicy {
    /// Its blocks.
    pub blocks: TrafficBlocks,
    /// `portLevelSettings` by service port. An entry is the whole policy of its port: blocks that it leaves
    /// out take their defaults, not the level's.
    pub ports: Vec<(u16, TrafficBlocks)>,
    /// `tunnel`.
    pub tunnel: Option<Tunnel>,
    /// `proxyProtocol`: version 1 or 2.
    pub proxy_protocol: Option<u8>,
    /// `retryBudget`.
    pub retry_budget: Option<RetryBudget>,
}

/// One entry of `subsets`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subset {
    /// Name.
    pub name: Text,
    /// Labels of its endpoints; none selects all.
    pub labels: Labels,
    /// Its policy, over the top level's.
    pub policy: Option<TrafficPolicy>,
}

/// Policies and subsets of a host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DestinationRule {
    /// Host as written, lower case; a short name is resolved against the namespace when compiled.
    pub host: Text,
    /// Policy of all traffic to the host.
    pub policy: Option<TrafficPolicy>,
    /// Subsets.
    pub subsets: Vec<Subset>,
    /// Who sees it.
    pub export_to: ExportTo,
    /// Callers it is for, in its own namespace; `None` for all.
    pub workload_selector: Option<Labels>,
    /// The annotation `mesh.io/fault`: what happens to connections to the host.
    pub fault: Option<ConnectionFault>,
}
