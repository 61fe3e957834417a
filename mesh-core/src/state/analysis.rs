//! Findings across resources, with Istio's codes where its analyzer finds the same.
//!
//! Only resources that are new or changed are looked at, in the light of the state that would result.

use std::sync::Arc;

use super::hosts;
use super::index::KnownService;
use super::{Change, MeshState};
use crate::resource::diagnostic::{Diagnostic, Severity};
use crate::resource::rate_limit::RateLimit;
use crate::resource::virtual_service::{HttpAction, RouteDestination, VirtualService};
use crate::resource::{Resource, Spec};
use crate::vocab::label::Labels;
use crate::vocab::name::Text;
use crate::vocab::origin::{Kind, ResourceKey};

impl MeshState {
    /// What is wrong across resources if these were applied. File and line are left open.
    pub fn check(&self, upserts: &[Arc<Resource>]) -> Vec<Diagnostic> {
        let (result, _) = self.apply(Change { upserts: upserts.to_vec(), ..Change::default() });
        let mut findings = Vec::new();
        for resource in upserts {
            let mut check = Check { state: &result, resource, findings: &mut findings };
            match &resource.spec {
                Spec::VirtualService(rules) => check.virtual_service(rules),
                Spec::DestinationRule(rule) => check.known_host(&rule.host),
                Spec::PeerAuthentication(policy) => check.selector(&policy.selector, false),
                Spec::AuthorizationPolicy(policy) => check.selector(&policy.selector, true),
                Spec::Namespace
                | Spec::ServiceAccount
                | Spec::Service(_)
                | Spec::WorkloadEntry(_)
                | Spec::ServiceEntry(_)
                | Spec::WorkloadGroup(_)
                | Spec::Gateway(_)
                | Spec::Sidecar(_)
                | Spec::ProxyConfig(_)
                | Spec::RequestAuthentication(_)
                | Spec::Telemetry(_)
                | Spec::MeshConfig(_)
                | Spec::Secret(_)
                | Spec::ConfigMap(_)
                | Spec::Endpoints(_) => {}
                Spec::RateLimit(limit) => check.rate_limit(limit),
            }
        }
        findings
    }
}

struct Check<'a> {
    state: &'a MeshState,
    resource: &'a Arc<Resource>,
    findings: &'a mut Vec<Diagnostic>,
}

