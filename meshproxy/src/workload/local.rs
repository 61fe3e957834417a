//! This host's workload documents. They are sent on as they are: their meaning comes back in the snapshot.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Longer files are not read: no honest description of one host's workloads is so long.
const LONGEST: u64 = 1 << 20;

/// A file with its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its path, for messages to people.
    pub file: String,
    /// Its content.
    pub content: Vec<u8>,
}

/// What is looked at to see a change, without reading.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    path: PathBuf,
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

/// The files and folders of `--workload`, and what they held when last read.
#[derive(Debug)]
pub struct Documents {
    paths: Vec<PathBuf>,
    seen: Vec<Seen>,
    current: Vec<Document>,
}

impl Documents {
    /// Nothing is read yet.
    pub fn new(paths: Vec<PathBuf>) -> Documents {
        Documents { paths, seen: Vec::new(), current: Vec::new() }
    }

    /// What was read last, by file.
    pub fn current(&self) -> &[Document] {
        &self.current
    }

    /// Reads what changed since the last time; whether anything did. A file that cannot be read now keeps what it
    /// held: an editor may be writing it.
    pub fn refresh(&mut self) -> bool {
        let seen = self.look();
        if seen == self.seen && !self.seen.is_empty() {
            return false;
        }
        let mut next = Vec::new();
        for file in &seen {
            let name = file.path.display().to_string();
            match read(file) {
                Ok(content) => next.push(Document { file: name, content }),
                Err(error) => {
                    tracing::warn!(file = name, %error, "a workload file cannot be read");
                    next.extend(self.current.iter().find(|document| document.file == name).cloned());
                }
            }
        }
        self.seen = seen;
        let changed = next != self.current;
        self.current = next;
        changed
    }

    fn look(&self) -> Vec<Seen> {
        let mut seen = Vec::new();
        for path in &self.paths {
            let is_folder = fs::metadata(path).is_ok_and(|meta| meta.is_dir());
            if !is_folder {
                seen.push(stat(path));
                continue;
            }
            let Ok(entries) = fs::read_dir(path) else { continue };
            let files = entries.filter_map(Result::ok).map(|entry| entry.path());
            seen.extend(files.filter(|path| is_document(path)).map(|path| stat(&path)));
        }
        seen.sort_by(|a, b| a.path.cmp(&b.path));
        seen.dedup_by(|a, b| a.path == b.path);
        seen
    }
}

fn is_document(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
    let extension = path.extension().and_then(|extension| extension.to_str());
    !hidden && matches!(extension, Some("yaml" | "yml" | "json"))
}

fn stat(path: &Path) -> Seen {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::metadata(path).ok();
    Seen {
        path: path.to_owned(),
        modified: meta.as_ref().and_then(|meta| meta.modified().ok()),
        length: meta.as_ref().map_or(0, fs::Metadata::len),
        inode: meta.as_ref().map_or(0, MetadataExt::ino),
    }
}

fn read(file: &Seen) -> io::Result<Vec<u8>> {
    if file.length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {LONGEST} bytes")));
    }
    fs::read(&file.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_folders_are_read_when_they_change() {
        let dir = tempfile::tempdir().unwrap();
        let one = dir.path().join("one.yaml");
        let folder = dir.path().join("more");
        fs::create_dir(&folder).unwrap();
        fs::write(&one, "a").unwrap();
        fs::write(folder.join("b.yml"), "b").unwrap();
        fs::write(folder.join("notes.txt"), "no").unwrap();
        fs::write(folder.join(".hidden.yaml"), "no").unwrap();
        let mut documents = Documents::new(vec![one.clone(), folder.clone()]);
        assert!(documents.refresh());
        let contents = |documents: &Documents| -> Vec<Vec<u8>> {
            documents.current().iter().map(|document| document.content.clone()).collect()
        };
        assert_eq!(contents(&documents), [b"b".to_vec(), b"a".to_vec()]);
        assert!(!documents.refresh());
        fs::write(&one, "aa").unwrap();
        assert!(documents.refresh());
        fs::remove_file(folder.join("b.yml")).unwrap();
        assert!(documents.refresh());
        assert_eq!(contents(&documents), [b"aa".to_vec()]);
    }

    #[test]
    fn an_unreadable_file_keeps_what_it_held() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("w.yaml");
        fs::write(&file, "a").unwrap();
        let mut documents = Documents::new(vec![file.clone()]);
        documents.refresh();
        fs::remove_file(&file).unwrap();
        assert!(!documents.refresh());
        assert_eq!(documents.current().len(), 1);
    }
}
