//! The authority's keys and certificates on disk.
//!
//! `DATA/ca` (mode 0700) is made whole beside its place and renamed, so that a crash half-way leaves either nothing
//! or everything. Keys have mode 0600 from the moment they exist.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Why the files of the authority cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Some of the files are there, others are not.
    #[error(
        "{path} is missing while others of the certificate authority are there; restore it from a copy (a new authority would make every joined host a stranger)"
    )]
    Incomplete {
        /// The missing file.
        path: PathBuf,
    },
    /// Not what it should be.
    #[error("{path}: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// The four files in `DATA/ca`, as PEM.
pub struct CaFiles {
    /// Self-signed; the trust bundle.
    pub root: String,
    /// Kept for the next intermediate; not used otherwise, and empty where it was moved to a safer place.
    pub root_key: String,
    /// Signs everything.
    pub intermediate: String,
    /// Key of the intermediate.
    pub intermediate_key: String,
}

const NAMES: [&str; 4] = ["root.pem", "root.key", "intermediate.pem", "intermediate.key"];

/// Reads the files; `None` if the folder is not there. The root's key may be elsewhere.
pub fn read(directory: &Path) -> Result<Option<CaFiles>, FileError> {
    if !directory.exists() {
        return Ok(None);
    }
    let one = |name: &str| text(&directory.join(name));
    Ok(Some(CaFiles {
        root: one(NAMES[0])?,
        root_key: match one(NAMES[1]) {
            Err(FileError::Incomplete { .. }) => String::new(),
            root_key => root_key?,
        },
        intermediate: one(NAMES[2])?,
        intermediate_key: one(NAMES[3])?,
    }))
}

/// Writes the four files, all or none.
pub fn write(directory: &Path, files: &CaFiles) -> Result<(), FileError> {
    let fresh = directory.with_extension("new");
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| FileError::Io { path, source }
    };
    match fs::remove_dir_all(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&fresh)(error)),
        _ => {}
    }
    DirBuilder::new().mode(0o700).create(&fresh).map_err(at(&fresh))?;
    let contents = [&files.root, &files.root_key, &files.intermediate, &files.intermediate_key];
    for (name, content) in NAMES.iter().zip(contents) {
        let path = fresh.join(name);
        let mode = if name.ends_with(".key") { 0o600 } else { 0o644 };
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(mode).open(&path).map_err(at(&path))?;
        file.write_all(content.as_bytes()).and_then(|()| file.sync_all()).map_err(at(&path))?;
    }
    fs::rename(&fresh, directory).map_err(at(directory))?;
    if let Some(parent) = directory.parent() {
        fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(at(parent))?;
    }
    Ok(())
}

/// A file as text.
pub fn text(path: &Path) -> Result<String, FileError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(FileError::Incomplete { path: path.to_owned() })
        }
        Err(source) => Err(FileError::Io { path: path.to_owned(), source }),
    }
}

/// The certificates of a PEM text; at least one.
pub fn certificates(path: &Path, pem: &str) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let content = |reason: String| FileError::Content { path: path.to_owned(), reason };
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| content(error.to_string()))?;
    if certificates.is_empty() {
        return Err(content("no certificate in it".to_owned()));
    }
    Ok(certificates)
}
