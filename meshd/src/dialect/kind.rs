//! Which kinds mean something here, by `apiVersion` and `kind`.

use mesh_core::resource::diagnostic::Severity;
use mesh_core::vocab::origin::Kind;

use super::field::{Field, NOT_CARRIED_OUT, Report, nearest, not_one_of};
use super::kubernetes::config_map;
use super::node::{Node, quoted};

/// How a kind stands with the mesh.
pub(crate) enum Standing {
    /// It means something.
    Carried(Kind),
    /// It is somebody else's: skipped, with this name in the warning.
    Skipped(String),
}

struct Group {
    name: &'static str,
    versions: &'static [&'static str],
    carried: &'static [Kind],
    /// Never read; with a sentence what to use instead.
    refused: &'static [(&'static str, &'static str)],
}

const GROUPS: [Group; 6] = [
    Group {
        name: "networking.istio.io",
        versions: &["v1", "v1beta1", "v1alpha3"],
        carried: &[
            Kind::VirtualService,
            Kind::DestinationRule,
            Kind::ServiceEntry,
            Kind::WorkloadEntry,
            Kind::WorkloadGroup,
            Kind::Gateway,
            Kind::Sidecar,
            Kind::ProxyConfig,
        ],
        refused: &[(
            "EnvoyFilter",
            "EnvoyFilter patches Envoy's own configuration and this data plane is not Envoy; say it with VirtualService, DestinationRule, AuthorizationPolicy or Telemetry, and rate limits with RateLimit of mesh.io/v1alpha1",
        )],
    },
    Group {
        name: "security.istio.io",
        versions: &["v1", "v1beta1"],
        carried: &[Kind::PeerAuthentication, Kind::AuthorizationPolicy, Kind::RequestAuthentication],
        refused: &[],
    },
    Group {
        name: "telemetry.istio.io",
        versions: &["v1", "v1alpha1"],
        carried: &[Kind::Telemetry],
        refused: &[],
    },
    Group {
        name: "extensions.istio.io",
        versions: &["v1alpha1"],
        carried: &[],
        refused: &[
            (
                "WasmPlugin",
                "WasmPlugin runs code inside Envoy and this data plane is not Envoy; use AuthorizationPolicy for access, or a service of its own on the path",
            ),
            (
                "TrafficExtension",
                "TrafficExtension runs code inside Envoy and this data plane is not Envoy; use AuthorizationPolicy for access, or a service of its own on the path",
            ),
        ],
    },
    Group { name: OWN, versions: &["v1alpha1"], carried: &[Kind::RateLimit], refused: &[] },
    Group { name: SLICES, versions: &["v1"], carried: &[Kind::EndpointSlice], refused: &[] },
];

/// The group of our own resources.
const OWN: &str = "mesh.io";

/// The group of Kubernetes that has EndpointSlice. Its other kinds and versions are skipped.
const SLICES: &str = "discovery.k8s.io";

/// The kinds that have no effect on the wire yet, whatever they say; their reading says so.
const LATER: [Kind; 3] = [Kind::Gateway, Kind::ProxyConfig, Kind::RequestAuthentication];

/// The kinds of Kubernetes' group `v1`.
const CORE: [&str; 18] = [
    "Binding",
    "ComponentStatus",
    "ConfigMap",
    "Endpoints",
    "Event",
    "LimitRange",
    "List",
    "Namespace",
    "Node",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Pod",
    "PodTemplate",
    "ReplicationController",
    "ResourceQuota",
    "Secret",
    "Service",
    "ServiceAccount",
];

/// How the document's kind stands; `None` if it is refused, and the report says why.
pub(crate) fn standing(root: &Node, report: &Report) -> Option<Standing> {
    let required = |key: &str| {
        let field = Field::at(root, key, report);
        if field.is_none() {
            Field::root(root, report).fault(format!("the field {key} is missing"));
        }
        field
    };
    let kind_field = required("kind")?;
    let kind = kind_field.some_text()?;
    // Bare settings with a kind on top have no version.
    if kind == Kind::MeshConfig.name() {
        return Some(Standing::Carried(Kind::MeshConfig));
    }
    let version_field = required("apiVersion")?;
    let api_version = version_field.some_text()?;
    for (field, text) in [(&kind_field, kind), (&version_field, api_version)] {
        if text.len() > LONGEST {
            field.fault(format!("found {}, at most {LONGEST} characters are allowed", quoted(text)));
            return None;
        }
    }
    let Some((group, version)) = api_version.split_once('/') else {
        return core(root, &kind_field, kind, &version_field, api_version);
    };
    if group == SLICES && (kind, version) != (Kind::EndpointSlice.name(), "v1") {
        return Some(Standing::Skipped(format!("{api_version} {kind}")));
    }
    if let Some(known) = GROUPS.iter().find(|known| known.name == group) {
        return istio(known, &kind_field, kind, &version_field, version, report, root);
    }
    if group == "gateway.networking.k8s.io" {
        let message = format!(
            "the kind {kind} of the Gateway API is not carried out yet; say it with Gateway and VirtualService of networking.istio.io"
        );
        report.add(NOT_CARRIED_OUT, Severity::Error, root.mark, kind_field.path(), message);
        return None;
    }
    let of_istio = GROUPS.iter().find(|known| known.kinds().any(|name| name == kind));
    let groups: Vec<&str> = GROUPS.iter().map(|known| known.name).filter(|name| *name != SLICES).collect();
    if group.ends_with(".istio.io") || (nearest(group, &groups).is_some() && of_istio.is_some()) {
        version_field.fault(not_one_of(group, &groups));
        return None;
    }
    let own = Kind::ALL.into_iter().find(|own| own.name() == kind);
    // A group without a dot is Kubernetes' own, and there is no second Service among those.
    if let (Some(own), false) = (own, group.contains('.')) {
        version_field.fault(format!("{kind} is of {}, found {}", versions_of(own), quoted(api_version)));
        return None;
    }
    Some(Standing::Skipped(format!("{api_version} {kind}")))
}

