//! What a policy is for: the workloads that a selector selects, or objects (`targetRefs`).

use mesh_core::resource::reach::TargetRef;
use mesh_core::vocab::label::Labels;

use super::selector;
pub(crate) use super::selector::BY_MATCH_LABELS as SELECTOR;
use crate::dialect::field::{Field, Message, Object};
use crate::dialect::node::quoted;

pub(crate) static TARGET: Message =
    Message { name: "a target", fields: &["group", "kind", "name", "namespace"], later: &[], skipped: &[] };

/// Why targets are refused, for docs/compatibility.md.
pub(crate) const NOBODY: &str =
    "for waypoint proxies and gateways of Kubernetes' Gateway API, of which there are none; use `selector`";

/// Most objects of a policy.
const MOST_TARGETS: usize = 16;
/// Longest group and name of an object.
const LONGEST_NAME: usize = 253;
/// Longest kind of an object.
const LONGEST_KIND: usize = 63;

/// The objects that a policy can be attached to, by group.
const TARGETS: [(&str, &str); 4] = [
    ("", "Service"),
    ("networking.istio.io", "ServiceEntry"),
    ("gateway.networking.k8s.io", "Gateway"),
    ("gateway.networking.k8s.io", "GatewayClass"),
];

/// Whom a policy is for.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// Workloads; `None` for all of the namespace.
    pub(super) selector: Option<Labels>,
    /// Objects instead.
    pub(super) targets: Vec<TargetRef>,
}

/// Reads `selector`, `targetRef` and `targetRefs` of a spec that has all three.
pub(super) fn scope(spec: &Object<'_>) -> Scope {
    let written = ["selector", "targetRef", "targetRefs"].into_iter().filter(|key| spec.has(key));
    let written: Vec<&str> = written.collect();
    if written.len() > 1 {
        spec.field().fault(format!("only one of {} can be set", written.join(" and ")));
    }
    let selector = selector(spec);
    let single = spec.get("targetRef");
    let several = spec.items("targetRefs");
    if several.len() > MOST_TARGETS
        && let Some(list) = spec.get("targetRefs")
    {
        list.fault(format!("found {} targets, at most {MOST_TARGETS} are allowed", several.len()));
    }
    let fields = single.iter().chain(several.iter().take(MOST_TARGETS));
    let targets = fields.filter_map(|field| {
        let target = target(field)?;
        field.never(instead(&target));
        Some(target)
    });
    let targets = targets.collect();
    Scope { selector, targets }
}

/// Labels of `selector`; `None` for one that selects everything, as if it were absent.
pub(crate) fn selector(spec: &Object<'_>) -> Option<Labels> {
    selector::by_match_labels(&spec.get("selector")?).filter(|labels| !labels.is_empty())
}

/// Who would look at a target, which is nobody here, and what does the same.
fn instead(target: &TargetRef) -> String {
    let kind = &target.kind;
    match &**kind {
        "Gateway" | "GatewayClass" => format!(
            "a target of kind {kind} is a gateway of Kubernetes' Gateway API, of which this mesh has none; \
             use `selector` with the labels of the gateway's workload"
        ),
        _ => format!(
            "a target of kind {kind} is for waypoint proxies, of which this mesh has none; \
             use `selector` with the labels of its workloads"
        ),
    }
}

fn target(field: &Field<'_>) -> Option<TargetRef> {
    let object = field.object(&TARGET)?;
    if let Some(namespace) = object.get("namespace")
        && namespace.text().is_some_and(|text| !text.is_empty())
    {
        namespace.fault("must be left out: an object of another namespace cannot be a target");
    }
    let name = object.require("name").and_then(|field| {
        let name = field.some_text()?;
        if name.chars().count() > LONGEST_NAME {
            field.fault(format!("longer than {LONGEST_NAME} characters"));
        }
        Some(name)
    });
    let group = match object.get("group") {
        Some(group) => group.text()?,
        None => "",
    };
    let kind_field = object.require("kind")?;
    let kind = kind_field.some_text()?;
    let known = |group: &str| TARGETS.contains(&(group, kind));
    if kind.len() > LONGEST_KIND || !(known(group) || (group == "core" && known(""))) {
        let place = object.get("group").filter(|_| TARGETS.iter().any(|(_, known)| *known == kind));
        let allowed = TARGETS.map(|(group, kind)| match group {
            "" => kind.to_owned(),
            _ => format!("{kind} of {group}"),
        });
        let found = match group {
            "" => quoted(kind),
            _ => format!("{} of {}", quoted(kind), quoted(group)),
        };
        place.unwrap_or(kind_field).fault(format!("found {found}; allowed: {}", allowed.join(", ")));
        return None;
    }
    Some(TargetRef { group: group.into(), kind: kind.into(), name: name?.into() })
}
