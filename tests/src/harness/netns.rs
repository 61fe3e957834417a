//! A host of the lab: a network namespace and a mount namespace, held by descriptors and by nothing else.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use anyhow::Context;
use rustix::process::{Gid, Uid};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::isolate::unshare;
use super::netlink::Links;

static CABLES: AtomicU32 = AtomicU32::new(0);

/// The namespaces of one host. They vanish with the last clone and the last process in them.
#[derive(Clone)]
pub struct Namespace {
    inner: Arc<Held>,
}

struct Held {
    name: String,
    net: File,
    mount: File,
    address: Ipv4Addr,
    cable: String,
}

impl Namespace {
    /// Makes a namespace with an address on the bridge; `resolver` is what its programs find as `/etc/resolv.conf`.
    pub(crate) fn create(
        name: &str,
        bridge: &str,
        address: Ipv4Addr,
        resolver: Option<(&Path, &Path)>,
    ) -> anyhow::Result<Self> {
        let (net, mount) = Self::apart(resolver)?;
        // The kernel takes its time to clear away the cables of a lab before this one.
        let cable = format!("{name}.{}", CABLES.fetch_add(1, Ordering::Relaxed));
        Links::open()?.add_pair(&cable, bridge, "eth0", net.as_fd())?;
        let host = Self { inner: Arc::new(Held { name: name.to_owned(), net, mount, address, cable }) };
        host.run(None, move || -> anyhow::Result<()> {
            let links = Links::open()?;
            links.set_up("lo")?;
            links.add_address("eth0", address, 24)?;
            links.set_up("eth0")
        })??;
        Ok(host)
    }

    /// Makes a namespace without a cable; its loopback interface has these addresses too.
    pub(crate) fn lonely(name: &str, addresses: &[Ipv4Addr]) -> anyhow::Result<Self> {
        let (net, mount) = Self::apart(None)?;
        let host = Self {
            inner: Arc::new(Held {
                name: name.to_owned(),
                net,
                mount,
                address: Ipv4Addr::LOCALHOST,
                cable: String::new(),
            }),
        };
        let addresses = addresses.to_vec();
        host.run(None, move || -> anyhow::Result<()> {
            let links = Links::open()?;
            links.set_up("lo")?;
            addresses.into_iter().try_for_each(|address| links.add_address("lo", address, 32))
        })??;
        Ok(host)
    }

    /// Fresh namespaces for network and mounts.
    fn apart(resolver: Option<(&Path, &Path)>) -> anyhow::Result<(File, File)> {
        let resolver = resolver.map(|(r, s)| (r.to_owned(), s.to_owned()));
        let made = std::thread::spawn(move || -> anyhow::Result<(File, File)> {
            unshare(UnshareFlags::NEWNET | UnshareFlags::NEWNS | UnshareFlags::FS)?;
            if let Some((resolver, switch)) = resolver {
                bind(&resolver, Path::new("/etc/resolv.conf"))?;
                if Path::new("/etc/nsswitch.conf").exists() {
                    bind(&switch, Path::new("/etc/nsswitch.conf"))?;
                }
            }
            Ok((File::open("/proc/thread-self/ns/net")?, File::open("/proc/thread-self/ns/mnt")?))
        });
        made.join().map_err(|_| anyhow::anyhow!("making namespaces panicked"))?
    }

    /// Takes its cable away: nothing of it answers any more, however long the kernel keeps the namespace.
    pub(crate) fn unplug(&self) {
        if let Ok(links) = Links::open() {
            drop(links.delete(&self.inner.cable));
        }
    }

    /// The host's name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The host's address on the bridge.
    pub fn address(&self) -> Ipv4Addr {
        self.inner.address
    }

    /// Gives the host one more address.
    pub fn add_address(&self, address: Ipv4Addr) -> anyhow::Result<()> {
        self.run(None, move || Links::open()?.add_address("eth0", address, 24))?
    }