/// Longest kind or version: Kubernetes' longest group with a version behind it, and room.
const LONGEST: usize = 300;

/// What becomes of a kind that is known by name.
pub(crate) enum Fate {
    /// It is read, and carried out.
    Carried,
    /// It is read, but has no effect on the wire yet.
    Later,
    /// Refused for good; what to use instead.
    Refused(&'static str),
}

/// A kind that is known by name, for the table of them.
pub(crate) struct Known {
    pub(crate) name: &'static str,
    /// `networking.istio.io/v1`
    pub(crate) versions: Vec<String>,
    pub(crate) fate: Fate,
}

/// What becomes of a kind that is read.
pub(crate) fn fate(kind: Kind) -> Fate {
    match kind {
        kind if LATER.contains(&kind) => Fate::Later,
        _ => Fate::Carried,
    }
}

/// Every kind that is read or that has a sentence of its own.
pub(crate) fn all() -> Vec<Known> {
    let mut all: Vec<Known> = Kind::ALL
        .into_iter()
        .filter(|kind| group_of(*kind).is_empty())
        .map(|kind| Known { name: kind.name(), versions: vec!["v1".to_owned()], fate: fate(kind) })
        .collect();
    for group in &GROUPS {
        let versions = || group.versions.iter().map(|version| format!("{}/{version}", group.name)).collect();
        let carried = group.carried.iter().map(|kind| (kind.name(), fate(*kind)));
        let refused = group.refused.iter().map(|(name, why)| (*name, Fate::Refused(why)));
        all.extend(carried.chain(refused).map(|(name, fate)| Known { name, versions: versions(), fate }));
    }
    all
}

impl Group {
    fn kinds(&self) -> impl Iterator<Item = &'static str> {
        self.carried.iter().map(|kind| kind.name()).chain(self.refused.iter().map(|(name, _)| *name))
    }
}

/// Whether resources of a kind are in a namespace.
pub(crate) fn is_namespaced(kind: Kind) -> bool {
    kind != Kind::Namespace
}

/// The API group of a kind; empty for the core kinds of Kubernetes.
pub(crate) fn group_of(kind: Kind) -> &'static str {
    GROUPS.iter().find(|group| group.carried.contains(&kind)).map_or("", |group| group.name)
}

fn versions_of(kind: Kind) -> String {
    match GROUPS.iter().find(|group| group.carried.contains(&kind)) {
        Some(group) => format!("{}/{}", group.name, group.versions[0]),
        None => "v1".to_owned(),
    }
}

fn core(
    root: &Node,
    kind_field: &Field<'_>,
    kind: &str,
    version_field: &Field<'_>,
    version: &str,
) -> Option<Standing> {
    if version != "v1" {
        let own = Kind::ALL.into_iter().find(|own| own.name() == kind);
        let wanted = own.map_or("GROUP/VERSION or v1".to_owned(), versions_of);
        version_field.fault(format!("found {}, wanted {wanted}", quoted(version)));
        return None;
    }
    if kind == Kind::ConfigMap.name() && config_map::holds_mesh_config(root) {
        return Some(Standing::Carried(Kind::MeshConfig));
    }
    let known = [
        Kind::Namespace,
        Kind::ServiceAccount,
        Kind::Service,
        Kind::Secret,
        Kind::ConfigMap,
        Kind::Endpoints,
    ];
    if let Some(known) = known.into_iter().find(|known| known.name() == kind) {
        return Some(Standing::Carried(known));
    }
    if let Some(group) = GROUPS.iter().find(|group| group.kinds().any(|name| name == kind)) {
        version_field.fault(format!("{kind} is of {}/{}, found \"v1\"", group.name, group.versions[0]));
        return None;
    }
    if !CORE.contains(&kind) {
        kind_field.fault(not_one_of(kind, &CORE));
        return None;
    }
    Some(Standing::Skipped(format!("v1 {kind}")))
}

fn istio(
    group: &'static Group,
    kind_field: &Field<'_>,
    kind: &str,
    version_field: &Field<'_>,
    version: &str,
    report: &Report,
    root: &Node,
) -> Option<Standing> {
    if let Some((_, why)) = group.refused.iter().find(|(name, _)| *name == kind) {
        report.add(NOT_CARRIED_OUT, Severity::Error, root.mark, kind_field.path(), *why);
        return None;
    }
    let Some(known) = group.carried.iter().find(|known| known.name() == kind) else {
        let names: Vec<&str> = group.kinds().collect();
        let elsewhere = GROUPS.iter().find(|other| other.kinds().any(|name| name == kind));
        match elsewhere {
            Some(other) => {
                version_field.fault(format!("{kind} is of {}, found {}", other.name, quoted(group.name)));
            }
            None => kind_field.fault(not_one_of(kind, &names)),
        }
        return None;
    };
    if !group.versions.contains(&version) {
        version_field.fault(format!("version {}", not_one_of(version, group.versions)));
        return None;
    }
    Some(Standing::Carried(*known))
}
