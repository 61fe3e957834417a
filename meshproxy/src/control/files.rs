//! The data directory: private, and every file in it is either its old content or its new one.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A file or folder of the data directory that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}: {source}", path.display())]
pub struct FileError {
    /// What was tried.
    pub doing: &'static str,
    /// With which.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

impl FileError {
    fn of<'p>(doing: &'static str, path: &'p Path) -> impl FnOnce(io::Error) -> FileError + use<'p> {
        move |source| FileError { doing, path: path.to_owned(), source }
    }
}

/// Makes a folder with mode 0700, or takes away what others may do in an existing one.
pub fn private_folder(path: &Path) -> Result<(), FileError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(FileError::of("make", path))?;
    let mode = fs::metadata(path).map_err(FileError::of("look at", path))?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(FileError::of("close", path))?;
    }
    Ok(())
}

/// Replaces a file whole: written beside it with mode 0600, synced, renamed.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let written = write_synced(&beside, content);
    written.map_err(FileError::of("write", &beside))?;
    fs::rename(&beside, path).map_err(FileError::of("replace", path))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(FileError::of("sync", folder))
}

fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    // What an interrupted write left behind may have any mode.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// The content of a file; `None` if there is none.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::of("read", path)(error)),
    }
}

/// Renames a file that cannot be used to `NAME.damaged`, so that it can be looked at; answers the new name.
pub fn set_aside(path: &Path) -> Result<PathBuf, FileError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    let aside = PathBuf::from(aside);
    fs::rename(path, &aside).map_err(FileError::of("set aside", path))?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn files_are_private_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        private_folder(&folder).unwrap();
        assert_eq!(mode(&folder), 0o700);
        let file = folder.join("key");
        assert_eq!(read(&file).unwrap(), None);
        fs::write(folder.join("key.new"), "left behind").unwrap();
        replace(&file, b"one").unwrap();
        replace(&file, b"two").unwrap();
        assert_eq!((read(&file).unwrap(), mode(&file)), (Some(b"two".to_vec()), 0o600));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        private_folder(&folder).unwrap();
        assert_eq!(mode(&folder), 0o700);
    }
}
