//! The file behind a log. It is opened when the first lines come, and opened anew when it was moved away or when the proxy
//! is told to (SIGUSR1), so that `logrotate` needs no restart.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Who reads it: the proxy's user writes, its group reads. Paths and addresses are not for everybody.
const MODE: u32 = 0o640;
/// How often is looked whether it was moved away.
const LOOK: Duration = Duration::from_secs(1);

/// Where the lines of one log go.
pub enum Target {
    /// Something that is open.
    Open(Box<dyn Write + Send>),
    /// A file by its path.
    File(Followed),
}

impl Target {
    /// What a path means: `/dev/stdout` and `/dev/stderr` are the proxy's own.
    pub fn at(path: &str, asked: &Arc<AtomicU64>) -> Target {
        match path {
            "/dev/stdout" => Target::Open(Box::new(io::stdout())),
            "/dev/stderr" => Target::Open(Box::new(io::stderr())),
            path => Target::File(Followed::new(path.into(), Arc::clone(asked))),
        }
    }

    /// Writes all of it.
    pub fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Target::Open(out) => out.write_all(lines).and_then(|()| out.flush()),
            Target::File(file) => file.write(lines),
        }
    }
}

/// A file that is followed by its name.
pub struct Followed {
    path: PathBuf,
    file: Option<File>,
    looked: Instant,
    /// How often the proxy was told to open its logs anew, and how often that was done here.
    asked: Arc<AtomicU64>,
    done: u64,
    /// Whether a line is broken off at its end.
    torn: bool,
}

impl Followed {
    fn new(path: PathBuf, asked: Arc<AtomicU64>) -> Followed {
        let done = asked.load(Ordering::Relaxed);
        Followed { path, file: None, looked: Instant::now(), asked, done, torn: false }
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.follow();
        if lines.is_empty() {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(open(&self.path)?),
        };
        if self.torn {
            file.write_all(b"\n")?;
            self.torn = false;
        }
        let mut rest = lines;
        while !rest.is_empty() {
            match file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.torn = rest.get(count - 1) != Some(&b'\n');
                    rest = &rest[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Lets go of a file that is no longer the one of that name.
    fn follow(&mut self) {
        let asked = self.asked.load(Ordering::Relaxed);
        let told = asked != self.done;
        self.done = asked;
        let Some(file) = &self.file else { return };
        if !told && self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        if told || !is_at(file, &self.path) {
            self.file = None;
            self.torn = false;
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(MODE).open(path)
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("log"), folder.path().join("log.1"));
        let asked = Arc::new(AtomicU64::new(0));
        let mut target = Target::at(path.to_str().unwrap(), &asked);
        assert!(!path.exists());
        target.write(b"a\n").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o137, 0);
        std::fs::rename(&path, &moved).unwrap();
        // Not looked for yet, so that it is not lost: it goes where the other lines went.
        target.write(b"b\n").unwrap();
        asked.fetch_add(1, Ordering::Relaxed);
        target.write(b"c\n").unwrap();
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "a\nb\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "c\n");
        std::fs::remove_file(&path).unwrap();
        let Target::File(file) = &mut target else { unreachable!() };
        file.looked -= LOOK;
        target.write(b"d\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "d\n");
    }

    #[test]
    fn what_cannot_be_opened_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing").join("log");
        let mut target = Target::at(path.to_str().unwrap(), &Arc::default());
        assert!(target.write(b"a\n").is_err());
        std::fs::create_dir(folder.path().join("missing")).unwrap();
        target.write(b"b\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "b\n");
    }

    #[test]
    fn a_full_disk_is_an_error_and_no_end() {
        let mut target = Target::at("/dev/full", &Arc::default());
        assert!(target.write(b"a\n").is_err());
        assert!(target.write(b"b\n").is_err());
    }
}
