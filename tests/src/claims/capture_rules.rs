//! The rules of interception: what they leave behind, what happens without the proxy, and beside the rules of others.

use std::time::Duration;

use super::captured::{capturing, curl, is_possible, metric, restart, until};
use super::{Claim, Context, alone};
use crate::harness::lab::Lab;

pub(super) fn claims() -> Vec<Claim> {
    vec![
        alone("capture/rules", rules),
        alone("capture/fail-closed", fail_closed),
        alone("capture/fail-open", fail_open),
        alone("capture/beside-others", beside),
    ]
}

const OK: &str = "200 0";
const REVIEWS: &str = "http://10.77.0.12:9080/health";
const RATINGS: &str = "http://10.77.0.13:9081/health";

/// Rules as Docker and ufw have them: a published port, masquerading, and a filter that lets little in.
const OTHERS: &str = "table ip nat {\n\
     chain DOCKER { iifname \"docker0\" return; tcp dport 8080 dnat to 10.77.0.13:9081; }\n\
     chain PREROUTING { type nat hook prerouting priority -100; policy accept; fib daddr type local jump DOCKER; }\n\
     chain OUTPUT { type nat hook output priority -100; policy accept; ip daddr != 127.0.0.0/8 fib daddr type local jump DOCKER; }\n\
     chain POSTROUTING { type nat hook postrouting priority 100; policy accept; ip daddr 10.77.0.13 tcp dport 9081 masquerade; }\n}\n\
     table ip filter {\n\
     chain ufw-user-input { tcp dport { 9080, 15008 } accept; }\n\
     chain INPUT { type filter hook input priority 0; policy drop; iifname \"lo\" accept; ct state related,established accept; icmp type echo-request accept; jump ufw-user-input; }\n\
     chain OUTPUT { type filter hook output priority 0; policy accept; tcp dport 2525 reject; }\n}\n";

fn permissive(lab: &Lab) -> anyhow::Result<()> {
    lab.control
        .apply_text(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: istio-system}\nspec: {mtls: {mode: PERMISSIVE}}\n",
        )
        .map(drop)
}

fn load(lab: &Lab, number: usize, rules: &str) -> anyhow::Result<()> {
    let file = lab.scratch.join("others.nft");
    std::fs::write(&file, rules)?;
    lab.proxies[number].host.must(&["nft", "-f", &file.display().to_string()]).map(drop)
}

fn rules(context: &mut Context<'_>) -> anyhow::Result<()> {
    if !is_possible(context, "rules") {
        return Ok(());
    }
    let lab = context.lab()?;
    let h2 = lab.proxies[1].host.clone();
    load(lab, 1, OTHERS)?;
    let ruleset = || h2.must(&["nft", "list", "ruleset"]);
    let before = ruleset()?;
    let mut found = Vec::new();
    let intercept = |lab: &Lab, words: &[&str]| {
        let words: Vec<&str> = ["intercept"].iter().chain(words).copied().collect();
        lab.proxies[1].command(&words)
    };
    let (dry, script) = intercept(lab, &["install", "--dry-run"])?;
    found.push((
        "a dry run prints the rules and installs none",
        dry && script.contains("tproxy") && ruleset()? == before,
        String::new(),
    ));
    let twice = [intercept(lab, &["install"])?, intercept(lab, &["install"])?];
    let (_, shown) = intercept(lab, &["show"])?;
    let one = ruleset()?.matches("table inet mesh {").count();
    found.push((
        "installed twice is installed once",
        twice.iter().all(|(done, _)| *done) && one == 1 && shown.trim_end().ends_with("\ninstalled"),
        format!("{one} table, {}", shown.lines().last().unwrap_or("")),
    ));
    let twice = [intercept(lab, &["remove"])?, intercept(lab, &["remove"])?];
    let (_, shown) = intercept(lab, &["show"])?;
    found.push((
        "removed twice is removed, and everything is as it was, byte for byte",
        twice.iter().all(|(done, _)| *done) && ruleset()? == before && shown.trim() == "missing",
        shown.trim().to_owned(),
    ));
    let (done, said) =
        lab.proxies[1].command(&["intercept", "install", "--exclude-outbound-ports", "99999"])?;
    found.push((
        "a port that is none is refused",
        !done && said.contains("99999"),
        said.lines().next().unwrap_or("").to_owned(),
    ));

    restart(lab, 1, "transparent", &[])?;
    let while_running = ruleset()?;
    lab.proxies[1].running()?.terminate(Duration::from_secs(35))?;
    lab.proxies[1].process = None;
    found.push((
        "a proxy that ends leaves everything as it was",
        while_running != before && ruleset()? == before,
        String::new(),
    ));

    restart(lab, 1, "transparent", &[])?;
    let ready = |lab: &Lab| -> anyhow::Result<String> {
        Ok(lab.proxies[1].local(15021, "/healthz/ready")?.status.to_string())
    };
    for (what, word, claim) in [
        ("delete table inet mesh", "removed", "rules that another tool removes: noticed, named, not ready"),
        ("flush chain inet mesh outbound", "changed", "rules that another tool changes: the same"),
    ] {
        let words: Vec<&str> = std::iter::once("nft").chain(what.split(' ')).collect();
        h2.must(&words)?;
        let status = until("503", || ready(lab))?;
        let gauge = metric(lab, 1, "mesh_proxy_interception", &[])?;
        let said = lab.proxies[1].running()?.stderr();
        let named =
            said.lines().any(|line| line.contains(word) && line.contains("meshproxy intercept install"));
        found.push((
            claim,
            status == "503" && gauge == 0.0 && named,
            format!("ready {status}, gauge {gauge}, log {named}"),
        ));
        let (_, shown) = intercept(lab, &["show"])?;
        let verdict = shown.lines().last().unwrap_or("").to_owned();
        let (done, _) = intercept(lab, &["install"])?;
        let status = until("200", || ready(lab))?;
        found.push((
            "and repaired by `intercept install`",
            done && status == "200" && verdict != "installed",
            format!("was {verdict}, then ready {status}"),
        ));
    }
    let lost = metric(lab, 1, "mesh_proxy_interception_lost_total", &[])?;
    found.push(("each time counts", lost == 2.0, lost.to_string()));
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}

