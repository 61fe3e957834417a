//! Messages that can be read in two ways, and unusual ones that cannot: hundreds of cases as data (`tests/messages`),
//! sent over raw sockets through a proxy to an application that notes what it hears. The same list is judged through our
//! own proxies and, for comparison, through others.

mod cases;
mod client;
mod frames;
mod judge;
mod peers;
mod policies;
mod recorder;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use crate::harness::isolate::Inside;
use crate::harness::netns::Namespace;
use crate::report::Report;
use cases::{Case, Verdict};
use recorder::{Recorder, Script};

/// What is sent, over what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Requests over HTTP/1.
    Requests1,
    /// Requests over HTTP/2.
    Requests2,
    /// Answers over HTTP/1.
    Answers1,
    /// Answers over HTTP/2.
    Answers2,
}

/// The files.
const FILES: [&str; 6] = [
    "requests-framing.txt",
    "requests-heads.txt",
    "requests-legitimate.txt",
    "requests-http2.txt",
    "answers.txt",
    "answers-http2.txt",
];

fn kind(file: &str) -> Kind {
    match file {
        "requests-http2.txt" => Kind::Requests2,
        "answers.txt" => Kind::Answers1,
        "answers-http2.txt" => Kind::Answers2,
        _ => Kind::Requests1,
    }
}

/// A proxy with an application behind it.
#[derive(Clone)]
struct Target {
    name: &'static str,
    /// Where clients of HTTP/1 and of HTTP/2 connect to, with an application of HTTP/1 behind.
    entries: [Option<SocketAddr>; 2],
    /// Where clients of HTTP/1 connect to, with an application of HTTP/2 behind.
    to_http2: Option<SocketAddr>,
    /// Whom requests name.
    host: String,
    /// Whether a case is judged by its very status, as for ourselves.
    is_ours: bool,
    /// Whether policies are tried here.
    judges_policies: bool,
}

/// The applications behind all of them.
struct Applications {
    http1: Recorder,
    http2: Recorder,
}

/// What was found of one case at one target.
struct Finding {
    holds: bool,
    what: String,
}

/// Sends all cases whose file and id contain the filter through the proxies that are named.
pub fn compare(inside: &Inside, names: &[String], filter: &str, json: bool) -> anyhow::Result<bool> {
    let mut report = Report::new(json);
    judged(inside, names, filter, &mut report)?;
    report.title("Summary");
    Ok(report.finish())
}

/// The same, told to a report.
pub(crate) fn judged(
    inside: &Inside,
    names: &[String],
    filter: &str,
    report: &mut Report,
) -> anyhow::Result<()> {
    let host = Namespace::lonely("compare", &peers::ADDRESSES)?;
    let applications = host.run(None, || -> anyhow::Result<Applications> {
        let [http1, http2] = peers::PORTS;
        Ok(Applications { http1: Recorder::start(http1, false)?, http2: Recorder::start(http2, true)? })
    })??;
    let applications = Arc::new(applications);
    let mut peers = peers::start(&host, &inside.scratch.join("logs").join("compare"), names)?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("messages");
    for target in std::mem::take(&mut peers.targets) {
        report.title(target.name);
        let (mut held, mut failed) = (0, Vec::new());
        if target.judges_policies {
            let skipped;
            (held, failed, skipped) = policies::play(&peers, &applications, &target, &folder, filter)?;
            if skipped > 0 {
                report.say(&format!("  {skipped} cases are for policies that are not carried out"));
            }
        }
        let (name, is_ours) = (target.name, target.is_ours);
        let (applications, filter) = (Arc::clone(&applications), filter.to_owned());
        let (good, bad) = host.run(None, move || applications.all(&target, &filter))??;
        held += good;
        failed.extend(bad);
        failed.iter().for_each(|line| report.say(&format!("  {line}")));
        let figure = format!("{held} of {}", held + failed.len());
        if is_ours {
            report.claim(format!("{name}: every case is judged right"), failed.is_empty(), figure);
        } else {
            report.say(&format!("  {figure} as we judge"));
        }
    }
    Ok(())
}

impl Applications {
    /// Plays all cases: how many are judged right, and which are not.
    fn all(&self, target: &Target, filter: &str) -> anyhow::Result<(usize, Vec<String>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("messages");
        let (mut held, mut failed) = (0, Vec::new());
        for file in FILES {
            for case in cases::read(&folder, file)? {
                if !format!("{file} {}", case.id).contains(filter) {
                    continue;
                }
                match self.judge(target, kind(file), &case) {
                    Ok(Some(finding)) if finding.holds => held += 1,
                    Ok(Some(finding)) => failed.push(format!("{file}: {}: {}", case.id, finding.what)),
                    Ok(None) => {}
                    // Others may end for good.
                    Err(error) => failed.push(format!("{file}: {}: {error:#}", case.id)),
                }
            }
        }
        Ok((held, failed))
    }

    /// Plays a case; `None` where the target has no such way.
    fn judge(&self, target: &Target, kind: Kind, case: &Case) -> anyhow::Result<Option<Finding>> {
        let application = if kind == Kind::Answers2 { &self.http2 } else { &self.http1 };
        let entry = match kind {
            Kind::Requests1 | Kind::Answers1 => target.entries[0],
            Kind::Requests2 => target.entries[1],
            Kind::Answers2 => target.to_http2,
        };
        let Some(entry) = entry else { return Ok(None) };
        let host = &target.host;
        let expected = if let Verdict::Passed(count) = case.verdict { count } else { 1 };
        let is_answer = matches!(kind, Kind::Answers1 | Kind::Answers2);
        application.answer(Script::default());
        application.take();
        let outcome = match kind {
            Kind::Requests1 => {
                let (sent, ends) = ending(&case.sent);
                client::http1(entry, &cases::bytes(sent, host)?, expected, ends)?
            }
            Kind::Requests2 => client::http2(entry, &frames::frames(&case.sent, host)?)?,
            Kind::Answers1 | Kind::Answers2 => {
                let (method, rest) = match case.sent.split_once(" << ") {
                    Some((request, answer)) => (request, answer),
                    None => ("{G}$", &*case.sent),
                };
                let (rest, ends) = ending(rest);
                let bytes = match kind {
                    Kind::Answers2 => frames::frames(rest, host)?,
                    _ => cases::bytes(rest, host)?,
                };
                application.answer(Script { bytes, ends });
                client::http1(entry, &cases::bytes(method, host)?, expected, false)?
            }
        };
        // What is still on its way arrives before this, or in the place of its answer.
        application.answer(Script::default());
        let heard = application.take();
        let after = format!("GET /after HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let (entry, expected) = match kind {
            Kind::Answers2 => (entry, &b"ok"[..]),
            _ => (target.entries[0].unwrap_or(entry), &b"after"[..]),
        };
        let after = client::http1(entry, after.as_bytes(), 1, false)?;
        let alive = after.statuses == [200] && after.bytes.ends_with(expected);
        let mut heard: Vec<_> = heard.into_iter().chain(application.take()).collect();
        heard.retain(|heard| !heard.head.starts_with(b"GET /after "));
        let mut finding = judge::judge(case, &outcome, &heard, is_answer, target.is_ours);
        if !alive {
            finding.holds = false;
            finding.what += &format!("; afterwards {:?}", String::from_utf8_lossy(&after.bytes));
        }
        Ok(Some(finding))
    }
}

/// What is sent, and whether the sender then says that nothing more comes.
fn ending(sent: &str) -> (&str, bool) {
    sent.strip_suffix(" END").map_or((sent, false), |sent| (sent, true))
}
