//! Workloads that registered themselves for a WorkloadGroup, shown as the WorkloadEntries that they amount to.

use mesh_core::resource::workload::WorkloadEntry;
use mesh_core::resource::{Resource, Spec};
use mesh_core::state::MeshState;
use mesh_core::vocab::health::Health;
use mesh_core::vocab::locality::Locality;
use mesh_core::vocab::name::WorkloadKey;
use serde_json::{Map, Value, json};

use super::configuration::Scope;
use super::view::ResourceView;
use crate::registry::announcement::GROUP_ANNOTATION;

/// Those that nobody has declared besides.
pub(super) fn of_groups(state: &MeshState, scope: &Scope) -> Vec<ResourceView> {
    let announced = state.registrations().flat_map(|registration| &registration.workloads);
    let found = announced.filter(|resource| {
        let key = &resource.meta.key;
        scope.holds(&key.namespace) && state.resource(key).is_none()
    });
    found.filter_map(|resource| view(state, resource)).collect()
}

fn view(state: &MeshState, resource: &Resource) -> Option<ResourceView> {
    let meta = &resource.meta;
    let group = meta.annotations.get(GROUP_ANNOTATION)?;
    let Spec::WorkloadEntry(entry) = &resource.spec else { return None };
    let key = WorkloadKey { namespace: meta.key.namespace.clone(), name: meta.key.name.clone() };
    let known = state.workloads().find(|workload| workload.key == key);
    let healthy = match known.map(|workload| workload.health) {
        Some(Health::Healthy) => "True",
        Some(Health::Unhealthy) => "False",
        Some(Health::Unknown) | None => "Unknown",
    };
    let mut condition = json!({ "type": "Healthy", "status": healthy });
    if let Some(workload) = known.filter(|workload| !workload.reason.is_empty()) {
        condition["message"] = json!(&*workload.reason);
    }
    let annotations: Map<String, Value> =
        meta.annotations.iter().map(|(key, value)| (key.to_string(), json!(&**value))).collect();
    let whole = json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadEntry",
        "metadata": {
            "name": &*meta.key.name,
            "namespace": &*meta.key.namespace,
            "annotations": annotations,
            "ownerReferences": [{
                "apiVersion": "networking.istio.io/v1", "kind": "WorkloadGroup", "name": &**group, "controller": true
            }],
        },
        "spec": spec(entry),
        "status": { "conditions": [condition] },
    });
    Some(ResourceView {
        key: meta.key.to_string(),
        namespace: meta.key.namespace.to_string(),
        name: meta.key.name.to_string(),
        created: 0,
        version: 0,
        owner: String::new(),
        resource: whole,
    })
}

fn spec(entry: &WorkloadEntry) -> Value {
    let mut spec = Map::new();
    spec.insert("address".to_owned(), json!(entry.address.to_string()));
    let ports: Map<String, Value> =
        entry.ports.iter().map(|(name, port)| (name.to_string(), json!(port))).collect();
    let labels: Map<String, Value> =
        entry.labels.iter().map(|(key, value)| (key.to_string(), json!(&**value))).collect();
    for (name, map) in [("labels", labels), ("ports", ports)] {
        if !map.is_empty() {
            spec.insert(name.to_owned(), Value::Object(map));
        }
    }
    if entry.locality != Locality::default() {
        spec.insert("locality".to_owned(), json!(entry.locality.to_string()));
    }
    for (name, text) in [("network", &entry.network), ("serviceAccount", &entry.service_account)] {
        if let Some(text) = text {
            spec.insert(name.to_owned(), json!(&**text));
        }
    }
    if entry.weight > 1 {
        spec.insert("weight".to_owned(), json!(entry.weight));
    }
    Value::Object(spec)
}
