//! Which sections a proxy needs.
//!
//! Every node gets all that callers need, its own workloads, the policies that these name, what differs for them as
//! callers, and the gateways that they are.

use std::collections::BTreeSet;

use super::{Compiled, fresh, views};
use crate::snapshot::section::{Section, SectionKey};
use crate::snapshot::{Sections, Snapshot, Version};
use crate::state::MeshState;
use crate::state::view::View;
use crate::vocab::label::Labels;
use crate::vocab::name::Text;

impl Compiled {
    /// The snapshot of a node.
    pub fn snapshot_for(&self, node: &str, version: Version) -> Snapshot {
        let mut sections = self.common();
        let mut seen: BTreeSet<&Text> = BTreeSet::new();
        let mut own: Vec<&Labels> = Vec::new();
        for (key, entry) in self.nodes.get(node).into_iter().flatten() {
            if let Section::Workload(workload) = &*entry.section {
                seen.extend(&workload.view);
                own.push(&workload.labels);
                sections.extend(self.policies_named(&workload.policies, &workload.tokens));
            }
            sections.insert(SectionKey::Workload(key.clone()), entry.clone());
        }
        for (key, entry) in &self.gateways {
            if let Section::Gateway(gateway) = &*entry.section
                && own.iter().any(|labels| gateway.selector.selects(labels))
            {
                seen.insert(&gateway.view);
                sections.extend(self.policies_named(&gateway.policies, &gateway.tokens));
                sections.insert(key.clone(), entry.clone());
            }
        }
        for key in &seen {
            if let Some(entry) = self.views.get(*key) {
                sections.insert(SectionKey::View((*key).clone()), entry.clone());
            }
        }
        for held in self.hosts.values().filter(|held| !held.apart.is_empty()) {
            for own in seen.iter().filter_map(|key| held.apart.get(*key)) {
                sections.extend(own.iter().map(|(key, entry)| (key.clone(), entry.clone())));
            }
        }
        let named = self.credentials_named(&sections);
        sections.extend(named);
        Snapshot { version, sections }
    }

    /// The halves of credentials that the proxy of a host needs for these destinations, and no others.
    fn credentials_named(&self, sections: &Sections) -> Sections {
        if self.credentials.is_empty() {
            return Sections::new();
        }
        let destinations = sections.values().filter_map(|entry| match &*entry.section {
            Section::Destination(destination) => Some(destination),
            _ => None,
        });
        let keys = destinations.flat_map(|destination| destination.tls.credentials(false));
        let keys = keys.map(SectionKey::Credential);
        keys.filter_map(|key| self.credentials.get(&key).map(|entry| (key.clone(), entry.clone()))).collect()
    }

    /// The policies of these names, and those on tokens.
    fn policies_named(&self, policies: &[(Text, Text)], tokens: &[(Text, Text)]) -> Sections {
        let policies = policies.iter().cloned().map(|(space, name)| SectionKey::Authorization(space, name));
        let tokens = tokens.iter().cloned().map(|(space, name)| SectionKey::Tokens(space, name));
        let keys = policies.chain(tokens);
        keys.filter_map(|key| self.policies.get(&key).map(|entry| (key.clone(), entry.clone()))).collect()
    }

    /// Every section of the mesh, for questions about it.
    pub fn whole(&self, version: Version) -> Snapshot {
        let mut sections = self.common();
        let apart = self.hosts.values().flat_map(|held| held.apart.values()).flatten();
        let others = self.policies.iter().chain(&self.gateways).chain(&self.credentials).chain(apart);
        sections.extend(others.map(|(key, entry)| (key.clone(), entry.clone())));
        let views = self.views.iter();
        sections.extend(views.map(|(key, entry)| (SectionKey::View(key.clone()), entry.clone())));
        let workloads = self.nodes.values().flatten();
        sections.extend(workloads.map(|(key, entry)| (SectionKey::Workload(key.clone()), entry.clone())));
        Snapshot { version, sections }
    }

    /// What every node gets.
    fn common(&self) -> Sections {
        let hosts = self.hosts.values().flat_map(|held| &held.common);
        self.general.iter().chain(hosts).map(|(key, entry)| (key.clone(), entry.clone())).collect()
    }
}

/// The sections that a caller needs beside those of the whole mesh, for a question about one that no node has, and the
/// key of what it sees. `namespace` and `labels` are the caller's.
pub fn for_caller(
    state: &MeshState,
    compiled: &Compiled,
    namespace: &Text,
    labels: &Labels,
) -> (Text, Sections) {
    let view = state.view_of(namespace, labels);
    if compiled.views.contains_key(&view.key) {
        return (view.key, Sections::new());
    }
    let sections = of_view(state, compiled, &view);
    (view.key, sections)
}

