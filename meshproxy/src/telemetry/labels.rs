//! Who talks to whom, as metric labels: made once for a workload or service, then named by a number.

use std::sync::Arc;

use mesh_core::vocab::identity::SpiffeId;
use mesh_core::vocab::label::Labels;
use mesh_core::vocab::name::Text;

const UNKNOWN: &str = "unknown";
const OTHER: &str = "other";
/// The name of the one cluster, as Istio has it where nobody names it.
pub const CLUSTER: &str = "Kubernetes";
/// A longer name of a host is none.
const LONGEST_HOST: usize = 255;

/// One side of an exchange. Equal content has one number for as long as it is used.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Party {
    /// Name of the workload.
    pub workload: Text,
    /// Its namespace.
    pub namespace: Text,
    /// `spiffe://...`, or `unknown`.
    pub principal: Text,
    /// Label `app`.
    pub app: Text,
    /// Label `version`.
    pub version: Text,
    /// The cluster.
    pub cluster: Text,
    /// Istio's canonical name of the service.
    pub canonical_service: Text,
    /// Istio's canonical revision.
    pub canonical_revision: Text,
}

impl Party {
    /// A peer of which nothing is known.
    pub fn unknown() -> Party {
        Party { canonical_revision: "latest".into(), ..Party::all(UNKNOWN) }
    }

    /// One of those that are too many.
    pub fn other() -> Party {
        Party::all(OTHER)
    }

    fn all(word: &str) -> Party {
        let word = Text::from(word);
        Party {
            workload: word.clone(),
            namespace: word.clone(),
            principal: word.clone(),
            app: word.clone(),
            version: word.clone(),
            cluster: word.clone(),
            canonical_service: word.clone(),
            canonical_revision: word,
        }
    }

    /// A peer with its labels; what they do not say is unknown.
    pub fn workload(name: &Text, namespace: &Text, identity: Option<&SpiffeId>, labels: &Labels) -> Party {
        Party::labelled(name, namespace, identity, labels, UNKNOWN)
    }

    /// A workload of this host; what its labels do not say is empty.
    pub fn own(name: &Text, namespace: &Text, identity: Option<&SpiffeId>, labels: &Labels) -> Party {
        Party::labelled(name, namespace, identity, labels, "")
    }

    fn labelled(
        name: &Text,
        namespace: &Text,
        identity: Option<&SpiffeId>,
        labels: &Labels,
        unsaid: &str,
    ) -> Party {
        let label = |key: &str| Text::from(labels.value(key).unwrap_or(unsaid));
        Party {
            workload: name.clone(),
            namespace: namespace.clone(),
            principal: identity.map_or_else(|| Text::from(UNKNOWN), |id| id.text().clone()),
            app: label("app"),
            version: label("version"),
            cluster: CLUSTER.into(),
            canonical_service: labels.canonical_name().map_or_else(|| name.clone(), Text::from),
            canonical_revision: labels.canonical_revision().into(),
        }
    }

    fn values(&self, is_proven: bool) -> [&str; 8] {
        [
            &self.workload,
            &self.namespace,
            if is_proven { &self.principal } else { UNKNOWN },
            &self.app,
            &self.version,
            &self.cluster,
            &self.canonical_service,
            &self.canonical_revision,
        ]
    }
}

const SOURCE: [&str; 8] = [
    "source_workload",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "source_canonical_service",
    "source_canonical_revision",
];

const DESTINATION: [&str; 8] = [
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_cluster",
    "destination_canonical_service",
    "destination_canonical_revision",
];

/// The service that was addressed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceLabels {
    /// Host.
    pub host: Text,
    /// Short name.
    pub name: Text,
    /// Namespace.
    pub namespace: Text,
}

impl ServiceLabels {
    /// A service by its host and namespace; the short name is the first label of the host.
    pub fn of(host: &Text, namespace: &Text) -> ServiceLabels {
        let name = match host.contains(".svc.") {
            true => host.split('.').next().unwrap_or(host).into(),
            false => host.clone(),
        };
        ServiceLabels { host: host.clone(), name, namespace: namespace.clone() }
    }

    /// No service of the mesh: what is passed through (`PassthroughCluster`), or nothing that is known.
    pub fn outside(name: &str) -> ServiceLabels {
        ServiceLabels { host: UNKNOWN.into(), name: name.into(), namespace: UNKNOWN.into() }
    }

    /// No service of the mesh, but a request that says whom it is for: a name of Istio's for where it went, or what the
    /// request says.
    pub fn asked(authority: &str, name: Option<&str>) -> ServiceLabels {
        let host = if authority.is_empty() || authority.len() > LONGEST_HOST { UNKNOWN } else { authority };
        ServiceLabels { host: host.into(), name: name.unwrap_or(host).into(), namespace: UNKNOWN.into() }
    }

    /// One of those that are too many.
    pub fn other() -> ServiceLabels {
        ServiceLabels { host: OTHER.into(), name: OTHER.into(), namespace: OTHER.into() }
    }
}

/// Something with its number.
#[derive(Debug, Clone)]
pub struct Numbered<T> {
    /// Unique among its kind.
    pub number: u32,
    /// What it stands for.
    pub value: Arc<T>,
}

/// Source, destination and service of a series. Who they are is proven by mutual TLS only.
pub fn parties<'a>(
    source: &'a Party,
    destination: &'a Party,
    service: &'a ServiceLabels,
    is_proven: bool,
) -> Vec<(&'a str, &'a str)> {
    let source = SOURCE.into_iter().zip(source.values(is_proven));
    let destination = DESTINATION.into_iter().zip(destination.values(is_proven));
    let mut pairs = Vec::with_capacity(32);
    pairs.extend(source.chain(destination));
    pairs.extend([
        ("destination_service", &*service.host),
        ("destination_service_name", &*service.name),
        ("destination_service_namespace", &*service.namespace),
    ]);
    pairs
}
