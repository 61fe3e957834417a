//! A document from its kind to its canonical form.

use std::rc::Rc;

use mesh_core::resource::destination_rule::DestinationRule;
use mesh_core::resource::diagnostic::{Diagnostic, Severity};
use mesh_core::resource::kubernetes::PodTemplate;
use mesh_core::resource::mesh_config::MeshConfig;
use mesh_core::resource::{Metadata, Resource, Spec};
use mesh_core::vocab::name::Text;
use mesh_core::vocab::origin::{Kind, ResourceKey};

use super::field::{Compiled, Field, Message, Report};
use super::kind::{Standing, standing};
use super::metadata::{EXPORT_TO, MESH_CONFIG, SERVER_SET, metadata, tried_out};
use super::node::{Entry, Mark, Node, Value};
use super::{UNREADABLE, annotation, istio, kubernetes, mesh};

/// What a document came to.
pub(crate) enum Meaning {
    /// A valid resource.
    Resource(Box<Resource>),
    /// A kind of Kubernetes without a meaning here: `apps/v1 Deployment`.
    Skipped(String),
    /// Refused, but understood as far as analysis needs it.
    Faulty(Box<Resource>),
    /// Refused; the diagnostics say why.
    Refused,
}

/// A document's meaning, with errors if it was refused, and warnings.
pub(crate) struct Interpreted {
    pub(crate) meaning: Meaning,
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// What is understood but not carried out yet, as errors for whoever wants it carried out.
    pub(crate) pending: Vec<Diagnostic>,
    /// The template of pods in a document that is skipped.
    pub(crate) pods: Option<PodTemplate>,
}

/// Largest resource, in bytes: what Kubernetes keeps of one. Known before it is read, so that no check meets endless
/// lists.
const LARGEST_RESOURCE: usize = 3 << 19;

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

/// The fields of a whole document of a kind.
pub(crate) fn top(kind: Kind) -> &'static Message {
    match kind {
        Kind::Namespace => &NAMESPACE,
        Kind::ServiceAccount => &SERVICE_ACCOUNT,
        Kind::Secret => &kubernetes::secret::SECRET,
        Kind::ConfigMap => &kubernetes::config_map::CONFIG_MAP,
        Kind::Endpoints => &kubernetes::endpoints::ENDPOINTS,
        Kind::EndpointSlice => &kubernetes::endpoints::SLICE,
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
        | Kind::RateLimit => &ISTIO,
    }
}

/// Reads one document.
pub(crate) fn interpret(
    root: &Node,
    file: &Text,
    default_namespace: &str,
    compiled: &Rc<Compiled>,
) -> Interpreted {
    let refused = |report: Report| {
        let (diagnostics, pending) = report.into_findings();
        Interpreted { meaning: Meaning::Refused, diagnostics, pending, pods: None }
    };
    let Value::Map(_) = &root.value else {
        let report = Report::new(file, "", false, compiled);
        let message = format!(
            "found {}, wanted a resource: a map with apiVersion, kind, metadata and spec",
            root.value
        );
        Field::root(root, &report).fault(message);
        return refused(report);
    };
    let resource = label_of(root, default_namespace);
    let report = Report::new(file, &resource, false, compiled);
    let kind = match standing(root, &report) {
        Some(Standing::Carried(kind)) => kind,
        Some(Standing::Skipped(kind)) => {
            return skipped(kind, kubernetes::pod::template(root, file, default_namespace));
        }
        None => return refused(report),
    };
    let size = root.size();
    if size > LARGEST_RESOURCE {
        let message = format!("the resource has {size} bytes, at most {LARGEST_RESOURCE} are allowed");
        let (path, mark) = heaviest(root);
        report.add(UNREADABLE, Severity::Error, mark, path, message);
        return refused(report);
    }
    let report = Report::new(file, &resource, null_is_absent(kind), compiled);
    // Kubernetes owns metadata in every kind, and there null means absent.
    let lenient = Report::new(file, &resource, true, compiled);
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
        (Some(meta), Some(spec)) if is_refused => Meaning::Faulty(Box::new(Resource { meta, spec })),
        (Some(meta), Some(spec)) => Meaning::Resource(Box::new(Resource { meta, spec })),
        _ => Meaning::Refused,
    };
    Interpreted { meaning, diagnostics, pending, pods: None }
}

/// What most of a resource is: where it stands.
fn heaviest(root: &Node) -> (String, Mark) {
    let (mut path, mut node) = (String::new(), root);
    loop {
        let below: Vec<(String, &Node)> = match &node.value {
            Value::List(items) => {
                items.iter().enumerate().map(|(index, item)| (format!("[{index}]"), item)).collect()
            }
            Value::Map(entries) => {
                let dot = if path.is_empty() { "" } else { "." };
                entries.iter().map(|entry| (format!("{dot}{}", entry.key), &entry.value)).collect()
            }
            _ => Vec::new(),
        };
        match below.into_iter().max_by_key(|(_, child)| child.size()) {
            Some((step, child)) if child.size() > node.size() / 2 && step.len() < 100 => {
                path.push_str(&step);
                node = child;
            }
            _ => return (path, node.mark),
        }
    }
}

fn skipped(kind: String, pods: Option<PodTemplate>) -> Interpreted {
    let meaning = Meaning::Skipped(kind);
    Interpreted { meaning, diagnostics: Vec::new(), pending: Vec::new(), pods }
}

/// Whether null means absent in the fields of a kind: Kubernetes and proto-JSON take it so, Istio's schemas do not.
fn null_is_absent(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Namespace
            | Kind::ServiceAccount
            | Kind::Service
            | Kind::Secret
            | Kind::ConfigMap
            | Kind::Endpoints
            | Kind::EndpointSlice
            | Kind::MeshConfig
    )
}

