//! What a node announces, and what the mesh makes of it.
//!
//! A node may announce only accounts that its token allows and only its own address; what it may not is left out
//! with a problem for its log, and the rest holds.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_core::resource::service::{Port, Service, TargetPort};
use mesh_core::resource::workload::{Address, ProbeAction, WorkloadEntry, WorkloadGroup};
use mesh_core::resource::{Metadata, Place, Resource, Spec};
use mesh_core::state::{MeshState, Registration};
use mesh_core::vocab::health::{Health, HostStanding};
use mesh_core::vocab::label::Labels;
use mesh_core::vocab::name::{Text, WorkloadKey, check_label, check_subdomain};
use mesh_core::vocab::origin::{Kind, ResourceKey};
use mesh_core::vocab::protocol::Protocol;

use crate::dialect::{Input, Options, parse};
use crate::identity::token::allows;
use crate::store::NodeRecord;

/// The port of the mesh hop where a node names none.
pub const MESH_PORT: u16 = 15008;

/// Everything a node says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// Where peers reach the host.
    pub address: IpAddr,
    /// Port of its mesh listener.
    pub mesh_port: u16,
    /// Files of WorkloadEntries, name and content.
    pub documents: Vec<(String, Vec<u8>)>,
    /// Workloads in the short form.
    pub services: Vec<ShortForm>,
    /// Health as far as it is known.
    pub health: BTreeMap<WorkloadKey, (Health, Text)>,
    /// Whether its proxy is about to end.
    pub leaving: bool,
}

/// `--service NAME[.NS]:PORT[/PROTOCOL]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShortForm {
    /// Name of the service.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its port, and the workload's.
    pub port: u16,
    /// What it speaks; empty means detection.
    pub protocol: String,
    /// Labels of the workload.
    pub labels: BTreeMap<String, String>,
    /// The workload's account.
    pub service_account: String,
}

/// An announcement that was read.
#[derive(Debug, Clone)]
pub struct Understood {
    /// For the mesh state.
    pub registration: Registration,
    /// What was left out, and why.
    pub problems: Vec<String>,
}

/// Reads an announcement of a node.
pub fn understand(announcement: &Announcement, node: &NodeRecord, state: &MeshState) -> Understood {
    let mut reading = Reading { announcement, node, state, workloads: BTreeMap::new(), problems: Vec::new() };
    reading.documents();
    let mut services: BTreeMap<ResourceKey, Service> = BTreeMap::new();
    for form in &announcement.services {
        reading.short_form(form, &mut services);
    }
    let Reading { workloads, problems, .. } = reading;
    let services = services.into_iter().map(|(key, service)| Arc::new(resource(key, Spec::Service(service))));
    Understood {
        registration: Registration {
            node: node.name.as_str().into(),
            address: announcement.address,
            inbound: SocketAddr::new(announcement.address, announcement.mesh_port),
            workloads: workloads.into_values().collect(),
            services: services.collect(),
            health: announcement.health.clone(),
            standing: HostStanding::Serves,
        },
        problems,
    }
}

struct Reading<'a> {
    announcement: &'a Announcement,
    node: &'a NodeRecord,
    state: &'a MeshState,
    workloads: BTreeMap<ResourceKey, Arc<Resource>>,
    problems: Vec<String>,
}

