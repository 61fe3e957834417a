//! What is wrong across resources: of the live mesh, and of files.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use mesh_core::resource::Resource;
use mesh_core::resource::diagnostic::Diagnostic;
use mesh_core::resource::kubernetes::PodTemplate;
use mesh_core::vocab::origin::{Kind, ResourceKey};

use super::configuration::Scope;
use super::server::{Refusal, Shared, blocking};
use super::view::DiagnosticView;
use crate::clock;
use crate::controller::{Published, parse_key};
use crate::identity::credential;

/// Every finding across the resources of files, which take Istio's own ingress gateway for granted; file and line are
/// left open.
pub fn across(resources: &[Arc<Resource>], pods: &[PodTemplate], root_namespace: &str) -> Vec<Diagnostic> {
    judge(resources, pods, root_namespace, true)
}

fn judge(
    resources: &[Arc<Resource>],
    pods: &[PodTemplate],
    root_namespace: &str,
    default_ingress: bool,
) -> Vec<Diagnostic> {
    mesh_core::analysis::analyze(&mesh_core::analysis::Input {
        resources,
        pods,
        root_namespace,
        default_ingress,
        now: u64::try_from(clock::now_seconds()).unwrap_or(0),
        credential: &|certificate, _| credential::judge(certificate),
    })
}

/// Everything that counts in the mesh as it is: what is declared, and what nodes have announced.
fn resources(published: &Published) -> Vec<Arc<Resource>> {
    let state = &published.state;
    let mut all: BTreeMap<ResourceKey, Arc<Resource>> = BTreeMap::new();
    for registration in state.registrations() {
        for resource in registration.services.iter().chain(&registration.workloads) {
            all.insert(resource.meta.key.clone(), resource.clone());
        }
    }
    for resource in Kind::ALL.into_iter().flat_map(|kind| state.resources(kind)) {
        all.insert(resource.meta.key.clone(), resource.clone());
    }
    all.into_values().collect()
}

/// The findings of the mesh in force, those of one resource if one is named.
pub(super) fn of_mesh(published: &Published, only: Option<&ResourceKey>) -> Vec<DiagnosticView> {
    let root = &published.state.settings().root_namespace;
    let only = only.map(ToString::to_string);
    judge(&resources(published), &[], root, false)
        .iter()
        .filter(|finding| only.as_deref().is_none_or(|only| *finding.resource == *only))
        .map(|finding| {
            let owner = published.documents.get(&*finding.resource).map(|document| document.owner.clone());
            DiagnosticView { file: owner.unwrap_or_default(), ..DiagnosticView::from(finding) }
        })
        .collect()
}

pub(super) async fn analyze(
    State(state): Shared,
    Query(scope): Query<Scope>,
) -> Result<Json<Vec<DiagnosticView>>, Refusal> {
    let published = state.controller.published();
    let mut findings = blocking(move || of_mesh(&published, None)).await?;
    findings.retain(|finding| {
        // What is in no namespace concerns all of them.
        let namespace = parse_key(&finding.resource).map(|key| key.namespace);
        namespace.is_none_or(|namespace| namespace.is_empty() || scope.holds(&namespace))
    });
    Ok(Json(findings))
}
