//! The writer's loop. Commands that wait are taken together, so that a burst of health changes is one revision;
//! answers go out after what they answer for was published.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::analysis::connection_faults;
use mesh_core::compile::{Compiled, compile, recompile};
use mesh_core::resource::diagnostic::{Diagnostic, Severity};
use mesh_core::resource::{Resource, Spec};
use mesh_core::snapshot::Version;
use mesh_core::state::{Change as StateChange, MeshState, Registration, Settings, Touched};
use mesh_core::vocab::health::{Health, HostStanding};
use mesh_core::vocab::name::{Text, WorkloadKey};
use mesh_core::vocab::origin::{Kind, ResourceKey};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::flapping::{self, Flapping};
use super::{Applied, ApplyError, Batch, Command, Published, Refused, Rollback, StartError, batch};
use crate::config::ServeArgs;
use crate::dialect::{self, Document, NOT_CARRIED_OUT};
use crate::identity::members::Members;
use crate::registry::announcement::{Announcement, MESH_PORT, understand};
use crate::registry::lease::Leases;
use crate::registry::record;
use crate::registry::registrar::Announced;
use crate::store::{Change, HistoryEntry, Store, StoreError, StoredDocument};
use crate::{clock, telemetry};

mod hosts;

/// Commands that are taken together at most.
const BURST: usize = 64;
/// How the changes of WorkloadGroups begin.
const WORKLOAD_GROUP: &str = "workloadgroup/";

/// What is reported of a node's workloads.
type Reports = BTreeMap<WorkloadKey, (Health, Text)>;
type ApplyReply = (oneshot::Sender<Result<Applied, ApplyError>>, Result<Applied, ApplyError>);

/// Owns everything that changes.
pub(super) struct Writer {
    store: Arc<dyn Store>,
    members: Arc<Members>,
    state: MeshState,
    compiled: Arc<Compiled>,
    documents: Arc<BTreeMap<String, StoredDocument>>,
    announcements: BTreeMap<String, Announcement>,
    leases: Leases,
    /// Nodes that the operator has drained.
    drained: BTreeSet<String>,
    flapping: Flapping,
    version: Version,
    touched: Touched,
    /// Nodes whose announcement the disk does not have yet.
    unsaved: BTreeSet<String>,
    applied: Vec<ApplyReply>,
    announced: Vec<(oneshot::Sender<Announced>, Announced)>,
    /// Who waits for the version by which a host has changed its standing.
    stands: Vec<oneshot::Sender<Version>>,
    publish: watch::Sender<Arc<Published>>,
    refused: watch::Sender<Refused>,
}

impl Writer {
    /// Reads the store and compiles what is in it.
    pub(super) fn load(
        store: Arc<dyn Store>,
        members: Arc<Members>,
        settings: Settings,
        roots: Vec<Vec<u8>>,
        args: &ServeArgs,
    ) -> Result<Writer, StartError> {
        let revoked = Some(members.marks());
        let mut change = StateChange { roots: Some(roots), revoked, ..StateChange::default() };
        let mut documents = BTreeMap::new();
        let reader = dialect::Stored::default();
        for document in store.documents()? {
            match resource(&reader, &document) {
                Ok(resource) => change.upserts.push(Arc::new(resource)),
                // An older meshd accepted it; refusing to start would take the mesh down with it.
                Err(finding) => {
                    tracing::error!(resource = document.key, finding, "a stored resource cannot be read")
                }
            }
            documents.insert(document.key.clone(), document);
        }
        change.offsets = store.offsets()?.into_iter().map(|(host, offset)| (host.into(), offset)).collect();
        let (state, _) = MeshState::new(settings).apply(change);
        let version = Version { number: store.version()?, revision: 0 };
        let compiled = Arc::new(Compiled::default());
        let documents = Arc::new(documents);
        let published = Arc::new(Published {
            version,
            state: Arc::new(state.clone()),
            compiled: Arc::clone(&compiled),
            documents: Arc::clone(&documents),
            at: Instant::now(),
        });
        let drained = store.drained()?.into_iter().collect();
        let mut writer = Writer {
            store,
            members,
            state,
            compiled,
            documents,
            announcements: BTreeMap::new(),
            leases: Leases::new(args.lease),
            drained,
            flapping: Flapping::new(flapping::damping(args.flap_hold, args.flap_hold_max)),
            version,
            touched: Touched::default(),
            unsaved: BTreeSet::new(),
            applied: Vec::new(),
            announced: Vec::new(),
            stands: Vec::new(),
            publish: watch::channel(published).0,
            refused: watch::Sender::default(),
        };
        writer.load_registrations()?;
        writer.assign_offsets(&writer.state.clone()).map(|change| writer.change(change))?;
        writer.compiled = Arc::new(compile(&writer.state));
        writer.touched = Touched::default();
        writer.send();
        Ok(writer)
    }

