//! Along a call chain: retries that multiply (MSH0103), timeouts longer than the caller's (MSH0104).
//!
//! That one service calls another is known where a resource says so: an AuthorizationPolicy that allows a service
//! account, a rule of a VirtualService for callers with labels, a Sidecar of selected workloads that imports a host by
//! name. What no resource says is not guessed.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::facts::{Facts, Workload};
use super::findings::Findings;
use super::mesh_hosts::of_mesh;
use crate::matching::text::TextMatch;
use crate::policy::authorization::{PolicyAction, Source};
use crate::resource::diagnostic::Severity;
use crate::resource::sidecar::EgressNamespace;
use crate::resource::{Resource, Spec};
use crate::state::hosts;
use crate::vocab::name::Text;
use crate::vocab::origin::Kind;

/// From how many tries at the end of a chain for one request at its start on it is worth a word.
const MANY_TRIES: u32 = 9;
/// Most callers and called ones of one service that are combined.
const MOST_NEIGHBOURS: usize = 200;

/// Most times that a caller and a called one are put together.
const MOST_CALLS: usize = 500_000;

/// What a VirtualService says of a host.
struct Bounds<'a> {
    resource: &'a Arc<Resource>,
    /// Most tries of one request, with the index of the rule.
    tries: Option<(u32, usize)>,
    /// Longest timeout, with the index of the rule.
    timeout: Option<(Duration, usize)>,
}

/// Which host calls which.
pub(super) type Calls = BTreeSet<(Text, Text)>;

pub(super) fn check(facts: &Facts<'_>, calls: &Calls, findings: &mut Findings) {
    if calls.is_empty() {
        return;
    }
    let bounds = bounds(facts);
    let mut called: HashMap<&Text, Vec<&Text>> = HashMap::new();
    for (caller, callee) in calls {
        called.entry(caller).or_default().push(callee);
    }
    for (caller, middle) in calls {
        let Some(outer) = bounds.get(middle) else { continue };
        for callee in called.get(middle).into_iter().flatten().take(MOST_NEIGHBOURS) {
            let Some(inner) = bounds.get(*callee).filter(|_| *callee != caller) else { continue };
            multiplied(caller, middle, callee, outer, inner, findings);
            outlasting(middle, callee, outer, inner, findings);
        }
    }
}

fn multiplied(
    caller: &Text,
    middle: &Text,
    callee: &Text,
    outer: &Bounds<'_>,
    inner: &Bounds<'_>,
    findings: &mut Findings,
) {
    let (Some((outer_tries, _)), Some((inner_tries, index))) = (outer.tries, inner.tries) else { return };
    let product = outer_tries.saturating_mul(inner_tries);
    if outer_tries > 1 && inner_tries > 1 && product >= MANY_TRIES {
        let message = format!(
            "one request of {caller} to {middle} ({outer_tries} tries, {}) may become {product} requests to {callee} ({inner_tries} tries each): retry at one place of the chain only",
            outer.resource.meta.key
        );
        let field = format!("spec.http[{index}].retries.attempts");
        findings.add("MSH0103", Severity::Warning, inner.resource, field, message);
    }
}

fn outlasting(middle: &Text, callee: &Text, outer: &Bounds<'_>, inner: &Bounds<'_>, findings: &mut Findings) {
    let (Some((outer_limit, _)), Some((inner_limit, index))) = (outer.timeout, inner.timeout) else { return };
    if inner_limit > outer_limit {
        let message = format!(
            "requests to {callee} may take {inner_limit:?}, but {middle}, which sends them, has to answer its own callers within {outer_limit:?} ({}): shorten this timeout, or lengthen that one",
            outer.resource.meta.key
        );
        let field = format!("spec.http[{index}].timeout");
        findings.add("MSH0104", Severity::Warning, inner.resource, field, message);
    }
}

/// What the oldest VirtualService of each host demands.
fn bounds<'a>(facts: &Facts<'a>) -> HashMap<Text, Bounds<'a>> {
    let mut all: HashMap<Text, Bounds<'a>> = HashMap::new();
    for resource in facts.of(Kind::VirtualService).iter().copied() {
        let Spec::VirtualService(rules) = &resource.spec else { continue };
        if !of_mesh(rules) {
            continue;
        }
        let routes = rules.http.iter().enumerate();
        let tries =
            routes.clone().filter_map(|(index, route)| Some((route.retry.as_ref()?.attempts + 1, index)));
        let timeout = routes.filter_map(|(index, route)| {
            route.timeout.filter(|timeout| !timeout.is_zero()).map(|timeout| (timeout, index))
        });
        let (tries, timeout) = (tries.max(), timeout.max());
        for host in &rules.hosts {
            let host = hosts::resolve(host, &resource.meta.key.namespace);
            all.entry(host).or_insert(Bounds { resource, tries, timeout });
        }
    }
    all
}

