//! A set-up that is measured: processes, the entry, and the files they read.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::harness::client::Ask;
use crate::harness::netns::Namespace;
use crate::harness::process::{Process, Spec};

/// The CPU of client and backend.
pub(super) const LOAD_CPU: usize = 0;
/// The CPU of the proxies.
pub(super) const PROXY_CPU: usize = 1;
/// Where everything listens that does not say otherwise.
pub(super) const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// The proxy of a pair that ends TLS, and how it is asked straight.
#[derive(Clone, Debug)]
pub(super) struct Inner {
    /// Its number among the proxies.
    pub(super) number: usize,
    /// Where it listens.
    pub(super) at: SocketAddr,
    /// What a request to it needs beside its URL.
    pub(super) headers: Vec<(&'static str, String)>,
}

/// One set-up while it runs; dropping it ends its processes.
pub(super) struct Setup {
    pub(super) host: Namespace,
    pub(super) folder: PathBuf,
    pub(super) entry: SocketAddr,
    pub(super) host_header: String,
    pub(super) inner: Option<Inner>,
    proxies: Vec<Process>,
    others: Vec<Process>,
    next_port: u16,
}

impl Setup {
    pub(super) fn new(host: &Namespace, folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self {
            host: host.clone(),
            folder: folder.to_owned(),
            entry: SocketAddr::from((LOCAL, 0)),
            host_header: "app.mesh".to_owned(),
            inner: None,
            proxies: Vec::new(),
            others: Vec::new(),
            next_port: 21000,
        })
    }

    /// A port that nothing of this set-up has.
    pub(super) fn port(&mut self) -> u16 {
        self.next_port += 1;
        self.next_port
    }

    /// Writes a file of configuration.
    pub(super) fn file(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// Starts a proxy, whose CPU is counted.
    pub(super) fn proxy(&mut self, spec: Spec) -> anyhow::Result<&mut Process> {
        let process = spec.cpu(Some(PROXY_CPU)).start(&self.host, &self.folder)?;
        self.proxies.push(process);
        self.proxies.last_mut().context("no proxy")
    }

    /// Starts anything else.
    pub(super) fn other(&mut self, spec: Spec) -> anyhow::Result<&mut Process> {
        let process = spec.cpu(Some(LOAD_CPU)).start(&self.host, &self.folder)?;
        self.others.push(process);
        self.others.last_mut().context("no process")
    }

    /// An nginx that answers 1 KiB from memory; where it listens.
    pub(super) fn backend(&mut self, address: Ipv4Addr) -> anyhow::Result<SocketAddr> {
        let at = SocketAddr::from((address, self.port()));
        let body = "x".repeat(1024);
        let server = format!(
            "server {{ listen {at} backlog=4096; default_type text/plain; location / {{ return 200 \"{body}\"; }} }}"
        );
        let spec = super::peers::nginx(self, "backend", &server)?;
        self.other(spec)?;
        Ok(at)
    }

    /// Waits until a request through it is answered with 200.
    pub(super) fn wait_ready(&mut self) -> anyhow::Result<()> {
        let ask = Ask::get(format!("http://{}/", self.entry)).header("host", &self.host_header);
        let ask = ask.patience(Duration::from_secs(2));
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let answer = ask.send(&self.host, None);
            match answer {
                Ok(answer) if answer.status == 200 => return Ok(()),
                other if Instant::now() > end => {
                    let reason =
                        other.map_or_else(|e| format!("{e:#}"), |a| format!("{} {}", a.status, a.text()));
                    bail!("no 200 through it: {reason}")
                }
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Ends its proxies; what each said last.
    pub(super) fn end_proxies(&mut self, patience: Duration) -> anyhow::Result<Vec<String>> {
        let end = |mut process: Process| {
            process.terminate(patience)?;
            Ok(process.stderr())
        };
        self.proxies.drain(..).map(end).collect()
    }

    /// The CPU time of its proxies so far.
    pub(super) fn used(&self) -> anyhow::Result<Duration> {
        self.proxies.iter().map(|p| super::cpu::used(p.pid())).sum()
    }

    /// The CPU time of one of its proxies so far: all of it, and what of it was spent outside of the kernel.
    pub(super) fn used_by(&self, number: usize) -> anyhow::Result<(Duration, Duration)> {
        let pid = self.proxies.get(number).context("no such proxy")?.pid();
        Ok((super::cpu::used(pid)?, super::cpu::outside_the_kernel(pid)?))
    }
}
