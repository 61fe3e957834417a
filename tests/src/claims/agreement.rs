//! What is told of one request in different places is one account: the log lines of both proxies, the metrics of both,
//! and what `explain` says beforehand.

use serde_json::Value;

use super::resilience::comes;
use super::{Claim, Context, shared};
use crate::harness::client::{Answer, Ask};
use crate::harness::lab::Lab;
use crate::harness::proxy::Proxy;

pub(super) fn claims() -> Vec<Claim> {
    vec![shared("agreement/requests", requests)]
}

/// Rules that end requests in different ways.
pub(super) const RULES: &str = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: reviews, namespace: default}\n\
    spec:\n  hosts: [reviews]\n  http:\n\
    \x20 - {name: teapot, match: [{uri: {exact: /teapot}}], directResponse: {status: 418, body: {string: short}}}\n\
    \x20 - {name: moved, match: [{uri: {exact: /moved}}], redirect: {uri: /else}}\n\
    \x20 - {name: broken, match: [{uri: {exact: /broken}}], fault: {abort: {httpStatus: 555, percentage: {value: 100}}}, route: [{destination: {host: reviews, subset: v2}}]}\n\
    \x20 - {name: nobody, match: [{uri: {exact: /nobody}}], route: [{destination: {host: reviews, subset: v9}}]}\n\
    \x20 - {name: again, match: [{uri: {prefix: /fail}}], retries: {attempts: 1, retryOn: 5xx}, route: [{destination: {host: reviews, subset: v3}}]}\n\
    \x20 - {name: late, match: [{uri: {prefix: /slow}}], timeout: 0.2s, route: [{destination: {host: reviews, subset: v3}}]}\n\
    \x20 - {name: second, match: [{uri: {prefix: /}}], route: [{destination: {host: reviews, subset: v2}}]}\n---\n\
    apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: reviews, namespace: default}\n\
    spec: {host: reviews, subsets: [{name: v2, labels: {version: v2}}, {name: v3, labels: {version: v3}}, {name: v9, labels: {version: v9}}]}\n---\n\
    apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: details, namespace: default}\n\
    spec: {hosts: [details], http: [{name: known, match: [{uri: {prefix: /details}}], route: [{destination: {host: details}}]}]}\n---\n\
    apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: agreed, namespace: default}\n\
    spec: {selector: {matchLabels: {app: reviews}}, action: DENY, rules: [{to: [{operation: {paths: [/secret], ports: ['9080', '9081']}}]}]}\n";

/// A request, and how it ends.
pub(super) struct Case {
    pub(super) what: &'static str,
    url: &'static str,
    status: u16,
    flags: &'static str,
    /// The host whose proxy lets it in, by number; none where it does not get there.
    server: Option<usize>,
    /// How often it gets there.
    pub(super) attempts: u64,
    /// Whether the status and flag are a decision, which `explain` knows beforehand.
    foreseen: bool,
}

const fn case(what: &'static str, url: &'static str, status: u16, flags: &'static str) -> Case {
    Case { what, url, status, flags, server: None, attempts: 0, foreseen: true }
}

impl Case {
    const fn at(mut self, server: usize, attempts: u64) -> Case {
        self.server = Some(server);
        self.attempts = attempts;
        self
    }

    /// It ends as the application does, which nobody foresees.
    const fn by_chance(mut self) -> Case {
        self.foreseen = false;
        self
    }
}

pub(super) const CASES: [Case; 9] = [
    case("an ordinary answer", "http://reviews:9080/health", 200, "-").at(1, 1).by_chance(),
    case("an answer of the proxy", "http://reviews:9080/teapot", 418, "-"),
    case("a redirect", "http://reviews:9080/moved", 301, "-"),
    case("a fault", "http://reviews:9080/broken", 555, "FI"),
    case("no endpoint", "http://reviews:9080/nobody", 503, "UH"),
    case("no rule", "http://details:9080/else", 404, "NR"),
    case("a denial", "http://reviews:9080/secret", 403, "-").at(1, 1),
    case("a failure that was tried again", "http://reviews:9080/fail/100", 503, "URX").at(2, 2).by_chance(),
    case("too late an answer", "http://reviews:9080/slow/2000", 504, "UT").at(2, 1).by_chance(),
];

fn requests(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.control.apply_text(RULES)?;
    lab.wait_serving()?;
    let mut found = Vec::new();
    for (number, case) in CASES.iter().enumerate() {
        let differences = differences(lab, case, &format!("agreement-{number}"))?;
        let figure = if differences.is_empty() {
            format!("{} {}", case.status, case.flags)
        } else {
            differences.join("; ")
        };
        found.push((case.what, differences.is_empty(), figure));
    }
    for (what, holds, figure) in found {
        context.report.claim(format!("{what}: log lines, metrics and explain agree"), holds, figure);
    }
    Ok(())
}

/// All that is told of one request.
pub(super) struct Told {
    answer: Answer,
    pub(super) explained: Value,
    /// Lines of the caller's proxy and of the server's.
    pub(super) lines: [Vec<Value>; 2],
    /// What the metrics of both have grown by, under the labels that the line of the log has.
    grown: [u64; 2],
}