impl Check<'_> {
    fn find(&mut self, code: &'static str, severity: Severity, field: String, message: String) {
        self.findings.push(Diagnostic {
            code,
            severity,
            resource: self.resource.meta.key.to_string().into(),
            file: "".into(),
            line: 0,
            column: 0,
            field,
            message,
        });
    }

    fn namespace(&self) -> &Text {
        &self.resource.meta.key.namespace
    }

    fn rate_limit(&mut self, limit: &RateLimit) {
        if limit.targets.is_empty() {
            self.selector(&limit.selector, true);
        }
        for (index, target) in limit.targets.iter().enumerate() {
            let namespace = self.namespace().clone();
            let kind = target.kind.kind();
            let key = ResourceKey { kind, namespace: namespace.clone(), name: target.name.clone() };
            let field = format!("spec.targetRefs[{index}]");
            let Some(resource) = self.state.declared(&key) else {
                let names = self.state.resources_in(kind, &namespace).map(|other| {
                    let name = other.meta.key.name.clone();
                    (name.clone(), name)
                });
                let hint = did_you_mean(nearest(&target.name, names));
                let message =
                    format!("namespace {namespace} has no {} {:?}{hint}", kind.name(), &*target.name);
                self.find("IST0101", Severity::Error, format!("{field}.name"), message);
                continue;
            };
            let Some(section) = &target.section else { continue };
            let sections = limit_sections(&resource);
            if !sections.contains(section) {
                let hint =
                    did_you_mean(nearest(section, sections.iter().map(|one| (one.clone(), one.clone()))));
                let what = if kind == Kind::Service { "port" } else { "route" };
                let message = format!("{key} has no {what} with the name {:?}{hint}", &**section);
                self.find("IST0101", Severity::Error, format!("{field}.sectionName"), message);
            }
        }
    }

    fn virtual_service(&mut self, rules: &VirtualService) {
        for (index, host) in rules.hosts.iter().enumerate() {
            self.only_one_for_host(index, host);
        }
        for (index, route) in rules.http.iter().enumerate() {
            if let HttpAction::Route { destinations, .. } = &route.action {
                let ports: Vec<u16> = route.matches.iter().filter_map(|entry| entry.port).collect();
                self.destinations(rules, &format!("spec.http[{index}]"), destinations, &ports);
            }
        }
        for (index, route) in rules.tcp.iter().enumerate() {
            let ports: Vec<u16> = route.matches.iter().filter_map(|entry| entry.port).collect();
            self.destinations(rules, &format!("spec.tcp[{index}]"), &route.destinations, &ports);
        }
    }

    fn only_one_for_host(&mut self, index: usize, written: &Text) {
        let host = hosts::resolve(written, self.namespace());
        let all = self.state.virtual_services().of(&host);
        let [winner, ignored @ ..] = all else { return };
        if ignored.is_empty() {
            return;
        }
        let names: Vec<String> = all.iter().map(|resource| resource.meta.key.to_string()).collect();
        let message = format!(
            "host {written} is claimed by {}; only the oldest counts, which is {}",
            names.join(" and "),
            winner.meta.key
        );
        self.find("IST0109", Severity::Warning, format!("spec.hosts[{index}]"), message);
    }

    fn destinations(
        &mut self,
        rules: &VirtualService,
        rule: &str,
        destinations: &[RouteDestination],
        matched_ports: &[u16],
    ) {
        for (index, destination) in destinations.iter().enumerate() {
            let field = format!("{rule}.route[{index}].destination");
            let host = hosts::resolve(&destination.host, self.namespace());
            let Some(service) = self.state.service(&host).cloned() else {
                let message = format!(
                    "no service has the host {:?}{}",
                    &*destination.host,
                    did_you_mean(self.nearest_host(&destination.host))
                );
                self.find("IST0101", Severity::Error, format!("{field}.host"), message);
                continue;
            };
            self.port(rules, &field, destination, &service, matched_ports);
            if let Some(subset) = &destination.subset {
                self.subset(&field, subset, &service);
            }
        }
    }

    fn port(
        &mut self,
        rules: &VirtualService,
        field: &str,
        destination: &RouteDestination,
        service: &KnownService,
        matched: &[u16],
    ) {
        let numbers: Vec<String> = service.ports.iter().map(|port| port.number.to_string()).collect();
        match destination.port {
            Some(port) if service.port(port).is_none() => {
                let message = format!("{} has no port {port}, only {}", service.host, numbers.join(", "));
                self.find("IST0101", Severity::Error, format!("{field}.port.number"), message);
            }
            None if service.ports.len() > 1 => {
                let addressed = self.addressed_ports(rules, matched);
                let Some(missing) = addressed.into_iter().find(|port| service.port(*port).is_none()) else {
                    return;
                };
                let message = format!(
                    "{} has the ports {} but not {missing}, the port addressed; say which one is meant",
                    service.host,
                    numbers.join(", ")
                );
                self.find("IST0112", Severity::Warning, format!("{field}.port"), message);
            }
            Some(_) | None => {}
        }
    }

    /// The ports that clients of a VirtualService's hosts may address.
    fn addressed_ports(&self, rules: &VirtualService, matched: &[u16]) -> Vec<u16> {
        if !matched.is_empty() {
            return matched.to_vec();
        }
        let hosts = rules.hosts.iter().map(|host| hosts::resolve(host, self.namespace()));
        let services = hosts.flat_map(|pattern| {
            self.state.services().filter(move |service| hosts::covers(&pattern, &service.host))
        });
        services.flat_map(|service| service.ports.iter().map(|port| port.number)).collect()
    }

    fn subset(&mut self, field: &str, subset: &Text, service: &KnownService) {
        let rules = self.state.destination_rules().flat_map(|(_, table)| table.most_specific(&service.host));
        let names: Vec<Text> = rules
            .filter_map(|resource| match &resource.spec {
                Spec::DestinationRule(rule) => Some(rule.subsets.iter().map(|subset| subset.name.clone())),
                _ => None,
            })
            .flatten()
            .collect();
        if names.contains(subset) {
            return;
        }
        let message = format!(
            "no DestinationRule defines the subset {:?} of {}{}",
            &**subset,
            service.host,
            did_you_mean(nearest(subset, names.iter().map(|name| (name.clone(), name.clone()))))
        );
        self.find("IST0101", Severity::Error, format!("{field}.subset"), message);
    }

    fn known_host(&mut self, written: &Text) {
        let host = hosts::resolve(written, self.namespace());
        let known = self.state.services().any(|service| hosts::covers(&host, &service.host));
        if known {
            return;
        }
        let message =
            format!("no service has the host {:?}{}", &**written, did_you_mean(self.nearest_host(written)));
        self.find("IST0174", Severity::Warning, "spec.host".to_owned(), message);
    }

    /// `mesh_wide`: whether a selector in the root namespace reaches into others.
    fn selector(&mut self, selector: &Option<Labels>, mesh_wide: bool) {
        let Some(selector) = selector.as_ref().filter(|selector| !selector.is_empty()) else { return };
        let namespace = self.namespace().clone();
        let everywhere = mesh_wide && namespace == self.state.settings().root_namespace;
        let selected = self.state.workloads().any(|workload| {
            (everywhere || workload.key.namespace == namespace) && selector.selects(&workload.entry.labels)
        });
        if selected {
            return;
        }
        let pairs: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let place = if everywhere { "the mesh".to_owned() } else { format!("namespace {namespace}") };
        let message = format!("no workload of {place} has the labels {}", pairs.join(", "));
        self.find("IST0127", Severity::Warning, "spec.selector".to_owned(), message);
    }

    /// How the service was probably meant to be written: a bare name for a bare name, else a full host.
    fn nearest_host(&self, written: &Text) -> Option<Text> {
        let namespace = self.namespace();
        let candidates = self.state.services().flat_map(|service| {
            let host = service.host.clone();
            let mut names = vec![(host.clone(), host.clone())];
            if let Some(name) = service.short_name() {
                let long = Text::from(format!("{name}.{}", service.namespace));
                let bare = if service.namespace == *namespace { name.clone() } else { host.clone() };
                names.extend([(long, host), (name.clone(), bare)]);
            }
            names
        });
        nearest(written, candidates)
    }
}

