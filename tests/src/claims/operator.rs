//! What an operator types, and what is answered.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::routing::reviews_rules;
use super::{Claim, Context, alone, shared};
use crate::harness::lab::{Lab, yaml};

pub(super) fn claims() -> Vec<Claim> {
    vec![
        alone("operator/apply", apply),
        alone("operator/get", get),
        alone("operator/validate", validate),
        shared("operator/explain", explain),
        shared("operator/wait", wait),
        alone("operator/serve", serve),
    ]
}

const ROUTE: &str = "    - {route: [{destination: {host: reviews, subset: v1}}]}\n";
const OTHER: &str = "    - {route: [{destination: {host: reviews, subset: v2}}]}\n";

fn apply(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.control_only()?;
    let said = |rules: &str, more: &[&str]| -> anyhow::Result<String> {
        let file = lab.control.file(reviews_rules(rules))?.display().to_string();
        Ok(lab.control.must([&["apply", "-f", &file], more].concat())?.out)
    };
    let dry = said(ROUTE, &["--dry-run"])?;
    let absent = lab.control.cli(["get", "vs", "reviews"])?.code;
    let first = said(ROUTE, &[])?;
    let same = said(ROUTE, &[])?;
    let changed = said(OTHER, &[])?;
    let name = "virtualservice/default/reviews";
    let verbs = [(&first, "created"), (&same, "unchanged"), (&changed, "configured")];
    let lines = verbs.iter().all(|(out, verb)| out.lines().any(|l| l == format!("{name} {verb}")));
    let version =
        |out: &str| out.lines().last().and_then(|l| l.strip_prefix("version ")?.parse::<u64>().ok());
    let (one, two, three) = (version(&first), version(&same), version(&changed));
    let counted = one.is_some() && one == two && three == one.map(|v| v + 1);
    let deleted = lab.control.must(["delete", "virtualservice", "reviews"])?.out;
    let gone = lab.control.cli(["get", "vs", "reviews"])?.code;
    let by_file =
        lab.control.must(["delete", "-f", &yaml("destination-rules.yaml").display().to_string()])?.out;
    let no_rules = lab.control.must(["get", "dr", "-o", "json"])?.out;
    let again = lab.control.cli(["delete", "virtualservice", "reviews"])?.code;
    let report = &mut context.report;
    report.claim(
        "a dry run says what would be and changes nothing",
        dry.contains(name) && absent == 1,
        dry.trim().replace('\n', "; "),
    );
    report.claim(
        "created, unchanged, configured: a line a resource",
        lines,
        [&first, &same, &changed].map(|o| o.trim().replace('\n', "; ")).join(" | "),
    );
    report.claim("the version grows only with a change", counted, format!("{one:?} {two:?} {three:?}"));
    report.claim("delete by name", gone == 1, deleted.trim().replace('\n', "; "));
    report.claim(
        "delete by file",
        by_file.lines().count() >= 4 && !no_rules.contains("bookinfo") && !no_rules.contains("\"reviews\""),
        by_file.trim().replace('\n', "; "),
    );
    report.claim("deleting what is not there exits 1", again == 1, format!("exit {again}"));
    Ok(())
}

fn get(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.control_only()?;
    lab.control.apply(&yaml("demo/3-reviews-jason-v2.yaml"))?;
    lab.control.apply(&yaml("demo/5-reviews-from-productpage.yaml"))?;
    let mut odd = Vec::new();
    for (short, kind) in [
        ("vs", "VirtualService"),
        ("dr", "DestinationRule"),
        ("svc", "Service"),
        ("ap", "AuthorizationPolicy"),
        ("services", "Service"),
        ("destinationrules", "DestinationRule"),
    ] {
        let listed = lab.control.must(["get", short, "-o", "json"])?.json()?;
        let rows = listed.as_array().or_else(|| listed["items"].as_array()).cloned().unwrap_or_default();
        if rows.is_empty() || rows.iter().any(|r| r["kind"] != kind) {
            odd.push(short);
        }
    }
    let mut round = Vec::new();
    for (kind, name) in
        [("vs", "reviews"), ("dr", "reviews"), ("ap", "reviews-from-productpage"), ("svc", "reviews")]
    {
        let text = lab.control.must(["get", kind, name, "-o", "yaml"])?.out;
        let file = lab.control.file(&text)?.display().to_string();
        let out = lab.control.must(["apply", "-f", &file])?.out;
        round.push((out.contains("unchanged"), out.lines().next().unwrap_or_default().to_owned()));
    }
    let report = &mut context.report;
    report.claim("kinds by short and plural names", odd.is_empty(), format!("{odd:?}"));
    report.claim(
        "what get prints can be applied, and changes nothing",
        round.iter().all(|(same, _)| *same),
        format!("{round:?}"),
    );
    Ok(())
}

fn validate(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.control_only()?;
    let offline = |path: &str, more: &[&str]| {
        let server = ["--server", "unix:/nowhere/admin.sock", "validate", "-f", path];
        lab.control.cli([&server[..], more].concat())
    };
    let good = offline(&yaml("bookshop.yaml").display().to_string(), &[])?;
    let typo = yaml("demo/6-typo.yaml").display().to_string();
    let bad = offline(&typo, &["-o", "json"])?;
    let refused = lab.control.cli(["apply", "-f", &typo, "-o", "json"])?;
    let fields = ["code", "severity", "resource", "file", "line", "field", "message"];
    let told = |text: &str| -> bool {
        let Ok(Value::Array(list)) = serde_json::from_str(text) else { return false };
        !list.is_empty()
            && list.iter().all(|d| fields.iter().all(|f| !d[*f].is_null()))
            && list[0]["line"] == 12
    };
    let report = &mut context.report;
    report.claim(
        "validate without a server: a good file exits 0",
        good.code == 0,
        format!("exit {}", good.code),
    );
    report.claim(
        "a bad one exits 1 and says it as JSON",
        bad.code == 1 && (told(&bad.out) || told(&bad.err)),
        format!("exit {}: {}{}", bad.code, bad.out.trim(), bad.err.trim()),
    );
    report.claim(
        "a refused apply says it as JSON too",
        refused.code == 1 && (told(&refused.out) || told(&refused.err)),
        format!("exit {}", refused.code),
    );
    Ok(())
}

