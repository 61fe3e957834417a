//! Snapshot to tables to root to sockets: off the request path, whole or not at all.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::snapshot::Snapshot;
use mesh_core::snapshot::section::SectionKey;
use mesh_core::sync::message::ListenerFault;
use mesh_core::tables::Tables;
use mesh_core::tables::build::{Rejection, build};
use mesh_core::vocab::identity::SpiffeId;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use super::certificates::Certificates;
use crate::identity::svid::{Svids, Trust};
use crate::live::root::{Roots, SocketReport};

/// Names that are new with a snapshot are waited for so long.
const NAMES: Duration = Duration::from_secs(1);

/// What is in force.
#[derive(Debug, Clone)]
pub struct InForce {
    /// The snapshot.
    pub snapshot: Arc<Snapshot>,
    /// The tables made of it.
    pub tables: Arc<Tables>,
}

/// Puts snapshots in force, one after another.
pub struct Apply {
    roots: Arc<Roots>,
    svids: Arc<Svids>,
    certificates: Arc<Certificates>,
    /// Held by who puts a snapshot in force: one after another. In it, the faults that were told of.
    turn: Mutex<Vec<ListenerFault>>,
    in_force: watch::Sender<Option<InForce>>,
}

impl Apply {
    /// Nothing is in force yet.
    pub fn new(roots: Arc<Roots>, svids: Arc<Svids>, certificates: Arc<Certificates>) -> Apply {
        Apply { roots, svids, certificates, turn: Mutex::default(), in_force: watch::channel(None).0 }
    }

    /// What is in force; `None` before the first snapshot.
    pub fn in_force(&self) -> watch::Receiver<Option<InForce>> {
        self.in_force.subscribe()
    }

    /// Puts a snapshot in force and answers which sockets could not be opened. On a rejection everything stays
    /// as it was.
    pub async fn apply(&self, snapshot: Arc<Snapshot>) -> Result<Vec<ListenerFault>, Vec<Rejection>> {
        let mut turn = self.turn.lock().await;
        self.replace(snapshot, &mut turn).await
    }

    /// Puts a snapshot in force if nothing is. `None` if something is.
    pub async fn apply_first(
        &self,
        snapshot: Arc<Snapshot>,
    ) -> Option<Result<Vec<ListenerFault>, Vec<Rejection>>> {
        let mut turn = self.turn.lock().await;
        if self.in_force.borrow().is_some() {
            return None;
        }
        Some(self.replace(snapshot, &mut turn).await)
    }

    async fn replace(
        &self,
        snapshot: Arc<Snapshot>,
        told: &mut Vec<ListenerFault>,
    ) -> Result<Vec<ListenerFault>, Vec<Rejection>> {
        let previous = self.in_force.borrow().as_ref().map(|in_force| Arc::clone(&in_force.tables));
        let (roots, svids, wanted) =
            (Arc::clone(&self.roots), Arc::clone(&self.svids), Arc::clone(&snapshot));
        let certificates = Arc::clone(&self.certificates);
        // A large one takes a while, and this runtime also answers DNS.
        let began = Instant::now();
        let built = tokio::task::spawn_blocking(move || {
            let tables = Arc::new(build(&wanted, previous.as_deref())?);
            if let Some(trust) = &tables.trust {
                let (aliases, revoked) = (trust.aliases.clone(), trust.revoked.clone());
                let trust = Trust::new(trust.domain.clone(), trust.roots.clone())
                    .map(|trust| trust.with_aliases(aliases).without(revoked))
                    .map_err(|error| vec![Rejection { key: SectionKey::Trust, reason: error.to_string() }])?;
                svids.trust(trust);
            }
            let identities: BTreeSet<SpiffeId> =
                tables.workloads.values().filter_map(|workload| workload.section.identity.clone()).collect();
            certificates.want(&identities);
            let serial = roots.install(Arc::clone(&tables));
            Ok::<_, Vec<Rejection>>((tables, serial))
        });
        let (tables, serial) = match built.await {
            Ok(built) => built?,
            Err(error) => {
                let reason = format!("building the tables failed: {error}");
                tracing::error!(reason);
                return Err(vec![Rejection { key: SectionKey::Trust, reason }]);
            }
        };
        let took = began.elapsed();
        let report = self.roots.opened(serial).await;
        // A name that answers has an address before traffic comes; one that does not holds nothing up.
        drop(tokio::time::timeout(NAMES, self.roots.resolved()).await);
        self.roots.metrics().snapshot_applied(took, began.elapsed());
        self.in_force.send_replace(Some(InForce { snapshot, tables }));
        let sockets = socket_faults(&report);
        for fault in sockets.iter().filter(|fault| !told.contains(fault)) {
            tracing::warn!(
                address = &*fault.address,
                reason = &*fault.reason,
                "a socket cannot be opened; trying on"
            );
        }
        *told = sockets;
        Ok(faults(&self.roots, &report))
    }
}

