//! A memory cgroup for one process, where this machine lets one be made.

use std::path::{Path, PathBuf};

/// The group; removed when dropped, by when its process must have ended.
pub struct Cgroup {
    folder: PathBuf,
}

impl Cgroup {
    /// Makes one with a limit in bytes. `None` where that is not allowed.
    pub fn with_memory(limit: u64) -> Option<Self> {
        let name = format!("mesh-lab-{}", std::process::id());
        let kinds = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup/unified", "memory.max"),
            ("/sys/fs/cgroup", "memory.max"),
        ];
        kinds.into_iter().find_map(|(root, file)| {
            let folder = Path::new(root).join(&name);
            std::fs::create_dir(&folder).ok()?;
            let group = Self { folder };
            std::fs::write(group.folder.join(file), limit.to_string()).ok()?;
            Some(group)
        })
    }

    /// Whoever writes 0 here is in it.
    pub fn entrance(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    /// The most that was ever in use, and how many processes the kernel has ended.
    pub fn figures(&self) -> (Option<u64>, Option<u64>) {
        let read = |file: &str| std::fs::read_to_string(self.folder.join(file)).ok();
        let peak = read("memory.max_usage_in_bytes").or_else(|| read("memory.peak"));
        let events = read("memory.oom_control").or_else(|| read("memory.events"));
        let killed = events.and_then(|text| {
            text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|n| n.trim().parse().ok())
        });
        (peak.and_then(|peak| peak.trim().parse().ok()), killed)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        drop(std::fs::remove_dir(&self.folder));
    }
}
