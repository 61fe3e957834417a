//! Injected delays and aborts.

use std::time::Duration;

use super::routing::reviews_rules;
use super::{Claim, Context, shared};
use crate::harness::bookshop::status;
use crate::harness::client::Ask;

pub(super) fn claims() -> Vec<Claim> {
    vec![shared("faults/delay", delay), shared("faults/abort", abort)]
}

fn delay(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.control.apply_text(&reviews_rules(
        "    - match: [{headers: {end-user: {exact: jason}}}]
      fault: {delay: {fixedDelay: 1s, percentage: {value: 100}}}
      route: [{destination: {host: reviews, subset: v1}}]
    - {route: [{destination: {host: reviews, subset: v1}}]}\n",
    ))?;
    let ask = Ask::get("http://reviews:9080/health");
    let (late, quick) = (lab.as_productpage(&ask.clone().jason())?, lab.as_productpage(&ask)?);
    let second = Duration::from_secs(1);
    context.report.claim(
        "a delay of 1 s is kept",
        (second..second + second / 4).contains(&late.took),
        format!("{:?}", late.took),
    );
    context.report.claim("and nobody else waits", quick.took < second / 2, format!("{:?}", quick.took));
    Ok(())
}

fn abort(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.control.apply_text(&reviews_rules(
        "    - fault: {abort: {httpStatus: 555, percentage: {value: 30}}}
      route: [{destination: {host: reviews, subset: v1}}]\n",
    ))?;
    let ask = Ask::get("http://reviews:9080/health");
    let tally = lab.count(lab.h1(), lab.user("productpage-v1"), ask, 600, status);
    context.report.claim(
        "30 % are aborted with 555, within binomial bounds",
        tally.is_share("555", 0.3) && tally.is_share("200", 0.7),
        tally.figure(),
    );
    Ok(())
}
