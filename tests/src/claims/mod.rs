//! What is proved from outside, through the real binaries: one function a claim, grouped by subject.

mod access_logs;
mod agreement;
mod agreement_spans;
mod balancing;
mod bookinfo;
mod bytes;
mod capture;
mod capture_rules;
mod capture_tls;
mod capture_transparent;
mod captured;
pub mod changes;
mod changes_graceful;
mod connection_faults;
mod context;
mod crash;
mod credentials;
mod egress;
mod faults;
mod fields;
mod hedging;
mod identity;
mod input;
mod lab;
mod messages;
mod metrics;
mod misbehaviour;
pub mod observe;
mod operator;
mod origination;
mod owners;
mod policy;
mod prometheus;
mod protocols;
mod ratelimits;
mod reports;
mod resilience;
mod resilience_faults;
pub(crate) mod resilience_storm;
mod resilience_zones;
mod routing;
mod rules;
mod streams;
mod supply;
mod tap;
mod tour;
mod traces;
mod traffic;
pub mod verdicts;
mod views;
mod wire;
mod zero_trust;

pub use context::Context;

use crate::harness::isolate::Inside;
use crate::report::Report;

/// A claim and how it is tried.
pub struct Claim {
    /// `SUBJECT/NAME`, what a filter is matched with.
    pub name: &'static str,
    /// Whether it wants a lab that nothing has happened to, or leaves one that is of no more use.
    pub alone: bool,
    /// Tries it: notes findings in the report, or returns what kept it from doing so.
    pub run: fn(&mut Context<'_>) -> anyhow::Result<()>,
}

/// A claim tried in the lab that others use.
const fn shared(name: &'static str, run: fn(&mut Context<'_>) -> anyhow::Result<()>) -> Claim {
    Claim { name, alone: false, run }
}

/// A claim tried in a lab of its own.
const fn alone(name: &'static str, run: fn(&mut Context<'_>) -> anyhow::Result<()>) -> Claim {
    Claim { name, alone: true, run }
}

/// Every claim, in the order of trying.
fn all() -> Vec<Claim> {
    let mut claims = Vec::new();
    claims.extend(lab::claims());
    claims.extend(routing::claims());
    claims.extend(rules::claims());
    claims.extend(balancing::claims());
    claims.extend(reports::claims());
    claims.extend(traces::claims());
    claims.extend(resilience::claims());
    claims.extend(hedging::claims());
    claims.extend(resilience_zones::claims());
    claims.extend(resilience_faults::claims());
    claims.extend(resilience_storm::claims());
    claims.extend(origination::claims());
    claims.extend(credentials::claims());
    claims.extend(faults::claims());
    claims.extend(connection_faults::claims());
    claims.extend(metrics::claims());
    claims.extend(ratelimits::claims());
    claims.extend(fields::claims());
    claims.extend(egress::claims());
    claims.extend(views::claims());
    claims.extend(policy::claims());
    claims.extend(verdicts::claims());
    claims.extend(capture::claims());
    claims.extend(capture_transparent::claims());
    claims.extend(capture_tls::claims());
    claims.extend(capture_rules::claims());
    claims.extend(protocols::claims());
    claims.extend(streams::claims());
    claims.extend(misbehaviour::claims());
    claims.extend(changes::claims());
    claims.extend(changes_graceful::claims());
    claims.extend(wire::claims());
    claims.extend(bytes::claims());
    claims.extend(messages::claims());
    claims.extend(supply::claims());
    claims.extend(identity::claims());
    claims.extend(owners::claims());
    claims.extend(zero_trust::claims());
    claims.extend(observe::claims());
    claims.extend(traffic::claims());
    claims.extend(tap::claims());
    claims.extend(access_logs::claims());
    claims.extend(agreement::claims());
    claims.extend(agreement_spans::claims());
    claims.extend(prometheus::claims());
    claims.extend(operator::claims());
    claims.extend(input::claims());
    claims.extend(crash::claims());
    claims.extend(tour::claims());
    claims.extend(bookinfo::claims());
    claims
}

/// So many claims are tried a second time; more than that is no bad luck.
const SECOND_TRIALS: usize = 4;

/// Tries the claims whose names contain the filter; says whether all hold. `again`: what fails is tried once more in a
/// fresh lab, and said to be unsteady if it holds then.
pub fn prove(inside: &Inside, filter: &str, again: bool, json: bool) -> anyhow::Result<bool> {
    let mut report = Report::new(json);
    let chosen: Vec<Claim> = all().into_iter().filter(|c| c.name.contains(filter)).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = all().iter().map(|c| c.name).collect();
        anyhow::bail!("no claim's name contains {filter:?}; there are {}", names.join(", "));
    }
    let mut context = Context::new(inside, &mut report);
    let mut trials = if again { SECOND_TRIALS } else { 0 };
    for claim in chosen {
        let since = context.report.len();
        attempt(&mut context, &claim);
        if trials > 0 && context.report.try_again(since) {
            trials -= 1;
            context.report.say("  (tried again, in a fresh lab)");
            context.discard_lab();
            attempt(&mut context, &claim);
        }
    }
    context.discard_lab();
    drop(context);
    report.title("Summary");
    Ok(report.finish())
}

/// Tries one, and leaves the lab as the next may want it.
fn attempt(context: &mut Context<'_>, claim: &Claim) {
    context.report.title(claim.name);
    if claim.alone {
        context.discard_lab();
    }
    if let Err(error) = (claim.run)(context) {
        context.report.claim(claim.name, false, format!("{error:#}"));
    }
    if claim.alone {
        context.discard_lab();
    } else {
        context.settle();
    }
}
