//! The seven acts.

use std::time::Duration;

use anyhow::Context;

use crate::harness::bookshop::{version, whole_page};
use crate::harness::client::Ask;
use crate::harness::lab::{Lab, yaml};
use crate::harness::load::{Load, LoadSpec, Tally};
use crate::report::Report;

const POLICY: &str = "authorizationpolicy/default/reviews-from-productpage";

/// Plays all acts in their order.
pub(super) fn all(lab: &mut Lab, steady: &Load, report: &mut Report) {
    everything_to_v1(lab, report);
    shifted_shares(lab, report);
    only_jason(lab, report);
    faults(lab, report);
    only_productpage(lab, report);
    refused_typo(lab, report);
    killed_control(lab, steady, report);
}

/// Gets so many pages at once and counts the versions of the reviews in them.
fn pages(lab: &Lab, count: usize, ask: Ask) -> Tally {
    let spec = LoadSpec { ask, connections: 8, pause: Duration::ZERO, count: Some(count), judge: whole_page };
    Load::run(lab.h1(), None, spec)
}

fn apply(lab: &Lab, file: &str) -> anyhow::Result<u64> {
    lab.control.apply(&yaml(file))
}

fn share(lab: &Lab, file: &str, count: usize, expected: &[(&str, f64)]) -> anyhow::Result<(bool, String)> {
    let version = apply(lab, file)?;
    let tally = pages(lab, count, lab.page());
    let within = expected.iter().all(|(name, share)| tally.is_share(name, *share));
    Ok((within && tally.failed() == 0, format!("{} (version {version})", tally.figure())))
}

fn everything_to_v1(lab: &Lab, report: &mut Report) {
    report.title("1. Everything to v1: three versions of reviews run, one gets the traffic");
    report.attempt("all pages have reviews of v1", share(lab, "demo/1-all-v1.yaml", 200, &[("v1", 1.0)]));
}

fn shifted_shares(lab: &Lab, report: &mut Report) {
    report.title("2. Weights: reviews move from v1 to v3 step by step");
    for (file, v1, v3) in
        [("2-reviews-90-10", 0.9, 0.1), ("2-reviews-50-50", 0.5, 0.5), ("2-reviews-0-100", 0.0, 1.0)]
    {
        let claim = format!("v1 gets {:.0} % and v3 {:.0} %", v1 * 100.0, v3 * 100.0);
        report.attempt(claim, share(lab, &format!("demo/{file}.yaml"), 500, &[("v1", v1), ("v3", v3)]));
    }
}

fn only_jason(lab: &Lab, report: &mut Report) {
    report.title("3. By header: only the user jason sees v2");
    report.attempt("everyone else has v1", share(lab, "demo/3-reviews-jason-v2.yaml", 100, &[("v1", 1.0)]));
    let tally = pages(lab, 100, lab.page().jason());
    report.claim("jason has v2", tally.is_share("v2", 1.0), tally.figure());
}

fn faults(lab: &Lab, report: &mut Report) {
    report.title("4. Faults: ratings are slow for jason, then broken, and fine for everyone else");
    report.attempt("jason waits 2 s for ratings", delayed(lab));
    report.attempt("jason gets a 500 instead of ratings", aborted(lab));
    let others = apply(lab, "demo/4-ratings-none.yaml").map(|_| {
        let tally = pages(lab, 20, lab.page().jason());
        (tally.is_share("v2", 1.0), tally.figure())
    });
    report.attempt("without the fault all is well again", others);
}

fn delayed(lab: &Lab) -> anyhow::Result<(bool, String)> {
    apply(lab, "demo/4-ratings-delay.yaml")?;
    let page = lab.page().jason().send(lab.h1(), None)?.json();
    let millis = page["reviews"]["body"]["ratings"]["millis"].as_u64().context("no ratings in the page")?;
    let good = page["reviews"]["body"]["ratings"]["status"] == 200;
    Ok((good && (2000..2500).contains(&millis), format!("ratings took {millis} ms")))
}

