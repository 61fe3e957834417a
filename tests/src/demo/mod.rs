//! The demonstration: seven acts, each with a line that explains it and results that are measured.

mod acts;
mod hold;

use std::time::{Duration, Instant};

use crate::harness::bookshop::whole_page;
use crate::harness::isolate::{self, Inside};
use crate::harness::lab::Lab;
use crate::harness::load::{Load, LoadSpec};
use crate::report::Report;

/// Plays it. Without `hold_for` the mesh stays up until it is interrupted.
pub fn play(inside: &Inside, hold_for: Option<Duration>, json: bool) -> anyhow::Result<bool> {
    let began = Instant::now();
    let mut report = Report::new(json);
    report.title("Starting a mesh over three hosts");
    let scratch = inside.scratch.join("logs").join("demo");
    let mut lab = Lab::start(inside, &scratch, |text| report.say(&format!("  {text}")))?;
    let steady = Load::start(
        lab.h1(),
        None,
        LoadSpec {
            ask: lab.page(),
            connections: 4,
            pause: Duration::from_millis(60),
            count: None,
            judge: whole_page,
        },
    );
    acts::all(&mut lab, &steady, &mut report);
    report.title("Summary");
    let tally = steady.tally();
    report.claim(
        "no request of the steady traffic failed",
        tally.failed() == 0 && tally.total > 0,
        tally.figure(),
    );
    let good = report.finish();
    let rest = hold_for.map(|whole| whole.saturating_sub(began.elapsed()));
    if rest.is_some_and(|rest| !rest.is_zero()) || (hold_for.is_none() && !json) {
        isolate::end_with(i32::from(!good));
        hold::stay_up(inside, &lab, &steady, &report, rest)?;
    }
    let later = steady.stop();
    if later.failed() > tally.failed() {
        report.say(&format!("while the mesh stayed up: {}", later.figure()));
    }
    Ok(good && later.failed() == 0)
}
