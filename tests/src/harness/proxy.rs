//! A meshproxy on a host of the lab.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use super::client::{Answer, Ask};
use super::control::{Control, READY};
use super::netns::Namespace;
use super::process::{Process, Spec};

/// A proxy, running or not.
pub struct Proxy {
    /// Its host.
    pub host: Namespace,
    /// The running process, if it runs.
    pub process: Option<Process>,
    node: String,
    program: PathBuf,
    scratch: PathBuf,
    control: String,
    extra: Vec<String>,
    capture: String,
    address: IpAddr,
    prefix: Vec<String>,
    env: Vec<(String, String)>,
}

impl Proxy {
    pub(crate) fn new(
        host: Namespace,
        node: &str,
        program: PathBuf,
        scratch: &Path,
        control: &Control,
    ) -> Self {
        Self {
            address: host.address().into(),
            capture: "explicit,loopback".to_owned(),
            host,
            process: None,
            node: node.to_owned(),
            program,
            scratch: scratch.to_owned(),
            control: control.url(),
            extra: Vec::new(),
            prefix: Vec::new(),
            env: Vec::new(),
        }
    }

    /// Adds arguments to every later start.
    pub fn with<S: ToString>(&mut self, arguments: impl IntoIterator<Item = S>) -> &mut Self {
        self.extra.extend(arguments.into_iter().map(|a| a.to_string()));
        self
    }

    /// Sets a variable of the environment of every later start.
    pub fn with_env(&mut self, name: &str, value: &str) -> &mut Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Forgets what [`Proxy::with`] has added.
    pub fn without(&mut self, arguments: usize) {
        let left = self.extra.len().saturating_sub(arguments);
        self.extra.truncate(left);
    }

    /// How it captures from its next start on.
    pub fn capturing(&mut self, list: &str) -> &mut Self {
        list.clone_into(&mut self.capture);
        self
    }

    /// Where peers reach it from its next start on.
    pub fn reached_at(&mut self, address: IpAddr) -> &mut Self {
        self.address = address;
        self
    }

    /// Runs another command of the program on its host, to its end.
    pub fn command(&self, words: &[&str]) -> anyhow::Result<(bool, String)> {
        let program = self.program.display().to_string();
        let words: Vec<&str> = std::iter::once(&*program).chain(words.iter().copied()).collect();
        self.host.command(None, &words)
    }

    /// Runs every later start under another program.
    pub fn within<S: ToString>(&mut self, prefix: impl IntoIterator<Item = S>) -> &mut Self {
        self.prefix = prefix.into_iter().map(|a| a.to_string()).collect();
        self
    }

    /// Its node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.scratch.join(&self.node)
    }

    /// Where its join token lies.
    pub fn token_file(&self) -> PathBuf {
        self.scratch.join(format!("{}.token", self.node))
    }

    /// Has a token made for it that allows some accounts.
    pub fn invite(&self, control: &Control, accounts: &[&str]) -> anyhow::Result<()> {
        let mut arguments = vec!["token", "create", "--node", &self.node];
        for account in accounts {
            arguments.extend(["--service-account", account]);
        }
        Ok(std::fs::write(self.token_file(), control.must(arguments)?.out.trim())?)
    }

    /// The arguments by which it is started.
    pub fn spec(&self) -> Spec {
        let spec = Spec::new(&self.node, &self.program)
            .args(["run", "--node", &self.node, "--control", &self.control])
            .args(["--token-file", &self.token_file().display().to_string()])
            .args(["--data-dir", &self.data().display().to_string()])
            .args(["--address", &self.address.to_string()])
            .args(["--dns", "127.0.0.1:53", "--capture", &self.capture])
            .args(&self.extra)
            .under(&self.prefix)
            .env("RUST_LOG", "info");
        self.env.iter().fold(spec, |spec, (name, value)| spec.env(name, value))
    }

    /// Starts it without waiting.
    pub fn launch(&mut self) -> anyhow::Result<()> {
        self.process = Some(self.spec().start(&self.host, &self.scratch.join("logs"))?);
        Ok(())
    }

    /// Waits until it says that it is ready; returns the version that it says.
    pub fn wait_ready(&mut self) -> anyhow::Result<u64> {
        let process = self.process.as_mut().context("the proxy does not run")?;
        let line = process.wait_for_line("ready ", READY)?;
        let version = line.split_whitespace().find_map(|w| w.strip_prefix("version="));
        version.and_then(|v| v.parse().ok()).with_context(|| format!("no version in {line:?}"))
    }

    /// The process, which must be running.
    pub fn running(&mut self) -> anyhow::Result<&mut Process> {
        self.process.as_mut().with_context(|| format!("the proxy of {} does not run", self.node))
    }

    /// Asks one of its own ports on this host's loopback.
    pub fn local(&self, port: u16, path: &str) -> anyhow::Result<Answer> {
        Ask::get(format!("http://127.0.0.1:{port}{path}"))
            .patience(Duration::from_secs(5))
            .send(&self.host, None)
    }

    /// The access log lines since its start that are JSON objects.
    pub fn access_log(&self) -> Vec<serde_json::Value> {
        let out = self.process.as_ref().map(Process::stdout).unwrap_or_default();
        out.lines().filter_map(|l| serde_json::from_str(l).ok()).collect()
    }
}