    /// Runs `work` on a thread of this host, as a user if one is named, and waits for it.
    pub fn run<T: Send + 'static>(
        &self,
        user: Option<u32>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> anyhow::Result<T> {
        self.spawn(user, work).join().map_err(|_| anyhow::anyhow!("work on {} panicked", self.name()))?
    }

    /// Runs `work` on a thread of this host: the sockets it opens are the host's and the user's.
    pub fn spawn<T: Send + 'static>(
        &self,
        user: Option<u32>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<anyhow::Result<T>> {
        let inner = self.inner.clone();
        std::thread::spawn(move || {
            enter_net(&inner.net)?;
            if let Some(user) = user {
                become_user(user)?;
            }
            Ok(work())
        })
    }

    /// Runs a future on a thread of this host with a runtime of its own.
    pub fn block_on<T, F>(
        &self,
        user: Option<u32>,
        future: impl FnOnce() -> F + Send + 'static,
    ) -> anyhow::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = anyhow::Result<T>>,
    {
        self.run(user, move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            tokio::task::LocalSet::new().block_on(&runtime, future())
        })?
    }

    /// Runs a program on this host to its end, as a user if one is named: whether it did well, and all that it said.
    pub fn command(&self, user: Option<u32>, words: &[&str]) -> anyhow::Result<(bool, String)> {
        let [net, mount] = self.entry()?;
        let mut command = std::process::Command::new(std::env::current_exe()?);
        command.args(["enter", "--net", &net, "--mount", &mount]);
        if let Some(user) = user {
            command.args(["--user", &user.to_string()]);
        }
        let output = command
            .arg("--")
            .args(words)
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(std::process::Stdio::null())
            .output()
            .with_context(|| format!("running {}", words.join(" ")))?;
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok((output.status.success(), said))
    }

    /// The same for one that must do well; what it said.
    pub fn must(&self, words: &[&str]) -> anyhow::Result<String> {
        match self.command(None, words)? {
            (true, said) => Ok(said),
            (false, said) => anyhow::bail!("{} on {}: {said}", words.join(" "), self.name()),
        }
    }

    /// The arguments by which this program, as `enter`, finds the namespaces again.
    pub(crate) fn entry(&self) -> anyhow::Result<[String; 2]> {
        let me = std::fs::read_link("/proc/self").context("/proc is not mounted")?;
        let path = |file: &File| format!("/proc/{}/fd/{}", me.display(), file.as_raw_fd());
        Ok([path(&self.inner.net), path(&self.inner.mount)])
    }
}

fn bind(what: &Path, place: &Path) -> anyhow::Result<()> {
    rustix::mount::mount_bind(what, place).with_context(|| format!("mounting over {}", place.display()))
}

fn enter_net(net: &File) -> anyhow::Result<()> {
    rustix::thread::move_into_link_name_space(net.as_fd(), Some(LinkNameSpaceType::Network))
        .context("entering a network namespace")
}

/// Makes the calling thread (not the process) a user without other groups.
fn become_user(user: u32) -> anyhow::Result<()> {
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// The other half of `Namespace::entry`: moves this process into a host, becomes the user, and turns into `command`.
pub fn enter_and_exec(
    net: &str,
    mount: &str,
    user: Option<u32>,
    cpu: Option<usize>,
    command: &[String],
) -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt;
    let (net, mount) = (File::open(net)?, File::open(mount)?);
    let directory = std::env::current_dir()?;
    enter_net(&net)?;
    rustix::thread::move_into_link_name_space(mount.as_fd(), Some(LinkNameSpaceType::Mount))?;
    if let Some(cpu) = cpu {
        let mut set = rustix::thread::CpuSet::new();
        set.set(cpu);
        // Where there is no such CPU the program runs on what there is.
        let _ = rustix::thread::sched_setaffinity(None, &set);
    }
    if let Some(user) = user {
        become_user(user)?;
    }
    // Set last, since a change of user clears it.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let (program, arguments) = command.split_first().context("no command")?;
    let error = std::process::Command::new(program).args(arguments).current_dir(directory).exec();
    Err(error).with_context(|| format!("running {program}"))
}
