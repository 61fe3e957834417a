//! Trust, authorization policies, and workloads with what governs them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::matching::text::TextMatch;
use crate::policy::authorization::{AuthorizationPolicy, Values};
use crate::policy::mtls::{MtlsMode, MtlsPolicy};
use crate::resource::security::PeerAuthentication;
use crate::resource::{Resource, Spec};
use crate::snapshot::section::Section;
use crate::snapshot::security::TrustBundle;
use crate::snapshot::workload::{Recognition, Workload, WorkloadPort};
use crate::state::MeshState;
use crate::state::index::KnownWorkload;
use crate::vocab::identity::TrustDomain;
use crate::vocab::label::Labels;
use crate::vocab::name::{Text, WorkloadKey};
use crate::vocab::origin::{Kind, ResourceKey};

/// The trust domain that Istio takes for the mesh's own, whatever that is called.
const SHORTHAND: &str = "cluster.local";

/// The trust bundle.
pub(super) fn trust(state: &MeshState) -> Section {
    let domain = state.settings().trust_domain.clone();
    Section::Trust(TrustBundle { domain, roots: state.roots().to_vec() })
}

/// The section of an authorization policy.
pub(super) fn policy(state: &MeshState, key: &ResourceKey) -> Option<Section> {
    let Spec::AuthorizationPolicy(declared) = &state.resource(key)?.spec else { return None };
    let mut rules = declared.rules.clone();
    for source in rules.iter_mut().flat_map(|rule| &mut rule.from) {
        expand(&mut source.principals, &state.settings().trust_domain);
    }
    Some(Section::Authorization(AuthorizationPolicy {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        action: declared.action,
        rules,
    }))
}

/// The section of a workload, and the node that it belongs to; `None` if no joined node stands before it.
pub(super) fn workload(state: &MeshState, key: &WorkloadKey) -> Option<(Text, Section)> {
    let known = state.workload(key)?;
    let node = known.node.clone()?;
    let labels = &known.entry.labels;
    let address = known.entry.address.ip()?;
    let section = Section::Workload(Workload {
        key: key.clone(),
        address,
        identity: known.identity.clone(),
        labels: labels.clone(),
        ports: ports(state, known),
        mtls: mtls(state, &key.namespace, labels),
        policies: policies(state, &key.namespace, labels),
        recognition: Recognition { user: known.entry.user },
    });
    Some((node, section))
}

/// The ports through which services of the mesh reach a workload. Where several reach one, a Service counts
/// before a ServiceEntry, then the older one.
fn ports(state: &MeshState, workload: &KnownWorkload) -> Vec<WorkloadPort> {
    let mut services = state.services_of(workload);
    services.retain(|service| !service.external);
    services.sort_by(|a, b| a.rank().cmp(&b.rank()).then_with(|| a.host.cmp(&b.host)));
    let mut ports = BTreeMap::new();
    for service in &services {
        for (number, target) in service.reaches(workload).unwrap_or_default() {
            let Some(port) = service.port(number) else { continue };
            ports.entry(target).or_insert_with(|| WorkloadPort {
                number: target,
                protocol: port.protocol,
                service: service.host.clone(),
            });
        }
    }
    ports.into_values().collect()
}

/// What the ports of a workload accept: the policy that selects it, else its namespace's, else the mesh's. Of
/// several at one level the oldest counts, and what it leaves unset is inherited.
pub(super) fn mtls(state: &MeshState, namespace: &str, labels: &Labels) -> MtlsPolicy {
    let selecting = oldest(state, namespace, |selector| selector.is_some_and(|s| s.selects(labels)));
    let of_namespace = oldest(state, namespace, |selector| selector.is_none());
    let of_mesh = oldest(state, &state.settings().root_namespace, |selector| selector.is_none());
    let levels = [&selecting, &of_namespace, &of_mesh];
    let declared = levels.into_iter().flatten().find_map(|(resource, policy)| {
        policy.mode.map(|mode| (mode, Text::from(resource.meta.key.to_string())))
    });
    let mut ports: BTreeMap<u16, MtlsMode> = BTreeMap::new();
    for (port, mode) in selecting.iter().flat_map(|(_, policy)| &policy.ports) {
        if let Some(mode) = mode {
            ports.entry(*port).or_insert(*mode);
        }
    }
    let (default, origin) = declared.unzip();
    MtlsPolicy { default: default.unwrap_or_default(), origin, ports: ports.into_iter().collect() }
}