fn fail_closed(context: &mut Context<'_>) -> anyhow::Result<()> {
    if !is_possible(context, "failing closed") {
        return Ok(());
    }
    let lab = capturing(context)?;
    permissive(lab)?;
    let (h2, outside) = (lab.proxies[1].host.clone(), lab.control.host.clone());
    let user = lab.user("reviews-v2");
    let before = (until(OK, || curl(&outside, None, REVIEWS))?, curl(&h2, user, RATINGS)?);
    lab.proxies[1].running()?.kill()?;
    let dead = (curl(&outside, None, REVIEWS)?, curl(&h2, user, RATINGS)?);
    context.report.claim(
        "without the proxy nothing gets in and nothing out",
        before == (OK.to_owned(), OK.to_owned()) && dead == ("000 7".to_owned(), "000 7".to_owned()),
        format!("before {before:?}, dead {dead:?} (7: refused)"),
    );
    let lab = context.lab()?;
    lab.proxies[1].process = None;
    lab.proxies[1].launch()?;
    lab.proxies[1].wait_ready()?;
    let again = (until(OK, || curl(&outside, None, REVIEWS))?, until(OK, || curl(&h2, user, RATINGS))?);
    lab.proxies[1].running()?.kill()?;
    let (_, removed) = lab.proxies[1].command(&["intercept", "remove"])?;
    let open = curl(&outside, None, REVIEWS)?;
    lab.proxies[1].process = None;
    context.report.claim(
        "it goes on when the proxy is back, and `intercept remove` opens a dead host",
        again == (OK.to_owned(), OK.to_owned()) && open == OK,
        format!("back {again:?}, {} {open}", removed.trim()),
    );
    Ok(())
}

fn fail_open(context: &mut Context<'_>) -> anyhow::Result<()> {
    if !is_possible(context, "failing open") {
        return Ok(());
    }
    let lab = capturing(context)?;
    permissive(lab)?;
    restart(lab, 1, "transparent", &["--fail-open"])?;
    let (h2, outside) = (lab.proxies[1].host.clone(), lab.control.host.clone());
    let user = lab.user("reviews-v2");
    let captured = |lab: &Lab| {
        metric(
            lab,
            2,
            "istio_requests_total",
            &["reporter=\"destination\"", "mutual_tls", "source_app=\"reviews\""],
        )
    };
    let before = captured(lab)?;
    let alive = (until(OK, || curl(&outside, None, REVIEWS))?, until(OK, || curl(&h2, user, RATINGS))?);
    let through = captured(lab)? - before;
    lab.proxies[1].running()?.kill()?;
    let dead = (curl(&outside, None, REVIEWS)?, until(OK, || curl(&h2, user, RATINGS))?);
    let direct = captured(lab)? - before - through;
    lab.proxies[1].process = None;
    context.report.claim(
        "while the proxy runs everything goes through it",
        alive == (OK.to_owned(), OK.to_owned()) && through >= 1.0,
        format!("{alive:?}, {through} captured"),
    );
    context.report.claim(
        "without it everything goes on: in at once, out within seconds",
        dead == (OK.to_owned(), OK.to_owned()) && direct == 0.0,
        format!("{dead:?}, {direct} captured"),
    );
    Ok(())
}

fn beside(context: &mut Context<'_>) -> anyhow::Result<()> {
    if !is_possible(context, "beside others") {
        return Ok(());
    }
    let lab = capturing(context)?;
    permissive(lab)?;
    let (h2, outside) = (lab.proxies[1].host.clone(), lab.control.host.clone());
    load(lab, 1, OTHERS)?;
    h2.run(None, || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1"))??;
    let user = lab.user("reviews-v2");
    let published = until(OK, || curl(&outside, None, "http://10.77.0.12:8080/health"))?;
    let from_here = curl(&h2, user, "http://10.77.0.12:8080/health")?;
    let allowed = until(OK, || curl(&outside, None, REVIEWS))?;
    let filtered = curl(&outside, None, "http://10.77.0.12:9081/health")?;
    let rejected = curl(&h2, user, "http://10.77.0.13:2525/")?;
    let page = lab.page().send(lab.h1(), None)?.status;
    context.report.claim(
        "a port that Docker publishes is reached, from outside and from the host",
        published == OK && from_here == OK,
        format!("outside {published}, host {from_here}"),
    );
    context.report.claim(
        "a firewall sees the ports that were asked for",
        allowed == OK && filtered == "000 28" && !rejected.starts_with("200"),
        format!("allowed {allowed}, filtered {filtered} (28: nothing came), rejected {rejected}"),
    );
    context.report.claim("and the mesh goes on", page == 200, page.to_string());
    Ok(())
}
