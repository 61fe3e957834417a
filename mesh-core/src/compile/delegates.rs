//! Rules that a VirtualService leaves to another one.
//!
//! Each rule of the delegate is narrowed by the delegating rule: its matches are those of both, and what it does not
//! say it inherits. One level: what a delegate delegates further leads nowhere.

use std::borrow::Cow;

use super::routes::BoundRoute;
use crate::matching::request::RequestMatch;
use crate::matching::text::TextMatch;
use crate::resource::virtual_service::{HttpAction, HttpMatch, HttpRoute, Mirror, VirtualService};
use crate::resource::{Resource, Spec};
use crate::routing::rewrite::Rewrite;
use crate::state::{MeshState, hosts};
use crate::vocab::name::Text;

/// The rules for requests of a VirtualService, in order, with those of its delegates in the place of what delegates.
/// A delegating rule whose delegate is missing, or not exported to it, yields nothing.
pub(super) fn bound_routes<'s>(state: &'s MeshState, root: &'s Resource) -> Vec<BoundRoute<'s>> {
    let mut bound = Vec::new();
    for (index, route) in content(root).map_or(&[][..], |rules| &rules.http).iter().enumerate() {
        let HttpAction::Delegate { namespace, name, rewrite } = &route.action else {
            bound.push(BoundRoute { resource: &root.meta.key, index, route: Cow::Borrowed(route) });
            continue;
        };
        let Some(delegate) = state.delegate(root, namespace, name) else { continue };
        let narrowed = Narrowed { root, route, rewrite };
        for (index, leaf) in content(delegate).map_or(&[][..], |rules| &rules.http).iter().enumerate() {
            if let Some(merged) = narrowed.merge(leaf) {
                bound.push(BoundRoute { resource: &delegate.meta.key, index, route: Cow::Owned(merged) });
            }
        }
    }
    bound
}

fn content(resource: &Resource) -> Option<&VirtualService> {
    match &resource.spec {
        Spec::VirtualService(rules) => Some(rules),
        _ => None,
    }
}

/// A delegating rule.
struct Narrowed<'s> {
    root: &'s Resource,
    route: &'s HttpRoute,
    rewrite: &'s Rewrite,
}

impl Narrowed<'_> {
    /// A rule of the delegate under this one; `None` if one of its matches is not narrower than any of this rule's.
    fn merge(&self, leaf: &HttpRoute) -> Option<HttpRoute> {
        let root = self.route;
        let mut merged = leaf.clone();
        merged.matches = merged_matches(&root.matches, &leaf.matches)?;
        merged.name = joined(root.name.as_ref(), leaf.name.as_ref());
        match &mut merged.action {
            HttpAction::Route { rewrite, .. } if *rewrite == Rewrite::default() => {
                *rewrite = self.rewrite.clone();
            }
            HttpAction::Route { .. } | HttpAction::Redirect(_) | HttpAction::DirectResponse(_) => {}
            HttpAction::Delegate { .. } => return None,
        }
        merged.timeout = leaf.timeout.or(root.timeout);
        merged.retry = leaf.retry.clone().or_else(|| root.retry.clone());
        merged.hedge = leaf.hedge.or(root.hedge);
        merged.fault = leaf.fault.or(root.fault);
        merged.cors = leaf.cors.clone().or_else(|| root.cors.clone());
        if leaf.mirrors.is_empty() {
            merged.mirrors = root.mirrors.iter().map(|mirror| self.complete(mirror)).collect();
        }
        if leaf.request_headers.is_empty() && leaf.response_headers.is_empty() {
            merged.request_headers = root.request_headers.clone();
            merged.response_headers = root.response_headers.clone();
        }
        Some(merged)
    }

    /// A mirror whose host is a short name in the delegating VirtualService's namespace, not in the delegate's.
    fn complete(&self, mirror: &Mirror) -> Mirror {
        let mut mirror = mirror.clone();
        mirror.destination.host = hosts::resolve(&mirror.destination.host, &self.root.meta.key.namespace);
        mirror
    }
}

