//! What all documents share: kind, metadata, the canonical form.

use std::collections::BTreeMap;

use mesh_core::resource::diagnostic::{Diagnostic, Severity};
use mesh_core::resource::{Metadata, Place, Resource, Spec};
use mesh_core::vocab::name::{Text, check_label, check_subdomain};
use mesh_core::vocab::origin::{Kind, ResourceKey};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::field::{Field, Message, Note, Report};
use super::kind::{Standing, standing};
use super::node::{Entry, Mark, Node, Value, quoted};
use super::{UNREADABLE, istio, kubernetes, scalar};

/// What a document came to.
pub(crate) enum Meaning {
    /// A valid resource.
    Resource(Box<Resource>),
    /// A kind of Kubernetes without a meaning here: `apps/v1 Deployment`.
    Skipped(String),
    /// Refused; the diagnostics say why.
    Refused,
}

/// A document's meaning, with errors if it was refused, and warnings.
pub(crate) struct Interpreted {
    pub(crate) meaning: Meaning,
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// What is understood but not carried out yet, as errors for whoever wants it carried out.
    pub(crate) pending: Vec<Diagnostic>,
}

/// Largest resource, in bytes. Known before it is read, so that no check meets endless lists.
const LARGEST_RESOURCE: usize = 1 << 20;

/// What a server sets: skipped, and left out of the canonical form.
const SERVER_SET: &[&str] = &[
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

static ISTIO: Message = Message {
    name: "a resource",
    fields: &["apiVersion", "kind", "metadata", "spec"],
    later: &[],
    skipped: &["status"],
};

static NAMESPACE: Message = Message {
    name: "a Namespace",
    fields: &["apiVersion", "kind", "metadata"],
    later: &[],
    skipped: &["spec", "status"],
};

static SERVICE_ACCOUNT: Message = Message {
    name: "a ServiceAccount",
    fields: &["apiVersion", "kind", "metadata"],
    later: &[],
    skipped: &["secrets", "imagePullSecrets", "automountServiceAccountToken", "status"],
};

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Later(&METADATA, "annotations", "istio.io/dry-run: \"true\""),
    Note::Later(&METADATA, "annotations", "networking.istio.io/exportTo other than *"),
    Note::Later(&METADATA, "annotations", "mesh.io/cgroup, mesh.io/netns"),
];

/// The fields of a whole document of a kind.
pub(crate) fn top(kind: Kind) -> &'static Message {
    match kind {
        Kind::Namespace => &NAMESPACE,
        Kind::ServiceAccount => &SERVICE_ACCOUNT,
        Kind::Service
        | Kind::WorkloadEntry
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
        | Kind::EndpointSlice => &ISTIO,
    }
}

/// Reads one document.
pub(crate) fn interpret(root: &Node, file: &Text, default_namespace: &str) -> Interpreted {
    let refused = |report: Report| {
        let (diagnostics, pending) = report.into_findings();
        Interpreted { meaning: Meaning::Refused, diagnostics, pending }
    };
    let Value::Map(_) = &root.value else {
        let report = Report::new(file, "", false);
        let message = format!(
            "found {}, wanted a resource: a map with apiVersion, kind, metadata and spec",
            root.value
        );
        Field::root(root, &report).fault(message);
        return refused(report);
    };
    let resource = label_of(root, default_namespace);
    let report = Report::new(file, &resource, false);
    let kind = match standing(root, &report) {
        Some(Standing::Carried(kind)) => kind,
        Some(Standing::Skipped(kind)) => {
            let meaning = Meaning::Skipped(kind);
            return Interpreted { meaning, diagnostics: Vec::new(), pending: Vec::new() };
        }
        None => return refused(report),
    };
    let size = root.size();
    if size > LARGEST_RESOURCE {
        let message = format!("the resource has {size} bytes, at most {LARGEST_RESOURCE} are allowed");
        report.add(UNREADABLE, Severity::Error, root.mark, String::new(), message);
        return refused(report);
    }
    let of_kubernetes = matches!(kind, Kind::Namespace | Kind::ServiceAccount | Kind::Service);
    let report = Report::new(file, &resource, of_kubernetes);
    // Kubernetes owns metadata in every kind, and there null means absent.
    let lenient = Report::new(file, &resource, true);
    let meta = metadata(root, kind, default_namespace, file, &lenient);
    let spec = meta.as_ref().and_then(|meta| spec(root, kind, meta, &report));
    let (mut diagnostics, mut pending) = lenient.into_findings();
    let (of_spec, pending_of_spec) = report.into_findings();
    diagnostics.extend(of_spec);
    pending.extend(pending_of_spec);
    diagnostics.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
    pending.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
    let is_refused = diagnostics.iter().any(|d| d.severity == Severity::Error);
    let meaning = match (meta, spec) {
        (Some(meta), Some(spec)) if !is_refused => Meaning::Resource(Box::new(Resource { meta, spec })),
        _ => Meaning::Refused,
    };
    Interpreted { meaning, diagnostics, pending }
}

