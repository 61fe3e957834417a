//! What Kubernetes' own kinds bring besides Service: endpoints, secrets, configuration, templates of pods.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::vocab::label::Labels;
use crate::vocab::name::Text;

/// One address of a Service whose endpoints are written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticAddress {
    /// Address.
    pub ip: IpAddr,
    /// Whether it may get traffic (`conditions.ready`, `addresses` against `notReadyAddresses`).
    pub ready: bool,
    /// Zone.
    pub zone: Option<Text>,
    /// Node.
    pub node: Option<Text>,
}

/// Addresses that share ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticSubset {
    /// Addresses.
    pub addresses: Vec<StaticAddress>,
    /// Ports of the addresses by name of the Service's port; the name is empty where there is one.
    pub ports: Vec<(Text, u16)>,
}

/// Endpoints or EndpointSlice: addresses of a Service without a selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticEndpoints {
    /// Name of the Service, in the resource's namespace.
    pub service: Text,
    /// Addresses.
    pub subsets: Vec<StaticSubset>,
}

/// Secret: what a credential name means. Values are decoded; `Debug` never shows them.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// `type`: `kubernetes.io/tls`, `Opaque`...
    pub kind: Text,
    /// Data by key: `tls.crt`, `tls.key`, `ca.crt`, `cert`, `key`, `cacert`, `ca.crl`.
    pub data: BTreeMap<Text, Vec<u8>>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").field("kind", &self.kind).field("keys", &self.data.keys()).finish()
    }
}

/// ConfigMap: texts by key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfigMap {
    /// Texts.
    pub data: BTreeMap<Text, Text>,
}

/// A pod, or the template of those that a Deployment and its like would run. It is never carried out: analysis
/// reads it to know labels and ports that a file for Kubernetes promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodTemplate {
    /// Kind it was written in: `Deployment`, `Pod`, `StatefulSet`...
    pub kind: Text,
    /// Namespace.
    pub namespace: Text,
    /// Name.
    pub name: Text,
    /// Labels of the pods.
    pub labels: Labels,
    /// Annotations of the pods.
    pub annotations: BTreeMap<Text, Text>,
    /// Labels of the object itself: those of the pod where it is one.
    pub own_labels: Labels,
    /// Annotations of the object itself: those of the pod where it is one.
    pub own_annotations: BTreeMap<Text, Text>,
    /// Service account.
    pub service_account: Option<Text>,
    /// `containerPort`s by name; the name may be empty.
    pub ports: Vec<(Text, u16)>,
    /// Users that containers run as, Istio's own proxy left out.
    pub users: Vec<u32>,
    /// Where it was read.
    pub place: super::Place,
}