/// Every pair that does not conflict. `None` if a match of the leaf has no match of the root that it narrows.
fn merged_matches(root: &[HttpMatch], leaf: &[HttpMatch]) -> Option<Vec<HttpMatch>> {
    if root.is_empty() {
        return Some(leaf.to_vec());
    }
    if leaf.is_empty() {
        return Some(root.to_vec());
    }
    let mut merged = Vec::new();
    for own in leaf {
        let before = merged.len();
        merged
            .extend(root.iter().filter(|outer| !conflicts(outer, own)).map(|outer| merged_match(outer, own)));
        if merged.len() == before {
            return None;
        }
    }
    Some(merged)
}

/// The conditions of both; where both have one for the same thing the leaf's.
fn merged_match(root: &HttpMatch, leaf: &HttpMatch) -> HttpMatch {
    let (outer, own) = (&root.request, &leaf.request);
    HttpMatch {
        request: RequestMatch {
            name: joined(outer.name.as_ref(), own.name.as_ref()),
            uri: own.uri.clone().or_else(|| outer.uri.clone()),
            scheme: own.scheme.clone().or_else(|| outer.scheme.clone()),
            method: own.method.clone().or_else(|| outer.method.clone()),
            authority: own.authority.clone().or_else(|| outer.authority.clone()),
            headers: union(&outer.headers, &own.headers),
            without_headers: union(&outer.without_headers, &own.without_headers),
            pseudo: union(&outer.pseudo, &own.pseudo),
            without_pseudo: union(&outer.without_pseudo, &own.without_pseudo),
            query: union(&outer.query, &own.query),
            claims: union(&outer.claims, &own.claims),
            without_claims: union(&outer.without_claims, &own.without_claims),
            caller_labels: outer.caller_labels.merged_with(&own.caller_labels),
            caller_namespace: own.caller_namespace.clone().or_else(|| outer.caller_namespace.clone()),
        },
        port: leaf.port.or(root.port),
        gateways: if leaf.gateways.is_empty() { root.gateways.clone() } else { leaf.gateways.clone() },
    }
}

fn union<K: Clone + PartialEq, V: Clone>(root: &[(K, V)], leaf: &[(K, V)]) -> Vec<(K, V)> {
    let inherited = root.iter().filter(|(key, _)| !leaf.iter().any(|(own, _)| own == key));
    inherited.chain(leaf).cloned().collect()
}

fn joined(root: Option<&Text>, leaf: Option<&Text>) -> Option<Text> {
    match (root, leaf) {
        (Some(root), Some(leaf)) => Some(format!("{root}-{leaf}").into()),
        (one, other) => other.or(one).cloned(),
    }
}

/// Whether a match of the leaf is not within a match of the root.
fn conflicts(root: &HttpMatch, leaf: &HttpMatch) -> bool {
    let (outer, own) = (&root.request, &leaf.request);
    let plain = [
        (&outer.uri, &own.uri),
        (&outer.scheme, &own.scheme),
        (&outer.method, &own.method),
        (&outer.authority, &own.authority),
    ];
    plain.iter().any(|(outer, own)| tests_conflict(outer.as_ref(), own.as_ref()))
        || lists_conflict(&outer.headers, &own.headers)
        || lists_conflict(&outer.without_headers, &own.without_headers)
        || lists_conflict(&outer.pseudo, &own.pseudo)
        || lists_conflict(&outer.without_pseudo, &own.without_pseudo)
        || lists_conflict(&outer.query, &own.query)
        || lists_conflict(&outer.claims, &own.claims)
        || lists_conflict(&outer.without_claims, &own.without_claims)
        || ignores_case(outer.uri.as_ref()) != ignores_case(own.uri.as_ref())
        || matches!((root.port, leaf.port), (Some(outer), Some(own)) if outer != own)
        // A namespace is not inherited silently: the leaf must name the same.
        || (outer.caller_namespace.is_some() && outer.caller_namespace != own.caller_namespace)
        || own
            .caller_labels
            .iter()
            .any(|(key, value)| outer.caller_labels.value(key).is_some_and(|other| *other != **value))
        || (!root.gateways.is_empty() && leaf.gateways.iter().any(|own| !root.gateways.contains(own)))
}