/// `virtualservice/default/reviews`, as far as it can be told.
fn label_of(root: &Node, default_namespace: &str) -> String {
    let Some(kind) = root.text_at("kind") else { return String::new() };
    let metadata = root.entry("metadata").map(|entry| &entry.value);
    let name = metadata.and_then(|metadata| metadata.text_at("name")).unwrap_or("");
    let namespace = metadata.and_then(|metadata| metadata.text_at("namespace"));
    let namespace = namespace.filter(|text| !text.is_empty()).unwrap_or(default_namespace);
    let kind = kind.to_ascii_lowercase();
    let label =
        if kind == "namespace" { format!("{kind}/{name}") } else { format!("{kind}/{namespace}/{name}") };
    // What cannot be names is shown where it stands, not as the name of a resource.
    let valid = label.len() <= 512 && label.bytes().all(|b| b.is_ascii_graphic());
    if valid { label } else { String::new() }
}

fn metadata(
    root: &Node,
    kind: Kind,
    default_namespace: &str,
    file: &Text,
    report: &Report,
) -> Option<Metadata> {
    let Some(field) = Field::at(root, "metadata", report) else {
        Field::root(root, report).fault("the field metadata is missing");
        return None;
    };
    let metadata = field.object(&METADATA)?;
    let name = metadata.require("name").and_then(|field| {
        let text = field.some_text()?;
        let checked = match kind {
            Kind::Namespace | Kind::Service => check_label(text),
            Kind::ServiceAccount
            | Kind::WorkloadEntry
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
            | Kind::EndpointSlice => check_subdomain(text),
        };
        checked.map_err(|error| field.fault(error.to_string())).ok().map(|()| Text::from(text))
    });
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
    let labels = metadata.get("labels").map(|field| scalar::labels(&field)).unwrap_or_default();
    let annotations = metadata.get("annotations").map(|field| annotations(&field, kind)).unwrap_or_default();
    let created = field.below("creationTimestamp").map_or(Some(0), |field| created(&field))?;
    let key = ResourceKey { kind, namespace: namespace?, name: name? };
    let place = Place { file: file.clone(), line: root.mark.line };
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
            "istio.io/dry-run" if kind != Kind::AuthorizationPolicy => {
                value.fault("istio.io/dry-run is for AuthorizationPolicy only");
            }
            "istio.io/dry-run" if text == "false" => {}
            "istio.io/dry-run" => value.later("the annotation istio.io/dry-run"),
            "networking.istio.io/exportTo" if kind == Kind::Service && text != "*" => {
                value.later("exportTo other than *");
            }
            _ => {}
        }
        annotations.insert(Text::from(key), Text::from(text));
    }
    annotations
}

