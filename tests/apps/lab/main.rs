//! The lab: plays the demo and proves the claims against the real binaries.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use mesh_tests::harness::isolate::{self, Inside, Stage};
use mesh_tests::harness::netns;

/// A mesh over three hosts on this machine.
#[derive(Debug, Parser)]
#[command(name = "lab", version)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a whole mesh and play the seven acts.
    Demo {
        /// End by itself after so long, as 30s or 2m (the acts are played whole in any case).
        #[arg(long = "for", value_parser = duration)]
        hold: Option<Duration>,
        /// Print the results as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Prove the claims, or those whose names contain a filter.
    E2e {
        /// A part of the names of the claims to try.
        #[arg(default_value = "")]
        filter: String,
        /// Try what fails once more in a fresh lab, and call it unsteady if it holds then.
        #[arg(long)]
        again: bool,
        /// Print the results as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Measure: pair (CPU a request beside HAProxy and nginx), apply (latency of a change), idle (memory).
    Bench {
        /// Which; all without a name.
        #[arg(default_value = "")]
        name: String,
        /// How often each pair is measured.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// How long each run is.
        #[arg(long, default_value_t = 4)]
        secs: u64,
        /// Print the results as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Send messages that can be read in two ways through proxies, and say which of them pass.
    Compare {
        /// A part of the file or id of the cases to send.
        #[arg(default_value = "")]
        filter: String,
        /// Through which proxies: mesh, nginx, haproxy, envoy; all without this.
        #[arg(long, value_delimiter = ',')]
        with: Vec<String>,
        /// Print the results as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Enter a host of the lab and become a program (used by the lab itself).
    #[command(hide = true)]
    Enter {
        #[arg(long)]
        net: String,
        #[arg(long)]
        mount: String,
        #[arg(long)]
        user: Option<u32>,
        #[arg(long)]
        cpu: Option<usize>,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Verb::Enter { net, mount, user, cpu, command } = &args.verb {
        netns::enter_and_exec(net, mount, *user, *cpu, command)?;
    }
    let inside = match isolate::enter()? {
        Stage::Inside(inside) => inside,
        Stage::Ended(code) => return Ok(code),
    };
    isolate::end_on_interrupt()?;
    let outcome = play(&inside, &args.verb);
    if !matches!(outcome, Ok(true)) {
        keep_logs(&inside);
    }
    Ok(if outcome? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn play(inside: &Inside, verb: &Verb) -> anyhow::Result<bool> {
    match verb {
        Verb::Demo { hold, json } => mesh_tests::demo::play(inside, *hold, *json),
        Verb::E2e { filter, again, json } => mesh_tests::claims::prove(inside, filter, *again, *json),
        Verb::Bench { name, rounds, secs, json } => {
            mesh_tests::bench::run(inside, name, *rounds, *secs, *json)
        }
        Verb::Compare { filter, with, json } => mesh_tests::messages::compare(inside, with, filter, *json),
        Verb::Enter { .. } => Ok(false),
    }
}

/// Leaves the logs of what went wrong; the keeper removes the directory otherwise.
fn keep_logs(inside: &Inside) {
    drop(std::fs::write(inside.scratch.join("keep"), ""));
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is no duration, as 30s"))?;
    match unit {
        "s" | "" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        "ms" => Ok(Duration::from_millis(number)),
        _ => Err(format!("{text:?} has an unknown unit: s or m")),
    }
}