impl Reading<'_> {
    fn documents(&mut self) {
        let files: Vec<_> = self
            .announcement
            .documents
            .iter()
            .map(|(name, content)| Input { file: name, bytes: content })
            .collect();
        let parsed = parse(&files, &Options::to_apply());
        self.problems.extend(parsed.diagnostics.iter().map(ToString::to_string));
        for document in parsed.documents {
            let mut resource = document.resource;
            // Age decides nothing between workloads; a value of the file's would differ between equal announcements.
            resource.meta.created = 0;
            let resource = Arc::new(resource);
            match &resource.spec {
                Spec::WorkloadEntry(entry) => self.workload(&resource.meta.key, entry, &resource),
                Spec::WorkloadGroup(group) => self.member(&resource.meta.key, group),
                _ => self.problems.push(format!(
                    "{}: a node announces WorkloadEntries and WorkloadGroups only; apply this with `meshd apply`",
                    resource.meta.key
                )),
            }
        }
    }

    /// The workload that this node is of a group: as the operator declares the group, else as the node does.
    fn member(&mut self, key: &ResourceKey, own: &WorkloadGroup) {
        let declared = self.state.resource(key).and_then(|declared| match &declared.spec {
            Spec::WorkloadGroup(declared) => Some(declared),
            _ => None,
        });
        let group = declared.unwrap_or(own);
        let probe = group.probe.clone().filter(|probe| {
            // A command is run on a host only if the host itself says so.
            let is_safe = !matches!(probe.action, ProbeAction::Exec { .. })
                || own.probe.as_ref().is_some_and(|own| own.action == probe.action);
            if !is_safe {
                self.problems.push(format!(
                    "{key}: its exec probe is not in the WorkloadGroup of this host, so it is not run here"
                ));
            }
            is_safe
        });
        let entry = WorkloadEntry {
            address: Address::Ip(self.announcement.address),
            labels: group.template.labels.merged_with(&group.labels),
            probe,
            ..group.template.clone()
        };
        let group_name = key.name.clone();
        let name = member_name(&key.name, self.announcement.address, entry.network.as_deref());
        let key = ResourceKey { kind: Kind::WorkloadEntry, namespace: key.namespace.clone(), name };
        let mut made = resource(key.clone(), Spec::WorkloadEntry(entry.clone()));
        made.meta.annotations = group.annotations.clone();
        made.meta.annotations.insert(GROUP_ANNOTATION.into(), group_name.clone());
        self.workload(&key, &entry, &Arc::new(made));
    }

    fn workload(&mut self, key: &ResourceKey, entry: &WorkloadEntry, resource: &Arc<Resource>) {
        if entry.address != Address::Ip(self.announcement.address) {
            let (theirs, ours) = (&entry.address, self.announcement.address);
            self.problems.push(format!("{key}: its address {theirs} is not this node's ({ours})"));
            return;
        }
        if let Some(account) = &entry.service_account
            && !allows(&self.node.accounts, &key.namespace, account)
        {
            let (node, namespace) = (&self.node.name, &key.namespace);
            self.problems.push(format!(
                "{key}: this node may not be {namespace}/{account}; allow it with `meshd node allow {node} {namespace}/{account}`"
            ));
            return;
        }
        if entry.service_account.is_none() && !speaks_in(&self.node.accounts, &key.namespace) {
            // It would be reached in the clear, by whoever calls a service that selects it.
            let (node, namespace) = (&self.node.name, &key.namespace);
            self.problems.push(format!(
                "{key}: it names no account, and this node has none in the namespace {namespace}; allow one with `meshd node allow {node} {namespace}/ACCOUNT`"
            ));
            return;
        }
        // The name of another host's workload must not be taken over.
        let holder = self.state.registrations().find(|other| {
            *other.node != *self.node.name && other.workloads.iter().any(|theirs| theirs.meta.key == *key)
        });
        if let Some(holder) = holder {
            self.problems.push(format!("{key}: node {} has announced a workload of that name", holder.node));
            return;
        }
        let declared = self.state.resource(key).and_then(|declared| match &declared.spec {
            Spec::WorkloadEntry(declared) => Some(&declared.address),
            _ => None,
        });
        if let Some(address) = declared.filter(|address| **address != entry.address) {
            self.problems.push(format!("{key}: declared by the operator with another address, {address}"));
            return;
        }
        if self.workloads.insert(key.clone(), Arc::clone(resource)).is_some() {
            self.problems.push(format!("{key}: announced twice; the last one counts"));
        }
    }

    fn short_form(&mut self, form: &ShortForm, services: &mut BTreeMap<ResourceKey, Service>) {
        let shown = format!("--service {}.{}:{}", form.name, form.namespace, form.port);
        if check_label(&form.name).is_err()
            || check_label(&form.namespace).is_err()
            || check_subdomain(&form.service_account).is_err()
            || form.port == 0
        {
            self.problems.push(format!("{shown}: not a valid name, namespace, account or port"));
            return;
        }
        let Some(protocol) = protocol(&form.protocol) else {
            self.problems.push(format!("{shown}: unknown protocol {:?}", form.protocol));
            return;
        };
        let key = |kind, name: &str| ResourceKey {
            kind,
            namespace: form.namespace.as_str().into(),
            name: name.into(),
        };
        let service_key = key(Kind::Service, &form.name);
        let own_label = BTreeMap::from([("app".to_owned(), form.name.clone())]);
        let selector = match self.state.resource(&service_key).map(|declared| &declared.spec) {
            Some(Spec::Service(declared)) => declared.selector.clone(),
            _ => None,
        };
        let made = services
            .entry(service_key)
            .or_insert_with(|| Service { selector: Some(labels(&own_label)), ..Service::default() });
        if !made.ports.iter().any(|port| port.number == form.port) {
            let name = if made.ports.is_empty() { String::new() } else { format!("port-{}", form.port) };
            made.ports.push(Port {
                name: name.into(),
                number: form.port,
                protocol,
                target: TargetPort::Same,
            });
            if let [first, _, ..] = made.ports.as_mut_slice()
                && first.name.is_empty()
            {
                first.name = format!("port-{}", first.number).into();
            }
        }
        // The workload has the labels that make it an endpoint of the service, whoever declared that.
        let mut all = own_label;
        if let Some(selector) = &selector {
            all.extend(selector.iter().map(|(key, value)| (key.to_string(), value.to_string())));
        }
        all.extend(form.labels.clone());
        let name = format!("{}-{}", form.name, self.node.name.replace('.', "-"));
        let entry = WorkloadEntry {
            address: Address::Ip(self.announcement.address),
            network: None,
            ports: BTreeMap::new(),
            labels: labels(&all),
            locality: Default::default(),
            weight: 1,
            service_account: Some(form.service_account.as_str().into()),
            recognition: Default::default(),
            probe: None,
        };
        let key = key(Kind::WorkloadEntry, &name);
        if self.workloads.contains_key(&key) {
            // A second port of the same service: the same workload.
            return;
        }
        let made = Arc::new(resource(key.clone(), Spec::WorkloadEntry(entry.clone())));
        self.workload(&key, &entry, &made);
    }
}