/// What this proxy cannot do as it should, as it travels: sockets to open, certificates to use.
pub fn faults(roots: &Roots, report: &SocketReport) -> Vec<ListenerFault> {
    let mut faults = socket_faults(report);
    let certificates = roots.originations().faults();
    let fault =
        |reason: &Arc<str>| ListenerFault { address: "certificates".into(), reason: Arc::clone(reason) };
    faults.extend(certificates.iter().map(fault));
    faults
}

fn socket_faults(report: &SocketReport) -> Vec<ListenerFault> {
    let fault = |fault: &crate::live::root::ListenerFault| {
        let holder = fault.holder.as_ref().map(|holder| format!(", held by {holder}")).unwrap_or_default();
        ListenerFault {
            address: fault.address.to_string().into(),
            reason: format!("{}: {}{holder}", fault.purpose, fault.reason).into(),
        }
    };
    report.faults.iter().map(fault).collect()
}

#[cfg(test)]
mod tests {
    use mesh_core::snapshot::routes::Routes;
    use mesh_core::snapshot::section::Section;
    use mesh_core::snapshot::{Entry, Version};
    use mesh_core::vocab::name::ServicePort;

    use super::*;

    /// An applier whose sockets always open at once.
    fn start(dir: &std::path::Path) -> (Apply, Arc<Roots>) {
        let (roots, svids) = (Arc::new(Roots::new(Arc::default())), Arc::new(Svids::new()));
        let certificates =
            Certificates::open(dir, "h1", "10.0.0.1".to_owned(), None, Arc::clone(&svids)).unwrap();
        let followed = Arc::clone(&roots);
        // Before the task runs: what is installed in between must not be missed.
        let mut changed = followed.subscribe();
        tokio::spawn(async move {
            while changed.changed().await.is_ok() {
                let serial = *changed.borrow_and_update();
                followed.report_sockets(SocketReport { serial, ..SocketReport::default() });
            }
        });
        (Apply::new(Arc::clone(&roots), svids, Arc::new(certificates)), roots)
    }

    fn snapshot(number: u64, sections: Vec<Section>) -> Arc<Snapshot> {
        let entries = sections.into_iter().map(|section| (section.key(), Entry::new(section)));
        Arc::new(Snapshot { version: Version { number, revision: 0 }, sections: entries.collect() })
    }

    #[tokio::test]
    async fn a_refused_snapshot_leaves_all_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let (apply, roots) = start(dir.path());
        apply.apply(snapshot(1, Vec::new())).await.unwrap();
        let before = roots.load();
        let at = ServicePort { host: "a".into(), port: 80 };
        let tcp = mesh_core::routing::rule::TcpRule {
            origin: mesh_core::vocab::origin::Origin {
                resource: "virtualservice/default/a".into(),
                rule: None,
            },
            matches: Vec::new(),
            numbers: Vec::new(),
            backends: Vec::new(),
        };
        let bad = Section::Routes(Routes {
            at,
            scope: None,
            origin: None,
            http: Vec::new(),
            tcp: vec![tcp],
            tls: Vec::new(),
            fallback: None,
        });
        let key = bad.key();
        let rejections = apply.apply(snapshot(2, vec![bad])).await.unwrap_err();
        assert_eq!(rejections.iter().map(|one| &one.key).collect::<Vec<_>>(), [&key]);
        assert!(roots.is_current(&before));
        let in_force = apply.in_force().borrow().clone().unwrap();
        assert_eq!(in_force.snapshot.version.number, 1);
    }

    #[tokio::test]
    async fn what_came_first_stays_first() {
        let dir = tempfile::tempdir().unwrap();
        let (apply, roots) = start(dir.path());
        assert!(apply.apply_first(snapshot(1, Vec::new())).await.unwrap().is_ok());
        assert!(apply.apply_first(snapshot(2, Vec::new())).await.is_none());
        assert_eq!(roots.load().tables.version.number, 1);
    }
}
