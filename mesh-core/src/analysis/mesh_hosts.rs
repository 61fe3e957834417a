//! Several VirtualServices of the mesh for one host: only one counts (IST0109).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::facts::Facts;
use super::findings::{Findings, listed};
use crate::resource::diagnostic::Severity;
use crate::resource::reach::{Export, GatewayRef};
use crate::resource::virtual_service::VirtualService;
use crate::resource::{Resource, Spec};
use crate::state::hosts;
use crate::vocab::name::Text;
use crate::vocab::origin::Kind;

/// Exported to everybody.
const ALL: &str = "*";

/// Most public wildcards over one host that are told.
const MOST_PATTERNS: usize = 100;

type Claims<'a> = BTreeMap<(Text, Text), Vec<&'a Arc<Resource>>>;

pub(super) fn check(facts: &Facts<'_>, findings: &mut Findings) {
    let claims = claims(facts);
    let wildcards: Vec<&(Text, Text)> =
        claims.keys().filter(|(scope, host)| &**scope == ALL && hosts::is_wildcard(host)).collect();
    let mut reported: BTreeSet<String> = BTreeSet::new();
    for ((scope, host), list) in &claims {
        let mut list = list.clone();
        if &**scope != ALL {
            let public = |pattern: &Text| claims.get(&(Text::from(ALL), pattern.clone()));
            let covering = wildcards
                .iter()
                .map(|(_, pattern)| pattern)
                .filter(|pattern| overlap(host, pattern))
                .take(MOST_PATTERNS);
            let exact = (!hosts::is_wildcard(host)).then_some(host);
            list.extend(covering.chain(exact).filter_map(public).flatten().copied());
        }
        list.sort_by(|a, b| a.meta.precedence().cmp(&b.meta.precedence()));
        list.dedup_by(|a, b| a.meta.key == b.meta.key);
        let [winner, _, ..] = list.as_slice() else { continue };
        let names = listed(list.iter().map(|resource| resource.meta.key.to_string()));
        for resource in &list {
            if !reported.insert(resource.meta.key.to_string()) {
                continue;
            }
            let message = format!(
                "the host {host} is claimed by {names}; they are not merged and only the oldest counts, which is {}: make one of them, or bind or export them apart",
                winner.meta.key
            );
            findings.add("IST0109", Severity::Error, resource, "spec.hosts", message);
        }
    }
}

/// The VirtualServices of the mesh by the namespace that they are exported to and by host.
fn claims<'a>(facts: &Facts<'a>) -> Claims<'a> {
    let mut claims: Claims<'a> = BTreeMap::new();
    for resource in facts.of(Kind::VirtualService).iter().copied() {
        let Spec::VirtualService(rules) = &resource.spec else { continue };
        if !of_mesh(rules) {
            continue;
        }
        let namespace = &resource.meta.key.namespace;
        for scope in scopes(rules, namespace) {
            for host in &rules.hosts {
                let list = claims.entry((scope.clone(), hosts::resolve(host, namespace))).or_default();
                list.push(resource);
            }
        }
    }
    claims
}

pub(super) fn of_mesh(rules: &VirtualService) -> bool {
    rules.gateways.is_empty() || rules.gateways.contains(&GatewayRef::Mesh)
}

fn scopes(rules: &VirtualService, own: &Text) -> BTreeSet<Text> {
    let entries = &rules.export_to.entries;
    if entries.is_empty() || entries.contains(&Export::All) {
        return [Text::from(ALL)].into();
    }
    let scope = |entry: &Export| match entry {
        Export::Own => Some(own.clone()),
        Export::Namespace(namespace) => Some(namespace.clone()),
        Export::All | Export::Nobody => None,
    };
    entries.iter().filter_map(scope).collect()
}

/// Whether two hosts, either of them perhaps a wildcard, have names in common.
pub(super) fn overlap(one: &str, other: &str) -> bool {
    match (one.strip_prefix('*'), other.strip_prefix('*')) {
        (Some(a), Some(b)) => a.ends_with(b) || b.ends_with(a),
        (Some(suffix), None) => other.ends_with(suffix),
        (None, Some(suffix)) => one.ends_with(suffix),
        (None, None) => one == other,
    }
}
