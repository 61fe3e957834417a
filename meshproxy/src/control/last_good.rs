//! The last snapshot that was in force, on disk: what a proxy serves when it starts while meshd is away.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mesh_core::snapshot::Snapshot;
use mesh_proto::convert::file::{decode_snapshot, encode_snapshot};
use tokio::sync::watch;
use tokio::time::Instant;

use super::apply::InForce;
use super::files::{self, FileError};

/// Endpoints may change many times a second. After each write so many times its duration nothing is written, so that
/// the disk and the processor have a share of it only, however large the snapshot.
const REST: u32 = 10;
const SHORTEST_REST: Duration = Duration::from_millis(10);
const LONGEST_REST: Duration = Duration::from_secs(1);

/// The file of the last good snapshot.
#[derive(Debug, Clone)]
pub struct LastGood(PathBuf);

impl LastGood {
    /// Its place in a data directory.
    pub fn in_folder(data_dir: &Path) -> LastGood {
        LastGood(data_dir.join("last-good.snapshot"))
    }

    /// The kept snapshot. A damaged one is set aside, and the proxy waits for meshd.
    pub fn load(&self) -> Result<Option<Arc<Snapshot>>, FileError> {
        let Some(bytes) = files::read(&self.0)? else { return Ok(None) };
        match decode_snapshot(&bytes) {
            Ok(snapshot) => Ok(Some(Arc::new(snapshot))),
            Err(error) => {
                let aside = files::set_aside(&self.0)?;
                tracing::error!(%error, file = %aside.display(),
                    "the last good snapshot cannot be used and is set aside; waiting for meshd");
                Ok(None)
            }
        }
    }

    /// Sets aside a snapshot that was read but cannot be built.
    pub fn reject(&self) {
        match files::set_aside(&self.0) {
            Ok(aside) => tracing::error!(file = %aside.display(), "the last good snapshot is set aside"),
            Err(error) => tracing::error!(%error, "the last good snapshot cannot be set aside"),
        }
    }

    /// Writes each snapshot that comes in force, the newest first, until the sender is gone; what was sent last is
    /// then on disk.
    pub async fn keep(self, mut in_force: watch::Receiver<Option<InForce>>) {
        while in_force.changed().await.is_ok() {
            let newest = in_force.borrow_and_update().clone();
            let Some(InForce { snapshot, .. }) = newest else { continue };
            let path = self.0.clone();
            let version = snapshot.version;
            let began = Instant::now();
            let written =
                tokio::task::spawn_blocking(move || files::replace(&path, &encode_snapshot(&snapshot))).await;
            match written {
                Ok(Ok(())) => tracing::debug!(%version, "last good snapshot kept"),
                Ok(Err(error)) => tracing::error!(%error, %version, "the last good snapshot cannot be kept"),
                Err(error) => tracing::error!(%error, "the last good snapshot was not written"),
            }
            tokio::time::sleep((began.elapsed() * REST).clamp(SHORTEST_REST, LONGEST_REST)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::snapshot::Version;

    use super::*;

    fn snapshot(number: u64) -> Option<Arc<Snapshot>> {
        Some(Arc::new(Snapshot { version: Version { number, revision: 0 }, ..Snapshot::default() }))
    }

    #[tokio::test]
    async fn the_newest_is_on_disk_when_the_sender_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let file = LastGood::in_folder(dir.path());
        assert_eq!(file.load().unwrap(), None);
        let (sender, receiver) = watch::channel(None);
        let keeping = tokio::spawn(file.clone().keep(receiver));
        for number in 1..=50 {
            let in_force = snapshot(number).map(|snapshot| InForce { snapshot, tables: Arc::default() });
            sender.send_replace(in_force);
        }
        drop(sender);
        keeping.await.unwrap();
        assert_eq!(file.load().unwrap(), snapshot(50));
    }

    #[test]
    fn a_damaged_one_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let file = LastGood::in_folder(dir.path());
        std::fs::write(dir.path().join("last-good.snapshot"), "MESHSNAPgarbage").unwrap();
        assert_eq!(file.load().unwrap(), None);
        assert!(dir.path().join("last-good.snapshot.damaged").exists());
        assert_eq!(file.load().unwrap(), None);
    }
}
