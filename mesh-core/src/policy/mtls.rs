//! Mutual TLS on both sides: what a workload's port accepts (PeerAuthentication) and how a client connects
//! (DestinationRule `tls`).

use std::fmt;

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
    /// What declared the ports.
    pub ports_origin: Option<Text>,
}

impl MtlsPolicy {
    /// The mode of a port of the workload.
    pub fn mode(&self, port: u16) -> MtlsMode {
        self.ports.iter().find(|(listed, _)| *listed == port).map_or(self.default, |(_, mode)| *mode)
    }

    /// What declared the mode of a port; `None` where nothing did.
    pub fn origin(&self, port: u16) -> Option<&Text> {
        let listed = self.ports.iter().any(|(listed, _)| *listed == port);
        if listed { self.ports_origin.as_ref() } else { self.origin.as_ref() }
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
    IstioMutual {
        /// Name that is asked for: as written, else `outbound_.PORT_.SUBSET_.HOST`.
        sni: Text,
        /// Who may answer; none for the identities of the endpoints.
        subject_alt_names: Vec<Text>,
    },
    /// TLS of the destination's own, which the proxy begins (SIMPLE and MUTUAL).
    Originate(TlsOrigination),
}

/// TLS that a proxy begins towards a server that is not the mesh's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TlsOrigination {
    /// What the client shows: MUTUAL; `None`: SIMPLE.
    pub certificate: Option<ClientCertificate>,
    /// What verifies the server.
    pub roots: ServerRoots,
    /// Path of what revokes certificates of servers.
    pub crl: Option<Text>,
    /// Name that is asked for; `None` for the host of the request.
    pub sni: Option<Text>,
    /// Names one of which the server's certificate must have.
    pub names: ServerNames,
    /// Whether only gateways begin it: a credential that proxies of hosts are not given, so that these connect in
    /// the clear.
    pub gateways_only: bool,
}

/// What a client shows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ClientCertificate {
    /// Files on the proxy's host.
    Files {
        /// Path of the chain.
        chain: Text,
        /// Path of the key.
        key: Text,
    },
    /// A credential of the control plane, by its full name.
    Credential(Text),
}

/// Which half of a credential. The name is `NAMESPACE/NAME` of a Secret, or `configmap://NAMESPACE/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CredentialKey {
    /// What is shown: a certificate with its key.
    Shown(Text),
    /// What verifies others: their authority.
    Authority(Text),
}

impl CredentialKey {
    /// The name of the credential.
    pub fn name(&self) -> &Text {
        match self {
            CredentialKey::Shown(name) | CredentialKey::Authority(name) => name,
        }
    }
}

impl fmt::Display for CredentialKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CredentialKey::Shown(name) => f.write_str(name),
            CredentialKey::Authority(name) => write!(f, "{name}-cacert"),
        }
    }
}

/// What verifies a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerRoots {
    /// The roots of the host's system.
    System,
    /// A file on the proxy's host.
    File(Text),
    /// A credential of the control plane, by its full name.
    Credential(Text),
    /// Nothing: every certificate is taken (`insecureSkipVerify`).
    Unverified,
}

/// Names one of which a server's certificate must have.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerNames {
    /// The host of the request.
    Requested,
    /// One of these.
    OneOf(Vec<Text>),
    /// Any.
    Any,
}

impl ClientTls {
    /// The halves of credentials that proxies of hosts need to connect, or gateways.
    pub fn credentials(&self, gateway: bool) -> Vec<CredentialKey> {
        let ClientTls::Originate(origination) = self else { return Vec::new() };
        if origination.gateways_only && !gateway {
            return Vec::new();
        }
        let mut keys = Vec::new();
        if let Some(ClientCertificate::Credential(name)) = &origination.certificate {
            keys.push(CredentialKey::Shown(name.clone()));
        }
        if let ServerRoots::Credential(name) = &origination.roots {
            keys.push(CredentialKey::Authority(name.clone()));
        }
        keys
    }

    /// The word shown to people; `AUTO` where no DestinationRule says anything.
    pub fn name(&self) -> &'static str {
        match self {
            ClientTls::Auto => "AUTO",
            ClientTls::Disable => "DISABLE",
            ClientTls::IstioMutual { .. } => "ISTIO_MUTUAL",
            ClientTls::Originate(TlsOrigination { certificate: None, .. }) => "SIMPLE",
            ClientTls::Originate(TlsOrigination { certificate: Some(_), .. }) => "MUTUAL",
        }
    }
}
