//! Sidecar: what the callers of a namespace see, and what their workloads listen on.

use super::gateway::ServerTls;
use crate::resilience::pool::ConnectionPool;
use crate::vocab::label::Labels;
use crate::vocab::name::Text;
use crate::vocab::protocol::Protocol;

/// The namespace part of an egress host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EgressNamespace {
    /// `*`.
    All,
    /// `.`: the Sidecar's own.
    Own,
    /// `~`: none, so nothing is imported.
    Nobody,
    /// That namespace.
    Named(Text),
}

/// One entry of `egress[].hosts`: `NAMESPACE/HOST`, or `~NAMESPACE/HOST` to leave something out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EgressHost {
    /// Whether what matches is left out instead of imported.
    pub excluded: bool,
    /// Namespace of the service or VirtualService.
    pub namespace: EgressNamespace,
    /// Host, lower case, may be a wildcard.
    pub host: Text,
}

/// How traffic reaches a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CaptureMode {
    /// As the mesh captures.
    #[default]
    Default,
    /// Redirected.
    Iptables,
    /// Not captured: applications connect to it.
    None,
}

/// A port of a Sidecar's listener.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SidecarPort {
    /// Number.
    pub number: u16,
    /// Name.
    pub name: Text,
    /// What it speaks.
    pub protocol: Protocol,
}

/// One entry of `egress`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Egress {
    /// Port; `None` for every port that no other entry has.
    pub port: Option<SidecarPort>,
    /// `bind`: an IP address or `unix://PATH`.
    pub bind: Option<Text>,
    /// Whether applications speak to an HTTP proxy there (protocol HTTP_PROXY).
    pub is_proxy: bool,
    /// Capture.
    pub capture: CaptureMode,
    /// Hosts that are imported.
    pub hosts: Vec<EgressHost>,
}

/// One entry of `ingress`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingress {
    /// Port of the service.
    pub port: SidecarPort,
    /// `bind`.
    pub bind: Option<Text>,
    /// Capture.
    pub capture: CaptureMode,
    /// `defaultEndpoint`: `127.0.0.1:PORT`, `[::1]:PORT`, `0.0.0.0:PORT`, `unix:///PATH`; `None` as it came.
    pub default_endpoint: Option<Text>,
    /// TLS of the listener.
    pub tls: Option<ServerTls>,
    /// Limits of connections to the application.
    pub connection_pool: Option<ConnectionPool>,
}

/// What happens to traffic for hosts that the mesh does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutboundMode {
    /// It is refused: 502 for HTTP, closed for streams. The value of an empty block.
    RegistryOnly,
    /// It goes where it was sent.
    AllowAny,
}

impl OutboundMode {
    /// The name in a Sidecar or MeshConfig.
    pub fn name(self) -> &'static str {
        match self {
            OutboundMode::RegistryOnly => "REGISTRY_ONLY",
            OutboundMode::AllowAny => "ALLOW_ANY",
        }
    }
}

/// `outboundTrafficPolicy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundPolicy {
    /// Mode.
    pub mode: OutboundMode,
    /// `egressProxy`: host, subset and port that unknown traffic is sent to.
    pub egress_proxy: Option<(Text, Option<Text>, u16)>,
}

/// Scope and listeners of workloads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sidecar {
    /// Workloads; none for the namespace, or for the mesh in the root namespace.
    pub selector: Option<Labels>,
    /// Listeners of the workload's own ports.
    pub ingress: Vec<Ingress>,
    /// What is imported; `None` for all that is exported.
    pub egress: Option<Vec<Egress>>,
    /// Unknown hosts; `None` as the mesh says.
    pub outbound: Option<OutboundPolicy>,
    /// Limits of connections to the application on every inbound port.
    pub inbound_connection_pool: Option<ConnectionPool>,
}
