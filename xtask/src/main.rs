//! Developer tasks, by `cargo xtask`.
//!
//! This crate depends on nothing, so that the first command on a fresh machine is quick to speak. What needs the
//! mesh's own crates is in the `lab` program of `tests/`, which these tasks build and call.

mod bench;
mod codegen;
mod dist;
mod install;
mod lab;
mod run;
mod test;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask TASK

  demo [--for 30s] [--json]    build, start a whole mesh on this machine, and play the seven acts
  test                         everything that CI runs: format, lints, tests, tidy, licences, e2e
  e2e [FILTER] [--json]        prove each claim in the lab, or those whose names contain FILTER
  compare [FILTER] [--with mesh,nginx,haproxy,envoy]
                               send the messages of tests/messages through our proxies and through others
  bench [NAME]                 measure pair (beside nginx and haproxy, with wrk), telemetry (by valgrind), shake,
                               slow (beside haproxy and envoy), storm, apply, idle, config, and the
                               core alone: match (times), instructions (by valgrind; --update writes the budget)
  tidy                         import rules, links, file sizes, licences, generated code
  codegen                      write mesh-proto/src/generated and docs/compatibility.md
  dist                         release archives in target/dist
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (task, rest) = match arguments.split_first() {
        Some((task, rest)) => (task.as_str(), rest),
        None => ("help", &[][..]),
    };
    let done = match task {
        "demo" | "e2e" => lab::run(task, rest),
        "compare" => lab::compare(rest),
        "bench" => bench::run(rest),
        "test" => test::run(),
        "tidy" => tidy::run(),
        "codegen" => codegen::write(),
        "dist" => dist::run(),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(())
        }
        other => {
            eprint!("xtask: no task {other:?}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