    /// Every stored registration is alive with its last health for one full lease.
    fn load_registrations(&mut self) -> Result<(), StoreError> {
        let now = Instant::now();
        for (node, bytes) in self.store.registrations()? {
            let Some(announcement) = record::decode(&bytes) else {
                tracing::error!(
                    node,
                    "its stored registration cannot be read; it will announce itself again"
                );
                continue;
            };
            let Some(member) = self.members.find(&node).filter(|member| !member.revoked) else { continue };
            let understood = understand(&announcement, &member, &self.state);
            let registration =
                Registration { standing: self.standing(&node, &announcement), ..understood.registration };
            self.register(&node, Some(registration));
            self.leases.begin(&node, now);
            self.announcements.insert(node, announcement);
        }
        // Hosts that were gone before: what the operator declares of their workloads is not fit for the clear.
        for member in self.members.all().iter().filter(|member| !member.revoked) {
            let Ok(address) = member.address.parse() else { continue };
            if self.state.registration(&member.name).is_none() {
                let gone = self.gone(&member.name, SocketAddr::new(address, MESH_PORT));
                self.register(&member.name, Some(gone));
            }
        }
        Ok(())
    }

    fn register(&mut self, node: &str, registration: Option<Registration>) {
        self.change(StateChange {
            registrations: vec![(node.into(), registration)],
            ..StateChange::default()
        });
    }

    fn standing(&self, node: &str, announcement: &Announcement) -> HostStanding {
        match announcement.leaving {
            _ if self.drained.contains(node) => HostStanding::Drained,
            true => HostStanding::Leaves,
            false => HostStanding::Serves,
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Published>> {
        self.publish.subscribe()
    }

    /// Follows what of the nodes' announcements is not taken in.
    pub(super) fn refused(&self) -> watch::Receiver<Refused> {
        self.refused.subscribe()
    }

    /// Works until told to stop.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        while let Some(first) = queue.blocking_recv() {
            let mut ending = self.take(first);
            for _ in 1..BURST {
                if ending.is_some() {
                    break;
                }
                let Ok(next) = queue.try_recv() else { break };
                ending = self.take(next);
            }
            self.publish();
            self.save();
            self.answer();
            if let Some(reply) = ending {
                // Whoever waits may open the store anew.
                drop(self);
                let _gone = reply.send(());
                return;
            }
        }
    }

    fn take(&mut self, command: Command) -> Option<oneshot::Sender<()>> {
        match command {
            Command::Apply(batch, reply) => {
                let result = self.apply(&batch);
                self.count(reply, result);
            }
            Command::Rollback(rollback, reply) => {
                let result = self.rollback(&rollback);
                self.count(reply, result);
            }
            Command::Announce { node, announcement, reply } => {
                let announced = self.announce(&node, *announcement);
                self.announced.push((reply, announced));
            }
            Command::Report { node, reports } => self.report(&node, reports),
            Command::Renew { node, reply } => {
                // Who asked may have gone.
                let _gone = reply.send(self.renew(&node));
            }
            Command::Reconsider(node) => {
                if let Some(announcement) = self.announcements.get(&node).cloned() {
                    self.announce(&node, announcement);
                }
            }
            Command::Drain { node, drained, reply } => match self.store.set_drained(&node, drained) {
                Ok(()) => {
                    tracing::info!(node, drained, "drained");
                    match drained {
                        true => self.drained.insert(node.clone()),
                        false => self.drained.remove(&node),
                    };
                    self.settle(&node);
                    let (version, answer) = oneshot::channel();
                    self.stands.push(version);
                    let _gone = reply.send(Ok(answer));
                }
                Err(error) => {
                    let _gone = reply.send(Err(error));
                }
            },
            Command::Depart { node, reply } => {
                if let Some(announcement) = self.announcements.get_mut(&node) {
                    announcement.leaving = true;
                    tracing::info!(node, "its proxy is ending");
                    self.unsaved.insert(node.clone());
                }
                self.settle(&node);
                self.stands.push(reply);
            }
            Command::Revoke(node) => {
                self.forget(&node, "revoked");
                self.register(&node, None);
                self.drained.remove(&node);
                if let Err(error) = self.store.set_drained(&node, false) {
                    tracing::error!(node, %error, "it is thrown out, and still noted as drained");
                }
                // Its certificates are valid for a while; that they are worth nothing is for every proxy to know.
                let revoked = Some(self.members.marks());
                self.change(StateChange { revoked, ..StateChange::default() });
            }
            Command::Tick => {
                for node in self.leases.expired(Instant::now()) {
                    self.expire(&node);
                }
                if !self.flapping.is_idle() {
                    for node in self.flapping.nodes() {
                        self.settle(&node);
                    }
                }
            }
            Command::Stop(reply) => return Some(reply),
        }
        None
    }

