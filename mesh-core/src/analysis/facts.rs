//! The resources arranged for look-up.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use super::Input;
use crate::resource::kubernetes::PodTemplate;
use crate::resource::mesh_config::MeshConfig;
use crate::resource::reach::{Export, ExportTo};
use crate::resource::service::{Port, ServiceForm};
use crate::resource::{Resource, Spec};
use crate::state::hosts;
use crate::vocab::label::Labels;
use crate::vocab::name::Text;
use crate::vocab::origin::{Kind, ResourceKey};

/// Istio's own ingress gateway, which files for Istio take for granted: its label, where it runs, and the ports of
/// its Service.
const INGRESS: (&str, &str) = ("istio", "ingressgateway");
const INGRESS_NAMESPACE: &str = "istio-system";
pub(super) const INGRESS_PORTS: [u16; 4] = [80, 443, 15443, 31400];

/// A host that a Service or ServiceEntry declares.
pub(super) struct KnownHost<'a> {
    pub(super) host: Text,
    pub(super) namespace: &'a Text,
    pub(super) ports: &'a [Port],
    pub(super) export_to: &'a ExportTo,
    /// Labels of its workloads, `None` where it selects none.
    pub(super) selector: Option<&'a Labels>,
    pub(super) source: &'a Arc<Resource>,
}

/// Something that runs, or is going to.
pub(super) struct Workload<'a> {
    pub(super) namespace: Text,
    pub(super) name: Text,
    pub(super) labels: Labels,
    /// Where a pod it is of: other rules hold for it than for a host.
    pub(super) pod: Option<&'a PodTemplate>,
    /// The ServiceEntry that it is written into.
    pub(super) inline_of: Option<&'a ResourceKey>,
    /// Service account.
    pub(super) account: Option<Text>,
    /// Whether it has an identity, so that a proxy stands before it.
    pub(super) has_identity: bool,
}

/// Everything, by kind, host and namespace.
pub(super) struct Facts<'a> {
    by_kind: HashMap<Kind, Vec<&'a Arc<Resource>>>,
    by_key: HashMap<&'a ResourceKey, &'a Arc<Resource>>,
    pub(super) hosts: Vec<KnownHost<'a>>,
    exact: HashMap<Text, Vec<usize>>,
    wildcards: Vec<usize>,
    pub(super) workloads: Vec<Workload<'a>>,
    workloads_in: HashMap<Text, Vec<usize>>,
    /// By namespace, key and value of a label.
    labelled: HashMap<(Text, Text, Text), Vec<usize>>,
    /// By the ServiceEntry that they are written into.
    inline: HashMap<&'a ResourceKey, Vec<usize>>,
    by_namespace: HashMap<Kind, HashMap<&'a str, Vec<&'a Arc<Resource>>>>,
    /// Istio's own ingress gateway, where it is taken for granted.
    ingress: Option<Workload<'a>>,
    by_selector: RefCell<HashMap<Labels, Rc<[usize]>>>,
    pub(super) pods: &'a [PodTemplate],
    pub(super) namespaces: BTreeSet<&'a str>,
    pub(super) mesh: Option<&'a MeshConfig>,
    pub(super) root_namespace: Text,
}

static EVERYBODY: ExportTo = ExportTo { entries: Vec::new() };

