//! The control node: a meshd, and its verbs as an operator types them.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use super::netns::Namespace;
use super::process::{Process, Spec};

/// How long a program of the mesh may take to say that it is ready.
pub const READY: Duration = Duration::from_secs(20);

/// What a verb answered.
#[derive(Clone, Debug)]
pub struct Said {
    /// The exit code.
    pub code: i32,
    /// Results.
    pub out: String,
    /// Reasons.
    pub err: String,
}

impl Said {
    /// The results as JSON.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.out).with_context(|| format!("not JSON: {:?}", self.out))
    }

    /// The number of the last line `version N`.
    pub fn version(&self) -> anyhow::Result<u64> {
        let line = self.out.lines().rev().find_map(|l| l.strip_prefix("version "));
        Ok(line.with_context(|| format!("no version in {:?}", self.out))?.trim().parse()?)
    }

    /// This, if the exit code is 0; its reason otherwise.
    pub fn ok(self) -> anyhow::Result<Self> {
        if self.code != 0 {
            bail!("exit {}: {}{}", self.code, self.err, self.out);
        }
        Ok(self)
    }
}

/// A meshd on its node.
pub struct Control {
    /// The control node.
    pub host: Namespace,
    /// The running process, if it runs.
    pub process: Option<Process>,
    program: PathBuf,
    scratch: PathBuf,
    files: std::cell::Cell<u32>,
}

impl Control {
    pub(crate) fn new(host: Namespace, program: PathBuf, scratch: PathBuf) -> Self {
        Self { host, process: None, program, scratch, files: std::cell::Cell::new(0) }
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.scratch.join("meshd")
    }

    /// What proxies are given as `--control`.
    pub fn url(&self) -> String {
        format!("https://{}:15012", self.host.address())
    }

    /// Where its HTTP face is.
    pub fn http(&self) -> (Ipv4Addr, u16) {
        (self.host.address(), 15014)
    }

    /// What operators set `MESHD_SERVER` to.
    pub fn server(&self) -> String {
        format!("unix:{}", self.data().join("admin.sock").display())
    }

    /// The arguments by which it is started.
    pub fn spec(&self) -> Spec {
        let (address, http) = self.http();
        Spec::new("meshd", &self.program)
            .args(["serve", "--data-dir"])
            .args([self.data().display()])
            .args(["--grpc-addr", &format!("{address}:15012"), "--http-addr", &format!("{address}:{http}")])
            .env("RUST_LOG", "info")
    }

    /// Starts it and waits until it serves; returns the version that it says.
    pub fn start(&mut self) -> anyhow::Result<u64> {
        let mut process = self.spec().start(&self.host, &self.scratch.join("logs"))?;
        let line = process.wait_for_line("ready ", READY)?;
        self.process = Some(process);
        let version = line.split_whitespace().find_map(|w| w.strip_prefix("version="));
        version.and_then(|v| v.parse().ok()).with_context(|| format!("no version in {line:?}"))
    }

    /// Kills it at once.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.take().context("meshd does not run")?.kill()
    }

    /// Runs a verb.
    pub fn cli<S: AsRef<str>>(&self, arguments: impl IntoIterator<Item = S>) -> anyhow::Result<Said> {
        let mut command = Command::new(&self.program);
        for argument in arguments {
            command.arg(argument.as_ref());
        }
        let output =
            command.env("MESHD_SERVER", self.server()).stdin(std::process::Stdio::null()).output()?;
        Ok(Said {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// How a verb is started that goes on.
    pub fn verb(&self, label: &str) -> Spec {
        Spec::new(label, &self.program).env("MESHD_SERVER", &self.server())
    }

    /// Runs a verb that must succeed.
    pub fn must<S: AsRef<str>>(&self, arguments: impl IntoIterator<Item = S>) -> anyhow::Result<Said> {
        let arguments: Vec<String> = arguments.into_iter().map(|a| a.as_ref().to_owned()).collect();
        self.cli(&arguments)?.ok().with_context(|| format!("meshd {}", arguments.join(" ")))
    }

    /// Applies files and waits until each connected proxy runs them; returns the version.
    pub fn apply(&self, path: &Path) -> anyhow::Result<u64> {
        self.must(["apply", "--wait=20s", "-f", &path.display().to_string()])?.version()
    }

    /// Applies text likewise.
    pub fn apply_text(&self, yaml: &str) -> anyhow::Result<u64> {
        self.apply(&self.file(yaml)?)
    }

    /// Writes a text to a file of its own.
    pub fn file(&self, text: impl AsRef<[u8]>) -> anyhow::Result<PathBuf> {
        self.files.set(self.files.get() + 1);
        let path = self.scratch.join(format!("given-{}.yaml", self.files.get()));
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// Waits until so many proxies are connected and in step.
    pub fn wait_for_proxies(&self, count: usize) -> anyhow::Result<()> {
        let end = std::time::Instant::now() + READY;
        loop {
            let rows = self.status()?;
            let good = rows.iter().filter(|r| r["connected"] == true && r["state"] == "SYNCED").count();
            if good >= count {
                return Ok(());
            }
            if std::time::Instant::now() > end {
                bail!("{good} of {count} proxies are in step: {}", Value::from(rows));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The states of the proxies by node, as `status` tells them.
    pub fn status(&self) -> anyhow::Result<Vec<Value>> {
        match self.must(["status", "-o", "json"])?.json()? {
            Value::Array(rows) => Ok(rows),
            other => bail!("status is no list: {other}"),
        }
    }
}
