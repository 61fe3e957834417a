//! Which workload of this host a connection comes from. What it takes to say so is found out once a connection, and only
//! what the workloads of this host are told apart by.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::tables::Tables;
use mesh_core::vocab::name::{Text, WorkloadKey};
use mesh_core::vocab::recognition::Process;
use tokio::time::Instant;

use crate::live::view::Held;
use crate::net::downstream::Facts;
use crate::netns::Netns;
use crate::workload::groups::{self, Groups};
use crate::workload::owner::{Owner, SocketOwners};
use crate::workload::users;

/// Users that the host knows are asked for again after so long.
const KNOWN: Duration = Duration::from_secs(60);
/// Those that it does not know may be made at any time.
const UNKNOWN: Duration = Duration::from_secs(2);
/// Network namespaces in which one thread keeps a conversation with the kernel.
const MOST_NAMESPACES: usize = 256;

/// Where a connection was accepted, and what the kernel has said of it by itself.
#[derive(Debug, Clone, Copy)]
pub struct Met<'a> {
    /// Peer and, where it was led here, the address that it was opened to.
    pub facts: Facts,
    /// The network namespace; `None` for our own.
    pub netns: Option<&'a Arc<Netns>>,
    /// The user who connected to a Unix socket.
    pub user: Option<u32>,
}

/// What one data thread knows of the processes of its host.
#[derive(Debug, Default)]
pub struct Callers {
    /// Conversations with the kernel, by network namespace. One that could not be opened is tried again.
    owners: RefCell<HashMap<Option<Text>, SocketOwners>>,
    users: RefCell<HashMap<Text, (Option<u32>, Instant)>>,
    groups: RefCell<Groups>,
}

impl Callers {
    /// The workload that a connection comes from.
    pub async fn of(&self, met: Met<'_>, root: Held) -> Option<WorkloadKey> {
        let tables = &root.tables;
        if let Some(only) = tables.only_workload()
            && only.section.recognition.is_silent()
        {
            return Some(only.section.key.clone());
        }
        if tables.workloads.is_empty() {
            return None;
        }
        Box::pin(self.find(met, tables)).await
    }

    async fn find(&self, met: Met<'_>, tables: &Tables) -> Option<WorkloadKey> {
        let netns = met.netns.map(|netns| &**netns.name());
        let evidence = tables.evidence(netns);
        let mut process = Process { user: met.user, cgroup: None, netns };
        let mut group = None;
        if !evidence.is_none() && met.user.is_none() {
            // Of a process that cannot be found nothing is taken for granted.
            let owner = self.owner(met)?;
            process.user = Some(owner.user);
            if let Some(number) = owner.cgroup.filter(|_| evidence.cgroup) {
                group = self.group(number).await;
            }
        }
        process.cgroup = group.as_deref();
        if evidence.user && process.user.is_some() {
            self.learn_users(tables).await;
        }
        let users = self.users.borrow();
        let uid_of = |name: &str| users.get(name).and_then(|(id, _)| *id);
        tables.owner(&process, uid_of).map(|workload| workload.section.key.clone())
    }

    fn owner(&self, met: Met<'_>) -> Option<Owner> {
        let mut owners = self.owners.borrow_mut();
        let name = met.netns.map(|netns| netns.name().clone());
        if !owners.contains_key(&name) {
            let opened = match met.netns {
                Some(netns) => netns.run(SocketOwners::open),
                None => SocketOwners::open(),
            };
            let opened =
                opened.inspect_err(|error| tracing::warn!(%error, "callers cannot be told apart")).ok()?;
            if owners.len() >= MOST_NAMESPACES {
                owners.clear();
            }
            owners.insert(name.clone(), opened);
        }
        let found = owners.get(&name)?.owner(met.facts.peer, met.facts.local);
        if found.is_none() && name.is_some() {
            // The namespace may be another one of the same name by now.
            owners.remove(&name);
        }
        found
    }

    async fn group(&self, number: u64) -> Option<Arc<str>> {
        if let Some(known) = self.groups.borrow().get(&number) {
            return Some(Arc::clone(known));
        }
        // A new one: no other gets its number later.
        let all = tokio::task::spawn_blocking(groups::all).await.ok()?;
        let found = all.get(&number).cloned();
        *self.groups.borrow_mut() = all;
        found
    }

    async fn learn_users(&self, tables: &Tables) {
        let now = Instant::now();
        let is_known = |name: &&Text| {
            let users = self.users.borrow();
            users.get(*name).is_some_and(|(id, at)| now - *at < if id.is_some() { KNOWN } else { UNKNOWN })
        };
        let unknown: Vec<Text> = tables.user_names().filter(|name| !is_known(name)).cloned().collect();
        if unknown.is_empty() {
            return;
        }
        let asked = tokio::task::spawn_blocking(move || {
            unknown.into_iter().map(|name| (users::id_of(&name), name)).collect::<Vec<_>>()
        });
        let Ok(found) = asked.await else { return };
        let mut users = self.users.borrow_mut();
        users.retain(|name, _| tables.user_names().any(|wanted| wanted == name));
        users.extend(found.into_iter().map(|(id, name)| (name, (id, now))));
    }
}
