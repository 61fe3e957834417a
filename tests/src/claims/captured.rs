//! What the claims about transparent capture share: the lab with nothing else, and curl, which knows nothing of a mesh.

use std::time::{Duration, Instant};

use super::Context;
use crate::harness::lab::Lab;
use crate::harness::netns::Namespace;

/// Whether this machine has what the rules need; said in the report where it has not.
pub(super) fn is_possible(context: &mut Context<'_>, claim: &str) -> bool {
    let has = |program: &str| {
        ["/usr/sbin", "/sbin", "/usr/bin"]
            .iter()
            .any(|place| std::path::Path::new(place).join(program).exists())
    };
    let missing = ["nft", "ip", "curl"].into_iter().find(|program| !has(program));
    if let Some(missing) = missing {
        context.report.skip(claim, format!("{missing} is not installed"));
    }
    missing.is_none()
}

/// The three hosts with nothing but transparent capture.
pub(super) fn capturing<'a>(context: &'a mut Context<'_>) -> anyhow::Result<&'a mut Lab> {
    let lab = context.lab()?;
    // The browser of the lab is nobody's workload.
    lab.control.apply_text(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: page, namespace: default}\n\
         spec: {selector: {matchLabels: {app: productpage}}, mtls: {mode: PERMISSIVE}}\n",
    )?;
    for number in 0..3 {
        restart(lab, number, "transparent", &[])?;
    }
    lab.wait_serving()?;
    Ok(lab)
}

/// Starts a host's proxy anew with these flags.
pub(super) fn restart(lab: &mut Lab, number: usize, capture: &str, flags: &[&str]) -> anyhow::Result<()> {
    let proxy = &mut lab.proxies[number];
    if let Some(mut process) = proxy.process.take() {
        process.terminate(Duration::from_secs(35))?;
    }
    proxy.capturing(capture).with(flags);
    proxy.launch()?;
    proxy.without(flags.len());
    proxy.wait_ready()?;
    Ok(())
}

/// What curl makes of a URL on a host: the status, or its error in a word.
pub(super) fn curl(host: &Namespace, user: Option<u32>, url: &str) -> anyhow::Result<String> {
    let words = ["curl", "-s", "-g", "-o", "/dev/null", "-m", "4", "-w", "%{http_code} %{exitcode}", url];
    let (_, said) = host.command(user, &words)?;
    Ok(said.trim().to_owned())
}

/// Asks until the answer is the one wanted, or for long enough.
pub(super) fn until(wanted: &str, ask: impl Fn() -> anyhow::Result<String>) -> anyhow::Result<String> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let got = ask()?;
        if got == wanted || Instant::now() > end {
            return Ok(got);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The sum of a metric's series of a host whose lines contain all of these.
pub(super) fn metric(lab: &Lab, number: usize, name: &str, labels: &[&str]) -> anyhow::Result<f64> {
    let text = lab.proxies[number].local(15090, "/stats/prometheus")?.text();
    let lines = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    let fitting = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
    Ok(fitting.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
}
