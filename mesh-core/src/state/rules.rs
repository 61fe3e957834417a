//! Which DestinationRules hold for a service in a view, merged.
//!
//! The first namespace with a rule for the host decides alone: the caller's, the service's, the root namespace. In
//! it the most specific host counts; rules for one host are merged unless they are exported to different callers.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::MeshState;
use super::view::{View, destination_rule};
use crate::resilience::connection_fault::ConnectionFault;
use crate::resource::Resource;
use crate::resource::destination_rule::{DestinationRule, Subset, TrafficPolicy};
use crate::vocab::label::Labels;
use crate::vocab::name::Text;
use crate::vocab::origin::ResourceKey;

/// What the DestinationRules that a view finds for a host amount to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Merged {
    /// The rule that counts: the one whose policy it is, else the oldest. `None` where no rule holds.
    pub origin: Option<Arc<Resource>>,
    /// Policy of the oldest that has one, with the rule that it is from.
    pub policy: Option<(Arc<Resource>, TrafficPolicy)>,
    /// Subsets of all, the first of a name winning, each with the rule that it is from.
    pub subsets: Vec<(Arc<Resource>, Subset)>,
    /// The fault of the oldest that has one.
    pub fault: Option<ConnectionFault>,
    /// Whether they were picked because one of them selects the callers. Only such callers are given credentials.
    pub selects: bool,
}

/// Rules that are merged, on their way.
struct Group<'s> {
    exported_to: Option<BTreeSet<Text>>,
    selector: Option<&'s Labels>,
    /// The rule that came first, which has that selector.
    first: &'s ResourceKey,
    merged: Merged,
}

impl MeshState {
    /// The DestinationRules of a service for the callers of a view.
    pub fn rules_for(&self, view: &View, service_namespace: &str, host: &str) -> Merged {
        let root = &*self.settings().root_namespace;
        let client = &*view.namespace;
        // What a namespace exports to others alone is nothing to its own callers.
        let own = self.destination_rules_of(client, host, |rule| {
            self.is_exported(rule, client) && (client != root || self.is_private(rule))
        });
        if !own.is_empty() {
            // A namespace with a rule for the host decides, even if the rule is for other callers there.
            return self.pick(own, view, true).unwrap_or_default();
        }
        for namespace in [service_namespace, root] {
            // The host is chosen before anybody asks who may see its rules, but private ones are no candidates.
            let exported = self.destination_rules_of(namespace, host, |rule| !self.is_private(rule));
            if let Some(found) = self.pick(exported, view, false) {
                return found;
            }
            if service_namespace == root {
                break;
            }
        }
        Merged::default()
    }

    /// The rules for the most specific host among those of a namespace that `counts` lets through.
    fn destination_rules_of<'s>(
        &'s self,
        namespace: &str,
        host: &'s str,
        counts: impl Fn(&Resource) -> bool,
    ) -> Vec<&'s Arc<Resource>> {
        let Some(table) = self.index.destination_rules.get(namespace) else { return Vec::new() };
        for list in table.by_specificity(host) {
            let counting: Vec<_> = list.iter().filter(|resource| counts(resource)).collect();
            if !counting.is_empty() {
                return counting;
            }
        }
        Vec::new()
    }

    /// Whether a rule is for its own namespace alone, so that no look-up from elsewhere considers it.
    fn is_private(&self, resource: &Resource) -> bool {
        if destination_rule(resource).is_some_and(|rule| rule.workload_selector.is_some()) {
            return true;
        }
        self.exported_to(resource)
            .is_some_and(|to| matches!(to.as_slice(), [one] if *one == resource.meta.key.namespace))
    }

    /// Merges the rules of one host, and picks what the view may use: first what selects the caller.
    fn pick(&self, rules: Vec<&Arc<Resource>>, view: &View, own: bool) -> Option<Merged> {
        let mut groups: Vec<Group<'_>> = Vec::new();
        let has_selector = |resource: &&Arc<Resource>| selector(resource).is_some();
        let (selecting, general): (Vec<_>, Vec<_>) = rules.into_iter().partition(has_selector);
        for resource in selecting.into_iter().chain(general) {
            if let Some(rule) = destination_rule(resource) {
                self.add(&mut groups, resource, rule);
            }
        }
        let found = groups.iter().position(|group| match group.selector {
            Some(_) => own && view.rules.contains(group.first),
            None => own || group.exported_to.as_ref().is_none_or(|to| to.contains(&view.namespace)),
        });
        found.map(|index| groups.swap_remove(index).merged)
    }

    fn add<'s>(&self, groups: &mut Vec<Group<'s>>, resource: &'s Arc<Resource>, rule: &'s DestinationRule) {
        let exported_to = self.exported_to(resource).map(|names| names.into_iter().collect::<BTreeSet<_>>());
        let selector = rule.workload_selector.as_ref();
        let mut apart = true;
        for group in groups.iter_mut() {
            match (group.selector, selector) {
                (Some(theirs), Some(own)) if theirs == own => {
                    group.merged.add(resource, rule);
                    apart = false;
                }
                // A rule for all fills in what one for some leaves unset, and stands for the others as well.
                (Some(_), None) => group.merged.add(resource, rule),
                (None, None) if group.exported_to == exported_to => {
                    group.merged.add(resource, rule);
                    apart = false;
                }
                (None, None) if is_superset(exported_to.as_ref(), group.exported_to.as_ref()) => {
                    group.merged.add(resource, rule);
                }
                (Some(_) | None, Some(_)) | (None, None) => {}
            }
        }
        if apart {
            let mut merged = Merged { selects: selector.is_some(), ..Merged::default() };
            merged.add(resource, rule);
            groups.push(Group { exported_to, selector, first: &resource.meta.key, merged });
        }
    }
}