fn lists_conflict<K: PartialEq>(root: &[(K, TextMatch)], leaf: &[(K, TextMatch)]) -> bool {
    leaf.iter().any(|(key, own)| {
        let outer = root.iter().find(|(other, _)| other == key).map(|(_, test)| test);
        tests_conflict(outer, Some(own))
    })
}

/// Whether what passes the leaf's test need not pass the root's. Patterns are never compared.
fn tests_conflict(root: Option<&TextMatch>, leaf: Option<&TextMatch>) -> bool {
    let (Some(root), Some(leaf)) = (root, leaf) else { return false };
    match (root, leaf) {
        (TextMatch::Exact(outer), TextMatch::Exact(own))
        | (TextMatch::ExactIgnoringCase(outer), TextMatch::ExactIgnoringCase(own)) => outer != own,
        (TextMatch::Prefix(outer), TextMatch::Prefix(own) | TextMatch::Exact(own))
        | (
            TextMatch::PrefixIgnoringCase(outer),
            TextMatch::PrefixIgnoringCase(own) | TextMatch::ExactIgnoringCase(own),
        ) => !own.starts_with(&**outer),
        (_, _) => true,
    }
}

fn ignores_case(uri: Option<&TextMatch>) -> bool {
    matches!(uri, Some(TextMatch::ExactIgnoringCase(_) | TextMatch::PrefixIgnoringCase(_)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::resilience::hedge::Hedge;
    use crate::resource::reach::{Export, ExportTo, GatewayRef};
    use crate::state::sample::{declare, destination, http_route, mesh};

    fn exact(text: &str) -> Option<TextMatch> {
        Some(TextMatch::Exact(text.into()))
    }

    fn prefix(text: &str) -> Option<TextMatch> {
        Some(TextMatch::Prefix(text.into()))
    }

    fn uri(uri: Option<TextMatch>) -> HttpMatch {
        let request = RequestMatch { uri, ..RequestMatch::default() };
        HttpMatch { request, port: None, gateways: Vec::new() }
    }

    #[test]
    fn a_leaf_must_be_within_the_root() {
        let ignoring = || Some(TextMatch::PrefixIgnoringCase("/a".into()));
        let regex = || Some(TextMatch::Regex(crate::matching::text::Pattern::new("/a.*").unwrap()));
        for (root, leaf, conflict) in [
            (None, prefix("/a"), false),
            (prefix("/a"), None, false),
            (prefix("/a"), prefix("/a/b"), false),
            (prefix("/a"), exact("/ab"), false),
            (prefix("/a/b"), prefix("/a"), true),
            (exact("/a"), prefix("/a"), true),
            (exact("/a"), exact("/a"), false),
            (exact("/a"), exact("/b"), true),
            (regex(), prefix("/a"), true),
            (regex(), regex(), true),
            (regex(), None, false),
            (prefix("/a"), ignoring(), true),
            (ignoring(), ignoring(), false),
            (ignoring(), None, true),
        ] {
            assert_eq!(conflicts(&uri(root.clone()), &uri(leaf.clone())), conflict, "{root:?} {leaf:?}");
        }
    }

    #[test]
    fn ports_callers_and_gateways_must_agree() {
        let base = || uri(None);
        let port = |port| HttpMatch { port: Some(port), ..base() };
        let at = |names: &[&str]| {
            let named = |name: &&str| GatewayRef::Named { namespace: "a".into(), name: (*name).into() };
            HttpMatch { gateways: names.iter().map(named).collect(), ..base() }
        };
        let from = |namespace: &str| {
            let mut found = base();
            found.request.caller_namespace = Some(namespace.into());
            found
        };
        for (root, leaf, conflict) in [
            (port(80), port(80), false),
            (port(80), port(81), true),
            (port(80), base(), false),
            (from("x"), from("x"), false),
            (from("x"), base(), true),
            (base(), from("x"), false),
            (at(&["g", "h"]), at(&["g"]), false),
            (at(&["g"]), at(&["g", "h"]), true),
            (at(&["g"]), base(), false),
        ] {
            assert_eq!(conflicts(&root, &leaf), conflict, "{root:?} {leaf:?}");
        }
    }

    fn delegating(name: &str, matches: &[&str]) -> HttpRoute {
        let mut route = http_route(None, None, &["unused"]);
        route.name = Some("root".into());
        route.matches = matches.iter().map(|path| uri(prefix(path))).collect();
        route.timeout = Some(Duration::from_secs(3));
        route.hedge = Some(Hedge { after: Duration::from_secs(1), most: 2, any_method: false });
        route.mirrors =
            vec![Mirror { destination: destination("copy"), share: crate::vocab::ratio::Ratio::ZERO }];
        route.action = HttpAction::Delegate {
            namespace: "leaf".into(),
            name: name.into(),
            rewrite: Rewrite { authority: Some("new".into()), ..Rewrite::default() },
        };
        route
    }

    fn leaf(export: Vec<Export>, http: Vec<HttpRoute>) -> Arc<Resource> {
        let export_to = ExportTo { entries: export };
        declare("leaf/d", Spec::VirtualService(VirtualService { http, export_to, ..Default::default() }))
    }

    /// `name: uri,uri` of each rule.
    fn resolved(root: HttpRoute, leaf: Option<Arc<Resource>>) -> Vec<String> {
        let rules = VirtualService { hosts: vec!["a".into()], http: vec![root], ..Default::default() };
        let root = declare("default/r", Spec::VirtualService(rules));
        let state = mesh(leaf.into_iter().chain([root.clone()]).collect());
        let show = |bound: BoundRoute<'_>| {
            let uris = bound.route.matches.iter();
            let uris: Vec<_> =
                uris.map(|m| m.request.uri.as_ref().map_or("-".into(), |u| u.to_string())).collect();
            format!(
                "{}#{} {}: {}",
                bound.resource,
                bound.index,
                bound.route.name.as_deref().unwrap_or("-"),
                uris.join(",")
            )
        };
        bound_routes(&state, &root).into_iter().map(show).collect()
    }

    #[test]
    fn rules_of_a_delegate_take_the_place_of_what_delegates() {
        let named = |name: &str, path: Option<&str>| {
            let mut route = http_route(path, None, &["x"]);
            route.name = Some(name.into());
            route
        };
        let rules = || vec![named("one", Some("/a/1")), named("wide", Some("/")), named("all", None)];
        let key = "virtualservice/leaf/d";
        let narrowed = vec![format!("{key}#0 root-one: /a/1*"), format!("{key}#2 root-all: /a*,/b*")];
        assert_eq!(resolved(delegating("d", &["/a", "/b"]), Some(leaf(vec![], rules()))), narrowed);
        let nothing: Vec<String> = Vec::new();
        assert_eq!(resolved(delegating("missing", &["/a"]), Some(leaf(vec![], rules()))), nothing);
        assert_eq!(resolved(delegating("d", &["/a"]), Some(leaf(vec![Export::Own], rules()))), nothing);
        let exported = leaf(vec![Export::Namespace("default".into())], rules());
        assert_eq!(resolved(delegating("d", &[]), Some(exported)).len(), 3);
    }

    #[test]
    fn what_a_delegate_does_not_say_it_inherits() {
        let root = declare("default/r", Spec::VirtualService(VirtualService::default()));
        let route = delegating("d", &["/a"]);
        let HttpAction::Delegate { rewrite, .. } = &route.action else { unreachable!() };
        let narrowed = Narrowed { root: &root, route: &route, rewrite };
        let merged = narrowed.merge(&http_route(None, None, &["x"])).unwrap();
        assert_eq!(merged.timeout, Some(Duration::from_secs(3)));
        assert_eq!(&*merged.mirrors[0].destination.host, "copy.default.svc.cluster.local");
        assert!(matches!(&merged.action, HttpAction::Route { rewrite, .. } if rewrite.authority.is_some()));
        let mut own = http_route(None, None, &["x"]);
        own.timeout = Some(Duration::from_secs(1));
        let hedge = |most| Some(Hedge { after: Duration::from_secs(1), most, any_method: false });
        assert_eq!(merged.hedge, hedge(2));
        own.hedge = hedge(1);
        let merged = narrowed.merge(&own).unwrap();
        assert_eq!((merged.timeout, merged.hedge), (Some(Duration::from_secs(1)), hedge(1)));
    }
}