/// Which service calls which, as far as resources say it.
pub(super) fn calls(facts: &Facts<'_>) -> Calls {
    let served = served(facts);
    let mut calls = BTreeSet::new();
    let mut tried = 0;
    let mut add = |callers: Vec<&Workload<'_>>, callees: Vec<Text>| {
        for caller in callers.into_iter().take(MOST_NEIGHBOURS) {
            for from in served.get(&at(caller)).into_iter().flatten() {
                if tried > MOST_CALLS {
                    return;
                }
                tried += callees.len();
                calls.extend(callees.iter().filter(|to| *to != from).map(|to| (from.clone(), to.clone())));
            }
        }
    };
    allowed_callers(facts, &served, &mut add);
    rule_callers(facts, &mut add);
    importing_callers(facts, &mut add);
    calls
}

/// By the place of the workload in memory.
type Served = HashMap<usize, Vec<Text>>;
type Add<'f> = dyn FnMut(Vec<&Workload<'_>>, Vec<Text>) + 'f;

fn at(workload: &Workload<'_>) -> usize {
    std::ptr::from_ref(workload).addr()
}

/// The hosts that each workload serves.
fn served(facts: &Facts<'_>) -> Served {
    let mut served = Served::new();
    for known in &facts.hosts {
        for workload in facts.members(known) {
            let hosts = served.entry(at(workload)).or_default();
            if hosts.len() < MOST_NEIGHBOURS {
                hosts.push(known.host.clone());
            }
        }
    }
    served
}

fn allowed_callers(facts: &Facts<'_>, served: &Served, add: &mut Add<'_>) {
    for resource in facts.of(Kind::AuthorizationPolicy) {
        let Spec::AuthorizationPolicy(policy) = &resource.spec else { continue };
        let Some(labels) = policy.selector.as_ref().filter(|_| policy.action == PolicyAction::Allow) else {
            continue;
        };
        let selected = facts.selection(&resource.meta.key.namespace, labels, true).take(MOST_NEIGHBOURS);
        let mut callees: BTreeSet<Text> = BTreeSet::new();
        for hosts in selected.filter_map(|workload| served.get(&at(workload))) {
            if callees.len() < MOST_NEIGHBOURS {
                callees.extend(hosts.iter().cloned());
            }
        }
        let accounts: BTreeSet<(Text, Text)> =
            policy.rules.iter().flat_map(|rule| &rule.from).flat_map(accounts).collect();
        for (namespace, account) in accounts {
            let of_account = facts
                .workloads_in(&namespace)
                .filter(|workload| workload.account.as_deref() == Some(&*account));
            add(of_account.collect(), callees.iter().cloned().collect());
        }
    }
}

/// Namespace and account of the identities that a source names.
fn accounts(source: &Source) -> Vec<(Text, Text)> {
    let principals = source.principals.any.iter().filter_map(|test| match test {
        TextMatch::Exact(text) => {
            let mut parts = text.split('/').skip(1);
            let [Some("ns"), Some(namespace), Some("sa"), Some(account), None] =
                std::array::from_fn(|_| parts.next())
            else {
                return None;
            };
            Some((namespace.into(), account.into()))
        }
        _ => None,
    });
    let listed = source.service_accounts.any.iter().filter_map(|account| {
        let (namespace, account) = account.split_once('/')?;
        Some((namespace.into(), account.into()))
    });
    principals.chain(listed).collect()
}

fn rule_callers(facts: &Facts<'_>, add: &mut Add<'_>) {
    for resource in facts.of(Kind::VirtualService) {
        let Spec::VirtualService(rules) = &resource.spec else { continue };
        let own = &resource.meta.key.namespace;
        let callees: Vec<Text> = rules.hosts.iter().map(|host| hosts::resolve(host, own)).collect();
        for entry in rules.http.iter().flat_map(|route| &route.matches) {
            let labels = &entry.request.caller_labels;
            if !labels.is_empty() {
                let namespace = entry.request.caller_namespace.as_ref().unwrap_or(own);
                add(facts.selected(namespace, labels, false), callees.clone());
            }
        }
    }
}

fn importing_callers(facts: &Facts<'_>, add: &mut Add<'_>) {
    for resource in facts.of(Kind::Sidecar) {
        let Spec::Sidecar(sidecar) = &resource.spec else { continue };
        let Some(labels) = sidecar.selector.as_ref().filter(|labels| !labels.is_empty()) else { continue };
        let imported = sidecar.egress.iter().flatten().flat_map(|egress| &egress.hosts);
        let named = imported.filter(|host| {
            !host.excluded && host.namespace != EgressNamespace::Nobody && !hosts::is_wildcard(&host.host)
        });
        let callees: Vec<Text> = named.map(|host| host.host.clone()).collect();
        if !callees.is_empty() {
            add(facts.selected(&resource.meta.key.namespace, labels, false), callees);
        }
    }
}
