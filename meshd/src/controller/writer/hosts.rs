//! What hosts say of themselves and their workloads, and what becomes of those that fall silent.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use mesh_core::state::{Change as StateChange, Registration};
use mesh_core::vocab::health::{Health, HostStanding};
use mesh_core::vocab::name::WorkloadKey;
use tokio::time::Instant;

use super::{Reports, Writer, entry_key};
use crate::registry::announcement::{Announcement, understand};
use crate::registry::registrar::{Announced, Reported};
use crate::telemetry;

impl Writer {
    pub(super) fn announce(&mut self, node: &str, announcement: Announcement) -> Announced {
        let Some(member) = self.members.find(node).filter(|member| !member.revoked) else {
            return Announced {
                problems: vec![format!("node {node} is not joined")],
                ..Announced::default()
            };
        };
        self.leases.renew(node, Instant::now());
        let understood = understand(&announcement, &member, &self.state);
        let before = self.announcements.get(node).filter(|before| !before.leaving && !announcement.leaving);
        let before = before.map(|before| before.health.clone()).unwrap_or_default();
        let announced = |key: &WorkloadKey| {
            let key = entry_key(key);
            let announced = &understood.registration.workloads;
            announced.iter().any(|workload| workload.meta.key == key) || self.state.resource(&key).is_some()
        };
        let before: Reports = before.into_iter().filter(|(key, _)| announced(key)).collect();
        self.hear(node, &before, &announcement.health);
        let registration = Registration {
            health: self.damped(&announcement.health),
            standing: self.standing(node, &announcement),
            ..understood.registration.clone()
        };
        self.register(node, Some(registration));
        match self.assign_offsets(&self.state.clone()) {
            Ok(change) => self.change(change),
            Err(error) => tracing::error!(%error, "services that a node announced get no address"),
        }
        let changed = self.announcements.get(node) != Some(&announcement);
        if changed {
            tracing::info!(
                node,
                workloads = understood.registration.workloads.len(),
                "node announced its workloads"
            );
            self.announcements.insert(node.to_owned(), announcement);
            self.unsaved.insert(node.to_owned());
        }
        for problem in &understood.problems {
            tracing::warn!(node, problem, "not taken in");
        }
        self.refused.send_if_modified(|refused| {
            let problems = understood.problems.clone();
            let old = if problems.is_empty() {
                refused.remove(node)
            } else {
                refused.insert(node.to_owned(), problems)
            };
            old.as_ref() != refused.get(node)
        });
        let workloads = understood.registration.workloads.iter().map(|resource| {
            let key = &resource.meta.key;
            let key = WorkloadKey { namespace: key.namespace.clone(), name: key.name.clone() };
            let known = self.state.workload(&key).and_then(|known| known.identity.as_ref());
            let identity = known.map(|identity| identity.as_str().to_owned());
            (key, identity)
        });
        Announced { workloads: workloads.collect(), problems: understood.problems }
    }

    pub(super) fn report(&mut self, node: &str, reports: Vec<Reported>) {
        self.renew(node);
        let Some(announcement) = self.announcements.get(node) else { return };
        let mut next = announcement.health.clone();
        for Reported { workload, health, reason } in reports {
            // A node speaks for its own workloads only.
            let is_its_own =
                self.state.workload(&workload).is_some_and(|known| known.node.as_deref() == Some(node));
            if !is_its_own {
                continue;
            }
            if health == Health::Unknown {
                next.remove(&workload);
            } else {
                next.insert(workload, (health, reason));
            }
        }
        if next == announcement.health {
            return;
        }
        let before = announcement.health.clone();
        self.hear(node, &before, &next);
        if let Some(announcement) = self.announcements.get_mut(node) {
            announcement.health = next;
        }
        self.unsaved.insert(node.to_owned());
        self.settle(node);
    }

