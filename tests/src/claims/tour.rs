//! The five-minute tour of the README, typed as it is written, by a user who is not root.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::{Claim, Context, alone};
use crate::harness::control::READY;
use crate::harness::lab::Lab;
use crate::harness::netns::Namespace;
use crate::harness::process::{Process, Spec};

pub(super) fn claims() -> Vec<Claim> {
    vec![alone("tour/readme", readme)]
}

/// An ordinary user of the hosts.
const USER: u32 = 4711;

/// Whoever types: a host, a folder, and a shell.
struct Terminal<'a> {
    lab: &'a Lab,
    host: Namespace,
    folder: PathBuf,
    path: String,
}

impl<'a> Terminal<'a> {
    fn at(lab: &'a Lab, name: &str, last: u8) -> anyhow::Result<Self> {
        let host = lab.add_host(name, std::net::Ipv4Addr::new(10, 0, 0, last))?;
        let folder = lab.scratch.join("tour").join(name);
        std::fs::create_dir_all(&folder)?;
        if lab.has_users() {
            std::os::unix::fs::chown(&folder, Some(USER), Some(USER))?;
        }
        let path = format!("{}:/usr/bin:/bin", lab.scratch.join("bin").display());
        Ok(Self { lab, host, folder, path })
    }

    /// Types a block and does not wait for its end.
    fn begin(&self, label: &str, block: &str) -> anyhow::Result<Process> {
        let script = format!("cd {}\n{block}", self.folder.display());
        Spec::new(&format!("tour-{label}"), Path::new("/bin/bash"))
            .args(["-euc", &script])
            .env("PATH", &self.path)
            .user(self.lab.has_users().then_some(USER))
            .start(&self.host, &self.lab.logs())
    }

    /// Types a block and returns what it printed.
    fn type_in(&self, label: &str, block: &str) -> anyhow::Result<(bool, String)> {
        let mut process = self.begin(label, block)?;
        let status = process.wait(Duration::from_secs(30))?;
        Ok((status.success(), format!("{}{}", process.stdout(), process.stderr()).trim().to_owned()))
    }
}

/// The shell blocks of the tour, in order.
fn blocks() -> anyhow::Result<Vec<String>> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = std::fs::read_to_string(&readme).context("reading README.md")?;
    let tour =
        text.split("\n## ").find(|s| s.starts_with("Five minutes")).context("the README has no tour")?;
    let blocks = tour.split("```sh\n").skip(1).filter_map(|b| b.split("```").next());
    Ok(blocks.map(str::to_owned).collect())
}

/// What the README says of live traffic and that comes to an end by itself.
fn live_traffic() -> anyhow::Result<String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = std::fs::read_to_string(&readme).context("reading README.md")?;
    let chapter =
        text.split("\n## ").find(|s| s.starts_with("See every call")).context("nothing on live traffic")?;
    let ends = |line: &&str| {
        ["stat", "edges", "routes"].iter().any(|verb| line.starts_with(&format!("meshd {verb}")))
            || line.contains("--last")
    };
    Ok(chapter.lines().filter(ends).collect::<Vec<_>>().join("\n"))
}

