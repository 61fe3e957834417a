//! Metrics that are read off when somebody asks: who is connected, who has announced itself, what waits.

use std::collections::BTreeMap;

use mesh_core::sync::publisher::SyncStatus;
use mesh_core::telemetry::exposition::{Family, Page};
use mesh_core::vocab::health::HostStanding;

use super::server::AdminState;
use crate::telemetry::names;

impl AdminState {
    /// Adds them to the others.
    pub(super) fn figures(&self, page: &mut Page) {
        let published = self.controller.published();
        let mut one = |family: &'static Family, value: u64| {
            page.family(family);
            page.gauge("", value as f64);
        };
        one(&names::REVISION, published.version.revision);
        one(&names::WRITER_QUEUE, self.controller.waiting() as u64);
        if let Ok(store) = std::fs::metadata(self.data_dir.join("mesh.redb")) {
            one(&names::STORE_BYTES, store.len());
        }
        let states = [SyncStatus::Synced, SyncStatus::Stale, SyncStatus::Rejected];
        let mut proxies: BTreeMap<&str, u64> = states.map(|state| (state.name(), 0)).into();
        for (_, standing) in self.roster.connected() {
            *proxies.entry(standing.sync.status.name()).or_default() += 1;
        }
        page.family(&names::PROXIES);
        for (state, count) in proxies {
            page.gauge(&format!("state=\"{}\"", state.to_lowercase()), count as f64);
        }
        let mut hosts: BTreeMap<&str, u64> =
            ["serves", "drained", "leaves", "away"].map(|word| (word, 0)).into();
        for registration in published.state.registrations() {
            *hosts.entry(word(registration.standing)).or_default() += 1;
        }
        page.family(&names::HOSTS);
        for (standing, count) in hosts {
            page.gauge(&format!("standing=\"{standing}\""), count as f64);
        }
    }
}

fn word(standing: HostStanding) -> &'static str {
    match standing {
        HostStanding::Serves => "serves",
        HostStanding::Drained => "drained",
        HostStanding::Leaves => "leaves",
        HostStanding::Away => "away",
    }
}