/// Makes the request and lists what does not agree.
fn differences(lab: &Lab, case: &Case, id: &str) -> anyhow::Result<Vec<String>> {
    let told = tell(lab, case, &[("x-request-id", id)])?;
    let mut differences = Vec::new();
    let mut same = |what: &str, one: &Value, other: &Value| {
        if one != other {
            differences.push(format!("{what}: {one} and {other}"));
        }
    };
    let explained = &told.explained;
    same("status", &told.answer.status.into(), &case.status.into());
    same("lines of the caller's proxy", &told.lines[0].len().into(), &1.into());
    same("counted by the caller's proxy", &told.grown[0].into(), &1.into());
    same("lines of the server's proxy", &told.lines[1].len().into(), &case.attempts.into());
    same("counted by the server's proxy", &told.grown[1].into(), &case.attempts.into());
    if case.foreseen {
        same("status foreseen", &explained["status"], &case.status.into());
        same("flags foreseen", &explained["flags"], &case.flags.into());
    }
    for line in &told.lines[0] {
        same("status in the log", &line["response_code"], &case.status.into());
        same("flags in the log", &flags(line), &case.flags.into());
        same("version", &line["snapshot_version"], &explained["version"]);
        if !explained["route"]["name"].is_null() {
            same("name of the route", &line["route_name"], &explained["route"]["name"]);
        }
        if let Some(rule) = line.get("rule").filter(|rule| !rule.is_null()) {
            let route = &explained["route"];
            let foreseen = format!("{}[{}]", route["resource"].as_str().unwrap_or_default(), route["rule"]);
            same("rule", rule, &foreseen.into());
        }
        if let Some(destination) = explained["destinations"].get(0) {
            same("cluster", &line["upstream_cluster"], &destination["cluster"]);
            let endpoints = destination["endpoints"].as_array().cloned().unwrap_or_default();
            if !line["upstream_host"].is_null() {
                let known = endpoints.iter().any(|e| e["address"] == line["upstream_host"]);
                same("whether explain knows the endpoint", &known.into(), &true.into());
            }
        }
    }
    let authorization = &explained["authorization"];
    for line in &told.lines[1] {
        same("version at the server", &line["snapshot_version"], &explained["version"]);
        let denied =
            line["response_code_details"].as_str().unwrap_or_default().contains("rbac_access_denied");
        same("whether it is denied", &denied.into(), &(authorization["verdict"] == "deny").into());
        if denied {
            let policy = authorization["decided_by"].as_str().unwrap_or_default().rsplit('/').next();
            let named = line["response_code_details"].as_str().unwrap_or_default().contains(&format!(
                "policy[{}]-rule[{}]",
                policy.unwrap_or_default(),
                authorization["rule"]
            ));
            same("whether the log names the rule that explain names", &named.into(), &true.into());
        }
    }
    Ok(differences)
}

/// Flags as one text: the order in which they are set is no difference.
fn flags(line: &Value) -> Value {
    let mut flags: Vec<&str> = line["response_flags"].as_str().unwrap_or_default().split(',').collect();
    flags.sort_unstable();
    flags.join(",").into()
}

/// Makes a request with these fields, of which the first is its id, and collects what is told of it.
pub(super) fn tell(lab: &Lab, case: &Case, fields: &[(&str, &str)]) -> anyhow::Result<Told> {
    let id = fields.first().map_or("", |(_, id)| id);
    let from = "default/bookinfo-productpage@h1";
    let explained = lab.control.must(["explain", "--from", from, "--to", case.url, "-o", "json"])?.json()?;
    let server = &lab.proxies[case.server.unwrap_or(1)];
    let service = explained["service"].as_str().unwrap_or_default().to_owned();
    let marks = |reporter: &str, line: Option<&Value>| {
        let mut marks = vec![
            format!("reporter=\"{reporter}\""),
            "source_workload=\"productpage-v1\"".to_owned(),
            format!("destination_service=\"{service}\""),
        ];
        if let Some(line) = line {
            marks.push(format!("response_code=\"{}\"", line["response_code"]));
            marks.push(format!("response_flags=\"{}\"", line["response_flags"].as_str().unwrap_or_default()));
        }
        marks
    };
    let before = [page(&lab.proxies[0])?, page(server)?];
    let ask = fields.iter().fold(Ask::get(case.url), |ask, (name, value)| ask.header(name, value));
    let answer = lab.as_productpage(&ask)?;
    let lines = |proxy: &Proxy, inbound: bool| -> Vec<Value> {
        let of_this = |line: &Value| {
            let cluster = line["upstream_cluster"].as_str().unwrap_or_default();
            line["request_id"] == id && cluster.starts_with("inbound") == inbound
        };
        proxy.access_log().into_iter().filter(of_this).collect()
    };
    comes(|| {
        let there = lines(&lab.proxies[0], false).len() == 1;
        Ok(there && lines(server, true).len() as u64 == case.attempts)
    })?;
    let lines = [lines(&lab.proxies[0], false), lines(server, true)];
    let mut grown = [0, 0];
    comes(|| {
        let after = [page(&lab.proxies[0])?, page(server)?];
        for (side, reporter) in ["source", "destination"].into_iter().enumerate() {
            let marks = marks(reporter, lines[side].first());
            grown[side] = sum(&after[side], &marks) - sum(&before[side], &marks);
        }
        Ok(grown == [1, case.attempts])
    })?;
    Ok(Told { answer, explained, lines, grown })
}

fn page(proxy: &Proxy) -> anyhow::Result<String> {
    Ok(proxy.local(15090, "/stats/prometheus")?.text())
}

/// How many requests are counted under labels.
fn sum(page: &str, marks: &[String]) -> u64 {
    page.lines()
        .filter(|line| line.starts_with("istio_requests_total{"))
        .filter(|line| marks.iter().all(|mark| line.contains(mark.as_str())))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum::<f64>() as u64
}