fn of_view(state: &MeshState, compiled: &Compiled, view: &View) -> Sections {
    let mut sections = fresh(vec![views::view(state, view)], None);
    for host in state.all_hosts() {
        if !state.is_apart(view, host, &state.namespaces_apart(host)) {
            continue;
        }
        let held = compiled.hosts.get(host).into_iter().flat_map(|held| held.common.values());
        let common: Vec<&Section> = held.map(|entry| &*entry.section).collect();
        sections.extend(fresh(views::apart(state, view, host, &common), None));
    }
    sections
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::compile::compile;
    use crate::resource::Spec;
    use crate::resource::security::AuthorizationPolicy;
    use crate::state::sample::{declare, entry, joined, labels, mesh, node, service, virtual_service};

    #[test]
    fn a_node_gets_the_halves_of_credentials_that_its_workloads_need() {
        use crate::resource::destination_rule::{
            DestinationRule, TlsMode, TlsSettings, TrafficBlocks, TrafficPolicy,
        };
        use crate::resource::kubernetes::Secret;
        let rule = |id: &str, mode: TlsMode, selector: &str| {
            let tls = TlsSettings { mode, credential: Some("shop".into()), ..TlsSettings::default() };
            let blocks = TrafficBlocks { tls: Some(tls), ..TrafficBlocks::default() };
            let rule = DestinationRule {
                host: "a.default.svc.cluster.local".into(),
                policy: Some(TrafficPolicy { blocks, ..TrafficPolicy::default() }),
                workload_selector: (!selector.is_empty()).then(|| labels(selector)),
                ..DestinationRule::default()
            };
            declare(id, Spec::DestinationRule(Box::new(rule)))
        };
        let keys = ["tls.crt", "tls.key", "ca.crt"].map(|key| (Text::from(key), key.as_bytes().to_vec()));
        let secret =
            |id: &str| declare(id, Spec::Secret(Secret { kind: "Opaque".into(), data: keys.clone().into() }));
        let given = |rules: Vec<_>, holder: &str| -> Vec<String> {
            let mut resources = rules;
            resources.extend([
                service("default/a", &["http:80"], "app=a"),
                secret(holder),
                secret("default/else"),
            ]);
            let nodes = vec![
                node("h1", "10.0.0.1", vec![entry("default/wa", "10.0.0.1", "app=a")]),
                node("h2", "10.0.0.2", vec![entry("default/wb", "10.0.0.2", "app=b")]),
            ];
            let compiled = compile(&joined(&mesh(resources), nodes));
            let of = |node: &str| {
                let sections = compiled.snapshot_for(node, Version::default()).sections;
                let keys = sections.into_keys().map(|key| key.to_string());
                let keys: Vec<_> =
                    keys.filter_map(|key| Some(key.strip_prefix("credential/")?.to_owned())).collect();
                format!("{node}: {}", keys.join(" "))
            };
            vec![of("h1"), of("h2")]
        };
        let mutual = |selector| rule("default/r", TlsMode::Mutual, selector);
        let simple = |selector| rule("default/r", TlsMode::Simple, selector);
        let both = "h1: default/shop default/shop-cacert";
        assert_eq!(given(vec![mutual("app=a")], "default/shop"), [both, "h2: "]);
        // Who only verifies servers is given no key.
        assert_eq!(given(vec![simple("app=a")], "default/shop"), ["h1: default/shop-cacert", "h2: "]);
        assert_eq!(given(vec![simple("app=a")], "default/shop-cacert"), ["h1: default/shop-cacert", "h2: "]);
        assert_eq!(given(vec![mutual("")], "default/shop"), ["h1: ", "h2: "]);
        assert_eq!(given(vec![mutual("app=a")], "other/shop"), ["h1: ", "h2: "]);
        // What a rule that selects takes over from one that does not is for whom it selects too.
        let plain = DestinationRule {
            host: "a.default.svc.cluster.local".into(),
            workload_selector: Some(labels("app=a")),
            ..DestinationRule::default()
        };
        let plain = declare("default/s", Spec::DestinationRule(Box::new(plain)));
        assert_eq!(given(vec![plain, mutual("")], "default/shop"), [both, "h2: "]);
    }

    #[test]
    fn a_node_gets_what_callers_need_and_what_its_own_workloads_name() {
        let allow = |id: &str, selector: &str| {
            let selector = Some(labels(selector));
            let policy = AuthorizationPolicy { selector, ..AuthorizationPolicy::default() };
            declare(id, Spec::AuthorizationPolicy(policy))
        };
        let state = mesh(vec![
            service("default/a", &["http:80"], "app=a"),
            virtual_service("default/v", &["shop.example"], vec![]),
            allow("default/for-a", "app=a"),
            allow("default/for-b", "app=b"),
        ]);
        let nodes = vec![
            node("h1", "10.0.0.1", vec![entry("default/wa", "10.0.0.1", "app=a")]),
            node("h2", "10.0.0.2", vec![entry("default/wb", "10.0.0.2", "app=b")]),
        ];
        let compiled = compile(&joined(&state, nodes));
        let keys = |snapshot: Snapshot| -> BTreeSet<String> {
            snapshot.sections.keys().map(ToString::to_string).collect()
        };
        let host = "a.default.svc.cluster.local";
        let shared = [
            "trust".to_owned(),
            "view/".to_owned(),
            format!("service/{host}"),
            format!("routes/{host}:80"),
            format!("destination/outbound|80||{host}"),
            format!("endpoints/{host}/0"),
        ];
        let expected = |own: &[&str]| -> BTreeSet<String> {
            shared.iter().cloned().chain(own.iter().map(|key| (*key).to_owned())).collect()
        };
        let version = Version { number: 3, revision: 1 };
        let of_h1 = compiled.snapshot_for("h1", version);
        assert_eq!(of_h1.version, version);
        assert_eq!(
            keys(of_h1),
            expected(&["authorization/default/for-a", "view/default", "workload/default/wa"])
        );
        assert_eq!(keys(compiled.snapshot_for("h3", version)), expected(&[]));
        let whole = [
            "authorization/default/for-a",
            "authorization/default/for-b",
            "view/default",
            "workload/default/wa",
            "workload/default/wb",
        ];
        assert_eq!(keys(compiled.whole(version)), expected(&whole));
    }
}
