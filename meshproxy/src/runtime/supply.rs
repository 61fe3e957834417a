//! What this process has of memory and descriptors, and how much of it is in use. Read beside the data path, again and
//! again; what cannot be read counts as not scarce.
//!
//! Memory is what the process holds resident, without pages of files, which can go at any time. Where it is alone in a memory cgroup that has a limit, the cgroup's own
//! count goes before it: that one knows the buffers of sockets too, and it is what the kernel kills by. A cgroup that
//! others share says nothing of what giving way here would free.

use std::path::{Path, PathBuf};

/// Of a cgroup's limit, in hundredths: the rest is for what grows between two looks.
const SHARE_OF_CGROUP: u64 = 80;
/// Of the memory of the machine, in hundredths: others live there too.
const SHARE_OF_MACHINE: u64 = 50;
/// Where it cannot be found out how much there is.
const FALLBACK: u64 = 1 << 30;

/// What is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Used {
    /// Bytes of memory.
    pub memory: u64,
    /// Descriptors.
    pub descriptors: u64,
    /// Descriptors that there may be.
    pub most_descriptors: u64,
}

/// A memory cgroup, of either version.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cgroup {
    folder: PathBuf,
    unified: bool,
}

/// Where to look.
#[derive(Debug, Clone)]
pub struct Supply {
    cgroup: Option<Cgroup>,
    page: u64,
    /// Looks since it was last seen who is in the cgroup, and whether nobody else was.
    looks: u32,
    is_own: bool,
}

impl Supply {
    /// Finds out where this process finds itself.
    pub fn find() -> Supply {
        let cgroups = read("/proc/self/cgroup");
        let mounts = read("/proc/self/mountinfo");
        let page = rustix::param::page_size() as u64;
        Supply { cgroup: Cgroup::find(&cgroups, &mounts), page, looks: 0, is_own: false }
    }

    /// How much memory the process should need at most, where nobody says otherwise.
    pub fn budget(&self) -> u64 {
        let machine = field(&read("/proc/meminfo"), "MemTotal:").map(|kilobytes| kilobytes * 1024);
        let of_machine = machine.map(|bytes| bytes / 100 * SHARE_OF_MACHINE);
        let limit = self.cgroup.as_ref().and_then(Cgroup::limit);
        let of_cgroup = limit.filter(|limit| machine.is_none_or(|machine| *limit < machine));
        let of_cgroup = of_cgroup.map(|limit| limit / 100 * SHARE_OF_CGROUP);
        of_cgroup.or(of_machine).unwrap_or(FALLBACK)
    }

    /// What is in use now.
    pub fn used(&mut self) -> Used {
        /// Who is in a cgroup changes seldom, and may be many.
        const AGAIN: u32 = 50;
        if self.looks == 0 {
            self.is_own = self.cgroup.as_ref().is_some_and(Cgroup::is_own);
        }
        self.looks = (self.looks + 1) % AGAIN;
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let pages = read("/proc/self/statm");
        let mut pages = pages.split_ascii_whitespace().skip(1).map(|pages| pages.parse::<u64>().unwrap_or(0));
        let (resident, of_files) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
        let resident = resident.saturating_sub(of_files) * self.page;
        let cgroup = self.cgroup.as_ref().filter(|_| self.is_own);
        let counted = cgroup.and_then(Cgroup::used).unwrap_or(0);
        Used {
            memory: resident.max(counted),
            descriptors: descriptors(),
            most_descriptors: limit.current.unwrap_or(u64::MAX),
        }
    }
}

/// Open descriptors. Newer kernels say it at once.
fn descriptors() -> u64 {
    const FOLDER: &str = "/proc/self/fd";
    match std::fs::metadata(FOLDER).map(|folder| folder.len()) {
        Ok(0) | Err(_) => std::fs::read_dir(FOLDER).map_or(0, |entries| entries.count() as u64),
        Ok(count) => count,
    }
}