    fn count(
        &mut self,
        reply: oneshot::Sender<Result<Applied, ApplyError>>,
        result: Result<Applied, ApplyError>,
    ) {
        telemetry::applied(match &result {
            Ok(_) => "accepted",
            Err(ApplyError::Findings(_)) => "refused",
            Err(_) => "failed",
        });
        self.applied.push((reply, result));
    }

    fn rollback(&mut self, rollback: &Rollback) -> Result<Applied, ApplyError> {
        let past = self.store.past(rollback.version)?;
        let batch = batch::back(rollback, past, &self.documents).map_err(ApplyError::Findings)?;
        self.apply(&batch)
    }

    /// The authority signs for the trust domain that it was started with, and no settings change that.
    fn check_trust_domain(&self, upserts: &[Arc<Resource>]) -> Vec<Diagnostic> {
        let own = &self.state.started_with().trust_domain;
        let other = upserts.iter().filter_map(|resource| match &resource.spec {
            Spec::MeshConfig(config) => {
                let wanted = config.trust_domain.as_deref().filter(|wanted| *wanted != own.as_str())?;
                let message = format!(
                    "certificates are of {own}; start meshd with --trust-domain {wanted} for another"
                );
                Some((resource, message))
            }
            _ => None,
        });
        let finding = |(resource, message): (&Arc<Resource>, String)| Diagnostic {
            code: NOT_CARRIED_OUT,
            severity: Severity::Error,
            resource: resource.meta.key.to_string().into(),
            file: resource.meta.place.file.clone(),
            line: resource.meta.place.line,
            column: 1,
            field: "spec.trustDomain".to_owned(),
            message,
        };
        other.map(finding).collect()
    }

    fn apply(&mut self, batch: &Batch) -> Result<Applied, ApplyError> {
        let now = clock::now_milliseconds();
        let plan = batch::plan(batch, &self.documents, now).map_err(ApplyError::Findings)?;
        let mut findings = self.state.check(&plan.state.upserts);
        findings.extend(self.check_trust_domain(&plan.state.upserts));
        let seconds = u64::try_from(now / 1000).unwrap_or(0);
        findings.extend(connection_faults::judge(&plan.state.upserts, seconds));
        place(&mut findings, batch);
        if findings.iter().any(|finding| finding.severity == Severity::Error) {
            return Err(ApplyError::Findings(findings));
        }
        if batch.dry_run || plan.store.is_empty() {
            return Ok(Applied { version: self.version.number, changes: plan.results, warnings: findings });
        }
        let (next, _) = self.state.apply(plan.state.clone());
        let offsets = self.assign_offsets(&next)?;
        let changes: Vec<_> = plan
            .results
            .iter()
            .filter(|(key, result)| *result != "unchanged" || plan.touched.contains(key))
            .map(|(key, result)| format!("{key} {result}"))
            .collect();
        let entry = HistoryEntry {
            version: 0,
            time: now / 1000,
            author: batch.author.clone(),
            changes: changes.clone(),
        };
        let number = self.store.commit(&plan.store, &entry)?;
        tracing::info!(version = number, author = batch.author, changes = changes.len(), "applied");
        self.remember(plan.store, number);
        self.version = Version { number, revision: 0 };
        self.change(StateChange { offsets: offsets.offsets, ..plan.state });
        if entry.changes.iter().any(|change| change.starts_with(WORKLOAD_GROUP)) {
            self.understand_again();
        }
        Ok(Applied { version: number, changes: plan.results, warnings: findings })
    }