    /// Notes who fell and who rose. What is drained, or goes in good order, does not fall.
    pub(super) fn hear(&mut self, node: &str, before: &Reports, after: &Reports) {
        let is_well = |reports: &Reports, key: &WorkloadKey| {
            reports.get(key).is_some_and(|(health, _)| *health == Health::Healthy)
        };
        let calm = self.drained.contains(node)
            || self.announcements.get(node).is_some_and(|announcement| announcement.leaving);
        for key in before.keys().filter(|key| is_well(before, key) && !is_well(after, key)) {
            if !calm {
                self.flapping.fell(node, key);
            }
        }
        for key in after.keys().filter(|key| is_well(after, key) && !is_well(before, key)) {
            self.flapping.rose(key);
        }
    }

    /// What counts of what a node reports: who flaps is kept out for a while although it is well.
    pub(super) fn damped(&mut self, reports: &Reports) -> Reports {
        let mut counted = reports.clone();
        if self.flapping.is_idle() {
            return counted;
        }
        for (key, (health, reason)) in &mut counted {
            let held = self.flapping.held(key).filter(|_| *health == Health::Healthy).cloned();
            let Some(why) = held else { continue };
            if self.is_needed(key) {
                self.flapping.let_in(key);
            } else {
                (*health, *reason) = (Health::Unhealthy, why);
            }
        }
        counted
    }

    /// Whether less than half of the others are well that do what this workload does: then what is kept out must not make
    /// it worse.
    pub(super) fn is_needed(&self, key: &WorkloadKey) -> bool {
        let Some(workload) = self.state.workload(key) else { return false };
        self.state.services_of(workload).iter().any(|service| {
            let members = self.state.members(service);
            let others = members.iter().filter(|member| member.workload.key != *key);
            let (mut all, mut well) = (0, 0);
            for other in others {
                all += 1;
                well += usize::from(other.workload.health == Health::Healthy);
            }
            all == 0 || well * 2 < all
        })
    }

    /// Puts in force how a node stands and how its workloads fare.
    pub(super) fn settle(&mut self, node: &str) {
        let Some(announcement) = self.announcements.get(node) else {
            if let Some(present) = self.state.registration(node) {
                let gone = self.gone(node, present.inbound);
                self.register(node, Some(gone));
            }
            return;
        };
        let (reports, standing) = (announcement.health.clone(), self.standing(node, announcement));
        let health = self.damped(&reports);
        let Some(present) = self.state.registration(node) else { return };
        if present.health != health || present.standing != standing {
            let next = Registration { health, standing, ..(**present).clone() };
            self.register(node, Some(next));
        }
    }

    /// Nothing was heard of a node for a lease: its workloads leave, and what the operator declares of them gets nothing.
    pub(super) fn expire(&mut self, node: &str) {
        let before = self.announcements.get(node).map(|announcement| announcement.health.clone());
        self.hear(node, &before.unwrap_or_default(), &Reports::new());
        let inbound = self.state.registration(node).map(|present| present.inbound);
        self.forget(node, "its lease ran out");
        telemetry::lease_ended();
        if let Some(inbound) = inbound {
            let gone = self.gone(node, inbound);
            self.register(node, Some(gone));
        }
    }

    /// A host that is gone, with nothing of its own.
    pub(super) fn gone(&self, node: &str, inbound: SocketAddr) -> Registration {
        Registration {
            node: node.into(),
            address: inbound.ip(),
            inbound,
            workloads: Vec::new(),
            services: Vec::new(),
            health: BTreeMap::new(),
            standing: match self.drained.contains(node) {
                true => HostStanding::Drained,
                false => HostStanding::Away,
            },
        }
    }

    /// Notes that a node is alive; `false` if its lease is over or it never announced anything.
    pub(super) fn renew(&mut self, node: &str) -> bool {
        let is_known = self.announcements.contains_key(node);
        if is_known {
            self.leases.renew(node, Instant::now());
        }
        is_known
    }

    pub(super) fn forget(&mut self, node: &str, why: &str) {
        self.leases.forget(node);
        if self.announcements.remove(node).is_none() {
            return;
        }
        self.refused.send_modify(|refused| drop(refused.remove(node)));
        tracing::warn!(node, why, "its workloads leave the mesh");
        self.unsaved.insert(node.to_owned());
        self.change(StateChange { registrations: vec![(node.into(), None)], ..StateChange::default() });
    }
}