/// The names that a rate limit's `sectionName` may have: ports of a Service, routes of a VirtualService.
fn limit_sections(resource: &Resource) -> Vec<Text> {
    match &resource.spec {
        Spec::Service(service) => service.ports.iter().map(|port| port.name.clone()).collect(),
        Spec::VirtualService(rules) => rules.http.iter().filter_map(|route| route.name.clone()).collect(),
        _ => Vec::new(),
    }
}

/// What to suggest for the candidate that is written most like `wanted`, if any is much like it.
fn nearest(wanted: &str, candidates: impl Iterator<Item = (Text, Text)>) -> Option<Text> {
    let limit = (wanted.len() / 3).max(1);
    let near = candidates
        .map(|(name, suggestion)| (strsim::damerau_levenshtein(wanted, &name), suggestion))
        .filter(|(distance, _)| *distance <= limit);
    near.min().map(|(_, suggestion)| suggestion)
}

fn did_you_mean(name: Option<Text>) -> String {
    name.map_or_else(String::new, |name| format!("; did you mean {:?}?", &*name))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::resilience::ratelimit::Rate;
    use crate::resource::rate_limit::{LimitTarget, TargetKind};
    use crate::resource::security::AuthorizationPolicy;
    use crate::routing::limit::{Counts, Limit, Tell, Terms};
    use crate::state::sample::{
        declare, destination_rule, entry, http_route, labels, mesh, peer_authentication, service,
        virtual_service,
    };

    /// `CODE field: message` of each finding.
    fn findings(more: &[Arc<Resource>]) -> Vec<String> {
        let state = mesh(vec![
            service("default/reviews", &["http:80", "http-x:81"], "app=reviews"),
            service("default/ratings", &["http:9080", "http-x:9081"], "app=ratings"),
            service("prod/orders", &["http:80"], "app=orders"),
            destination_rule("default/reviews", "reviews", &["v1", "v2"], None),
            virtual_service("default/first@1", &["taken.example"], vec![]),
            entry("default/w", "10.0.0.1", "app=reviews"),
        ]);
        let findings = state.check(more).into_iter();
        findings.map(|finding| format!("{} {}: {}", finding.code, finding.field, finding.message)).collect()
    }

    #[track_caller]
    fn check(resource: Arc<Resource>, expected: &[&str]) {
        assert_eq!(findings(&[resource]), expected);
    }

    fn to(destination: &str) -> Arc<Resource> {
        virtual_service("default/vs@9", &["reviews"], vec![http_route(None, None, &[destination])])
    }

    #[test]
    fn destinations_must_exist() {
        let at = "spec.http[0].route[0].destination";
        check(to("reviews"), &[]);
        check(to("reviews/v1:81"), &[]);
        let host = |written: &str, hint: &str| {
            let expected = format!("IST0101 {at}.host: no service has the host {written:?}{hint}");
            check(to(written), &[&expected]);
        };
        host("reviewz", "; did you mean \"reviews\"?");
        host("orders", "; did you mean \"orders.prod.svc.cluster.local\"?");
        host("orders.prod", "; did you mean \"orders.prod.svc.cluster.local\"?");
        host("quite-another-thing", "");
        let subset = "no DestinationRule defines the subset \"v9\" of reviews.default.svc.cluster.local";
        check(to("reviews/v9"), &[&format!("IST0101 {at}.subset: {subset}; did you mean \"v1\"?")]);
        let port = "reviews.default.svc.cluster.local has no port 82, only 80, 81";
        check(to("reviews:82"), &[&format!("IST0101 {at}.port.number: {port}")]);
        let missing = "ratings.default.svc.cluster.local has the ports 9080, 9081 but not 80, the port \
                       addressed; say which one is meant";
        check(to("ratings"), &[&format!("IST0112 {at}.port: {missing}")]);
        check(to("ratings:9080"), &[]);
    }

    #[test]
    fn what_a_rate_limit_is_attached_to_must_exist() {
        let to = |kind: TargetKind, name: &str, section: Option<&str>| {
            let target = LimitTarget { kind, name: name.into(), section: section.map(Text::from) };
            let rate = Rate::new(1, Duration::from_secs(1), 1).unwrap();
            let limit = Limit { name: "all".into(), rate, key: vec![], counts: Counts::default() };
            let terms = Terms {
                shared: false,
                limits: vec![limit],
                status: 429,
                tell: Tell::Refused,
                dry_run: false,
            };
            declare("default/a", Spec::RateLimit(RateLimit { selector: None, targets: vec![target], terms }))
        };
        use TargetKind::{Service, VirtualService};
        let at = "IST0101 spec.targetRefs[0]";
        check(to(Service, "reviews", None), &[]);
        check(to(Service, "reviews", Some("http-x")), &[]);
        check(to(VirtualService, "first", None), &[]);
        let missing = "namespace default has no Service \"reviewz\"; did you mean \"reviews\"?";
        check(to(Service, "reviewz", None), &[&format!("{at}.name: {missing}")]);
        let missing = "namespace default has no VirtualService \"reviews\"";
        check(to(VirtualService, "reviews", None), &[&format!("{at}.name: {missing}")]);
        let missing =
            "service/default/reviews has no port with the name \"http-y\"; did you mean \"http-x\"?";
        check(to(Service, "reviews", Some("http-y")), &[&format!("{at}.sectionName: {missing}")]);
        let missing = "virtualservice/default/first has no route with the name \"canary\"";
        check(to(VirtualService, "first", Some("canary")), &[&format!("{at}.sectionName: {missing}")]);
    }

    #[test]
    fn what_the_same_batch_declares_exists() {
        let rule = destination_rule("default/new", "new", &["v1"], None);
        assert!(findings(&[to("new/v1"), rule, service("default/new", &["http:80"], "app=new")]).is_empty());
    }

    #[test]
    fn two_virtual_services_for_one_host() {
        let message = "host taken.example is claimed by virtualservice/default/first and \
                       virtualservice/default/second; only the oldest counts, which is \
                       virtualservice/default/first";
        let second = virtual_service("default/second@2", &["x.example", "taken.example"], vec![]);
        check(second, &[&format!("IST0109 spec.hosts[1]: {message}")]);
        check(virtual_service("default/first@1", &["taken.example"], vec![]), &[]);
    }

    #[test]
    fn rules_and_policies_for_nobody() {
        let unknown = "no service has the host \"ratingz\"; did you mean \"ratings\"?";
        check(
            destination_rule("default/a", "ratingz", &[], None),
            &[&format!("IST0174 spec.host: {unknown}")],
        );
        check(destination_rule("default/a", "*.prod.svc.cluster.local", &[], None), &[]);
        let allow = |id: &str, selector: &str| {
            let selector = Some(labels(selector));
            let policy = AuthorizationPolicy { selector, ..AuthorizationPolicy::default() };
            declare(id, Spec::AuthorizationPolicy(policy))
        };
        let nobody =
            |place: &str| format!("IST0127 spec.selector: no workload of {place} has the labels app=reviews");
        check(allow("default/a", "app=reviews"), &[]);
        check(allow("istio-system/a", "app=reviews"), &[]);
        check(allow("prod/a", "app=reviews"), &[&nobody("namespace prod")]);
        let in_root = peer_authentication("istio-system/a", Some("app=reviews"), None, &[]);
        check(in_root, &[&nobody("namespace istio-system")]);
        check(peer_authentication("prod/a", None, None, &[]), &[]);
    }
}