    fn remember(&mut self, changes: Vec<Change>, version: u64) {
        let documents = Arc::make_mut(&mut self.documents);
        for change in changes {
            match change {
                Change::Put { key, json, created, owner } => {
                    let document = StoredDocument { key: key.clone(), json, created, version, owner };
                    documents.insert(key, document);
                }
                Change::Delete { key } => {
                    documents.remove(&key);
                }
            }
        }
    }

    /// What nodes announce depends on the groups that they name.
    fn understand_again(&mut self) {
        let mut registrations = Vec::new();
        for (node, announcement) in &self.announcements {
            let Some(present) = self.state.registration(node) else { continue };
            let Some(member) = self.members.find(node) else { continue };
            let understood = understand(announcement, &member, &self.state).registration;
            let (health, standing) = (present.health.clone(), present.standing);
            let next = Registration { health, standing, ..understood };
            if next != **present {
                registrations.push((node.as_str().into(), Some(next)));
            }
        }
        if !registrations.is_empty() {
            self.change(StateChange { registrations, ..StateChange::default() });
        }
    }

    fn change(&mut self, change: StateChange) {
        let (next, touched) = self.state.apply(change);
        self.state = next;
        self.touched.merge(touched);
    }

    /// Addresses for the hosts that have none, durable before anyone hears of them.
    fn assign_offsets(&self, state: &MeshState) -> Result<StateChange, StoreError> {
        let hosts: Vec<String> = state.hosts_without_offset().iter().map(ToString::to_string).collect();
        if hosts.is_empty() {
            return Ok(StateChange::default());
        }
        let given = self.store.assign_offsets(&hosts)?;
        let offsets = given.into_iter().map(|(host, offset)| (Text::from(host), offset)).collect();
        Ok(StateChange { offsets, ..StateChange::default() })
    }

    /// Compiles what was touched and hands it out, if anything is new.
    fn publish(&mut self) {
        let is_new_version = self.publish.borrow().version.number != self.version.number;
        if self.touched.is_empty() && !is_new_version {
            return;
        }
        let touched = std::mem::take(&mut self.touched);
        if !is_new_version {
            self.version.revision += 1;
        }
        let started = Instant::now();
        self.compiled = Arc::new(recompile(&self.compiled, &self.state, &touched));
        telemetry::compiled(self.version.number, started.elapsed().as_secs_f64());
        self.send();
    }

    fn send(&self) {
        self.publish.send_replace(Arc::new(Published {
            version: self.version,
            state: Arc::new(self.state.clone()),
            compiled: Arc::clone(&self.compiled),
            documents: Arc::clone(&self.documents),
            at: Instant::now(),
        }));
    }

    fn save(&mut self) {
        for node in std::mem::take(&mut self.unsaved) {
            let bytes = self.announcements.get(&node).map(record::encode);
            if let Err(error) = self.store.put_registration(&node, bytes.as_deref()) {
                tracing::error!(node, %error, "a registration is not stored; it will be at its next change");
                self.unsaved.insert(node);
                break;
            }
        }
    }

    fn answer(&mut self) {
        // Whoever asked may have gone; what was done stays done.
        for (reply, result) in self.applied.drain(..) {
            let _gone = reply.send(result);
        }
        for (reply, announced) in self.announced.drain(..) {
            let _gone = reply.send(announced);
        }
        for reply in self.stands.drain(..) {
            let _gone = reply.send(self.version);
        }
    }
}

fn entry_key(workload: &WorkloadKey) -> ResourceKey {
    let (namespace, name) = (workload.namespace.clone(), workload.name.clone());
    ResourceKey { kind: Kind::WorkloadEntry, namespace, name }
}

fn resource(reader: &dialect::Stored, document: &StoredDocument) -> Result<Resource, String> {
    let created = u64::try_from(document.created).unwrap_or(0);
    reader
        .resource(&document.json, created)
        .map_err(|findings| findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

/// Adds file and line to findings across resources.
fn place(findings: &mut [Diagnostic], batch: &Batch) {
    if findings.is_empty() {
        return;
    }
    let key = |document: &Document| document.resource.meta.key.to_string();
    let documents: HashMap<String, &Document> =
        batch.documents.iter().map(|document| (key(document), document)).collect();
    for finding in findings {
        if let Some(document) = documents.get(&*finding.resource) {
            finding.file = document.resource.meta.place.file.clone();
            (finding.line, finding.column) = document.locate(&finding.field);
        }
    }
}
