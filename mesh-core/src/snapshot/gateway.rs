//! Gateways: where traffic enters the mesh from outside.

use super::routes::Routes;
use crate::vocab::identity::SpiffeId;
use crate::vocab::label::Labels;
use crate::vocab::name::{Text, WorkloadKey};
use crate::vocab::protocol::Protocol;

/// What the workloads of a Gateway listen on, with the servers of every Gateway that selects them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Gateway {
    /// Namespace of the Gateway.
    pub namespace: Text,
    /// Name of the Gateway.
    pub name: Text,
    /// The workload that answers, where one is known.
    pub workload: Option<WorkloadKey>,
    /// Namespace of the workload; the Gateway's own where none is known.
    pub workload_namespace: Text,
    /// Labels of the workload; those of the selector where none is known.
    pub labels: Labels,
    /// As whom it calls the mesh, or, where no workload is known, is taken to; `None` for a workload without an account.
    pub identity: Option<SpiffeId>,
    /// Labels of the workloads that it is for.
    pub selector: Labels,
    /// What it sees of the mesh: the key of a view.
    pub view: Text,
    /// How many proxies before it are believed in what they add to X-Forwarded-For.
    pub trusted_proxies: u32,
    /// Namespace and name of every authorization policy that holds for what enters.
    pub policies: Vec<(Text, Text)>,
    /// Namespace and name of every RequestAuthentication that does.
    pub tokens: Vec<(Text, Text)>,
    /// Listeners, by port.
    pub listeners: Vec<GatewayListener>,
}

/// One port of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GatewayListener {
    /// Port.
    pub port: u16,
    /// Servers, oldest Gateway first. Those of a TLS port are told apart by the server name asked for.
    pub servers: Vec<GatewayServer>,
    /// Of a port without TLS the rules of all its servers by host, most specific host first.
    pub virtual_hosts: Vec<VirtualHost>,
    /// The servers that lost the port to an older one of another protocol: resource and reason.
    pub dropped: Vec<(Text, Text)>,
}

/// How a server treats TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum GatewayTls {
    /// No TLS: plain HTTP, or a byte stream of any content.
    #[default]
    None,
    /// Passed on by server name, not decrypted.
    Passthrough,
    /// The server name is that of a cluster: `outbound_.PORT_.SUBSET_.HOST`.
    AutoPassthrough,
    /// Ended here with a certificate.
    Simple,
    /// Ended here, and the client must show a certificate.
    Mutual,
    /// Ended here, and a client's certificate is looked at if it comes.
    OptionalMutual,
    /// Ended here with the mesh's identities.
    IstioMutual,
}

impl GatewayTls {
    /// Whether the proxy ends TLS itself.
    pub fn terminates(self) -> bool {
        !matches!(self, GatewayTls::None | GatewayTls::Passthrough | GatewayTls::AutoPassthrough)
    }

    /// The name in a Gateway; `none` where there is no TLS.
    pub fn name(self) -> &'static str {
        match self {
            GatewayTls::None => "none",
            GatewayTls::Passthrough => "PASSTHROUGH",
            GatewayTls::AutoPassthrough => "AUTO_PASSTHROUGH",
            GatewayTls::Simple => "SIMPLE",
            GatewayTls::Mutual => "MUTUAL",
            GatewayTls::OptionalMutual => "OPTIONAL_MUTUAL",
            GatewayTls::IstioMutual => "ISTIO_MUTUAL",
        }
    }
}

/// One server of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GatewayServer {
    /// The Gateway that declares it, as its key is displayed.
    pub origin: Text,
    /// Index of the server in it.
    pub index: u32,
    /// What it speaks.
    pub protocol: Protocol,
    /// TLS.
    pub tls: GatewayTls,
    /// Whether plain HTTP is sent to https.
    pub https_redirect: bool,
    /// Hosts that it answers for, without their namespaces, most specific first.
    pub hosts: Vec<Text>,
    /// Names of its certificates (`credentialName`).
    pub credentials: Vec<Text>,
    /// Of a server that ends TLS for HTTP its rules by host, most specific host first.
    pub virtual_hosts: Vec<VirtualHost>,
    /// Rules for streams: for TLS that is passed on, or for bytes.
    pub streams: Routes,
}

/// A host of a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VirtualHost {
    /// Its rules, those of all VirtualServices for it in order, with rules for everything moved to the end. The host
    /// may be a wildcard. Empty for a host that is only redirected.
    pub routes: Routes,
    /// Whether plain HTTP is sent to https, whatever the rules say.
    pub https_redirect: bool,
}
