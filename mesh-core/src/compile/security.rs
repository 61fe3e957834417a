//! Trust, policies, and workloads with what governs them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{aliases, limits, listeners, telemetry};
use crate::policy::authorization::AuthorizationPolicy;
use crate::policy::external::{Authorizer, Provider};
use crate::policy::jwt::{JwtRule, Keys, TokenPolicy};
use crate::policy::mtls::{MtlsMode, MtlsPolicy};
use crate::resource::security::PeerAuthentication;
use crate::resource::{Resource, Spec};
use crate::snapshot::section::{Section, SectionKey};
use crate::snapshot::security::TrustBundle;
use crate::snapshot::workload::Workload;
use crate::state::MeshState;
use crate::vocab::identity::TrustDomain;
use crate::vocab::label::Labels;
use crate::vocab::name::{Text, WorkloadKey};
use crate::vocab::origin::{Kind, ResourceKey};

/// The trust bundle.
pub(super) fn trust(state: &MeshState) -> Section {
    let domain = state.settings().trust_domain.clone();
    let aliases = state.trust_domains(false).into_iter().filter_map(|name| TrustDomain::new(&name).ok());
    Section::Trust(TrustBundle {
        aliases: aliases.filter(|alias| *alias != domain).collect(),
        domain,
        roots: state.roots().to_vec(),
        normalization: state.normalization(),
        revoked: state.revoked().to_vec(),
    })
}

/// The key of the section of an AuthorizationPolicy or RequestAuthentication.
pub(super) fn policy_key(key: &ResourceKey) -> SectionKey {
    let (namespace, name) = (key.namespace.clone(), key.name.clone());
    match key.kind {
        Kind::RequestAuthentication => SectionKey::Tokens(namespace, name),
        _ => SectionKey::Authorization(namespace, name),
    }
}

/// The section of an AuthorizationPolicy or RequestAuthentication.
pub(super) fn policy(state: &MeshState, key: &ResourceKey) -> Option<Section> {
    let (namespace, name) = (key.namespace.clone(), key.name.clone());
    match &state.resource(key)?.spec {
        Spec::AuthorizationPolicy(declared) => {
            let mut rules = declared.rules.clone();
            aliases::expand(&mut rules, &key.namespace, state);
            Some(Section::Authorization(AuthorizationPolicy {
                namespace,
                name,
                action: declared.action,
                provider: declared.provider.as_ref().map(|provider| asked(state, provider)),
                dry_run: declared.dry_run,
                rules,
            }))
        }
        Spec::RequestAuthentication(declared) => {
            let rules = declared.rules.iter().map(|rule| with_keys(state, rule)).collect();
            Some(Section::Tokens(TokenPolicy { namespace, name, rules }))
        }
        _ => None,
    }
}

/// A rule on tokens with the keys that were fetched for it.
fn with_keys(state: &MeshState, rule: &JwtRule) -> JwtRule {
    let fetched = rule.keys_from().and_then(|uri| state.fetched_keys(&uri).cloned());
    let keys = fetched.map_or_else(|| rule.keys.clone(), Keys::Inline);
    JwtRule { keys, ..rule.clone() }
}

/// Whom a CUSTOM policy asks, as the mesh knows it.
fn asked(state: &MeshState, name: &Text) -> Provider {
    let authorizer = state.ext_authz(name).map(|service| Authorizer {
        grpc: service.grpc,
        service: service.service.clone(),
        port: service.port,
        timeout: service.timeout,
        fail_open: service.fail_open,
        status_on_error: service.status_on_error,
    });
    Provider { name: name.clone(), authorizer }
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
        node: node.clone(),
        locality: known.entry.locality.clone(),
        network: known.entry.network.clone(),
        ports: listeners::ports(state, known),
        mtls: mtls(state, &key.namespace, labels),
        policies: governing(state, Kind::AuthorizationPolicy, &key.namespace, labels),
        tokens: governing(state, Kind::RequestAuthentication, &key.namespace, labels),
        limits: limits::of_workload(state, known),
        view: state.view_of(&key.namespace, labels).scope(),
        recognition: known.entry.recognition.clone(),
        probe: known.entry.probe.clone(),
        telemetry: telemetry::of_workload(state, &key.namespace, labels),
    });
    Some((node, section))
}

