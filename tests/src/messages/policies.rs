//! Requests that try to slip past a policy, as they stand in `tests/messages/policies.txt`.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;

use super::cases::{self, Case, Verdict};
use super::client::{self, Outcome};
use super::peers::Peers;
use super::{Applications, Target, frames, judge};

/// The file.
pub(super) const FILE: &str = "policies.txt";

/// What holds for some cases.
pub(super) struct Group {
    mode: String,
    spec: String,
    pub(super) cases: Vec<Case>,
}

/// Reads the file.
pub(super) fn read(folder: &Path) -> anyhow::Result<Vec<Group>> {
    let text = std::fs::read_to_string(folder.join(FILE)).context(FILE)?;
    let mut groups = Vec::<Group>::new();
    for (at, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with("# ") {
            continue;
        }
        match (line.strip_prefix("! "), groups.last_mut()) {
            (Some(group), _) => {
                let (mode, spec) = group.split_once(' ').with_context(|| group.to_owned())?;
                groups.push(Group { mode: mode.into(), spec: spec.into(), cases: Vec::new() });
            }
            (None, Some(group)) => {
                let case = cases::case(line).with_context(|| format!("{FILE}:{}", at + 1))?;
                group.cases.push(case);
            }
            (None, None) => anyhow::bail!("{FILE}:{}: a case without a policy", at + 1),
        }
    }
    Ok(groups)
}

/// Plays all cases at a target, one policy after the other: how many are judged right, which are not, and how many
/// cannot be tried because the dialect refuses their policy for now.
pub(super) fn play(
    peers: &Peers,
    applications: &Arc<Applications>,
    target: &Target,
    folder: &Path,
    filter: &str,
) -> anyhow::Result<(usize, Vec<String>, usize)> {
    let (mut held, mut failed, mut skipped) = (0, Vec::new(), 0);
    for group in read(folder)? {
        let cases: Vec<Case> =
            group.cases.into_iter().filter(|case| format!("{FILE} {}", case.id).contains(filter)).collect();
        if cases.is_empty() {
            continue;
        }
        let declared = peers.apply(&format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{name: judged, namespace: default}}\nspec: {}\n---\n\
             apiVersion: v1\nkind: MeshConfig\nmetadata: {{name: mesh, namespace: istio-system}}\n\
             spec: {{pathNormalization: {{normalization: {}}}}}\n",
            group.spec, group.mode
        ));
        if declared.as_ref().is_err_and(|error| format!("{error:#}").contains("not carried out")) {
            skipped += cases.len();
            continue;
        }
        declared?;
        let (applications, target) = (Arc::clone(applications), target.clone());
        let (good, bad) = peers.host.run(None, move || all(&applications, &target, &cases))??;
        held += good;
        failed.extend(bad.into_iter().map(|line| format!("{FILE}: {} {line}", group.mode)));
    }
    peers.apply(
        "apiVersion: v1\nkind: MeshConfig\nmetadata: {name: mesh, namespace: istio-system}\nspec: {}\n",
    )?;
    peers.delete("authorizationpolicy", "judged")?;
    Ok((held, failed, skipped))
}

fn all(applications: &Applications, target: &Target, cases: &[Case]) -> anyhow::Result<(usize, Vec<String>)> {
    let (mut held, mut failed) = (0, Vec::new());
    for case in cases {
        applications.http1.take();
        let outcome = send(target, case).with_context(|| case.id.clone())?;
        let finding = judge::judge(case, &outcome, &applications.http1.take(), false, true);
        match finding.holds {
            true => held += 1,
            false => failed.push(format!("{}: {}", case.id, finding.what)),
        }
    }
    Ok((held, failed))
}

fn send(target: &Target, case: &Case) -> anyhow::Result<Outcome> {
    let [http1, http2] = target.entries;
    if let Some(sent) = case.sent.strip_prefix("h2 ") {
        return Ok(client::http2(http2.context("no way")?, &frames::frames(sent, &target.host)?)?);
    }
    let (line, fields) = match case.sent.split_once('$') {
        Some((line, fields)) => (line, format!("{fields}$")),
        None => (&*case.sent, String::new()),
    };
    let host = if fields.starts_with("Host: ") || fields.contains("$Host: ") { "" } else { "Host: {host}$" };
    let bytes = cases::bytes(&format!("{line} HTTP/1.1${host}{fields}$"), &target.host)?;
    let expected = if let Verdict::Passed(count) = case.verdict { count } else { 1 };
    Ok(client::http1(http1.context("no way")?, &bytes, expected, false)?)
}