impl Cgroup {
    /// From what the kernel says of the process and of what is mounted.
    fn find(cgroups: &str, mounts: &str) -> Option<Cgroup> {
        let of = |wanted: fn(&str) -> bool| {
            cgroups.lines().find_map(|line| {
                let (_, rest) = line.split_once(':')?;
                let (controllers, path) = rest.split_once(':')?;
                wanted(controllers).then_some(path)
            })
        };
        let old = of(|controllers| controllers.split(',').any(|one| one == "memory"));
        let (path, unified) = match old {
            Some(path) => (path, false),
            None => (of(str::is_empty)?, true),
        };
        // `36 35 98:0 /root /mount options ... - type source options`
        let (root, mount) = mounts.lines().find_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mut after = after.split(' ');
            let kind = after.next()?;
            let is_it = match unified {
                true => kind == "cgroup2",
                false => kind == "cgroup" && after.nth(1)?.split(',').any(|one| one == "memory"),
            };
            let mut words = before.split(' ').skip(3);
            is_it.then_some((words.next()?, words.next()?))
        })?;
        let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new("")).to_owned();
        Some(Cgroup { folder: Path::new(mount).join(below), unified })
    }

    /// The smallest limit of this cgroup and those that it lies in.
    fn limit(&self) -> Option<u64> {
        let file = if self.unified { "memory.max" } else { "memory.limit_in_bytes" };
        self.folder.ancestors().map_while(|folder| number(&folder.join(file))).flatten().min()
    }

    /// What it uses and could not give back at once.
    fn used(&self) -> Option<u64> {
        let file = if self.unified { "memory.current" } else { "memory.usage_in_bytes" };
        let used = number(&self.folder.join(file))??;
        let stat = read(self.folder.join("memory.stat"));
        let cached = if self.unified {
            ["inactive_file", "active_file"]
        } else {
            ["total_inactive_file", "total_active_file"]
        };
        let cached: u64 = cached.iter().filter_map(|name| field(&stat, name)).sum();
        Some(used.saturating_sub(cached))
    }

    /// Whether nobody else is in it.
    fn is_own(&self) -> bool {
        read(self.folder.join("cgroup.procs")).lines().count() == 1
    }
}

/// A file with one number; `Some(None)` where it says that there is none.
fn number(path: &Path) -> Option<Option<u64>> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().parse().ok())
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.split_ascii_whitespace().next() == Some(name))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_of_both_versions_are_found() {
        let check = |cgroups: &str, mounts: &str, folder: &str, unified: bool| {
            let expected = Cgroup { folder: folder.into(), unified };
            assert_eq!(Cgroup::find(cgroups, mounts), Some(expected), "{cgroups}");
        };
        let old = "33 24 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";
        let new = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        check("4:memory:/a/b\n0::/\n", &format!("{new}{old}"), "/sys/fs/cgroup/memory/a/b", false);
        check("0::/system.slice/x\n", new, "/sys/fs/cgroup/system.slice/x", true);
        // Inside of a container the mount begins with the container's own cgroup.
        let inner = "30 23 0:26 /docker/1 /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n";
        check("0::/docker/1\n", inner, "/sys/fs/cgroup", true);
        assert_eq!(Cgroup::find("", old), None);
        assert_eq!(Cgroup::find("0::/\n", old), None);
    }

    #[test]
    fn limits_of_cgroups_around_count_and_files_in_the_cache_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        let write = |path: &str, text: &str| std::fs::write(folder.path().join(path), text).unwrap();
        write("memory.max", "max\n");
        write("a/memory.max", "1000\n");
        write("a/b/memory.max", "max\n");
        write("a/b/memory.current", "900\n");
        write("a/b/memory.stat", "anon 300\ninactive_file 100\nactive_file 50\n");
        write("a/b/cgroup.procs", "7\n");
        let cgroup = Cgroup { folder: inner, unified: true };
        assert_eq!((cgroup.limit(), cgroup.used(), cgroup.is_own()), (Some(1000), Some(750), true));
        write("a/b/cgroup.procs", "7\n8\n");
        assert!(!cgroup.is_own());
    }

    #[test]
    fn this_process_uses_something() {
        let mut supply = Supply::find();
        let used = supply.used();
        assert!(used.memory > 1 << 20 && used.descriptors > 2, "{used:?}");
        assert!(supply.budget() > 16 << 20);
        let before = used.descriptors;
        let more: Vec<_> = (0..50).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        assert!(supply.used().descriptors >= before + 40, "of {}", more.len());
    }
}
