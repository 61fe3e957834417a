//! Programs of the lab: started on a host, watched, and ended with it.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal};

use super::netns::Namespace;

/// Everything that runs, so that an interrupt can end it where no PID namespace does.
static RUNNING: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Kills whatever still runs.
pub(crate) fn kill_all() {
    if let Ok(running) = RUNNING.lock() {
        for pid in running.iter().filter_map(|pid| Pid::from_raw(*pid)) {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
    }
}

/// How a program is to be started.
#[derive(Clone, Debug)]
pub struct Spec {
    label: String,
    command: Vec<String>,
    env: Vec<(String, String)>,
    user: Option<u32>,
    prefix: Vec<String>,
    cpu: Option<usize>,
    quiet: bool,
}

impl Spec {
    /// A program under a label that names its log files.
    pub fn new(label: &str, program: &Path) -> Self {
        Self {
            label: label.to_owned(),
            command: vec![program.display().to_string()],
            env: Vec::new(),
            user: None,
            prefix: Vec::new(),
            cpu: None,
            quiet: false,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: ToString>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.extend(arguments.into_iter().map(|a| a.to_string()));
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs it as this user.
    #[must_use]
    pub fn user(mut self, user: Option<u32>) -> Self {
        self.user = user;
        self
    }

    /// Runs it under another program, as `faketime` or `prlimit`.
    #[must_use]
    pub fn under<S: ToString>(mut self, prefix: impl IntoIterator<Item = S>) -> Self {
        self.prefix = prefix.into_iter().map(|a| a.to_string()).collect();
        self
    }

    /// Runs it on this CPU only.
    #[must_use]
    pub fn cpu(mut self, cpu: Option<usize>) -> Self {
        self.cpu = cpu;
        self
    }

    /// Throws away what it prints to standard output.
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Starts it on a host; what it prints goes to files in `logs`.
    pub fn start(&self, host: &Namespace, logs: &Path) -> anyhow::Result<Process> {
        let (out, err) = (logs.join(format!("{}.out", self.label)), logs.join(format!("{}.err", self.label)));
        let started_at = std::fs::metadata(&out).map(|m| m.len()).unwrap_or(0);
        let err_started_at = std::fs::metadata(&err).map(|m| m.len()).unwrap_or(0);
        let append = |path: &Path| File::options().create(true).append(true).open(path);
        let [net, mount] = host.entry()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("enter").arg("--net").arg(net).arg("--mount").arg(mount);
        if let Some(user) = self.user {
            command.arg("--user").arg(user.to_string());
        }
        if let Some(cpu) = self.cpu {
            command.arg("--cpu").arg(cpu.to_string());
        }
        command.arg("--").args(&self.prefix).args(&self.command);
        for name in ["http_proxy", "HTTP_PROXY", "RUST_LOG"] {
            command.env_remove(name);
        }
        // A group of its own, so that what it starts ends with it.
        let child = command
            .process_group(0)
            .envs(self.env.iter().map(|(n, v)| (n, v)))
            .stdin(Stdio::null())
            .stdout(if self.quiet { Stdio::null() } else { append(&out)?.into() })
            .stderr(append(&err)?)
            .spawn()
            .with_context(|| format!("starting {}", self.label))?;
        if let Ok(mut running) = RUNNING.lock() {
            running.insert(child.id().cast_signed());
        }
        Ok(Process { label: self.label.clone(), child, out, err, started_at, err_started_at })
    }
}

/// A running program. It is killed when dropped.
pub struct Process {
    label: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
    started_at: u64,
    err_started_at: u64,
}

impl Process {
    /// Its process id here.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed to standard output since it was started.
    pub fn stdout(&self) -> String {
        read_from(&self.out, self.started_at)
    }

    /// What it has printed to standard error since it was started.
    pub fn stderr(&self) -> String {
        read_from(&self.err, self.err_started_at)
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for a line of standard output that starts so, and returns it.
    pub fn wait_for_line(&mut self, start: &str, patience: Duration) -> anyhow::Result<String> {
        let end = Instant::now() + patience;
        loop {
            if let Some(line) = self.stdout().lines().find(|l| l.starts_with(start)) {
                return Ok(line.to_owned());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended ({status}) before it said {start:?}:\n{}", self.label, tail(&self.stderr()));
            }
            if Instant::now() > end {
                bail!("{} has not said {start:?} in {patience:?}:\n{}", self.label, tail(&self.stderr()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_raw(self.child.id().cast_signed()).context("no process id")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// Kills it at once and waits until it is gone.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let pid = Pid::from_raw(self.child.id().cast_signed()).context("no process id")?;
        rustix::process::kill_process_group(pid, Signal::KILL)?;
        self.child.wait()?;
        self.forget();
        Ok(())
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        let end = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.forget();
                return Ok(status);
            }
            if Instant::now() > end {
                bail!("{} has not ended in {patience:?}:\n{}", self.label, tail(&self.stderr()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks it to end and waits; says how it ended.
    pub fn terminate(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(patience)
    }

    /// Its resident memory in KiB.
    pub fn resident_kib(&self) -> anyhow::Result<u64> {
        self.memory_kib("VmRSS:")
    }

    /// The most resident memory that it ever had, in KiB.
    pub fn peak_kib(&self) -> anyhow::Result<u64> {
        self.memory_kib("VmHWM:")
    }

    fn memory_kib(&self, name: &str) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(proc_directory(self.pid())?.join("status"))?;
        let line = status.lines().find_map(|l| l.strip_prefix(name)).with_context(|| format!("no {name}"))?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> anyhow::Result<usize> {
        Ok(std::fs::read_dir(proc_directory(self.pid())?.join("fd"))?.count())
    }

    fn forget(&self) {
        if let Ok(mut running) = RUNNING.lock() {
            running.remove(&self.child.id().cast_signed());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            drop(self.kill());
        }
        self.forget();
    }
}

/// Where `/proc` shows a process of ours, also when it still shows another PID namespace than ours.
pub fn proc_directory(pid: u32) -> anyhow::Result<PathBuf> {
    let seen = std::fs::read_link("/proc/self")?;
    if seen.as_os_str().to_str() == Some(std::process::id().to_string().as_str()) {
        return Ok(PathBuf::from(format!("/proc/{pid}")));
    }
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Ok(status) = std::fs::read_to_string(entry.path().join("status")) else { continue };
        let inner =
            status.lines().find_map(|l| l.strip_prefix("NSpid:")).and_then(|l| l.split_whitespace().last());
        if inner == Some(pid.to_string().as_str()) {
            return Ok(entry.path());
        }
    }
    bail!("no process {pid}")
}

fn read_from(path: &Path, start: u64) -> String {
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
}

/// The last lines of a log.
pub fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
