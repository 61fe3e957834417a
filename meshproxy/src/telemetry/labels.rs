//! Who talks to whom, as metric labels: made once for a workload or service, then named by a number.

use std::sync::Arc;

use mesh_core::vocab::identity::SpiffeId;
use mesh_core::vocab::label::Labels;
use mesh_core::vocab::name::Text;

/// The cluster that everything is in, by the name that Istio gives one.
pub const CLUSTER: &str = "Kubernetes";

/// One side of an exchange. Equal content has one number for the life of the process.
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
    /// Istio's canonical name of the service.
    pub canonical_service: Text,
    /// Istio's canonical revision.
    pub canonical_revision: Text,
}

impl Party {
    /// A peer of which nothing is known.
    pub fn unknown() -> Party {
        let unknown = Text::from("unknown");
        Party {
            workload: unknown.clone(),
            namespace: unknown.clone(),
            principal: unknown.clone(),
            app: unknown.clone(),
            version: unknown.clone(),
            canonical_service: unknown,
            canonical_revision: "latest".into(),
        }
    }

    /// A workload with its labels.
    pub fn workload(name: &Text, namespace: &Text, identity: Option<&SpiffeId>, labels: &Labels) -> Party {
        let label = |key: &str| Text::from(labels.value(key).unwrap_or("unknown"));
        Party {
            workload: name.clone(),
            namespace: namespace.clone(),
            principal: identity.map_or_else(|| Text::from("unknown"), |id| id.text().clone()),
            app: label("app"),
            version: label("version"),
            canonical_service: labels.canonical_name().map_or_else(|| name.clone(), Text::from),
            canonical_revision: labels.canonical_revision().into(),
        }
    }

    fn pairs(&self, side: &'static str) -> [(String, &str); 8] {
        [
            (format!("{side}_workload"), &self.workload),
            (format!("{side}_workload_namespace"), &self.namespace),
            (format!("{side}_principal"), &self.principal),
            (format!("{side}_app"), &self.app),
            (format!("{side}_version"), &self.version),
            (format!("{side}_cluster"), CLUSTER),
            (format!("{side}_canonical_service"), &self.canonical_service),
            (format!("{side}_canonical_revision"), &self.canonical_revision),
        ]
    }
}

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
        ServiceLabels { host: "unknown".into(), name: name.into(), namespace: "unknown".into() }
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

/// Source, destination and service of a series, as the text between the braces, without reporter and outcome.
pub fn parties(source: &Party, destination: &Party, service: &ServiceLabels) -> Vec<(String, String)> {
    let sides = source.pairs("source").into_iter().chain(destination.pairs("destination"));
    let mut pairs: Vec<(String, String)> = sides.map(|(key, value)| (key, value.to_owned())).collect();
    pairs.push(("destination_service".to_owned(), service.host.to_string()));
    pairs.push(("destination_service_name".to_owned(), service.name.to_string()));
    pairs.push(("destination_service_namespace".to_owned(), service.namespace.to_string()));
    pairs
}
