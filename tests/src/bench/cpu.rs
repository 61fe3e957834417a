//! The kernel's accounting of a process and what it has started.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::process::proc_directory;

/// The CPU time of a tree of processes so far.
pub(super) fn used(pid: u32) -> anyhow::Result<Duration> {
    let mut sum = 0u64;
    for process in tree(&proc_directory(pid)?) {
        for thread in threads(&process) {
            let stat = std::fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
            sum += stat.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Ok(Duration::from_nanos(sum))
}

/// What of the CPU time of a process was spent outside of the kernel so far, in steps of a hundredth of a second.
pub(super) fn outside_the_kernel(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(proc_directory(pid)?.join("stat"))?;
    // The name before it may hold blanks.
    let behind = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
    let ticks = behind.split_whitespace().nth(11).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    Ok(Duration::from_millis(ticks * 10))
}

/// The ticks (hundredths of a second) that the hypervisor has taken from this machine.
pub(super) fn stolen() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    stat.split_whitespace().nth(8).and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn threads(process: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(process.join("task")).into_iter().flatten().flatten().map(|e| e.path()).collect()
}

fn tree(process: &Path) -> BTreeSet<PathBuf> {
    let (mut found, mut open) = (BTreeSet::new(), vec![process.to_owned()]);
    while let Some(process) = open.pop() {
        for thread in threads(&process) {
            let children = std::fs::read_to_string(thread.join("children")).unwrap_or_default();
            let parent = process.parent().unwrap_or(Path::new("/proc"));
            open.extend(children.split_whitespace().map(|child| parent.join(child)));
        }
        found.insert(process);
    }
    found
}