impl<'a> Facts<'a> {
    pub(super) fn new(input: &Input<'a>) -> Facts<'a> {
        let mut by_kind: HashMap<Kind, Vec<&Arc<Resource>>> = HashMap::new();
        for resource in input.resources {
            by_kind.entry(resource.meta.key.kind).or_default().push(resource);
        }
        for list in by_kind.values_mut() {
            list.sort_by(|a, b| a.meta.precedence().cmp(&b.meta.precedence()));
        }
        let mesh = by_kind.get(&Kind::MeshConfig).and_then(|list| match &list.first()?.spec {
            Spec::MeshConfig(mesh) => Some(&**mesh),
            _ => None,
        });
        let root_namespace = mesh
            .and_then(|mesh| mesh.root_namespace.clone())
            .unwrap_or_else(|| Text::from(input.root_namespace));
        let mut facts = Facts {
            by_kind,
            by_key: input.resources.iter().map(|resource| (&resource.meta.key, resource)).collect(),
            hosts: Vec::new(),
            exact: HashMap::new(),
            wildcards: Vec::new(),
            workloads: Vec::new(),
            workloads_in: HashMap::new(),
            labelled: HashMap::new(),
            inline: HashMap::new(),
            by_namespace: HashMap::new(),
            ingress: input.default_ingress.then(ingress),
            by_selector: RefCell::default(),
            pods: input.pods,
            namespaces: namespaces(input),
            mesh,
            root_namespace,
        };
        for (kind, list) in &facts.by_kind {
            let by_namespace = facts.by_namespace.entry(*kind).or_default();
            for resource in list {
                by_namespace.entry(&*resource.meta.key.namespace).or_default().push(*resource);
            }
        }
        facts.collect_hosts(input.resources);
        facts.collect_workloads(input);
        for (index, workload) in facts.workloads.iter().enumerate() {
            if let Some(entry) = workload.inline_of {
                facts.inline.entry(entry).or_default().push(index);
            }
            for (key, value) in workload.labels.iter() {
                let pair = (workload.namespace.clone(), key.clone(), value.clone());
                facts.labelled.entry(pair).or_default().push(index);
            }
        }
        facts
    }

    /// The resources of a kind, oldest first.
    pub(super) fn of(&self, kind: Kind) -> &[&'a Arc<Resource>] {
        self.by_kind.get(&kind).map_or(&[], Vec::as_slice)
    }

    /// The resources of a kind in a namespace, oldest first.
    pub(super) fn of_in(&self, kind: Kind, namespace: &str) -> &[&'a Arc<Resource>] {
        self.by_namespace.get(&kind).and_then(|all| all.get(namespace)).map_or(&[], Vec::as_slice)
    }

    pub(super) fn find(&self, kind: Kind, namespace: &Text, name: &Text) -> Option<&'a Arc<Resource>> {
        let key = ResourceKey { kind, namespace: namespace.clone(), name: name.clone() };
        self.by_key.get(&key).copied()
    }

    fn collect_hosts(&mut self, resources: &'a [Arc<Resource>]) {
        for resource in resources {
            let key = &resource.meta.key;
            match &resource.spec {
                Spec::Service(service) => self.add_host(KnownHost {
                    host: hosts::service_host(&key.name, &key.namespace),
                    namespace: &key.namespace,
                    ports: &service.ports,
                    export_to: &service.export_to,
                    selector: service.selector.as_ref(),
                    source: resource,
                }),
                Spec::ServiceEntry(entry) => {
                    for host in &entry.hosts {
                        self.add_host(KnownHost {
                            host: hosts::resolve(host, &key.namespace),
                            namespace: &key.namespace,
                            ports: &entry.ports,
                            export_to: &entry.export_to,
                            selector: entry.workload_selector.as_ref(),
                            source: resource,
                        });
                    }
                }
                _ => {}
            }
        }
    }

    fn add_host(&mut self, known: KnownHost<'a>) {
        let index = self.hosts.len();
        if hosts::is_wildcard(&known.host) {
            self.wildcards.push(index);
        }
        self.exact.entry(known.host.clone()).or_default().push(index);
        self.hosts.push(known);
    }

    fn collect_workloads(&mut self, input: &Input<'a>) {
        for resource in input.resources {
            let key = &resource.meta.key;
            let mut add = |name: Text, labels: &Labels, inline_of, account: &Option<Text>| {
                let index = self.workloads.len();
                self.workloads_in.entry(key.namespace.clone()).or_default().push(index);
                self.workloads.push(Workload {
                    namespace: key.namespace.clone(),
                    name,
                    labels: labels.clone(),
                    pod: None,
                    inline_of,
                    account: account.clone(),
                    has_identity: account.is_some(),
                });
            };
            match &resource.spec {
                Spec::WorkloadEntry(entry) => {
                    add(key.name.clone(), &entry.labels, None, &entry.service_account);
                }
                Spec::WorkloadGroup(group) => {
                    let labels = group.template.labels.merged_with(&group.labels);
                    add(key.name.clone(), &labels, None, &group.template.service_account);
                }
                Spec::ServiceEntry(entry) => {
                    for (index, endpoint) in entry.endpoints.iter().enumerate() {
                        let name = format!("{}-{index}", key.name).into();
                        add(name, &endpoint.labels, Some(key), &endpoint.service_account);
                    }
                }
                _ => {}
            }
        }
        for pod in input.pods {
            let index = self.workloads.len();
            self.workloads_in.entry(pod.namespace.clone()).or_default().push(index);
            self.workloads.push(Workload {
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
                labels: pod.labels.clone(),
                pod: Some(pod),
                inline_of: None,
                account: pod.service_account.clone(),
                has_identity: true,
            });
        }
    }