/// Whether a node may announce workloads without an account in a namespace: one in which it has an account, any where it
/// has none at all.
fn speaks_in(accounts: &[String], namespace: &str) -> bool {
    let there =
        |account: &String| account == "*" || account.split_once('/').is_some_and(|(ns, _)| ns == namespace);
    accounts.is_empty() || accounts.iter().any(there)
}

/// The annotation by which a workload that registered itself names its group, as Istio has it.
pub const GROUP_ANNOTATION: &str = "istio.io/autoRegistrationGroup";

/// `GROUP-ADDRESS[-NETWORK]`, as Istio names workloads that register themselves: its last 253 characters.
fn member_name(group: &str, address: IpAddr, network: Option<&str>) -> Text {
    let network = network.map(|network| format!("-{network}")).unwrap_or_default();
    let name = format!("{group}-{address}{network}").replace(':', "-");
    let start = name.char_indices().rev().nth(252).map_or(0, |(at, _)| at);
    name[start..].into()
}

fn resource(key: ResourceKey, spec: Spec) -> Resource {
    let labels = match &spec {
        Spec::WorkloadEntry(entry) => entry.labels.clone(),
        _ => Labels::default(),
    };
    let meta = Metadata { key, labels, annotations: BTreeMap::new(), created: 0, place: Place::default() };
    Resource { meta, spec }
}

fn labels(map: &BTreeMap<String, String>) -> Labels {
    map.iter().map(|(key, value)| (Text::from(key.as_str()), Text::from(value.as_str()))).collect()
}

fn protocol(name: &str) -> Option<Protocol> {
    if name.is_empty() { Some(Protocol::Auto) } else { Protocol::from_name(name) }
}
