//! Service ports and subsets with the policy that holds for them.
//!
//! A client looks for DestinationRules in its own namespace, then in the service's, then in the root namespace, and
//! the first that has one for the host decides alone. What most clients find makes the sections without scope; a
//! rule in a third namespace makes a complete set of its own for the clients there.

use std::sync::Arc;
use std::time::Duration;

use crate::balancing::balancer::LoadBalancer;
use crate::balancing::policy::{Algorithm, LoadBalancerPolicy};
use crate::policy::mtls::ClientTls;
use crate::resource::destination_rule::{
    DestinationRule, Subset, TlsMode, TlsSettings, TrafficBlocks, TrafficPolicy,
};
use crate::resource::service::Port;
use crate::resource::{Resource, Spec};
use crate::snapshot::destination::Destination;
use crate::state::MeshState;
use crate::state::index::KnownService;
use crate::vocab::label::Labels;
use crate::vocab::name::{DestinationKey, Text};

/// Istio's default of `connectTimeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The destinations of a service.
pub(super) fn of_service(state: &MeshState, service: &KnownService) -> Vec<Destination> {
    let root = &state.settings().root_namespace;
    let of_namespace = state.destination_rules_in(&service.namespace, &service.host);
    let rules = match of_namespace {
        [] => state.destination_rules_in(root, &service.host),
        rules => rules,
    };
    let mut destinations = Merged::of(rules).destinations(service, None);
    for (namespace, table) in state.destination_rules() {
        if *namespace == service.namespace || namespace == root {
            continue;
        }
        let rules = table.most_specific(&service.host);
        if !rules.is_empty() {
            destinations.extend(Merged::of(rules).destinations(service, Some(namespace)));
        }
    }
    destinations
}

/// The rules of one namespace for one host: subsets of all, the first of a name winning, and the policy of the
/// oldest that has one. Each part with the resource that it is from.
#[derive(Default)]
struct Merged<'r> {
    origin: Option<&'r Arc<Resource>>,
    policy: Option<&'r TrafficPolicy>,
    subsets: Vec<(&'r Arc<Resource>, &'r Subset)>,
}

