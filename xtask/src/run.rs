//! Programs run by the tasks.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What went wrong, in words for the person at the terminal.
pub(crate) type Outcome<T = ()> = Result<T, String>;

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The build directory.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Cargo itself, the one that started this task.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    // These name the package of this task and would make others be built again.
    for name in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "CARGO_PKG_VERSION"] {
        command.env_remove(name);
    }
    command
}

/// Runs a program with its output shown.
pub(crate) fn shown(command: &mut Command) -> Outcome {
    let status = command.status().map_err(|e| format!("{}: {e}", words(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{} failed ({status})", words(command))) }
}

/// Runs a program and returns what it prints.
pub(crate) fn captured(command: &mut Command) -> Outcome<String> {
    let output = command.stderr(Stdio::inherit()).output().map_err(|e| format!("{}: {e}", words(command)))?;
    if !output.status.success() {
        return Err(format!("{} failed ({})", words(command), output.status));
    }
    String::from_utf8(output.stdout).map_err(|e| format!("{}: {e}", words(command)))
}

/// Runs a program with its output shown, and hands each line of it to `hear`. Says whether it succeeded.
pub(crate) fn heard(command: &mut Command, mut hear: impl FnMut(&str)) -> Outcome<bool> {
    let (reader, writer) = std::io::pipe().map_err(|e| e.to_string())?;
    let copy = writer.try_clone().map_err(|e| e.to_string())?;
    let name = words(command);
    let mut child = command.stdout(writer).stderr(copy).spawn().map_err(|e| format!("{name}: {e}"))?;
    // The command holds the writing ends; without them the reading end sees the end of the child's output.
    *command = Command::new("true");
    for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        hear(&line);
    }
    Ok(child.wait().map_err(|e| format!("{name}: {e}"))?.success())
}

/// Whether a program can be started.
pub(crate) fn exists(program: &str) -> bool {
    let found = |directory: &Path| directory.join(program).is_file();
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|d| found(&d))
        || ["/usr/sbin", "/sbin"].iter().any(|d| found(Path::new(d)))
}

/// Whether this is the machine's administrator.
pub(crate) fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|l| l.starts_with("Uid:") && l.split_whitespace().nth(2) == Some("0"))
}

fn words(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    words.join(" ")
}
