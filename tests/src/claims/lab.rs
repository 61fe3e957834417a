//! That the lab itself is what the other claims take it for.

use std::time::Duration;

use super::{Claim, Context, alone, shared};
use crate::harness::client::Ask;
use crate::harness::lab::{BOOKSHOP, Lab, host_address};

pub(super) fn claims() -> Vec<Claim> {
    vec![alone("lab/network", network), shared("lab/up", up), shared("lab/check", check)]
}

/// Without a mesh: applications answer across hosts by address, and the hosts are apart.
fn network(context: &mut Context<'_>) -> anyhow::Result<()> {
    let scratch = context.scratch()?;
    let mut lab = Lab::lay_out(context.inside, &scratch)?;
    lab.start_apps()?;
    let ratings = BOOKSHOP[5];
    let url = format!("http://{}:{}/ratings/0", host_address(ratings.host), ratings.port);
    let answer = Ask::get(url).send(lab.h1(), lab.user("productpage-v1"))?;
    context.report.claim(
        "h1 reaches an application on h3 over the bridge",
        answer.status == 200,
        answer.text(),
    );
    let name = Ask::get("http://ratings:9080/").patience(Duration::from_secs(1)).send(lab.h1(), None);
    context.report.claim("no name is known without a mesh", name.is_err(), "no resolver answers");
    Ok(())
}

/// The whole bookshop through the mesh.
fn up(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let tally = lab.pages(lab.page(), 60);
    let all = ["v1", "v2", "v3"].iter().all(|v| tally.count(v) > 0);
    let states = lab.control.status()?;
    let synced = states.iter().filter(|s| s["state"] == "SYNCED").count();
    context.report.claim(
        "pages come whole, from all three versions of reviews",
        tally.failed() == 0 && all,
        tally.figure(),
    );
    context.report.claim("three proxies are SYNCED", synced == 3, format!("{synced} of {}", states.len()));
    Ok(())
}

/// `meshd check` finds the installation sound.
fn check(context: &mut Context<'_>) -> anyhow::Result<()> {
    let said = context.lab()?.control.cli(["check"])?;
    let lines = said.out.lines().count();
    context.report.claim(
        "meshd check exits 0",
        said.code == 0 && lines > 0,
        format!("exit {}, {lines} lines {}", said.code, said.err),
    );
    Ok(())
}
