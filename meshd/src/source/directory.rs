//! Files and folders that `--config` names: read whole, watched for change.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Editors and copying tools touch a folder several times for one change.
const SETTLE: Duration = Duration::from_millis(100);

/// The YAML and JSON files of a folder in the order of their paths; hidden ones are left out.
pub fn yaml_files(folder: &Path, recursive: bool) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    collect(folder, recursive, &mut found)?;
    found.sort();
    Ok(found)
}

fn collect(folder: &Path, recursive: bool, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden {
            continue;
        }
        if path.is_dir() {
            if recursive {
                collect(&path, recursive, found)?;
            }
        } else if path
            .extension()
            .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
        {
            found.push(path);
        }
    }
    Ok(())
}

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Its path.
    pub name: String,
    /// Its content.
    pub content: Vec<u8>,
}

/// Reads every file that the paths name, folders with all below them.
pub fn read(paths: &[PathBuf]) -> Result<Vec<SourceFile>, ReadError> {
    let mut files = Vec::new();
    for path in paths {
        let at = |source| ReadError { flag: "--config", path: path.clone(), source };
        let found = if path.is_dir() { yaml_files(path, true).map_err(at)? } else { vec![path.clone()] };
        for path in found {
            let content = std::fs::read(&path).map_err(|source| ReadError {
                flag: "--config",
                path: path.clone(),
                source,
            })?;
            files.push(SourceFile { name: path.display().to_string(), content });
        }
    }
    Ok(files)
}

/// A path that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{flag} {}: {source}", path.display())]
pub struct ReadError {
    /// The flag that named it.
    pub flag: &'static str,
    /// The path.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// Ticks after something below the paths has changed.
pub struct Watch {
    changes: mpsc::Receiver<()>,
    // Stops watching when dropped.
    _watcher: notify::RecommendedWatcher,
}

impl Watch {
    /// Watches files (by their folder, as editors replace them) and folders.
    pub fn start(paths: &[PathBuf]) -> Result<Watch, notify::Error> {
        let (sender, changes) = mpsc::channel(1);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let touched = event.map_or(true, |event| !event.kind.is_access());
            if touched {
                // A full channel already holds the tick.
                let _pending = sender.try_send(());
            }
        })?;
        for path in paths {
            if path.is_dir() {
                watcher.watch(path, RecursiveMode::Recursive)?;
            } else {
                let folder =
                    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                watcher.watch(folder, RecursiveMode::NonRecursive)?;
            }
        }
        Ok(Watch { changes, _watcher: watcher })
    }

    /// Waits for a change and until things have settled.
    pub async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        while tokio::time::timeout(SETTLE, self.changes.recv()).await.is_ok_and(|tick| tick.is_some()) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_below_a_folder_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("deep")).unwrap();
        std::fs::write(dir.path().join("deep/a.yaml"), "a: 1").unwrap();
        std::fs::write(dir.path().join(".hidden.yaml"), "a: 1").unwrap();
        let paths = [dir.path().to_owned()];
        assert_eq!(read(&paths).unwrap().len(), 1);
        let mut watch = Watch::start(&paths).unwrap();
        std::fs::write(dir.path().join("deep/a.yaml"), "a: 2").unwrap();
        tokio::time::timeout(Duration::from_secs(20), watch.changed()).await.expect("no tick");
        assert_eq!(read(&paths).unwrap()[0].content, b"a: 2");
    }
}
