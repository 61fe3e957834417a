//! Metadata, which every document has: name, labels, annotations, age.

use std::collections::BTreeMap;

use mesh_core::policy::authorization::PolicyAction;
use mesh_core::resource::security::AuthorizationPolicy;
use mesh_core::resource::{Metadata, Place};
use mesh_core::vocab::name::{Text, check_label, check_subdomain};
use mesh_core::vocab::origin::{Kind, ResourceKey};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::annotation;
use super::field::{Field, Message, Report};
use super::node::{Node, Value, quoted};
use super::scalar;

/// The annotation with which a policy is only tried out.
const DRY_RUN: &str = "istio.io/dry-run";
/// The annotation of a Service that says who sees it.
pub(crate) const EXPORT_TO: &str = "networking.istio.io/exportTo";
/// Name and namespace of a MeshConfig that names none.
pub(crate) const MESH_CONFIG: (&str, &str) = ("istio", "istio-system");

/// What a server sets: skipped, and left out of the canonical form.
pub(crate) const SERVER_SET: &[&str] = &[
    "uid",
    "generateName",
    "resourceVersion",
    "generation",
    "managedFields",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "ownerReferences",
    "finalizers",
    "selfLink",
    "clusterName",
];

pub(crate) static METADATA: Message = Message {
    name: "metadata",
    fields: &["name", "namespace", "labels", "annotations"],
    later: &[],
    skipped: SERVER_SET,
};

/// Reads the metadata of a document.
pub(crate) fn metadata(
    root: &Node,
    kind: Kind,
    default_namespace: &str,
    file: &Text,
    report: &Report,
) -> Option<Metadata> {
    let (default_name, default_namespace) = match kind {
        Kind::MeshConfig => (Some(MESH_CONFIG.0), MESH_CONFIG.1),
        _ => (None, default_namespace),
    };
    let place = Place { file: file.clone(), line: root.mark.line };
    let Some(field) = Field::at(root, "metadata", report) else {
        let Some(name) = default_name else {
            Field::root(root, report).fault("the field metadata is missing");
            return None;
        };
        let key = ResourceKey { kind, namespace: default_namespace.into(), name: name.into() };
        let (labels, annotations) = Default::default();
        return Some(Metadata { key, labels, annotations, created: 0, place });
    };
    let metadata = field.object(&METADATA)?;
    let named = match default_name {
        Some(name) if !metadata.has("name") => Err(name),
        _ => Ok(metadata.require("name")),
    };
    let name = named.map(|field| {
        field.and_then(|field| {
            let text = field.some_text()?;
            let checked = match kind {
                Kind::Namespace | Kind::Service => check_label(text),
                // Part of an identity.
                Kind::ServiceAccount => check_subdomain(text),
                Kind::WorkloadEntry
                | Kind::ServiceEntry
                | Kind::VirtualService
                | Kind::DestinationRule
                | Kind::PeerAuthentication
                | Kind::AuthorizationPolicy
                | Kind::WorkloadGroup
                | Kind::Gateway
                | Kind::Sidecar
                | Kind::ProxyConfig
                | Kind::RequestAuthentication
                | Kind::Telemetry
                | Kind::MeshConfig
                | Kind::Secret
                | Kind::ConfigMap
                | Kind::Endpoints
                | Kind::EndpointSlice
                | Kind::RateLimit => scalar::check_resource_name(text),
            };
            // The name is kept: analysis goes on with what else the document says.
            if let Err(error) = checked {
                field.fault(error.to_string());
            }
            (text.len() <= 253 && !text.contains('/')).then(|| Text::from(text))
        })
    });
    let name = name.unwrap_or_else(|name| Some(name.into()));
    let written = metadata.get("namespace").filter(|field| *field.value() != Value::Text("".into()));
    let namespace = match (kind, written) {
        (Kind::Namespace, None) => Some(Text::from("")),
        (Kind::Namespace, Some(field)) => {
            field.fault("a Namespace is in no namespace");
            None
        }
        (_, None) => Some(Text::from(default_namespace)),
        (_, Some(field)) => scalar::label_name(&field),
    };
    let labels = metadata.get("labels").map(|field| scalar::kubernetes_labels(&field)).unwrap_or_default();
    let annotations = metadata.get("annotations").map(|field| annotations(&field, kind)).unwrap_or_default();
    let created = field.below("creationTimestamp").map_or(Some(0), |field| created(&field))?;
    let key = ResourceKey { kind, namespace: namespace?, name: name? };
    Some(Metadata { key, labels, annotations, created, place })
}

fn created(field: &Field<'_>) -> Option<u64> {
    let Value::Text(text) = field.value() else { return Some(0) };
    match OffsetDateTime::parse(text, &Rfc3339) {
        Ok(time) => Some(u64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(0)),
        Err(_) => {
            field.fault(format!("found {}, wanted a time such as 2026-01-02T03:04:05Z", quoted(text)));
            None
        }
    }
}

fn annotations(field: &Field<'_>, kind: Kind) -> BTreeMap<Text, Text> {
    let mut annotations = BTreeMap::new();
    for (key, value) in field.map() {
        if !scalar::check_qualified(&value, key) {
            continue;
        }
        let Some(text) = value.text() else { continue };
        match key {
            _ if key.starts_with("internal.istio.io/") => value.fault("this annotation is Istio's own"),
            annotation::HEDGE | annotation::X_HEDGE | annotation::FAULT | annotation::BUCKETS => {
                annotation::check_place(&value, key, kind);
            }
            DRY_RUN if kind != Kind::AuthorizationPolicy => {
                value.fault("istio.io/dry-run is for AuthorizationPolicy only");
            }
            DRY_RUN if is_true(text).is_none() => {
                value.fault(format!("found {}, wanted \"true\" or \"false\"", quoted(text)));
            }
            _ => {}
        }
        annotations.insert(Text::from(key), Text::from(text));
    }
    annotations
}

/// What a text says as Go reads truth values.
fn is_true(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Fills in whether a policy is only tried out, as its annotation says.
pub(crate) fn tried_out(root: &Node, meta: &Metadata, report: &Report, policy: &mut AuthorizationPolicy) {
    let Some(text) = meta.annotations.get(DRY_RUN) else { return };
    policy.dry_run = is_true(text) == Some(true);
    let annotations = Field::at(root, "metadata", report).and_then(|field| field.below("annotations"));
    if let Some(field) = annotations.and_then(|field| field.below(DRY_RUN))
        && matches!(policy.action, PolicyAction::Audit | PolicyAction::Custom)
    {
        field.fault(format!("a policy of action {} cannot be tried out", policy.action.name()));
    }
}
