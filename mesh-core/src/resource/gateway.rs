//! Gateway: where traffic enters the mesh from outside.

use crate::vocab::label::Labels;
use crate::vocab::name::Text;
use crate::vocab::protocol::Protocol;

/// Whose VirtualServices may use a host of a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostNamespace {
    /// `*/`, or nothing written.
    All,
    /// `./`.
    Own,
    /// That namespace.
    Named(Text),
}

/// One entry of `servers[].hosts`: `[NAMESPACE/]HOST`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerHost {
    /// Whose VirtualServices.
    pub namespace: HostNamespace,
    /// Host, lower case, may be a wildcard.
    pub host: Text,
}

/// `tls.mode` of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ServerTlsMode {
    /// Passed on by SNI, not decrypted. The value of an empty block.
    #[default]
    Passthrough,
    /// Server certificate.
    Simple,
    /// Server certificate, and one of the client is required.
    Mutual,
    /// SNI names the cluster; no VirtualService is needed.
    AutoPassthrough,
    /// The mesh's own identities.
    IstioMutual,
    /// Server certificate, and one of the client is looked at if it comes.
    OptionalMutual,
}

impl ServerTlsMode {
    /// The name in a Gateway.
    pub fn name(self) -> &'static str {
        match self {
            ServerTlsMode::Passthrough => "PASSTHROUGH",
            ServerTlsMode::Simple => "SIMPLE",
            ServerTlsMode::Mutual => "MUTUAL",
            ServerTlsMode::AutoPassthrough => "AUTO_PASSTHROUGH",
            ServerTlsMode::IstioMutual => "ISTIO_MUTUAL",
            ServerTlsMode::OptionalMutual => "OPTIONAL_MUTUAL",
        }
    }

    /// Whether the proxy ends TLS itself.
    pub fn terminates(self) -> bool {
        !matches!(self, ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough)
    }
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TlsVersion {
    /// 1.0.
    V1_0,
    /// 1.1.
    V1_1,
    /// 1.2.
    V1_2,
    /// 1.3.
    V1_3,
}

/// A server certificate in files.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct CertificateFiles {
    /// `serverCertificate`: path of the chain.
    pub certificate: Text,
    /// `privateKey`: path of the key.
    pub key: Text,
    /// `caCertificates`: path of what verifies clients; empty where not written.
    pub ca: Text,
}

/// `tls` of a server (ServerTLSSettings), of a Gateway or of a Sidecar's ingress.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ServerTls {
    /// Mode.
    pub mode: ServerTlsMode,
    /// `httpsRedirect`: plain HTTP is answered with a redirect to https.
    pub https_redirect: bool,
    /// `credentialName` or `credentialNames`.
    pub credentials: Vec<Text>,
    /// `caCertCredentialName`.
    pub ca_credential: Option<Text>,
    /// `serverCertificate` with `privateKey`, or `tlsCertificates`.
    pub files: Vec<CertificateFiles>,
    /// `caCertificates` at the top.
    pub ca_certificates: Option<Text>,
    /// `caCrl`.
    pub ca_crl: Option<Text>,
    /// `subjectAltNames` that a client's certificate may have; none allows all.
    pub subject_alt_names: Vec<Text>,
    /// `verifyCertificateSpki`.
    pub verify_spki: Vec<Text>,
    /// `verifyCertificateHash`.
    pub verify_hash: Vec<Text>,
    /// `minProtocolVersion`; `None` for the default, 1.2.
    pub min_version: Option<TlsVersion>,
    /// `maxProtocolVersion`.
    pub max_version: Option<TlsVersion>,
    /// `cipherSuites`.
    pub cipher_suites: Vec<Text>,
    /// `ecdhCurves`.
    pub ecdh_curves: Vec<Text>,
    /// `insecureSkipVerify`.
    pub insecure_skip_verify: bool,
}

/// One entry of `servers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `name`.
    pub name: Option<Text>,
    /// Port that is listened on.
    pub port: u16,
    /// Name of the port.
    pub port_name: Text,
    /// What it speaks.
    pub protocol: Protocol,
    /// `bind`: an IP address or `unix://PATH`.
    pub bind: Option<Text>,
    /// Hosts, never empty.
    pub hosts: Vec<ServerHost>,
    /// TLS.
    pub tls: Option<ServerTls>,
}

/// Servers on the workloads that the selector selects, in any namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Labels of the gateway's workloads; empty selects all.
    pub selector: Labels,
    /// Servers, in order.
    pub servers: Vec<Server>,
}