fn aborted(lab: &Lab) -> anyhow::Result<(bool, String)> {
    apply(lab, "demo/4-ratings-abort.yaml")?;
    let page = lab.page().jason().send(lab.h1(), None)?.json();
    let ratings = &page["reviews"]["body"]["ratings"];
    Ok((ratings["status"] == 500, format!("ratings answered {}: {}", ratings["status"], ratings["body"])))
}

fn only_productpage(lab: &Lab, report: &mut Report) {
    report.title("5. Policy: only productpage may call reviews");
    report.attempt(
        "the page still has its reviews",
        share(lab, "demo/5-reviews-from-productpage.yaml", 50, &[("v1", 1.0)]),
    );
    let denied = Ask::get("http://reviews:9080/reviews/0").send(&lab.proxies[2].host, lab.user("reviews-v3"));
    let denied = denied.map(|a| (a.status == 403, format!("status {}: {}", a.status, a.text())));
    report.attempt("reviews itself calling reviews is denied", denied);
    report.attempt("explain names the policy that denies it", explained(lab));
}

fn explained(lab: &Lab) -> anyhow::Result<(bool, String)> {
    let from = "default/bookinfo-reviews@h3";
    let arguments = ["explain", "--from", from, "--to", "http://reviews:9080/reviews/0", "-o", "json"];
    let told = lab.control.must(arguments)?.json()?;
    let authorization = &told["authorization"];
    let named = authorization.to_string().contains(POLICY);
    Ok((authorization["verdict"] == "deny" && named, authorization.to_string()))
}

fn refused_typo(lab: &Lab, report: &mut Report) {
    report.title("6. A typo: refused with file, line and the nearest name, and nothing has changed");
    report.attempt("apply exits 1 and names the field", typo(lab));
    let tally = pages(lab, 50, lab.page());
    report.claim("traffic goes on as before", tally.is_share("v1", 1.0), tally.figure());
}

fn typo(lab: &Lab) -> anyhow::Result<(bool, String)> {
    let before = lab.control.must(["get", "vs", "reviews", "-o", "json"])?.out;
    let said = lab.control.cli(["apply", "-f", &yaml("demo/6-typo.yaml").display().to_string()])?;
    let after = lab.control.must(["get", "vs", "reviews", "-o", "json"])?.out;
    let plain =
        said.err.contains("6-typo.yaml") && said.err.contains("wieght") && said.err.contains("weight");
    let figure = said.err.replace(&yaml("demo").display().to_string(), "demo").trim().replace('\n', "; ");
    Ok((said.code == 1 && plain && before == after, format!("exit {}: {figure}", said.code)))
}

fn killed_control(lab: &mut Lab, steady: &Load, report: &mut Report) {
    report.title("7. meshd is killed with SIGKILL while traffic goes on, and started again");
    let before = apply(lab, "demo/1-all-v1.yaml");
    let since = steady.elapsed();
    let killed = lab.control.kill().map(|()| {
        let calm = pages(lab, 400, lab.page());
        (calm.is_share("v1", 1.0), calm.figure())
    });
    report.attempt("without meshd every page comes", killed);
    let again = lab.control.start().and_then(|says| {
        lab.control.wait_for_proxies(3)?;
        let next = apply(lab, "demo/2-reviews-50-50.yaml")?;
        let before = before?;
        let tally = pages(lab, 300, lab.page());
        let good = says == before && next == before + 1 && tally.is_share("v3", 0.5) && tally.failed() == 0;
        Ok((good, format!("{before} before, {says} after the restart, {next} applied; {}", tally.figure())))
    });
    report.attempt("its versions continue and changes arrive again", again);
    let tally = steady.tally_since(since);
    report.claim("no page of the steady traffic was missed meanwhile", tally.failed() == 0, tally.figure());
    // The caller's view once more, past the page: what the mesh itself answers.
    let spec = LoadSpec {
        ask: Ask::get("http://reviews:9080/reviews/0"),
        connections: 2,
        pause: Duration::ZERO,
        count: Some(20),
        judge: version,
    };
    let direct = Load::run(lab.h1(), lab.user("productpage-v1"), spec);
    report.claim("and names answer as before", direct.failed() == 0, direct.figure());
}