fn selector(resource: &Resource) -> Option<&Labels> {
    destination_rule(resource)?.workload_selector.as_ref()
}

/// Whether a rule exported to `a` is seen by everybody who sees one exported to `b`; `None` is everybody.
fn is_superset(a: Option<&BTreeSet<Text>>, b: Option<&BTreeSet<Text>>) -> bool {
    match (a, b) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(a), Some(b)) => a.is_superset(b),
    }
}

impl Merged {
    /// Whether no rule holds.
    pub fn is_empty(&self) -> bool {
        self.origin.is_none()
    }

    fn add(&mut self, resource: &Arc<Resource>, rule: &DestinationRule) {
        if self.policy.is_none() {
            if let Some(policy) = &rule.policy {
                self.policy = Some((resource.clone(), policy.clone()));
                self.origin = Some(resource.clone());
            } else if self.origin.is_none() {
                self.origin = Some(resource.clone());
            }
        }
        self.fault = self.fault.or(rule.fault);
        for subset in &rule.subsets {
            if !self.subsets.iter().any(|(_, other)| other.name == subset.name) {
                self.subsets.push((resource.clone(), subset.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::Spec;
    use crate::resource::reach::{Export, ExportTo};
    use crate::state::sample::{destination_rule, labels, mesh};
    use crate::vocab::name::Text;

    const HOST: &str = "reviews.prod.svc.cluster.local";

    /// A rule with subsets, and a policy if its id ends in `!`. Exports by `.`, `*`, `~` or name, a selector by `k=v`.
    fn rule(id: &str, host: &str, subsets: &[&str], exports: &str, selector: &str) -> Arc<Resource> {
        let policy = id.ends_with('!').then(TrafficPolicy::default);
        let mut resource = destination_rule(id.trim_end_matches('!'), host, subsets, policy);
        let export = |text: &str| match text {
            "." => Export::Own,
            "*" => Export::All,
            name => Export::Namespace(name.into()),
        };
        if let Spec::DestinationRule(rule) = &mut Arc::make_mut(&mut resource).spec {
            rule.export_to = ExportTo { entries: exports.split_terminator(',').map(export).collect() };
            rule.workload_selector = (!selector.is_empty()).then(|| labels(selector));
        }
        resource
    }

    /// What a caller of `namespace` with these labels finds: `policy's rule: subset=rule ...`.
    fn found(rules: Vec<Arc<Resource>>, namespace: &str, caller: &str) -> String {
        let state = mesh(rules);
        let view = match namespace {
            "" => state.default_view(),
            name => state.view_of(&Text::from(name), &labels(caller)),
        };
        let merged = state.rules_for(&view, "prod", HOST);
        let policy = merged.policy.as_ref().map_or("-", |(resource, _)| &resource.meta.key.name);
        let subsets =
            merged.subsets.iter().map(|(resource, s)| format!(" {}={}", s.name, resource.meta.key.name));
        format!("{policy}:{}", subsets.collect::<String>())
    }

    #[test]
    fn the_first_namespace_with_a_matching_host_decides() {
        let client = || rule("shop/client", HOST, &["c"], "", "");
        let private = |exports| rule("shop/private", HOST, &["p"], exports, "");
        let service = || rule("prod/service", "reviews", &["s"], "", "");
        let root = || rule("istio-system/root", HOST, &["r"], "", "");
        let root_private = || rule("istio-system/hidden", HOST, &["h"], ".", "");
        for (rules, namespace, expected) in [
            (vec![client(), service(), root()], "shop", "-: c=client"),
            (vec![private("."), service()], "shop", "-: p=private"),
            (vec![private("shop"), service()], "shop", "-: p=private"),
            // One for others alone is nothing to its own namespace.
            (vec![private("other"), service()], "shop", "-: s=service"),
            (vec![client(), service(), root()], "till", "-: s=service"),
            (vec![client(), root()], "till", "-: r=root"),
            (vec![client(), service(), root()], "", "-: s=service"),
            // The root namespace's own callers find its private rules first, its public ones last.
            (vec![service(), root(), root_private()], "istio-system", "-: h=hidden"),
            (vec![service(), root()], "istio-system", "-: s=service"),
            (vec![root_private()], "till", "-:"),
        ] {
            assert_eq!(found(rules, namespace, ""), expected, "{namespace}");
        }
    }

    #[test]
    fn the_host_is_chosen_before_anybody_asks_who_may_see_it() {
        let wide = || rule("prod/wide", "*.prod.svc.cluster.local", &["w"], "", "");
        let narrow = |exports| rule("prod/narrow", "reviews", &["n"], exports, "");
        let root = || rule("istio-system/root", "*", &["r"], "", "");
        assert_eq!(found(vec![wide(), narrow("shop")], "shop", ""), "-: n=narrow");
        assert_eq!(found(vec![wide(), narrow("shop")], "till", ""), "-:");
        assert_eq!(found(vec![wide(), narrow("shop"), root()], "till", ""), "-: r=root");
        // One for its own namespace alone is no candidate elsewhere.
        assert_eq!(found(vec![wide(), narrow(".")], "till", ""), "-: w=wide");
        assert_eq!(found(vec![wide(), narrow("prod")], "till", ""), "-: w=wide");
    }

    #[test]
    fn rules_for_one_host_are_merged_unless_exported_to_others() {
        let first = |exports| rule("prod/a@1", "reviews", &["v1"], exports, "");
        let second = |exports| rule("prod/b@2!", "reviews", &["v1", "v2"], exports, "");
        assert_eq!(found(vec![first(""), second("*")], "shop", ""), "b: v1=a v2=b");
        assert_eq!(found(vec![first("shop"), second("till")], "shop", ""), "-: v1=a");
        assert_eq!(found(vec![first("shop"), second("till")], "till", ""), "b: v1=b v2=b");
        // A younger rule for more callers lends to the older one, and not the other way round.
        assert_eq!(found(vec![first("shop"), second("shop,till")], "shop", ""), "b: v1=a v2=b");
        assert_eq!(found(vec![first("shop"), second("shop,till")], "till", ""), "b: v1=b v2=b");
        assert_eq!(found(vec![first("shop,till"), second("shop")], "shop", ""), "-: v1=a");
    }

    #[test]
    fn rules_that_select_callers_come_first_there() {
        let general = || rule("shop/general@1!", HOST, &["g"], "", "");
        let batch = || rule("shop/batch@2", HOST, &["b"], "", "tier=batch");
        let web = || rule("shop/web@3!", HOST, &["w"], "", "tier=web");
        let all = || vec![general(), batch(), web()];
        assert_eq!(found(all(), "shop", "tier=batch"), "general: b=batch g=general");
        assert_eq!(found(all(), "shop", "tier=web"), "web: w=web g=general");
        assert_eq!(found(all(), "shop", ""), "general: g=general");
        let foreign = rule("prod/batch", "reviews", &["b"], "", "tier=batch");
        assert_eq!(found(vec![foreign], "shop", "tier=batch"), "-:");
    }
}
