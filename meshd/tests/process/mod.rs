//! The binary run as scripts and people run it.
#![allow(dead_code, unreachable_pub, reason = "each suite uses what it needs")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A running `meshd serve`.
pub struct Server {
    process: Child,
    pub data_dir: PathBuf,
    pub grpc: String,
    pub version: u64,
}

impl Server {
    pub fn start(data_dir: &Path) -> Server {
        Server::start_with(data_dir, &[])
    }

    pub fn start_with(data_dir: &Path, flags: &[&str]) -> Server {
        let mut process = serve(data_dir, "127.0.0.1:0").args(flags).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let field = |name: &str| {
            let found = line.split_whitespace().find_map(|word| word.strip_prefix(name));
            found.unwrap_or_else(|| panic!("no {name} in {line:?}")).to_owned()
        };
        assert!(line.starts_with("ready "), "{line}");
        Server {
            grpc: field("grpc="),
            version: field("version=").parse().unwrap(),
            data_dir: data_dir.to_owned(),
            process,
        }
    }

    pub fn run(&self, arguments: &[&str], input: &str) -> Output {
        run(&self.data_dir, arguments, input)
    }

    pub fn end(mut self, signal: &str) -> Option<i32> {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        self.process.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ends what a failed test has left.
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

pub fn meshd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshd"));
    command.env_clear();
    command
}

pub fn serve(data_dir: &Path, grpc: &str) -> Command {
    let mut command = meshd();
    command.args(["serve", "--grpc-addr", grpc, "--http-addr", "127.0.0.1:0", "--data-dir"]).arg(data_dir);
    command.stderr(Stdio::null());
    command
}

pub fn run(data_dir: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = meshd();
    command.env("MESHD_SERVER", format!("unix:{}", data_dir.join("admin.sock").display()));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    // A command that reads nothing closes the pipe.
    let _unread = process.stdin.take().unwrap().write_all(input.as_bytes());
    process.wait_with_output().unwrap()
}

#[track_caller]
pub fn check(output: &Output, code: i32, stdout: &str, stderr: &str) {
    let out = String::from_utf8_lossy(&output.stdout);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "out: {out}\nerr: {err}");
    assert!(out.contains(stdout), "{stdout:?} is not in standard output: {out}");
    assert!(err.contains(stderr), "{stderr:?} is not in standard error: {err}");
}
