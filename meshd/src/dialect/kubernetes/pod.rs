//! Templates of pods in Deployments and their like. These kinds are skipped; analysis reads what labels and ports
//! they promise. So whatever does not fit is passed over without a word.

use std::collections::BTreeMap;

use mesh_core::resource::Place;
use mesh_core::resource::kubernetes::PodTemplate;
use mesh_core::vocab::label::Labels;
use mesh_core::vocab::name::Text;

use crate::dialect::node::{Node, Value};

/// Containers of Istio's own, whose user is the proxy's by right.
const PROXIES: [&str; 2] = ["istio-proxy", "istio-operator"];

/// Where the template stands in a document of each kind.
const KINDS: [(&str, &str, &[&str]); 8] = [
    ("v1", "Pod", &[]),
    ("v1", "ReplicationController", &["spec", "template"]),
    ("apps/v1", "Deployment", &["spec", "template"]),
    ("apps/v1", "StatefulSet", &["spec", "template"]),
    ("apps/v1", "DaemonSet", &["spec", "template"]),
    ("apps/v1", "ReplicaSet", &["spec", "template"]),
    ("batch/v1", "Job", &["spec", "template"]),
    ("batch/v1", "CronJob", &["spec", "jobTemplate", "spec", "template"]),
];

/// The template of a document's pods, if it has one.
pub(crate) fn template(root: &Node, file: &Text, default_namespace: &str) -> Option<PodTemplate> {
    let (version, kind) = (root.text_at("apiVersion")?, root.text_at("kind")?);
    let (_, _, path) = KINDS.iter().find(|known| (known.0, known.1) == (version, kind))?;
    let metadata = below(root, &["metadata"])?;
    let template = below(root, path)?;
    let spec = below(template, &["spec"]);
    let of_pod = below(template, &["metadata"]);
    let containers = items(spec.and_then(|spec| below(spec, &["containers"])));
    let ports = containers.iter().flat_map(|container| items(below(container, &["ports"])));
    let ports = ports.filter_map(|port| {
        let number = whole(below(port, &["containerPort"])?)?;
        Some((Text::from(port.text_at("name").unwrap_or("")), u16::try_from(number).ok()?))
    });
    let user = |node: &Node| whole(below(node, &["securityContext", "runAsUser"])?);
    let of_app =
        containers.iter().filter(|container| !PROXIES.contains(&container.text_at("name").unwrap_or("")));
    let users = spec.into_iter().chain(of_app).filter_map(user);
    let account = spec.and_then(|spec| spec.text_at("serviceAccountName").or(spec.text_at("serviceAccount")));
    Some(PodTemplate {
        kind: kind.into(),
        namespace: metadata.text_at("namespace").unwrap_or(default_namespace).into(),
        name: metadata.text_at("name").or(metadata.text_at("generateName"))?.into(),
        labels: labels(of_pod),
        annotations: annotations(of_pod),
        own_labels: labels(Some(metadata)),
        own_annotations: annotations(Some(metadata)),
        service_account: account.filter(|text| !text.is_empty()).map(Text::from),
        ports: ports.collect(),
        users: users.collect(),
        place: Place { file: file.clone(), line: root.mark.line },
    })
}

fn labels(metadata: Option<&Node>) -> Labels {
    let mut labels = Labels::default();
    for (key, value) in pairs(metadata, "labels") {
        labels.set(key, value);
    }
    labels
}

fn annotations(metadata: Option<&Node>) -> BTreeMap<Text, Text> {
    pairs(metadata, "annotations").into_iter().map(|(key, value)| (key.into(), value.into())).collect()
}

fn pairs<'n>(metadata: Option<&'n Node>, key: &str) -> Vec<(&'n str, &'n str)> {
    metadata.and_then(|metadata| below(metadata, &[key])).map(texts).unwrap_or_default()
}

fn below<'n>(node: &'n Node, path: &[&str]) -> Option<&'n Node> {
    path.iter().try_fold(node, |node, key| Some(&node.entry(key)?.value))
}

fn items(node: Option<&Node>) -> &[Node] {
    match node.map(|node| &node.value) {
        Some(Value::List(items)) => items,
        _ => &[],
    }
}

fn whole(node: &Node) -> Option<u32> {
    match &node.value {
        Value::Number(number) => u32::try_from(number.as_u64()?).ok(),
        _ => None,
    }
}

fn texts(node: &Node) -> Vec<(&str, &str)> {
    match &node.value {
        Value::Map(entries) => entries
            .iter()
            .filter_map(|entry| match &entry.value.value {
                Value::Text(text) => Some((&*entry.key, &**text)),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}
