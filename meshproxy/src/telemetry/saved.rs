//! What was remembered when success fell, kept in files: an object of JSON a line.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// So many files are kept, and so many bytes of them all.
const MOST_FILES: usize = 10;
const MOST_BYTES: u64 = 32 << 20;
/// Names end so.
const ENDING: &str = ".jsonl";

/// One saved file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Its name, by which the oldest is the first.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// Saves lines under a time (`2026-01-02T03:04:05.678Z`), and removes what is too much. Returns where they are.
pub fn save(folder: &Path, time: &str, lines: &[u8]) -> io::Result<PathBuf> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let name: String = time.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let path = folder.join(format!("{name}{ENDING}"));
    let beside = folder.join(format!("{name}.new"));
    let write = || {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(lines)?;
        file.sync_all()?;
        fs::rename(&beside, &path)
    };
    let written = write();
    if written.is_err() {
        let _what_is_left = fs::remove_file(&beside);
    }
    written?;
    prune(folder)?;
    Ok(path)
}

/// Removes the oldest until the rest is within bounds; the newest stays.
fn prune(folder: &Path) -> io::Result<()> {
    let (mut files, mut bytes) = (0, 0);
    for saved in list(folder)?.into_iter().rev() {
        files += 1;
        bytes += saved.bytes;
        if files > 1 && (files > MOST_FILES || bytes > MOST_BYTES) {
            fs::remove_file(folder.join(&saved.name))?;
        }
    }
    Ok(())
}

/// What is saved, the oldest first; nothing where there is no folder.
pub fn list(folder: &Path) -> io::Result<Vec<Saved>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut all = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_name(&name) {
            all.push(Saved { name, bytes: entry.metadata()?.len() });
        }
    }
    all.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(all)
}

/// The lines of a saved file; `None` for a name that is none of them.
pub fn read(folder: &Path, name: &str) -> io::Result<Option<Vec<Vec<u8>>>> {
    if !is_name(name) {
        return Ok(None);
    }
    let file = match File::open(folder.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    // As much as was ever written; somebody else's file may be larger.
    let lines = BufReader::new(file.take(MOST_BYTES)).split(b'\n');
    lines.collect::<io::Result<Vec<_>>>().map(Some)
}

/// Whether it is a name that we give.
fn is_name(name: &str) -> bool {
    name.strip_suffix(ENDING).is_some_and(|stem| {
        (1..=64).contains(&stem.len())
            && stem.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_newest_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("flight");
        assert_eq!(list(&folder).unwrap(), []);
        for minute in 0..12 {
            let path = save(&folder, &format!("2026-01-02T03:{minute:02}:00.000Z"), b"{}\n{}\n").unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let names: Vec<String> = list(&folder).unwrap().into_iter().map(|saved| saved.name).collect();
        assert_eq!(names.len(), MOST_FILES);
        assert_eq!(names[0], "2026-01-02T03-02-00-000Z.jsonl");
        assert_eq!(names[9], "2026-01-02T03-11-00-000Z.jsonl");
        assert_eq!(read(&folder, &names[9]).unwrap().unwrap(), [b"{}".to_vec(), b"{}".to_vec()]);
    }

    #[test]
    fn too_many_bytes_go() {
        let folder = tempfile::tempdir().unwrap();
        let large = vec![b'x'; 20 << 20];
        for minute in 0..3 {
            save(folder.path(), &format!("t{minute}"), &large).unwrap();
        }
        let names: Vec<String> = list(folder.path()).unwrap().into_iter().map(|saved| saved.name).collect();
        assert_eq!(names, ["t2.jsonl"]);
    }

    #[test]
    fn other_files_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("node.key"), "secret").unwrap();
        for name in ["node.key", "../node.key", "..jsonl", ".jsonl", "a/b.jsonl", "missing.jsonl", ""] {
            assert_eq!(read(folder.path(), name).unwrap(), None, "{name}");
        }
    }
}