/// What the ports of a workload accept: the policy that selects it, else its namespace's, else the mesh's. Of
/// several at one level the oldest counts, and what it leaves unset is inherited. A policy of the root namespace that
/// selects is passed over, as Istio does.
pub(super) fn mtls(state: &MeshState, namespace: &str, labels: &Labels) -> MtlsPolicy {
    let root = &*state.settings().root_namespace;
    let selecting = oldest(state, namespace, |selector| selector.is_some_and(|s| s.selects(labels)));
    let selecting = selecting.filter(|_| namespace != root);
    let of_namespace = oldest(state, namespace, |selector| selector.is_none());
    let of_mesh = oldest(state, root, |selector| selector.is_none());
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
    let ports_origin = selecting.filter(|_| !ports.is_empty());
    let (default, origin) = declared.unzip();
    MtlsPolicy {
        default: default.unwrap_or_default(),
        origin,
        ports: ports.into_iter().collect(),
        ports_origin: ports_origin.map(|(resource, _)| resource.meta.key.to_string().into()),
    }
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

/// Every policy of a kind that holds for a workload: of its namespace and of the root namespace. Those that are attached
/// to an object are for waypoints and gateways of Kubernetes.
pub(super) fn governing(
    state: &MeshState,
    kind: Kind,
    namespace: &str,
    labels: &Labels,
) -> Vec<(Text, Text)> {
    let root = &*state.settings().root_namespace;
    let own = state.resources_in(kind, namespace);
    let mesh = state.resources_in(kind, root).filter(|_| root != namespace);
    let holds = |resource: &&Arc<Resource>| {
        let (selector, targets) = match &resource.spec {
            Spec::AuthorizationPolicy(policy) => (&policy.selector, &policy.targets),
            Spec::RequestAuthentication(policy) => (&policy.selector, &policy.targets),
            _ => return false,
        };
        targets.is_empty() && selector.as_ref().is_none_or(|s| s.selects(labels))
    };
    let names = own.chain(mesh).filter(holds).map(|resource| {
        let key = &resource.meta.key;
        (key.namespace.clone(), key.name.clone())
    });
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::reach::TargetRef;
    use crate::resource::security::{AuthorizationPolicy as Declared, RequestAuthentication};
    use crate::state::Change;
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
        let in_its_own_root = peer_authentication("istio-system/app", Some("app=a"), Some(Strict), &[]);
        let found = mtls(&mesh(vec![in_its_own_root]), "istio-system", &labels("app=a"));
        assert_eq!(found.default, Permissive);
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
        assert_eq!(found.origin(7).map(|name| &**name), Some("peerauthentication/default/app"));
    }

    fn allow(id: &str, selector: Option<&str>) -> Arc<Resource> {
        let selector = selector.map(labels);
        declare(id, Spec::AuthorizationPolicy(Declared { selector, ..Declared::default() }))
    }

    #[test]
    fn policies_of_the_namespace_and_of_the_root_hold() {
        let attached = TargetRef { group: "".into(), kind: "Service".into(), name: "a".into() };
        let attached = Declared { targets: vec![attached], ..Declared::default() };
        let state = mesh(vec![
            allow("default/z", None),
            allow("default/mine", Some("app=a")),
            allow("default/other", Some("app=b")),
            declare("default/attached", Spec::AuthorizationPolicy(attached)),
            allow("shop/x", None),
            allow("istio-system/all", None),
            allow("istio-system/a", Some("app=a")),
            allow("istio-system/b", Some("app=b")),
        ]);
        let names = governing(&state, Kind::AuthorizationPolicy, "default", &labels("app=a"));
        let names: Vec<_> = names.iter().map(|(namespace, name)| format!("{namespace}/{name}")).collect();
        assert_eq!(names, ["default/mine", "default/z", "istio-system/a", "istio-system/all"]);
        let in_root = governing(&state, Kind::AuthorizationPolicy, "istio-system", &labels("app=a"));
        assert_eq!(in_root.len(), 2);
        assert_eq!(governing(&state, Kind::RequestAuthentication, "default", &labels("app=a")), []);
    }

    #[test]
    fn fetched_keys_stand_in_the_place_of_their_uri() {
        let uri = Text::from("https://issuer/keys");
        let rule = JwtRule {
            issuer: Some("issuer".into()),
            audiences: vec![],
            keys: Keys::Uri(uri.clone()),
            from_headers: vec![],
            from_params: vec![],
            from_cookies: vec![],
            payload_header: None,
            claim_headers: vec![],
            forward_original: false,
            space_delimited: vec![],
            timeout: None,
            required: false,
        };
        let rules = vec![rule];
        let policy = RequestAuthentication { rules, ..RequestAuthentication::default() };
        let policy = declare("default/jwt", Spec::RequestAuthentication(policy));
        let key = policy.meta.key.clone();
        let state = mesh(vec![policy]);
        let keys = |state: &MeshState| match super::policy(state, &key) {
            Some(Section::Tokens(policy)) => policy.rules[0].keys.clone(),
            _ => panic!("no section"),
        };
        assert_eq!(state.wanted_keys(), std::slice::from_ref(&uri));
        assert_eq!(keys(&state), Keys::Uri(uri.clone()));
        let change = Change { keys: vec![(uri.clone(), Some("{}".into()))], ..Change::default() };
        let (fetched, touched) = state.apply(change);
        assert_eq!(keys(&fetched), Keys::Inline("{}".into()));
        assert!(touched.policies.contains(&key) && touched.policies.len() == 1);
        let change = Change { keys: vec![(uri.clone(), None)], ..Change::default() };
        assert_eq!(keys(&fetched.apply(change).0), Keys::Uri(uri));
    }
}