impl<'r> Merged<'r> {
    fn of(rules: &'r [Arc<Resource>]) -> Merged<'r> {
        let mut merged = Merged::default();
        for (resource, rule) in rules.iter().filter_map(|resource| Some((resource, rule(resource)?))) {
            if merged.policy.is_none() {
                if rule.policy.is_some() || merged.origin.is_none() {
                    merged.origin = Some(resource);
                }
                merged.policy = rule.policy.as_ref();
            }
            for subset in &rule.subsets {
                if !merged.subsets.iter().any(|(_, other)| other.name == subset.name) {
                    merged.subsets.push((resource, subset));
                }
            }
        }
        merged
    }

    fn destinations(&self, service: &KnownService, scope: Option<&Text>) -> Vec<Destination> {
        let mut destinations = Vec::new();
        for port in &service.ports {
            destinations.push(self.destination(service, port, None, scope));
            for subset in &self.subsets {
                destinations.push(self.destination(service, port, Some(subset), scope));
            }
        }
        destinations
    }

    fn destination(
        &self,
        service: &KnownService,
        port: &Port,
        subset: Option<&(&'r Arc<Resource>, &'r Subset)>,
        scope: Option<&Text>,
    ) -> Destination {
        let origin = subset.map(|(resource, _)| *resource).or(self.origin);
        let subset = subset.map(|(_, subset)| *subset);
        let blocks = blocks(self.policy, subset.and_then(|subset| subset.policy.as_ref()), port.number);
        Destination {
            key: DestinationKey {
                host: service.host.clone(),
                port: port.number,
                subset: subset.map(|subset| subset.name.clone()),
                scope: scope.cloned(),
            },
            origin: origin.map(|resource| resource.meta.key.to_string().into()),
            protocol: port.protocol,
            labels: subset.map_or_else(Labels::default, |subset| subset.labels.clone()),
            load_balancer: simple(blocks.load_balancer.as_ref()),
            tls: client_tls(blocks.tls.as_ref()),
            connect_timeout: CONNECT_TIMEOUT,
        }
    }
}

/// Low to high: the top level, its entry for the port, the subset, the subset's entry for the port. A subset wins
/// block by block; an entry for the port is the whole policy, with defaults where it is silent.
fn blocks(top: Option<&TrafficPolicy>, subset: Option<&TrafficPolicy>, port: u16) -> TrafficBlocks {
    let base = top.map(|policy| for_port(policy, port).unwrap_or(&policy.blocks).clone()).unwrap_or_default();
    let Some(subset) = subset else { return base };
    if let Some(entry) = for_port(subset, port) {
        return entry.clone();
    }
    TrafficBlocks {
        load_balancer: subset.blocks.load_balancer.clone().or(base.load_balancer),
        connection_pool: subset.blocks.connection_pool.or(base.connection_pool),
        outlier_detection: subset.blocks.outlier_detection.clone().or(base.outlier_detection),
        tls: subset.blocks.tls.clone().or(base.tls),
    }
}

fn simple(policy: Option<&LoadBalancerPolicy>) -> LoadBalancer {
    match policy.map(|policy| &policy.algorithm) {
        Some(Algorithm::Simple(simple)) => *simple,
        Some(Algorithm::Passthrough | Algorithm::ConsistentHash { .. }) | None => LoadBalancer::default(),
    }
}

fn client_tls(settings: Option<&TlsSettings>) -> ClientTls {
    match settings.map(|settings| settings.mode) {
        None => ClientTls::Auto,
        Some(TlsMode::IstioMutual) => ClientTls::IstioMutual,
        Some(TlsMode::Disable | TlsMode::Simple | TlsMode::Mutual) => ClientTls::Disable,
    }
}

fn for_port(policy: &TrafficPolicy, port: u16) -> Option<&TrafficBlocks> {
    policy.ports.iter().find(|(number, _)| *number == port).map(|(_, blocks)| blocks)
}

fn rule(resource: &Resource) -> Option<&DestinationRule> {
    match &resource.spec {
        Spec::DestinationRule(rule) => Some(rule),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancing::balancer::LoadBalancer;
    use crate::compile::compile;
    use crate::policy::mtls::ClientTls;
    use crate::snapshot::Version;
    use crate::snapshot::section::Section;
    use crate::state::sample::{declare, destination_rule, mesh, service};

    fn lb(load_balancer: LoadBalancer) -> TrafficBlocks {
        TrafficBlocks { load_balancer: Some(load_balancer), tls: None }
    }

    fn tls(tls: ClientTls) -> TrafficBlocks {
        TrafficBlocks { load_balancer: None, tls: Some(tls) }
    }

    fn policy(blocks: TrafficBlocks, ports: &[(u16, TrafficBlocks)]) -> TrafficPolicy {
        TrafficPolicy { blocks, ports: ports.to_vec() }
    }

    #[test]
    fn policies_are_inherited_block_by_block_and_replaced_by_port() {
        let check = |top: &TrafficPolicy, subset: Option<&TrafficPolicy>, expected: TrafficBlocks| {
            assert_eq!(blocks(Some(top), subset, 80), expected, "{top:?} {subset:?}");
        };
        let both = TrafficBlocks { load_balancer: Some(LoadBalancer::Random), tls: Some(ClientTls::Disable) };
        let turn = || lb(LoadBalancer::RoundRobin);
        check(&policy(both.clone(), &[]), None, both.clone());
        check(&policy(both.clone(), &[(80, turn())]), None, turn());
        check(&policy(both.clone(), &[(81, turn())]), None, both.clone());
        let subset = policy(turn(), &[]);
        let mixed =
            TrafficBlocks { load_balancer: Some(LoadBalancer::RoundRobin), tls: Some(ClientTls::Disable) };
        check(&policy(both.clone(), &[]), Some(&subset), mixed);
        let mutual = policy(both.clone(), &[(80, tls(ClientTls::IstioMutual))]);
        let mixed = TrafficBlocks {
            load_balancer: Some(LoadBalancer::RoundRobin),
            tls: Some(ClientTls::IstioMutual),
        };
        check(&mutual, Some(&subset), mixed);
        let by_port = policy(both.clone(), &[(80, TrafficBlocks::default())]);
        check(&policy(both, &[]), Some(&by_port), TrafficBlocks::default());
        assert_eq!(blocks(None, None, 80), TrafficBlocks::default());
    }

    /// `port/subset@scope=rule` of every destination of reviews.default.
    fn destinations(rules: Vec<Arc<Resource>>) -> String {
        let mut resources = vec![service("reviews", &["http:80"], "app=reviews")];
        resources.extend(rules);
        let compiled = compile(&mesh(resources)).whole(Version::default());
        let found = compiled.sections.values().filter_map(|entry| match &*entry.section {
            Section::Destination(found) => {
                let subset = found.key.subset.as_deref().unwrap_or("");
                let scope = found.key.scope.as_deref().unwrap_or("");
                let origin =
                    found.origin.as_deref().map_or("-", |origin| &origin["destinationrule/".len()..]);
                Some(format!("{}/{subset}@{scope}={origin}", found.key.port))
            }
            _ => None,
        });
        found.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_first_namespace_with_a_rule_decides_alone() {
        let host = "reviews.default.svc.cluster.local";
        let own = || destination_rule("default/own", "reviews", &["v1"], None);
        let root = || destination_rule("istio-system/root", host, &["v2"], None);
        let client = || destination_rule("shop/client", host, &["v3"], None);
        let wild = || destination_rule("default/wild", "*.cluster.local", &["w"], None);
        for (rules, expected) in [
            (vec![], "80/@=-"),
            (vec![own()], "80/@=default/own 80/v1@=default/own"),
            (vec![root()], "80/@=istio-system/root 80/v2@=istio-system/root"),
            (vec![own(), root()], "80/@=default/own 80/v1@=default/own"),
            (vec![wild(), own()], "80/@=default/own 80/v1@=default/own"),
            (vec![wild()], "80/@=default/wild 80/w@=default/wild"),
            (
                vec![own(), client()],
                "80/@=default/own 80/@shop=shop/client 80/v1@=default/own 80/v3@shop=shop/client",
            ),
            (vec![client()], "80/@=- 80/@shop=shop/client 80/v3@shop=shop/client"),
            (vec![destination_rule("shop/short", "reviews", &["v1"], None)], "80/@=-"),
        ] {
            assert_eq!(destinations(rules), expected);
        }
    }

    #[test]
    fn rules_of_one_namespace_for_one_host_are_merged() {
        let turn = Some(policy(lb(LoadBalancer::RoundRobin), &[]));
        let rules = vec![
            destination_rule("default/c@3", "reviews", &["v1", "v3"], Some(TrafficPolicy::default())),
            destination_rule("default/b@2", "reviews.default.svc.cluster.local", &["v2"], turn),
            destination_rule("default/a@1", "reviews", &["v1"], None),
        ];
        let expected = "80/@=default/b 80/v1@=default/a 80/v2@=default/b 80/v3@=default/c";
        assert_eq!(destinations(rules), expected);
    }

    #[test]
    fn a_subset_without_labels_selects_all() {
        let rule = DestinationRule {
            host: "reviews".into(),
            policy: None,
            subsets: vec![Subset { name: "all".into(), labels: Labels::default(), policy: None }],
        };
        let rule = declare("default/a", Spec::DestinationRule(rule));
        assert_eq!(destinations(vec![rule]), "80/@=default/a 80/all@=default/a");
    }
}
