//! Everything that CI runs, in its order. A step that fails does not keep the others from being tried.

use std::process::Command;
use std::time::Instant;

use crate::run::{Outcome, cargo, exists, heard, shown, target};
use crate::{codegen, install, lab, tidy};

/// What has been counted so far.
#[derive(Default)]
struct Count {
    passed: usize,
    failed: usize,
    broken: Vec<String>,
}

impl Count {
    /// Runs a step; one that fails counts as a failure where it has not counted any itself.
    fn step(&mut self, name: &str, run: impl FnOnce(&mut Self) -> Outcome) {
        println!("\n== {name}");
        let (began, failed) = (Instant::now(), self.failed);
        let outcome = run(self);
        println!(
            "== {name}: {} ({:.0} s)",
            if outcome.is_ok() { "done" } else { "FAILED" },
            began.elapsed().as_secs_f64()
        );
        if let Err(error) = outcome {
            self.failed += usize::from(self.failed == failed);
            self.broken.push(format!("{name}: {error}"));
        }
    }

    /// Runs a command whose output tells numbers of passed and failed.
    fn counting(&mut self, mut command: Command) -> Outcome {
        let mut numbers = (0, 0);
        let good = heard(&mut command, |line| {
            if let Some((passed, failed)) = result_line(line) {
                numbers.0 += passed;
                numbers.1 += failed;
            }
        })?;
        self.passed += numbers.0;
        self.failed += numbers.1;
        if good { Ok(()) } else { Err(format!("{} failed", numbers.1)) }
    }
}

/// Runs all of it and prints `N passed, N failed` as the last line.
pub(crate) fn run() -> Outcome {
    let mut count = Count::default();
    println!("== install");
    install::all();
    count.step("format", |_| shown(&mut cargo(&["fmt", "--all", "--", "--check"])));
    count.step("lints", |_| {
        shown(&mut cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))
    });
    count.step("unit tests", |count| {
        let nextest = [
            "nextest",
            "run",
            "--workspace",
            "--no-fail-fast",
            "--hide-progress-bar",
            "--status-level",
            "fail",
            "--retries",
            "1",
        ];
        let plain =
            ["test", "--workspace", "--lib", "--bins", "--tests", "--examples", "--no-fail-fast", "--quiet"];
        let arguments = if exists("cargo-nextest") { &nextest[..] } else { &plain[..] };
        count.counting(cargo(arguments))
    });
    count.step("documentation tests", |count| {
        count.counting(cargo(&["test", "--workspace", "--doc", "--quiet"]))
    });
    count.step("documentation", |_| {
        shown(cargo(&["doc", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings"))
    });
    count.step("tidy", |_| tidy::run());
    count.step("generated code", |_| codegen::is_fresh());
    count.step("licences, bans, sources", |_| audit());
    count.step("e2e", |count| {
        lab::build_as_tested()?;
        let mut command = Command::new(target().join("debug/lab"));
        command.args(["e2e", "--again"]);
        count.counting(command)
    });
    println!();
    for broken in &count.broken {
        println!("FAILED {broken}");
    }
    println!("{} passed, {} failed", count.passed, count.failed);
    if count.failed == 0 && count.broken.is_empty() { Ok(()) } else { Err("not everything passed".into()) }
}

/// Licences, bans and sources by cargo-deny where it is installed; `tidy` checks the essence of them in any case.
fn audit() -> Outcome {
    if !exists("cargo-deny") {
        println!(
            "cargo-deny is not installed: licences, bans and sources were checked by tidy, advisories were not"
        );
        return Ok(());
    }
    shown(&mut cargo(&["deny", "--offline", "check", "licenses", "bans", "sources"]))?;
    if shown(&mut cargo(&["deny", "fetch"])).is_err() {
        println!("the advisory database cannot be had here: advisories were not checked");
        return Ok(());
    }
    shown(&mut cargo(&["deny", "check", "advisories"]))
}

/// The numbers in the closing line of cargo test, of nextest, or of the lab.
fn result_line(line: &str) -> Option<(usize, usize)> {
    let line = line.trim();
    let counted =
        line.starts_with("test result:") || line.starts_with("Summary [") || line.contains(" claims hold, ");
    if !counted {
        return None;
    }
    let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).collect();
    let before = |name: &[&str]| {
        let at = words.iter().position(|w| name.contains(w))?;
        words.get(at.checked_sub(1)?)?.parse::<usize>().ok()
    };
    let passed = before(&["passed", "claims"])?;
    Some((passed, before(&["failed", "fail"]).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::result_line;

    #[test]
    fn closing_lines_are_counted() {
        let unsteady = "     Summary [   3.2s] 40 tests run: 40 passed (1 flaky), 0 skipped";
        assert_eq!(result_line(unsteady), Some((40, 0)));
        let cargo =
            "test result: ok. 12 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(result_line(cargo), Some((12, 1)));
        assert_eq!(
            result_line("     Summary [   3.2s] 40 tests run: 38 passed, 2 failed, 1 skipped"),
            Some((38, 2))
        );
        assert_eq!(result_line("     Summary [   3.2s] 40 tests run: 40 passed, 0 skipped"), Some((40, 0)));
        assert_eq!(result_line("31 claims hold, 2 fail, 1 were skipped (300 s)"), Some((31, 2)));
        assert_eq!(result_line("running 12 tests"), None);
    }
}