    /// The workloads of a namespace.
    pub(super) fn workloads_in(&self, namespace: &str) -> impl Iterator<Item = &Workload<'a>> {
        let indices = self.workloads_in.get(namespace).map_or(&[][..], Vec::as_slice);
        indices.iter().map(|index| &self.workloads[*index])
    }

    /// The workloads of a Gateway: Istio's own ingress gateway where its label is asked for and nothing else has it.
    pub(super) fn gateway_workloads(&self, selector: &Labels) -> Vec<&Workload<'a>> {
        let known = self.by_selector.borrow().get(selector).cloned();
        let indices = known.unwrap_or_else(|| {
            let all = self.workloads.iter().enumerate();
            let selected = all.filter(|(_, workload)| selector.selects(&workload.labels)).map(|(at, _)| at);
            let indices: Rc<[usize]> = selected.collect();
            self.by_selector.borrow_mut().insert(selector.clone(), indices.clone());
            indices
        });
        if indices.is_empty() {
            return self.default_ingress(selector).into_iter().collect();
        }
        indices.iter().map(|index| &self.workloads[*index]).collect()
    }

    /// Istio's own ingress gateway, if it is taken for granted and the selector selects it.
    pub(super) fn default_ingress(&self, selector: &Labels) -> Option<&Workload<'a>> {
        self.ingress.as_ref().filter(|ingress| selector.selects(&ingress.labels))
    }

    /// Whether the Service of Istio's own ingress gateway leads to a workload.
    pub(super) fn is_behind_ingress(&self, workload: &Workload<'_>) -> bool {
        self.ingress.as_ref().is_some_and(|ingress| {
            ingress.namespace == workload.namespace && ingress.labels.selects(&workload.labels)
        })
    }

    /// The workloads that a selector of a namespace's resource selects: of all namespaces in the root namespace,
    /// if `mesh_wide`.
    pub(super) fn selected<'s>(
        &'s self,
        namespace: &str,
        selector: &'s Labels,
        mesh_wide: bool,
    ) -> Vec<&'s Workload<'a>> {
        self.selection(namespace, selector, mesh_wide).collect()
    }

    /// Whether such a selector selects anything.
    pub(super) fn selects_any(&self, namespace: &str, selector: &Labels, mesh_wide: bool) -> bool {
        self.selection(namespace, selector, mesh_wide).next().is_some()
    }

    /// The same one by one.
    pub(super) fn selection<'s>(
        &'s self,
        namespace: &str,
        selector: &'s Labels,
        mesh_wide: bool,
    ) -> Box<dyn Iterator<Item = &'s Workload<'a>> + 's> {
        if mesh_wide && namespace == &*self.root_namespace {
            return Box::new(self.workloads.iter().filter(|workload| selector.selects(&workload.labels)));
        }
        // Of the selector's labels, the one that fewest have.
        let having = |(key, value): (&Text, &Text)| {
            let pair = (Text::from(namespace), key.clone(), value.clone());
            self.labelled.get(&pair).map_or(&[][..], Vec::as_slice)
        };
        let of_namespace = || self.workloads_in.get(namespace).map_or(&[][..], Vec::as_slice);
        let fewest = selector.iter().map(having).min_by_key(|list| list.len()).unwrap_or_else(of_namespace);
        let candidates = fewest.iter().map(|index| &self.workloads[*index]);
        Box::new(candidates.filter(|workload| selector.selects(&workload.labels)))
    }

    /// The declaration that a destination means, looked at from a resource with this exportTo.
    pub(super) fn destination(
        &self,
        written: &Text,
        namespace: &Text,
        export_to: &ExportTo,
    ) -> Option<&KnownHost<'a>> {
        let host = hosts::resolve(written, namespace);
        let declared = self.exact.get(&host).map_or(&[][..], Vec::as_slice);
        let mut declared = declared.iter().map(|index| &self.hosts[*index]);
        if let Some(known) = declared.find(|known| self.is_visible(known, namespace, export_to)) {
            return Some(known);
        }
        let bare = host.strip_prefix('*').unwrap_or(&host);
        self.wildcards.iter().map(|index| &self.hosts[*index]).find(|known| {
            let suffix = known.host.strip_prefix('*').unwrap_or(&known.host);
            bare.ends_with(suffix) && self.reaches(known, namespace)
        })
    }

    /// The declarations that a host or wildcard holds.
    pub(super) fn held(&self, pattern: &str) -> Vec<&KnownHost<'a>> {
        if !hosts::is_wildcard(pattern) {
            let exact = self.exact.get(pattern).map_or(&[][..], Vec::as_slice);
            return exact.iter().map(|index| &self.hosts[*index]).collect();
        }
        self.hosts.iter().filter(|known| hosts::covers(pattern, &known.host)).collect()
    }

    fn service_default(&self) -> &ExportTo {
        self.mesh.map_or(&EVERYBODY, |mesh| &mesh.service_export_to)
    }

    fn reaches(&self, known: &KnownHost<'a>, namespace: &str) -> bool {
        known.export_to.reaches(known.namespace, namespace, self.service_default())
    }

    /// Seen from the resource's own namespace, or from those that it is exported to.
    fn is_visible(&self, known: &KnownHost<'a>, namespace: &Text, export_to: &ExportTo) -> bool {
        let to_all = known.export_to.entries.contains(&Export::All)
            || (known.export_to.entries.is_empty() && self.service_default().entries.is_empty());
        if to_all {
            return true;
        }
        if export_to.entries.is_empty() {
            return self.reaches(known, namespace);
        }
        export_to.entries.iter().any(|entry| match entry {
            Export::Own => self.reaches(known, namespace),
            Export::Namespace(other) => self.reaches(known, other),
            Export::All | Export::Nobody => false,
        })
    }

    /// Names that people may have meant.
    pub(super) fn host_names(&self, namespace: &str) -> Vec<&str> {
        let names = self.hosts.iter().flat_map(|known| {
            let short = (known.source.meta.key.kind == Kind::Service && **known.namespace == *namespace)
                .then_some(&*known.source.meta.key.name);
            [Some(&*known.host), short]
        });
        names.flatten().collect()
    }

    /// The workloads of a declared host.
    pub(super) fn members(&self, known: &KnownHost<'a>) -> Vec<&Workload<'a>> {
        match known.selector.filter(|selector| !selector.is_empty()) {
            Some(selector) => self
                .selection(known.namespace, selector, false)
                .filter(|workload| workload.inline_of.is_none())
                .collect(),
            None => {
                let indices = self.inline.get(&known.source.meta.key).map_or(&[][..], Vec::as_slice);
                indices.iter().map(|index| &self.workloads[*index]).collect()
            }
        }
    }

    /// Whether the endpoints of a host are known at all, so that none means none.
    pub(super) fn lists_members(&self, known: &KnownHost<'a>) -> bool {
        match &known.source.spec {
            Spec::Service(service) => {
                service.selector.as_ref().is_some_and(|selector| !selector.is_empty())
                    && !matches!(service.form, ServiceForm::ExternalName(_))
            }
            Spec::ServiceEntry(entry) => entry.workload_selector.is_some() || !entry.endpoints.is_empty(),
            _ => false,
        }
    }

    /// The services of a namespace that select a workload.
    pub(super) fn services_of(&self, workload: &Workload<'_>) -> Vec<&'a Arc<Resource>> {
        let services = self.of_in(Kind::Service, &workload.namespace);
        services
            .iter()
            .copied()
            .filter(|resource| match &resource.spec {
                Spec::Service(service) => {
                    let selector = service.selector.as_ref().filter(|selector| !selector.is_empty());
                    selector.is_some_and(|selector| selector.selects(&workload.labels))
                }
                _ => false,
            })
            .collect()
    }
}

fn ingress<'a>() -> Workload<'a> {
    let mut labels = Labels::default();
    labels.set(INGRESS.0, INGRESS.1);
    Workload {
        namespace: INGRESS_NAMESPACE.into(),
        name: "istio-ingressgateway".into(),
        labels,
        pod: None,
        inline_of: None,
        account: None,
        has_identity: true,
    }
}

/// Namespaces that are declared or that something is in.
fn namespaces<'a>(input: &Input<'a>) -> BTreeSet<&'a str> {
    let declared = input.resources.iter().map(|resource| {
        let key = &resource.meta.key;
        if key.kind == Kind::Namespace { &*key.name } else { &*key.namespace }
    });
    let of_pods = input.pods.iter().map(|pod| &*pod.namespace);
    declared.chain(of_pods).collect()
}

/// Groups what has the same key.
pub(super) fn grouped<K: Ord, V>(pairs: impl Iterator<Item = (K, V)>) -> BTreeMap<K, Vec<V>> {
    let mut groups: BTreeMap<K, Vec<V>> = BTreeMap::new();
    for (key, value) in pairs {
        groups.entry(key).or_default().push(value);
    }
    groups
}