/// `virtualservice/default/reviews`, as far as it can be told.
fn label_of(root: &Node, default_namespace: &str) -> String {
    let Some(kind) = root.text_at("kind") else { return String::new() };
    let metadata = root.entry("metadata").map(|entry| &entry.value);
    let (default_name, default_namespace) =
        if kind == Kind::MeshConfig.name() { MESH_CONFIG } else { ("", default_namespace) };
    let name = metadata.and_then(|metadata| metadata.text_at("name")).unwrap_or(default_name);
    let namespace = metadata.and_then(|metadata| metadata.text_at("namespace"));
    let namespace = namespace.filter(|text| !text.is_empty()).unwrap_or(default_namespace);
    let kind = kind.to_ascii_lowercase();
    let label =
        if kind == "namespace" { format!("{kind}/{name}") } else { format!("{kind}/{namespace}/{name}") };
    // What cannot be names is shown where it stands, not as the name of a resource.
    let valid = label.len() <= 512 && label.bytes().all(|b| b.is_ascii_graphic());
    if valid { label } else { String::new() }
}

/// Reads the settings of the mesh: out of Istio's ConfigMap, below `spec`, or bare beside `kind`.
fn mesh_config(root: &Node, report: &Report) -> Option<MeshConfig> {
    let field = Field::root(root, report);
    if root.text_at("kind") != Some(Kind::MeshConfig.name()) {
        return kubernetes::config_map::mesh_config(&field);
    }
    if root.entry("spec").is_some() {
        let top = field.object(&ISTIO)?;
        return match top.get("spec") {
            Some(spec) => istio::mesh_config::mesh_config(&spec),
            None => Some(MeshConfig::default()),
        };
    }
    let Value::Map(entries) = &root.value else { return None };
    let bare =
        entries.iter().filter(|entry| !["apiVersion", "kind", "metadata", "status"].contains(&&*entry.key));
    let bare = Node { mark: root.mark, value: Value::Map(bare.cloned().collect()) };
    istio::mesh_config::mesh_config(&field.holding(&bare))
}

fn annotations<'a>(root: &'a Node, report: &'a Report) -> Option<Field<'a>> {
    Field::at(root, "metadata", report)?.below("annotations")
}

fn spec(root: &Node, kind: Kind, meta: &Metadata, report: &Report) -> Option<Spec> {
    if kind == Kind::MeshConfig {
        return mesh_config(root, report).map(|spec| Spec::MeshConfig(Box::new(spec)));
    }
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
        Kind::Service => {
            let exported = annotations(root, report).and_then(|field| field.below(EXPORT_TO));
            kubernetes::service::service(&spec()?, exported.as_ref()).map(Spec::Service)
        }
        Kind::WorkloadEntry => {
            let spec = spec()?;
            let recognition = annotations(root, report)
                .map(|field| istio::workload::recognition(&field))
                .unwrap_or_default();
            istio::workload::entry(&spec, &meta.labels, recognition).map(Spec::WorkloadEntry)
        }
        Kind::ServiceEntry => istio::service_entry::entry(&spec()?, meta).map(Spec::ServiceEntry),
        Kind::VirtualService => {
            let hedge = annotations(root, report).and_then(|field| annotation::hedge(&field));
            let mut rules = istio::virtual_service::virtual_service(&spec()?, &meta.key.namespace)?;
            rules.http.iter_mut().for_each(|rule| rule.hedge = hedge);
            Some(Spec::VirtualService(rules))
        }
        Kind::DestinationRule => {
            let fault = annotations(root, report).and_then(|field| annotation::connection_fault(&field));
            let rule = istio::destination_rule::rule(&spec()?, &meta.key.namespace)?;
            Some(Spec::DestinationRule(Box::new(DestinationRule { fault, ..rule })))
        }
        Kind::PeerAuthentication => {
            istio::peer_authentication::peer_authentication(&spec()?).map(Spec::PeerAuthentication)
        }
        Kind::AuthorizationPolicy => {
            let namespace = &meta.key.namespace;
            let mut policy = istio::authorization_policy::authorization_policy(&spec()?, namespace)?;
            tried_out(root, meta, report, &mut policy);
            Some(Spec::AuthorizationPolicy(policy))
        }
        Kind::WorkloadGroup => istio::workload_group::group(&spec()?).map(Spec::WorkloadGroup),
        Kind::Gateway => {
            istio::gateway::gateway(&spec()?, Field::at(root, "metadata", report).as_ref(), &meta.key.name)
                .map(Spec::Gateway)
        }
        Kind::Sidecar => istio::sidecar::sidecar(&spec()?, &meta.key.namespace).map(Spec::Sidecar),
        Kind::ProxyConfig => istio::proxy_config::proxy_config(&spec()?).map(Spec::ProxyConfig),
        Kind::RequestAuthentication => {
            istio::request_authentication::request_authentication(&spec()?).map(Spec::RequestAuthentication)
        }
        Kind::Telemetry => istio::telemetry::telemetry(&spec()?).map(Spec::Telemetry),
        Kind::RateLimit => mesh::rate_limit::rate_limit(&spec()?).map(Spec::RateLimit),
        Kind::Secret => Some(Spec::Secret(kubernetes::secret::secret(&top))),
        Kind::ConfigMap => Some(Spec::ConfigMap(kubernetes::config_map::config_map(&top))),
        Kind::Endpoints => Some(Spec::Endpoints(kubernetes::endpoints::endpoints(&top, &meta.key.name))),
        Kind::EndpointSlice => Some(Spec::Endpoints(kubernetes::endpoints::slice(&top, &meta.labels))),
        // Read above.
        Kind::MeshConfig => None,
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