fn explain(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let version = lab.control.apply(&yaml("demo/3-reviews-jason-v2.yaml"))?;
    let ask = [
        "explain",
        "--from",
        "default/bookinfo-productpage",
        "--to",
        "http://reviews:9080/a/../reviews/0",
        "-o",
        "json",
    ];
    let told = lab.control.must(ask)?.json()?;
    let jason = lab.control.must([&ask[..], &["-H", "end-user: jason"]].concat())?.json()?;
    let files = ["bookshop.yaml", "destination-rules.yaml", "strict.yaml", "demo/3-reviews-jason-v2.yaml"];
    let files: Vec<String> = files.iter().map(|f| yaml(f).display().to_string()).collect();
    let mut offline: Vec<&str> = ask.to_vec();
    files.iter().for_each(|f| offline.extend(["-f", f]));
    let offline = lab.control.cli([&["--server", "unix:/nowhere/admin.sock"], &offline[..]].concat())?;
    let offline_told = offline.json().unwrap_or_default();
    let subset = |told: &Value| told["destinations"][0]["subset"].clone();
    let rule = told["route"]["resource"] == "virtualservice/default/reviews" && told["route"]["rule"] == 1;
    let endpoint = &told["destinations"][0]["endpoints"][0];
    let report = &mut context.report;
    report.claim(
        "explain tells version, route and destination",
        told["version"] == version && rule && subset(&told) == "v1" && told["action"] == "route",
        told["why"].to_string(),
    );
    report.claim(
        "and the endpoint, its node and health",
        endpoint["node"] == "h2" && endpoint["health"] == "healthy",
        endpoint.to_string(),
    );
    report.claim(
        "the path is normalized before it is matched",
        told["path"]["normalized"] == "/reviews/0",
        told["path"].to_string(),
    );
    report.claim(
        "another header, another rule",
        subset(&jason) == "v2" && jason["route"]["rule"] == 0,
        jason["route"].to_string(),
    );
    report.claim(
        "the same from files alone, without a server",
        offline.code == 0 && subset(&offline_told) == "v1",
        format!("exit {} {}", offline.code, offline.err.trim()),
    );
    Ok(())
}

/// A proxy that does not answer: `apply --wait` names it and the version stays.
fn wait(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.proxies[1].running()?.signal(Signal::STOP)?;
    let file = yaml("demo/1-all-v1.yaml").display().to_string();
    let began = Instant::now();
    let said = lab.control.cli(["apply", "--wait=1s", "-f", &file])?;
    let took = began.elapsed();
    lab.proxies[1].running()?.signal(Signal::CONT)?;
    let synced = lab.control.cli(["wait", "--synced", "--timeout", "20s"])?.code;
    lab.control.wait_for_proxies(3)?;
    let rows = lab.control.status()?;
    let version = rows.iter().filter_map(|r| r["acknowledged"].as_u64()).min();
    let pages = lab.pages(lab.page(), 50);
    let named = said.code == 1 && said.err.contains("h2") && !said.err.contains("h3");
    let in_time = (Duration::from_millis(900)..Duration::from_secs(4)).contains(&took);
    let report = &mut context.report;
    report.claim(
        "apply --wait gives up in time and names the node",
        named && in_time,
        format!("exit {} after {took:.1?}: {}", said.code, said.err.trim().replace('\n', "; ")),
    );
    report.claim(
        "the version stays applied and arrives later",
        synced == 0 && pages.is_share("v1", 1.0) && version == said.version().ok(),
        format!("acknowledged {version:?}; {}", pages.figure()),
    );
    Ok(())
}

/// The control plane's own process: what it prints, ports of its own choice, a clean end.
fn serve(context: &mut Context<'_>) -> anyhow::Result<()> {
    let scratch = context.scratch()?;
    let lab = Lab::lay_out(context.inside, &scratch)?;
    let data = scratch.join("other").display().to_string();
    let arguments =
        ["serve", "--data-dir", &data, "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"];
    let spec = crate::harness::process::Spec::new("other", &lab.program("meshd")).args(arguments);
    let mut process = spec.start(&lab.control.host, &lab.logs())?;
    let line = process.wait_for_line("ready ", crate::harness::control::READY)?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let port =
        |key: &str| words.iter().find_map(|w| w.strip_prefix(key)?.rsplit(':').next()?.parse::<u16>().ok());
    let told = port("grpc=").is_some_and(|p| p > 0)
        && port("http=").is_some_and(|p| p > 0)
        && line.ends_with("version=0");
    let health = port("http=").map(|p| {
        crate::harness::client::Ask::get(format!("http://127.0.0.1:{p}/healthz"))
            .send(&lab.control.host, None)
    });
    let healthy = health.is_some_and(|h| h.is_ok_and(|a| a.status == 200));
    let status = process.terminate(Duration::from_secs(10))?;
    let alone = process.stdout().lines().count() == 1;
    let report = &mut context.report;
    report.claim("serve prints one line with the ports that it chose", told && alone, line);
    report.claim("and answers /healthz there", healthy, format!("{healthy}"));
    report.claim("SIGTERM ends it with 0", status.code() == Some(0), status.to_string());
    Ok(())
}
