//! A resource in words: what it says, whom it refers to, who refers to it, and what is wrong with it.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use mesh_core::resource::Spec;
use mesh_core::state::MeshState;
use mesh_core::vocab::name::{Text, WorkloadKey};
use mesh_core::vocab::origin::{Kind, ResourceKey};

use super::analysis;
use super::references::{self, Reference};
use super::server::{Refusal, Shared, blocking};
use super::story;
use super::view::{DescribeView, ReferenceView};
use crate::clock;
use crate::controller::{Published, key_of};

pub(super) async fn describe(
    State(state): Shared,
    Path((kind, namespace, name)): Path<(String, String, String)>,
) -> Result<Json<DescribeView>, Refusal> {
    let kind = Kind::from_word(&kind).ok_or_else(|| Refusal::bad(format!("unknown kind {kind:?}")))?;
    let published = state.controller.published();
    let key = key_of(kind, &namespace, &name);
    blocking(move || view(&published, &key)).await?.map(Json)
}

fn view(published: &Published, key: &ResourceKey) -> Result<DescribeView, Refusal> {
    let state = &published.state;
    let text = key.to_string();
    let document = published.documents.get(&text);
    let workload = workload_key(key);
    let resource = state.declared(key);
    let known = workload.as_ref().and_then(|key| state.workload(key));
    if document.is_none() && resource.is_none() && known.is_none() {
        return Err(Refusal::missing(format!("{text} not found")));
    }
    let json = document.and_then(|document| serde_json::from_str(&document.json).ok());
    let mut view = DescribeView {
        resource: text.clone(),
        version: document.map(|document| document.version),
        created: document.map(|document| clock::text(document.created / 1000)).unwrap_or_default(),
        owner: document.map(|document| document.owner.clone()).unwrap_or_default(),
        says: json.as_ref().map(story::says).unwrap_or_default(),
        refers_to: resource.iter().flat_map(|resource| references::of(resource, state)).map(to).collect(),
        referred_by: backward(state, key),
        findings: Vec::new(),
    };
    if let Some(known) = known {
        view.says.push(format!("health: {} {}", known.health.name(), known.reason).trim_end().to_owned());
        view.says.extend(known.node.as_ref().map(|node| format!("node: {node}")));
        view.says.extend(known.identity.as_ref().map(|identity| format!("identity: {}", identity.as_str())));
        if document.is_none() {
            view.says.insert(0, format!("address: {}", known.entry.address));
        }
    }
    view.findings = analysis::of_mesh(published, Some(key));
    Ok(view)
}

fn workload_key(key: &ResourceKey) -> Option<WorkloadKey> {
    (key.kind == Kind::WorkloadEntry)
        .then(|| WorkloadKey { namespace: key.namespace.clone(), name: key.name.clone() })
}

fn to(reference: Reference) -> ReferenceView {
    ReferenceView {
        verb: reference.verb.to_owned(),
        resource: reference.target.as_ref().map(ToString::to_string).unwrap_or_default(),
        field: reference.field,
        note: reference.note,
        through: String::new(),
    }
}

/// Everything that refers to a resource, and for a service also what applies to its workloads.
fn backward(state: &MeshState, key: &ResourceKey) -> Vec<ReferenceView> {
    let members: BTreeMap<ResourceKey, ()> = match state.declared(key).map(|resource| resource.spec.clone()) {
        Some(Spec::Service(_) | Spec::ServiceEntry(_)) => {
            let own = state.declared(key);
            let served = own.iter().flat_map(|own| references::of(own, state));
            served.filter_map(|reference| Some((reference.target?, ()))).collect()
        }
        _ => BTreeMap::new(),
    };
    let mut found = Vec::new();
    for kind in Kind::ALL {
        for resource in state.resources(kind).filter(|resource| resource.meta.key != *key) {
            let mut through: Option<(ReferenceView, usize)> = None;
            for reference in references::of(resource, state) {
                let Some(target) = &reference.target else { continue };
                let from = |through: &str| ReferenceView {
                    verb: reference.verb.to_owned(),
                    resource: resource.meta.key.to_string(),
                    field: reference.field.clone(),
                    note: reference.note.clone(),
                    through: through.to_owned(),
                };
                if target == key {
                    found.push(from(""));
                } else if members.contains_key(target) && is_policy(kind) {
                    match &mut through {
                        Some((_, count)) => *count += 1,
                        None => through = Some((from(&target.to_string()), 1)),
                    }
                }
            }
            if let Some((mut view, count)) = through {
                if count > 1 {
                    view.through = format!("{} and {} more of its workloads", view.through, count - 1);
                }
                found.push(view);
            }
        }
    }
    if key.kind == Kind::Namespace {
        found.extend(inhabitants(state, &key.name));
    }
    found
}

/// Kinds that concern a service by way of its workloads.
fn is_policy(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::PeerAuthentication
            | Kind::AuthorizationPolicy
            | Kind::RequestAuthentication
            | Kind::Telemetry
            | Kind::RateLimit
            | Kind::Sidecar
    )
}

fn inhabitants<'s>(state: &'s MeshState, namespace: &'s Text) -> impl Iterator<Item = ReferenceView> + 's {
    Kind::ALL.into_iter().flat_map(move |kind| {
        state.resources_in(kind, namespace).map(|resource| ReferenceView {
            verb: "is in".to_owned(),
            resource: resource.meta.key.to_string(),
            field: "metadata.namespace".to_owned(),
            note: String::new(),
            through: String::new(),
        })
    })
}