fn readme(context: &mut Context<'_>) -> anyhow::Result<()> {
    if !Path::new("/usr/bin/curl").exists() || !Path::new("/usr/bin/python3").exists() {
        context.report.skip("the README's tour", "curl and python3 are not installed");
        return Ok(());
    }
    let blocks = blocks()?;
    let [serve, tokens, server, caller, curl, traffic, policy, back] = &blocks[..] else {
        anyhow::bail!("the tour has {} blocks, this claim knows 8", blocks.len());
    };
    let scratch = context.scratch()?;
    let lab = Lab::lay_out(context.inside, &scratch)?;
    std::fs::create_dir_all(scratch.join("bin"))?;
    std::fs::create_dir_all(scratch.join("tour"))?;
    for program in ["meshd", "meshproxy"] {
        std::fs::copy(lab.program(program), scratch.join("bin").join(program))?;
    }
    let control = Terminal::at(&lab, "c0", 1)?;
    let hosts = [Terminal::at(&lab, "t1", 11)?, Terminal::at(&lab, "t2", 12)?, Terminal::at(&lab, "t3", 13)?];
    let mut meshd = control.begin("serve", serve)?;
    meshd.wait_for_line("ready ", READY)?;
    let made = control.type_in("tokens", tokens)?;
    anyhow::ensure!(made.0, "the tokens: {}", made.1);
    for (number, host) in hosts.iter().enumerate() {
        let name = format!("h{}.token", number + 1);
        std::fs::copy(control.folder.join(&name), host.folder.join(&name))?;
        if lab.has_users() {
            std::os::unix::fs::chown(host.folder.join(&name), Some(USER), Some(USER))?;
        }
    }
    // "On h3 the same with h3, 10.0.0.13 and version=v2."
    let third = server.replace("h2", "h3").replace("10.0.0.12", "10.0.0.13").replace("v1", "v2");
    let mut running =
        vec![hosts[1].begin("h2", server)?, hosts[2].begin("h3", &third)?, hosts[0].begin("h1", caller)?];
    for process in &mut running {
        process.wait_for_line("ready ", READY)?;
    }
    let end = Instant::now() + Duration::from_secs(15);
    let mut seen = (false, false);
    while seen != (true, true) && Instant::now() < end {
        let (good, text) = hosts[0].type_in("curl", curl)?;
        seen = (
            seen.0 || (good && text.contains("reviews v1")),
            seen.1 || (good && text.contains("reviews v2")),
        );
    }
    let shifted = control.type_in("traffic", traffic)?;
    let many = hosts[0].type_in("many", &format!("for n in $(seq 100); do {}; done", curl.trim()))?;
    let ninety = many.1.matches("reviews v1").count();
    let judged = control.type_in("policy", policy)?;
    let post = hosts[0].type_in("post", &curl.replace("curl ", "curl -s -X POST "))?;
    let after = hosts[0].type_in("after", curl)?;
    let seen_live = control.type_in("live", &live_traffic()?)?;
    let returned = control.type_in("back", back)?;
    let unjudged = hosts[0].type_in("unjudged", &curl.replace("curl ", "curl -s -X POST "))?;
    let dns = hosts[0].type_in("dns", "meshproxy dns-config")?;
    let report = &mut context.report;
    report.claim(
        "without root: curl through http_proxy is answered from both versions",
        seen == (true, true),
        format!("{seen:?}"),
    );
    report.claim(
        "nine of ten go to v1",
        shifted.0 && (75..=99).contains(&ninety),
        format!("{ninety} of 100; {}", shifted.1.replace('\n', "; ")),
    );
    let told = judged.1.to_lowercase();
    report.claim(
        "explain and status are as the tour says",
        judged.0 && told.contains("deny") && told.matches("synced").count() == 3,
        judged.1.replace('\n', "; "),
    );
    report.claim(
        "a POST is refused, a GET is not",
        post.1.contains("RBAC") && after.1.contains("reviews v"),
        format!("{}; {}", post.1, after.1.lines().next().unwrap_or_default()),
    );
    report.claim(
        "stat, edges and routes show the calls that were made",
        seen_live.0 && seen_live.1.matches("reviews").count() >= 3,
        seen_live.1.replace('\n', "; "),
    );
    report.claim(
        "diff tells what would change, and a rollback takes the policy away",
        returned.0
            && returned.1.lines().any(|line| line.starts_with('+') && line.ends_with("weight: 50"))
            && returned.1.contains("authorizationpolicy/default/reviews-readers deleted")
            && !unjudged.1.contains("RBAC"),
        format!(
            "{}; {}",
            if returned.0 { returned.1.lines().last().unwrap_or_default() } else { &returned.1 },
            unjudged.1.lines().next().unwrap_or_default()
        ),
    );
    report.claim(
        "dns-config prints how names are resolved",
        dns.0 && !dns.1.is_empty(),
        dns.1.lines().next().unwrap_or_default().to_owned(),
    );
    Ok(())
}
