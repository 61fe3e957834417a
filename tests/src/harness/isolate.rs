//! Into namespaces of our own, and out again with nothing left behind.
//!
//! The process that the user started stays outside as the *keeper*: it makes the scratch directory, starts this
//! program again inside fresh PID, mount and network namespaces (as an ordinary user inside one user namespace too),
//! waits, and removes the directory. When the inner process ends for whatever reason the kernel ends everything in
//! its PID namespace, and with the last process go the network namespaces; when the keeper dies the inner one is
//! killed. A listening socket of the outside is handed in as standard input, so that the dashboard can be reached.

use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicI32, Ordering};

use anyhow::{Context, bail};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::Signal;
use rustix::thread::UnshareFlags;

const SCRATCH: &str = "MESH_LAB_SCRATCH";

/// Where this process finds itself.
pub enum Stage {
    /// Inside; the lab can be laid out.
    Inside(Inside),
    /// The inner process ran and ended like this.
    Ended(ExitCode),
}

/// What the inner process was given.
pub struct Inside {
    /// A directory for everything that is written; the keeper removes it.
    pub scratch: PathBuf,
    /// A listening socket of the machine's own network.
    pub door: TcpListener,
    /// Whether this is the machine's administrator, so that other user ids exist.
    pub is_root: bool,
}

/// Starts this program again in namespaces of its own, or finds that it already is there.
pub fn enter() -> anyhow::Result<Stage> {
    match std::env::var_os(SCRATCH) {
        Some(scratch) => Ok(Stage::Inside(settle(PathBuf::from(scratch))?)),
        None => keep().map(Stage::Ended),
    }
}

/// Takes away what the process shares with the rest of the machine.
pub(crate) fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: only the sharing of descriptors (CLONE_FILES) would break what safe code relies on, and no caller asks
    // for it; namespaces and the working directory are no matter of memory or descriptor safety.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

fn settle(scratch: PathBuf) -> anyhow::Result<Inside> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS).map_err(|e| refused(&e.into()))?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|e| refused(&e.into()))?;
    // Shared memory is named by process ids, and those here are others' outside.
    let _ = rustix::mount::mount("tmpfs", "/dev/shm", "tmpfs", MountFlags::empty(), None);
    if std::process::id() == 1 {
        // Where a container hides parts of /proc this is refused; processes are then found by `NSpid`.
        let _ = rustix::mount::mount("proc", "/proc", "proc", MountFlags::empty(), None);
    }
    let door = std::io::stdin().as_fd().try_clone_to_owned()?;
    Ok(Inside {
        scratch,
        door: TcpListener::from(door),
        is_root: std::env::var_os("MESH_LAB_ROOT").is_some_and(|v| v == "1"),
    })
}

fn keep() -> anyhow::Result<ExitCode> {
    let is_root = rustix::process::geteuid().is_root();
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let door = TcpListener::bind("127.0.0.1:15014").or_else(|_| TcpListener::bind("127.0.0.1:0"))?;
    let scratch = tempfile::Builder::new().prefix("mesh-lab-").tempdir()?;
    open_to_all(scratch.path())?;
    if !is_root {
        unshare(UnshareFlags::NEWUSER).map_err(|e| refused(&e.into()))?;
        std::fs::write("/proc/self/setgroups", "deny").map_err(|e| refused(&e))?;
        std::fs::write("/proc/self/uid_map", format!("0 {uid} 1")).map_err(|e| refused(&e))?;
        std::fs::write("/proc/self/gid_map", format!("0 {gid} 1")).map_err(|e| refused(&e))?;
    }
    // From here on children are born into a new PID namespace. Where that is refused the death signals do instead.
    let _ = unshare(UnshareFlags::NEWPID);
    let mut inner = std::process::Command::new(std::env::current_exe()?);
    inner
        .args(std::env::args_os().skip(1))
        .env(SCRATCH, scratch.path())
        .env("MESH_LAB_ROOT", if is_root { "1" } else { "0" })
        .stdin(OwnedFd::from(door));
    let code = tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(watch(inner))?;
    if code != 0 && scratch.path().join("keep").exists() {
        eprintln!("the logs are in {}", scratch.keep().join("logs").display());
    }
    Ok(ExitCode::from(code))
}

/// Waits for the inner process; what would end the keeper is passed on, so that the inner one ends first.
async fn watch(inner: std::process::Command) -> anyhow::Result<u8> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut child = tokio::process::Command::from(inner).spawn().context("starting the lab inside")?;
    loop {
        let pass_on = tokio::select! {
            status = child.wait() => return Ok(status?.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1)),
            _ = interrupt.recv() => Signal::INT,
            _ = terminate.recv() => Signal::TERM,
        };
        if let Some(pid) = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
            let _ = rustix::process::kill_process(pid, pass_on);
        }
    }
}

/// Applications run as users of their own and must reach their program in here.
fn open_to_all(directory: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o711))?)
}

/// Says which setting of the machine forbids the lab.
fn refused(error: &std::io::Error) -> anyhow::Error {
    let setting = |path: &str| std::fs::read_to_string(path).map(|v| v.trim().to_owned()).unwrap_or_default();
    let hint = if setting("/proc/sys/kernel/unprivileged_userns_clone") == "0" {
        "kernel.unprivileged_userns_clone is 0: `sysctl -w kernel.unprivileged_userns_clone=1`, or run as root"
    } else if setting("/proc/sys/user/max_user_namespaces") == "0" {
        "user.max_user_namespaces is 0: `sysctl -w user.max_user_namespaces=15000`, or run as root"
    } else if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" {
        "kernel.apparmor_restrict_unprivileged_userns is 1: `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, \
         or run as root"
    } else if rustix::process::geteuid().is_root() {
        "this container lacks CAP_SYS_ADMIN: run it privileged, or outside of the container"
    } else {
        "a seccomp or container policy forbids user namespaces: allow `unshare`, or run as root"
    };
    anyhow::anyhow!("the lab needs network namespaces and may not make them ({error}); {hint}")
}

/// What an interrupt makes of the exit code: 130 until the work is done.
static INTERRUPTED: AtomicI32 = AtomicI32::new(130);

/// From here on an interrupt is the ordinary end, with this exit code.
pub fn end_with(code: i32) {
    INTERRUPTED.store(code, Ordering::Relaxed);
}

/// Ends this process on an interrupt.
pub fn end_on_interrupt() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        super::process::kill_all();
        std::process::exit(INTERRUPTED.load(Ordering::Relaxed));
    })?;
    Ok(())
}

/// Refuses to go on where a needed program is missing.
pub fn require(program: &Path) -> anyhow::Result<()> {
    if !program.exists() {
        bail!("{} is not there: build it with `cargo build --workspace --bins`", program.display());
    }
    Ok(())
}