fn spec(root: &Node, kind: Kind, meta: &Metadata, report: &Report) -> Option<Spec> {
    let top = Field::root(root, report).object(top(kind))?;
    // A spec that is not written is an empty one.
    let empty = Node { mark: root.mark, value: Value::Map(Vec::new()) };
    let spec = || match (top.get("spec"), top.has("spec")) {
        (Some(spec), _) => Some(spec),
        (None, false) => Some(Field::stand_in(&empty, "spec", report)),
        (None, true) => None,
    };
    if top.is_misspelt("spec") {
        return None;
    }
    match kind {
        Kind::Namespace => Some(Spec::Namespace),
        Kind::ServiceAccount => Some(Spec::ServiceAccount),
        Kind::Service => kubernetes::service(&spec()?).map(Spec::Service),
        Kind::WorkloadEntry => {
            let spec = spec()?;
            let annotations =
                Field::at(root, "metadata", report).and_then(|field| field.below("annotations"));
            let user = annotations.map(|field| istio::workload::recognition(&field)).unwrap_or_default();
            istio::workload::entry(&spec, &meta.labels, user).map(Spec::WorkloadEntry)
        }
        Kind::ServiceEntry => istio::service_entry::entry(&spec()?).map(Spec::ServiceEntry),
        Kind::VirtualService => istio::networking::virtual_service(&spec()?).map(Spec::VirtualService),
        Kind::DestinationRule => istio::destination_rule::rule(&spec()?).map(Spec::DestinationRule),
        Kind::PeerAuthentication => {
            istio::security::peer_authentication(&spec()?).map(Spec::PeerAuthentication)
        }
        Kind::AuthorizationPolicy => {
            istio::security::authorization_policy(&spec()?).map(Spec::AuthorizationPolicy)
        }
        Kind::WorkloadGroup => istio::workload_group::group(&spec()?).map(Spec::WorkloadGroup),
        Kind::Gateway => istio::gateway::gateway(&spec()?).map(Spec::Gateway),
        Kind::Sidecar => istio::sidecar::sidecar(&spec()?).map(Spec::Sidecar),
        Kind::ProxyConfig => istio::proxy_config::proxy_config(&spec()?).map(Spec::ProxyConfig),
        Kind::RequestAuthentication => {
            istio::request_authentication::request_authentication(&spec()?).map(Spec::RequestAuthentication)
        }
        Kind::Telemetry => istio::telemetry::telemetry(&spec()?).map(Spec::Telemetry),
        // Read in their own way, see `kind`.
        Kind::MeshConfig | Kind::Secret | Kind::ConfigMap | Kind::Endpoints | Kind::EndpointSlice => None,
    }
}

/// The form in which a document is kept, and the places of its values.
pub(crate) fn canonical(mut root: Node, key: &ResourceKey) -> (Box<str>, Box<[Mark]>) {
    if let Value::Map(entries) = &mut root.value {
        entries.retain(|entry| &*entry.key != "status");
        for entry in entries.iter_mut().filter(|entry| &*entry.key == "metadata") {
            canonical_metadata(&mut entry.value, key);
        }
    }
    let (mut json, mut marks) = (String::new(), Vec::new());
    root.write_json(&mut json, &mut marks);
    (json.into(), marks.into())
}

fn canonical_metadata(metadata: &mut Node, key: &ResourceKey) {
    let mark = metadata.mark;
    let Value::Map(entries) = &mut metadata.value else { return };
    entries.retain(|entry| !SERVER_SET.contains(&&*entry.key));
    if key.namespace.is_empty() {
        return;
    }
    let namespace = Value::Text((*key.namespace).into());
    match entries.iter_mut().find(|entry| &*entry.key == "namespace") {
        Some(entry) => entry.value.value = namespace,
        None => {
            let after_name = entries.iter().position(|entry| &*entry.key == "name").map_or(0, |at| at + 1);
            let entry = Entry { key: "namespace".into(), mark, value: Node { mark, value: namespace } };
            entries.insert(after_name, entry);
        }
    }
}
