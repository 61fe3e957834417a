//! The tasks that run in the lab: it is built, and then takes this process's place.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::install;
use crate::run::{Outcome, cargo, shown, target};

/// Builds what the lab runs.
pub(crate) fn build() -> Outcome {
    eprintln!("xtask: building the mesh and its lab (the first time takes some minutes)");
    shown(&mut cargo(&[
        "build",
        "--package",
        "meshd",
        "--package",
        "meshproxy",
        "--package",
        "mesh-tests",
        "--bins",
    ]))
}

/// The same after the unit tests: what they were built with is used again. Without `--tests` cargo would leave out the
/// features that only tests ask for, and compile half of the dependencies a second time.
pub(crate) fn build_as_tested() -> Outcome {
    shown(&mut cargo(&["build", "--workspace", "--bins", "--tests", "--examples"]))
}

/// `demo` and `e2e`.
pub(crate) fn run(task: &str, rest: &[String]) -> Outcome {
    build()?;
    let program = target().join("debug/lab");
    let error = Command::new(&program).arg(task).args(rest).exec();
    Err(format!("{}: {error}", program.display()))
}

/// `compare`: the same lab, with the proxies that are compared.
pub(crate) fn compare(rest: &[String]) -> Outcome {
    for program in ["nginx", "haproxy"] {
        let package = if program == "nginx" { "nginx-light" } else { program };
        install::program(program, package)?;
    }
    let envoy = install::envoy()?;
    build()?;
    let program = target().join("debug/lab");
    let error = Command::new(&program).arg("compare").args(rest).env("LAB_ENVOY", envoy).exec();
    Err(format!("{}: {error}", program.display()))
}

/// `bench`: the same lab, but everything as it is shipped. What is to be run, built.
pub(crate) fn bench(rest: &[String]) -> Outcome<Command> {
    eprintln!("xtask: building as it is shipped (link-time optimisation takes some minutes)");
    let packages = ["build", "--profile", "dist", "--package", "meshd", "--package", "meshproxy", "--bins"];
    shown(&mut cargo(&packages))?;
    build()?;
    let mut command = Command::new(target().join("debug/lab"));
    command.arg("bench").args(rest).env("LAB_PROGRAMS", target().join("dist"));
    if rest.first().is_none_or(|name| name == "slow" || name.starts_with('-')) {
        install::program("haproxy", "haproxy")?;
        match install::envoy() {
            Ok(envoy) => drop(command.env("LAB_ENVOY", envoy)),
            Err(error) => eprintln!("xtask: no Envoy to compare with: {error}"),
        }
    }
    Ok(command)
}
