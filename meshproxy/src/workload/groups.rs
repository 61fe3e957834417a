//! Control groups (version 2) by the number that the kernel tells of a socket: that of the group's directory.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Groups that are looked at; a host has far fewer.
const MOST: usize = 65_536;
/// Groups within groups.
const DEEPEST: usize = 64;

/// Paths below the root of the hierarchy, by number.
pub type Groups = HashMap<u64, Arc<str>>;

/// Every group that there is now; nothing where the hierarchy is not mounted. Takes a while.
pub fn all() -> Groups {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let Some((mounted, below)) = mount_in(&mounts) else { return Groups::new() };
    below_root(&mounted, &below)
}

/// Where the hierarchy is mounted, and which part of it.
fn mount_in(mounts: &str) -> Option<(PathBuf, String)> {
    mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (below, mounted) = (place.next()?, place.next()?);
        (kind.split(' ').next() == Some("cgroup2"))
            .then(|| (PathBuf::from(mounted), below.trim_end_matches('/').to_owned()))
    })
}

fn below_root(mounted: &Path, below: &str) -> Groups {
    let mut found = Groups::new();
    if let Ok(root) = fs::metadata(mounted) {
        found.insert(root.ino(), format!("{below}/").into());
    }
    let mut left = vec![(mounted.to_owned(), below.to_owned(), 0)];
    while let Some((folder, path, depth)) = left.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            if found.len() >= MOST || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = format!("{path}/{name}");
            found.insert(entry.ino(), path.as_str().into());
            if depth < DEEPEST {
                left.push((entry.path(), path, depth + 1));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_among_mounts() {
        let old = "30 23 0:26 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";
        let unified = "31 23 0:27 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        let part = "31 23 0:27 /part /sys/fs/cgroup rw - cgroup2 none rw\n";
        assert_eq!(mount_in(old), None);
        assert_eq!(
            mount_in(&format!("{old}{unified}")),
            Some(("/sys/fs/cgroup/unified".into(), String::new()))
        );
        assert_eq!(mount_in(part), Some(("/sys/fs/cgroup".into(), "/part".into())));
    }

    #[test]
    fn groups_have_the_number_of_their_directory() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a.slice/b.service");
        fs::create_dir_all(&deep).unwrap();
        fs::write(dir.path().join("cgroup.procs"), "").unwrap();
        let found = below_root(dir.path(), "");
        assert_eq!(found.len(), 3);
        let number = fs::metadata(&deep).unwrap().ino();
        assert_eq!(found.get(&number).map(|path| &**path), Some("/a.slice/b.service"));
    }
}
