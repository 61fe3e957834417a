//! What a mesh hop costs, beside peers on the same machine in the same run.
//!
//! CPU is the kernel's own count of what the proxies' threads ran, so that a shared machine changes the answer far less
//! than it changes throughput. Client and backend run on one CPU, the proxies on the other; every round starts fresh
//! processes, and the set-ups take turns. Compare within one run only.

mod config;
mod cpu;
mod mesh;
mod pair;
pub(crate) mod peers;
mod setup;
mod shake;
mod slow;
mod telemetry;

use std::time::Duration;

use crate::claims;
use crate::harness::isolate::Inside;
use crate::harness::lab::Lab;
use crate::report::Report;

/// Runs one bench, or all; says whether the bars are kept.
pub fn run(inside: &Inside, name: &str, rounds: usize, seconds: u64, json: bool) -> anyhow::Result<bool> {
    let mut report = Report::new(json);
    let known = ["pair", "telemetry", "shake", "slow", "storm", "apply", "idle", "config"];
    if !name.is_empty() && !known.contains(&name) {
        anyhow::bail!("no bench {name:?}; there are {}", known.join(", "));
    }
    let wanted = |this: &str| name.is_empty() || name == this;
    if wanted("idle") || wanted("apply") || wanted("storm") {
        report.title("A mesh of three hosts");
        let scratch = inside.scratch.join("logs").join("lab");
        let mut lab = Lab::start(inside, &scratch, |text| report.say(&format!("  {text}")))?;
        if wanted("idle") {
            std::thread::sleep(Duration::from_secs(3));
            let (control, proxies) = claims::observe::resident(&mut lab)?;
            let worst = proxies.iter().copied().max().unwrap_or(u64::MAX);
            report.claim("idle meshd weighs under 40 MiB", control < 40 << 10, mib(control));
            report.claim(
                "an idle meshproxy weighs under 20 MiB",
                worst < 20 << 10,
                format!("{} at most", mib(worst)),
            );
        }
        if wanted("apply") {
            let mut times = claims::changes::measure(&lab, 50)?;
            times.sort();
            let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
            let figure = format!("median {median:.1?}, worst {worst:.1?} of {}", times.len());
            report.claim(
                "from apply to the last of three proxies serving it: under 50 ms in the median",
                median < Duration::from_millis(50),
                figure,
            );
        }
        if wanted("storm") {
            let storm = claims::resilience_storm::measure(&lab, 5_000)?;
            claims::resilience_storm::tell(&mut report, &storm);
        }
    }
    if wanted("config") {
        config::run(inside, &mut report)?;
    }
    if wanted("pair") {
        pair::run(inside, &mut report, rounds, seconds)?;
    }
    if wanted("telemetry") {
        telemetry::run(inside, &mut report, rounds, seconds)?;
    }
    if wanted("slow") {
        slow::run(inside, &mut report, rounds, seconds)?;
    }
    if wanted("shake") {
        shake::run(inside, &mut report, rounds)?;
    }
    report.title("Summary");
    Ok(report.finish())
}

fn mib(kib: u64) -> String {
    format!("{:.1} MiB", kib as f64 / 1024.0)
}