/// The oldest PeerAuthentication of a namespace whose selector (`None` where it selects everything) is wanted.
fn oldest<'s>(
    state: &'s MeshState,
    namespace: &'s str,
    wanted: impl Fn(Option<&Labels>) -> bool,
) -> Option<(&'s Arc<Resource>, &'s PeerAuthentication)> {
    let policies = state.resources_in(Kind::PeerAuthentication, namespace);
    let policies = policies.filter_map(|resource| match &resource.spec {
        Spec::PeerAuthentication(policy) => Some((resource, policy)),
        _ => None,
    });
    policies
        .filter(|(_, policy)| wanted(policy.selector.as_ref().filter(|selector| !selector.is_empty())))
        .min_by(|(a, _), (b, _)| a.meta.precedence().cmp(&b.meta.precedence()))
}

/// Every authorization policy that holds for a workload: of its namespace and of the root namespace.
fn policies(state: &MeshState, namespace: &str, labels: &Labels) -> Vec<(Text, Text)> {
    let root = &*state.settings().root_namespace;
    let own = state.resources_in(Kind::AuthorizationPolicy, namespace);
    let mesh = state.resources_in(Kind::AuthorizationPolicy, root).filter(|_| root != namespace);
    let holds = |resource: &&Arc<Resource>| match &resource.spec {
        Spec::AuthorizationPolicy(policy) => policy.selector.as_ref().is_none_or(|s| s.selects(labels)),
        _ => false,
    };
    let names = own.chain(mesh).filter(holds).map(|resource| {
        let key = &resource.meta.key;
        (key.namespace.clone(), key.name.clone())
    });
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// `cluster.local` in a principal means the mesh's own trust domain too.
fn expand(principals: &mut Values<TextMatch>, domain: &TrustDomain) {
    if domain.as_str() == SHORTHAND {
        return;
    }
    for list in [&mut principals.any, &mut principals.none] {
        let meant: Vec<_> = list.iter().filter_map(|principal| in_domain(principal, domain)).collect();
        for principal in meant {
            if !list.contains(&principal) {
                list.push(principal);
            }
        }
    }
}

fn in_domain(principal: &TextMatch, domain: &TrustDomain) -> Option<TextMatch> {
    let replaced = |text: &Text| -> Option<Text> {
        let path = text.strip_prefix(SHORTHAND)?.strip_prefix('/')?;
        Some(format!("{domain}/{path}").into())
    };
    match principal {
        TextMatch::Exact(text) => replaced(text).map(TextMatch::Exact),
        TextMatch::Prefix(text) => replaced(text).map(TextMatch::Prefix),
        TextMatch::Present
        | TextMatch::NotEmpty
        | TextMatch::Suffix(_)
        | TextMatch::ExactIgnoringCase(_)
        | TextMatch::PrefixIgnoringCase(_)
        | TextMatch::SuffixIgnoringCase(_)
        | TextMatch::Regex(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::authorization::{AuthorizationRule, PolicyAction, Source};
    use crate::resource::security::AuthorizationPolicy as Declared;
    use crate::state::sample::{declare, labels, mesh, peer_authentication};

    #[test]
    fn the_nearest_peer_authentication_counts_and_the_oldest_of_a_level() {
        use MtlsMode::{Disable, Permissive, Strict};
        let check = |policies: Vec<Arc<Resource>>, expected: (MtlsMode, &str)| {
            let found = mtls(&mesh(policies.clone()), "default", &labels("app=a"));
            let origin = found.origin.as_deref().unwrap_or("-");
            let origin = origin.strip_prefix("peerauthentication/").unwrap_or(origin);
            assert_eq!((found.default, origin), expected, "{policies:?}");
        };
        let of_mesh = |mode| peer_authentication("istio-system/mesh", None, mode, &[]);
        let of_namespace = |mode| peer_authentication("default/ns", None, mode, &[]);
        let selecting = |mode| peer_authentication("default/app", Some("app=a"), mode, &[]);
        check(vec![], (Permissive, "-"));
        check(vec![of_mesh(Some(Strict))], (Strict, "istio-system/mesh"));
        check(vec![of_mesh(Some(Strict)), of_namespace(Some(Disable))], (Disable, "default/ns"));
        check(vec![of_mesh(Some(Strict)), of_namespace(None)], (Strict, "istio-system/mesh"));
        check(vec![of_namespace(Some(Strict)), selecting(Some(Disable))], (Disable, "default/app"));
        check(vec![of_namespace(Some(Strict)), selecting(None)], (Strict, "default/ns"));
        check(vec![selecting(None)], (Permissive, "-"));
        let other = peer_authentication("default/b", Some("app=b"), Some(Strict), &[]);
        check(vec![other], (Permissive, "-"));
        let in_root = peer_authentication("istio-system/app", Some("app=a"), Some(Strict), &[]);
        check(vec![in_root], (Permissive, "-"));
        let old = peer_authentication("default/z@1", None, Some(Strict), &[]);
        let new = peer_authentication("default/a@2", None, Some(Disable), &[]);
        check(vec![old, new], (Strict, "default/z"));
        let everything = peer_authentication("default/all", Some(""), Some(Strict), &[]);
        check(vec![everything], (Strict, "default/all"));
    }

    #[test]
    fn ports_are_governed_by_the_policy_that_selects() {
        let ports = [(9, Some(MtlsMode::Disable)), (8, None), (7, Some(MtlsMode::Strict))];
        let policy = peer_authentication("default/app", Some("app=a"), Some(MtlsMode::Strict), &ports);
        let found = mtls(&mesh(vec![policy]), "default", &labels("app=a"));
        assert_eq!(found.ports, [(7, MtlsMode::Strict), (9, MtlsMode::Disable)]);
        assert_eq!(found.mode(8), MtlsMode::Strict);
    }

    fn allow(id: &str, selector: Option<&str>, principals: Vec<TextMatch>) -> Arc<Resource> {
        let from = vec![Source {
            principals: Values { any: principals, none: vec![] },
            namespaces: Values::default(),
        }];
        let rules = vec![AuthorizationRule { from, to: vec![] }];
        let selector = selector.map(labels);
        declare(id, Spec::AuthorizationPolicy(Declared { selector, action: PolicyAction::Allow, rules }))
    }

    #[test]
    fn policies_of_the_namespace_and_of_the_root_hold() {
        let state = mesh(vec![
            allow("default/z", None, vec![]),
            allow("default/mine", Some("app=a"), vec![]),
            allow("default/other", Some("app=b"), vec![]),
            allow("shop/x", None, vec![]),
            allow("istio-system/all", None, vec![]),
            allow("istio-system/a", Some("app=a"), vec![]),
            allow("istio-system/b", Some("app=b"), vec![]),
        ]);
        let names = policies(&state, "default", &labels("app=a"));
        let names: Vec<_> = names.iter().map(|(namespace, name)| format!("{namespace}/{name}")).collect();
        assert_eq!(names, ["default/mine", "default/z", "istio-system/a", "istio-system/all"]);
        assert_eq!(policies(&state, "istio-system", &labels("app=a")).len(), 2);
    }

    #[test]
    fn cluster_local_means_the_mesh_s_own_domain() {
        let domain = TrustDomain::new("prod").unwrap();
        let exact = |text: &str| TextMatch::Exact(text.into());
        let check = |written: TextMatch, expected: &[TextMatch]| {
            let mut principals = Values { any: vec![written], none: vec![] };
            expand(&mut principals, &domain);
            assert_eq!(principals.any, expected);
        };
        let local = "cluster.local/ns/a/sa/b";
        check(exact(local), &[exact(local), exact("prod/ns/a/sa/b")]);
        check(exact("prod/ns/a/sa/b"), &[exact("prod/ns/a/sa/b")]);
        check(exact("cluster.locale/ns/a/sa/b"), &[exact("cluster.locale/ns/a/sa/b")]);
        let prefix = |text: &str| TextMatch::Prefix(text.into());
        check(prefix("cluster.local/ns/"), &[prefix("cluster.local/ns/"), prefix("prod/ns/")]);
        check(TextMatch::NotEmpty, &[TextMatch::NotEmpty]);
    }
}
