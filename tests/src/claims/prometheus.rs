//! Metrics through a real Prometheus: what is shipped for it and for Grafana works, and the figures are those of the
//! load that was made.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use super::protocols::{Extra, at_h2, find};
use super::resilience::comes;
use super::{Claim, Context, alone};
use crate::harness::bookshop::{status, whole_page};
use crate::harness::client::Ask;
use crate::harness::echo::{Echo, send};
use crate::harness::lab::{Lab, yaml};
use crate::harness::load::{Load, LoadSpec, Sample};
use crate::harness::prometheus::Prometheus;

pub(super) fn claims() -> Vec<Claim> {
    vec![alone("prometheus/files", files), alone("prometheus/figures", figures)]
}

const RULES: &str = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: ratings, namespace: default}\n\
    spec: {hosts: [ratings], http: [{retries: {attempts: 0}, route: [{destination: {host: ratings}}]}]}\n---\n\
    apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: details, namespace: default}\n\
    spec: {hosts: [details], http: [{retries: {attempts: 3, retryOn: 5xx}, route: [{destination: {host: details}}]}]}\n";

/// What promtool says of what is shipped.
fn files(context: &mut Context<'_>) -> anyhow::Result<()> {
    let Some(promtool) = find(&["promtool"]) else {
        context.report.skip("rules and scraping", "promtool is not installed");
        return Ok(());
    };
    let folder = context.scratch()?.join("shipped");
    std::fs::create_dir_all(&folder)?;
    for name in ["scrape.yaml", "rules.yaml", "rules_test.yaml"] {
        std::fs::copy(Prometheus::shipped().join(name), folder.join(name))?;
    }
    for name in ["mesh-proxies.yaml", "mesh-control.yaml"] {
        std::fs::write(folder.join(name), "- targets: [\"127.0.0.1:1\"]\n")?;
    }
    for (claim, words) in [
        ("promtool: the configuration of scraping is good", ["check", "config", "scrape.yaml"]),
        ("promtool: the rules are good", ["check", "rules", "rules.yaml"]),
        ("promtool: the rules and alerts say what their tests want", ["test", "rules", "rules_test.yaml"]),
    ] {
        let output = Command::new(&promtool).args(words).current_dir(&folder).output()?;
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        context.report.claim(claim, output.status.success(), said.trim().replace('\n', "; "));
    }
    Ok(())
}

/// What a lab is asked, and what came of it.
struct Made {
    /// The edge from productpage to ratings, where nothing is tried again.
    plain: Vec<Sample>,
    /// That to details, where failures are.
    retried: Vec<Sample>,
    /// Connections of TCP, and bytes in each direction.
    streams: (usize, usize),
}

fn figures(context: &mut Context<'_>) -> anyhow::Result<()> {
    let Some(program) = find(&["prometheus"]) else {
        context.report.skip("metrics through Prometheus", "prometheus is not installed");
        return Ok(());
    };
    let scratch = context.scratch()?;
    let lab = lab_that_is_scraped(context, &scratch)?;
    let proxies: Vec<SocketAddr> =
        lab.proxies.iter().map(|p| SocketAddr::new(p.host.address().into(), 15090)).collect();
    let (address, port) = lab.control.http();
    let control = [SocketAddr::new(IpAddr::from(address), port)];
    let mut prometheus =
        Prometheus::start(&lab.control.host, &program, &scratch.join("prometheus"), &proxies, &control)?;
    context.report.claim("Prometheus scrapes every proxy and meshd", true, "3 and 1");
    let echo = Echo::start(&lab.proxies[1].host, at_h2(7000), b"")?;
    let extra = Extra::announce(&lab, "echo", 7000, "tcp")?;
    lab.control.apply_text(RULES)?;
    make(&lab, 1)?;
    let before = Counted::settled(&mut prometheus)?;
    let made = make(&lab, 40)?;
    let expected = made.plain.len() as f64 + before.plain[0];
    prometheus.wait_for(&plain("source", ""), |counted| counted >= expected)?;
    let after = Counted::settled(&mut prometheus)?;
    compare(context, &made, &before, &after);
    if let Err(error) = live_traffic(context, &lab, &made, &before) {
        context.report.claim("stat says what the metrics and the load say", false, format!("{error:#}"));
    }
    quantiles(context, &made, &prometheus)?;
    let pages = LoadSpec {
        ask: lab.page(),
        connections: 2,
        pause: Duration::from_millis(20),
        count: None,
        judge: whole_page,
    };
    let pages = Load::start(lab.h1(), None, pages);
    stir(&lab)?;
    istios_queries(context, &prometheus)?;
    dashboard(context, &prometheus)?;
    rules(context, &prometheus)?;
    pages.stop();
    lint(context, &lab, &scratch)?;
    drop((extra, echo));
    Ok(())
}

/// The lab with its metrics open to the network.
fn lab_that_is_scraped(context: &mut Context<'_>, scratch: &Path) -> anyhow::Result<Lab> {
    let mut lab = Lab::lay_out(context.inside, scratch)?;
    for proxy in &mut lab.proxies {
        proxy.with(["--metrics-addr", "0.0.0.0:15090"]);
    }
    lab.control.start()?;
    for file in ["bookshop.yaml", "destination-rules.yaml", "strict.yaml"] {
        lab.control.apply(&yaml(file))?;
    }
    lab.start_apps()?;
    lab.join()?;
    lab.wait_serving()?;
    Ok(lab)
}

/// The load of a claim: `size` times fifty good answers and ten bad ones, ten that need other attempts, one slow one.
fn make(lab: &Lab, size: usize) -> anyhow::Result<Made> {
    let (host, user) = (lab.h1(), lab.user("productpage-v1"));
    let run = |url: &str, count: usize| {
        let ask = Ask::get(url);
        let pause = Duration::ZERO;
        let spec = LoadSpec { ask, connections: count.min(8), pause, count: Some(count), judge: status };
        let load = Load::start(host, user, spec);
        while load.len() < count {
            std::thread::sleep(Duration::from_millis(5));
        }
        load.samples()
    };
    let mut plain = run("http://ratings:9080/health", 50 * size);
    plain.extend(run("http://ratings:9080/fail/100", 10 * size));
    plain.extend(run("http://ratings:9080/slow/600", size));
    let retried = run("http://details:9080/fail/50", 10 * size);
    let streams = (size.min(5), 100_000);
    for _ in 0..streams.0 {
        send(host, user, "echo:7000", vec![7; streams.1])?;
    }
    Ok(Made { plain, retried, streams })
}

/// The sum of the edge to ratings.
fn plain(reporter: &str, more: &str) -> String {
    edge(reporter, "ratings", more)
}

fn edge(reporter: &str, service: &str, more: &str) -> String {
    format!(
        "sum(istio_requests_total{{reporter=\"{reporter}\",source_workload=\"productpage-v1\",\
         destination_service=\"{service}.default.svc.cluster.local\"{more}}})"
    )
}

/// What the proxies of both sides have counted.
#[derive(Debug)]
struct Counted {
    plain: [f64; 2],
    good: [f64; 2],
    bad: [f64; 2],
    retried: [f64; 2],
    retries: f64,
    opened: [f64; 2],
    sent: [f64; 2],
    received: [f64; 2],
}

impl Counted {
    /// What Prometheus knows when it does not change any more.
    fn settled(prometheus: &mut Prometheus) -> anyhow::Result<Counted> {
        let all = "sum(istio_requests_total) + sum(istio_tcp_connections_closed_total or vector(0))";
        let mut last = -1.0;
        for _ in 0..20 {
            let now = prometheus.value(all)?;
            if now > 0.0 && now == last {
                break;
            }
            last = now;
            std::thread::sleep(Duration::from_millis(1500));
        }
        let both = |of: &dyn Fn(&str) -> String| -> anyhow::Result<[f64; 2]> {
            Ok([prometheus.value(&of("source"))?, prometheus.value(&of("destination"))?])
        };
        let tcp = |name: &'static str| {
            move |reporter: &str| {
                format!(
                    "sum(istio_tcp_{name}_total{{reporter=\"{reporter}\",source_workload=\"productpage-v1\",destination_service_name=\"echo\"}})"
                )
            }
        };
        Ok(Counted {
            plain: both(&|reporter| plain(reporter, ""))?,
            good: both(&|reporter| plain(reporter, ",response_code=\"200\",response_flags=\"-\""))?,
            bad: both(&|reporter| plain(reporter, ",response_code=\"503\""))?,
            retried: both(&|reporter| edge(reporter, "details", ""))?,
            retries: prometheus.value("sum(mesh_proxy_retries_total)")?,
            opened: both(&tcp("connections_opened"))?,
            sent: both(&tcp("sent_bytes"))?,
            received: both(&tcp("received_bytes"))?,
        })
    }
}

/// Whether two figures differ by one in a hundred at most.
fn agree(counted: f64, made: f64) -> bool {
    (counted - made).abs() <= 0.01 * made
}

fn compare(context: &mut Context<'_>, made: &Made, before: &Counted, after: &Counted) {
    let of = |name: &str| made.plain.iter().filter(|s| s.verdict.as_deref() == Ok(name)).count() as f64;
    let grown = |after: [f64; 2], before: [f64; 2]| [after[0] - before[0], after[1] - before[1]];
    let retries = after.retries - before.retries;
    let tried = made.retried.len() as f64;
    let (streams, bytes) = (made.streams.0 as f64, (made.streams.0 * made.streams.1) as f64);
    for (what, counted, wanted) in [
        ("requests", grown(after.plain, before.plain), [made.plain.len() as f64; 2]),
        ("answers with 200", grown(after.good, before.good), [of("200"); 2]),
        ("answers with 503", grown(after.bad, before.bad), [of("503"); 2]),
        ("requests and attempts", grown(after.retried, before.retried), [tried, tried + retries]),
        ("connections of TCP", grown(after.opened, before.opened), [streams; 2]),
        ("bytes to the client", grown(after.sent, before.sent), [bytes; 2]),
        ("bytes from the client", grown(after.received, before.received), [bytes; 2]),
    ] {
        context.report.claim(
            format!("{what}: both reporters have counted what was made, within 1 %"),
            agree(counted[0], wanted[0]) && agree(counted[1], wanted[1]) && wanted[0] > 0.0,
            format!("{counted:?} of {wanted:?}"),
        );
    }
    context.report.claim("there were attempts beyond the first", retries > 0.0, retries.to_string());
}

/// What `meshd stat` says of calls from productpage to ratings, as one side tells it.
fn stat(lab: &Lab, reporter: &str) -> anyhow::Result<Value> {
    let words = ["stat", "ratings", "--from", "default/productpage-v1", "--reporter", reporter];
    let all = words.into_iter().chain(["--window", "1h", "-o", "json"]);
    let rows = lab.control.must(all)?.json()?;
    let whole = |row: &&Value| row["subset"].is_null() && row["reporter"] == reporter;
    Ok(rows.as_array().and_then(|rows| rows.iter().find(whole)).cloned().unwrap_or_default())
}

/// The same load as `stat` tells it: what was before counts too, since it was made in the same way.
fn live_traffic(context: &mut Context<'_>, lab: &Lab, made: &Made, before: &Counted) -> anyhow::Result<()> {
    let well = made.plain.iter().filter(|s| s.verdict.as_deref() == Ok("200")).count() as f64;
    let p99 = p99(made);
    for (side, reporter) in ["source", "destination"].into_iter().enumerate() {
        let all = made.plain.len() as f64 + before.plain[side];
        let well = well + before.good[side];
        comes(|| Ok(stat(lab, reporter)?["requests"].as_f64().is_some_and(|requests| requests >= all)))?;
        let row = stat(lab, reporter)?;
        let number = |name: &str| row[name].as_f64().unwrap_or(0.0);
        let holds = agree(number("requests"), all)
            && agree(number("success_rate"), well / all)
            && bucket(number("p99_ms")) == bucket(p99);
        context.report.claim(
            format!("{reporter}: stat says what the metrics and the load say, within 1 %"),
            holds,
            format!(
                "{} of {all} requests, {:.4} of {:.4}, p99 {:.0} ms",
                row["requests"],
                number("success_rate"),
                well / all,
                number("p99_ms")
            ),
        );
    }
    Ok(())
}

/// The 99th percentile of what the load generator saw, in milliseconds.
fn p99(made: &Made) -> f64 {
    let mut took: Vec<Duration> = made.plain.iter().map(|sample| sample.took).collect();
    took.sort();
    took.get(took.len() * 99 / 100).map_or(0.0, |took| took.as_secs_f64() * 1000.0)
}

/// The bucket of Istio's histograms that a duration falls in.
fn bucket(millis: f64) -> Option<(f64, f64)> {
    const BOUNDS: [f64; 14] =
        [0.0, 0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0];
    BOUNDS.windows(2).find(|pair| pair[0] < millis && millis <= pair[1]).map(|pair| (pair[0], pair[1]))
}

fn quantiles(context: &mut Context<'_>, made: &Made, prometheus: &Prometheus) -> anyhow::Result<()> {
    let service = "destination_service=\"ratings.default.svc.cluster.local\"";
    let good = made.plain.iter().filter(|s| s.verdict.as_deref() == Ok("200")).count() as f64;
    let wanted = good / made.plain.len() as f64;
    let p99 = p99(made);
    let mut found = Vec::new();
    for reporter in ["source", "destination"] {
        let told = |name: &str| format!("{name}{{reporter=\"{reporter}\",{service}}}");
        let success = prometheus.value(&told("service:istio_requests:success_ratio_rate5m"))?;
        found.push((
            format!("{reporter}: the recorded success rate is that of the load within 1 %"),
            agree(success, wanted),
            format!("{success:.4} of {wanted:.4}"),
        ));
        let quantile = prometheus.value(&told("service:istio_request_duration_milliseconds:p99_rate5m"))?;
        found.push((
            format!("{reporter}: the recorded p99 is in the bucket of the load's"),
            bucket(quantile).is_some() && bucket(quantile) == bucket(p99),
            format!("{quantile:.0} ms, of the load {p99:.0} ms"),
        ));
    }
    let mutual = prometheus.value(&format!("service:istio_requests:mtls_ratio_rate5m{{{service}}}"))?;
    found.push(("all requests came over mutual TLS".to_owned(), mutual == 1.0, mutual.to_string()));
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}

/// What goes wrong in a mesh now and then: refusals, limits, endpoints that are left alone, peers without TLS.
const TROUBLE: &str = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: ratings, namespace: default}\n\
    spec: {host: ratings, trafficPolicy: {connectionPool: {http: {http2MaxRequests: 1000}}, \
    outlierDetection: {consecutive5xxErrors: 2, interval: 1s, baseEjectionTime: 60s, maxEjectionPercent: 100}}}\n---\n\
    apiVersion: mesh.io/v1alpha1\nkind: RateLimit\nmetadata: {name: few, namespace: default}\n\
    spec: {targetRefs: [{kind: Service, name: details}], dryRun: true, limits: [{name: all, requests: 1, interval: 1m}]}\n---\n\
    apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: nobody, namespace: default, annotations: {istio.io/dry-run: 'true'}}\n\
    spec: {selector: {matchLabels: {app: details}}, action: DENY, rules: [{}]}\n---\n\
    apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: secret, namespace: default}\n\
    spec: {selector: {matchLabels: {app: details}}, action: DENY, rules: [{to: [{operation: {paths: [/secret]}}]}]}\n";

fn stir(lab: &Lab) -> anyhow::Result<()> {
    lab.control.apply_text(TROUBLE)?;
    for path in
        ["details:9080/secret", "ratings:9080/fail/100", "ratings:9080/fail/100", "ratings:9080/health"]
    {
        lab.as_productpage(&Ask::get(format!("http://{path}")))?;
    }
    let call = Ask::get("http://details:9080/health").method(http::Method::POST);
    lab.as_productpage(&call.header("content-type", "application/grpc"))?;
    // Plaintext where only mutual TLS is spoken: the connection is closed.
    let plaintext = format!("http://{}:15008/", lab.proxies[1].host.address());
    drop(Ask::get(plaintext).patience(Duration::from_secs(5)).send(lab.h1(), None));
    Ok(())
}

/// Queries as Istio's own documentation and dashboards put them.
fn istios_queries(context: &mut Context<'_>, prometheus: &Prometheus) -> anyhow::Result<()> {
    let ratings = "destination_service=~\"ratings.default.svc.cluster.local\"";
    let echo = "destination_service=~\"echo.default.svc.cluster.local\"";
    let mut queries = vec![
        format!("istio_requests_total{{{ratings}}}"),
        "istio_requests_total{destination_service=\"reviews.default.svc.cluster.local\", destination_version=\"v3\"}".to_owned(),
        "rate(istio_requests_total{destination_service=~\"ratings.*\", response_code=\"200\"}[5m])".to_owned(),
        format!(
            "sum(irate(istio_requests_total{{reporter=~\"source|waypoint\",{ratings},destination_workload_namespace=~\"default\"}}[5m])) by (source_workload, source_workload_namespace, response_code)"
        ),
        "label_join((sum by (destination_workload, destination_workload_namespace, destination_service) (rate(istio_requests_total{reporter=\"source\"}[1m]))), \"destination_workload_var\", \".\", \"destination_workload\", \"destination_workload_namespace\")".to_owned(),
    ];
    for reporter in ["source", "destination"] {
        let secured = if reporter == "source" { "unknown" } else { "mutual_tls" };
        queries.extend([
            format!("round(sum(irate(istio_requests_total{{reporter=\"{reporter}\",{ratings}}}[5m])), 0.001)"),
            format!(
                "sum(irate(istio_requests_total{{reporter=\"{reporter}\",{ratings},response_code!~\"5.*\"}}[5m])) / sum(irate(istio_requests_total{{reporter=\"{reporter}\",{ratings}}}[5m]))"
            ),
            format!(
                "histogram_quantile(0.95, sum(irate(istio_request_duration_milliseconds_bucket{{reporter=\"{reporter}\",connection_security_policy=\"{secured}\",{ratings}}}[1m])) by (destination_workload, destination_workload_namespace, le)) / 1000"
            ),
            format!(
                "histogram_quantile(0.99, sum(irate(istio_response_bytes_bucket{{reporter=\"{reporter}\",{ratings}}}[1m])) by (source_workload, le))"
            ),
            format!("round(sum(rate(istio_tcp_received_bytes_total{{reporter=\"{reporter}\",{echo}}}[5m])) by (source_workload), 0.001)"),
            format!("sum(rate(istio_tcp_sent_bytes_total{{reporter=~\"{reporter}\",destination_workload=~\"echo-v1\"}}[5m]))"),
            format!("sum(istio_tcp_connections_opened_total{{reporter=\"{reporter}\",destination_workload=\"echo-v1\"}}) by (source_workload)"),
        ]);
    }
    queries.push("sum(istio_build) by (component, tag)".to_owned());
    let mut empty = queries.clone();
    comes(|| {
        for query in std::mem::take(&mut empty) {
            let rows = prometheus.query(&query)?;
            if rows.iter().all(|row| row.value.is_nan()) {
                empty.push(query);
            }
        }
        Ok(empty.is_empty())
    })?;
    context.report.claim(
        "queries as Istio's documentation and dashboards put them return data",
        empty.is_empty(),
        if empty.is_empty() { format!("{} queries", queries.len()) } else { empty.join("; ") },
    );
    Ok(())
}

/// Panels of which this load has nothing to show: no host dies, nothing is captured or refused, nothing sent to a collector.
const SILENT: [&str; 4] = [
    "Captured connections refused",
    "Hosts that went away, workloads that flap",
    "Why snapshots are refused",
    "Spans and log lines sent",
];

fn dashboard(context: &mut Context<'_>, prometheus: &Prometheus) -> anyhow::Result<()> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/grafana/mesh.json");
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(&file)?).context("mesh.json")?;
    let panels = dashboard["panels"].as_array().cloned().unwrap_or_default();
    let (mut asked, mut wrong) = (0, Vec::new());
    let mut empty: Vec<&Value> = panels
        .iter()
        .filter(|panel| panel["targets"].is_array() && !SILENT.iter().any(|title| panel["title"] == *title))
        .collect();
    let silent = panels.iter().filter(|panel| panel["targets"].is_array()).count() - empty.len();
    comes(|| {
        let mut still = Vec::new();
        for panel in std::mem::take(&mut empty) {
            let mut rows = 0;
            for target in panel["targets"].as_array().into_iter().flatten() {
                let expression = target["expr"].as_str().context("a target without a query")?;
                for reporter in ["source", "destination"] {
                    asked += 1;
                    match prometheus.query(&filled_in(expression, reporter)) {
                        Ok(found) => rows += found.len(),
                        Err(error) => wrong.push(format!("{}: {error:#}", panel["title"])),
                    }
                }
            }
            if rows == 0 {
                still.push(panel);
            }
        }
        empty = still;
        Ok(empty.is_empty() || !wrong.is_empty())
    })?;
    let empty: Vec<&str> = empty.iter().filter_map(|panel| panel["title"].as_str()).collect();
    context.report.claim(
        "every query of the dashboard can be answered",
        wrong.is_empty() && asked > 0,
        if wrong.is_empty() { format!("{asked} times asked") } else { wrong.join("; ") },
    );
    context.report.claim(
        "every panel of the dashboard that this load means something to shows it",
        empty.is_empty(),
        if empty.is_empty() { format!("all but {silent}") } else { empty.join("; ") },
    );
    let mut missing = Vec::new();
    let variables = dashboard["templating"]["list"].as_array().cloned().unwrap_or_default();
    for variable in variables.iter().filter(|variable| variable["type"] == "query") {
        let text = filled_in(variable["definition"].as_str().unwrap_or_default(), "source");
        let inner = text.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (selector, label) = inner.and_then(|inner| inner.rsplit_once(", ")).context("a variable")?;
        if prometheus.label_values(label, selector)?.is_empty() {
            missing.push(text);
        }
    }
    context.report.claim(
        "every variable of the dashboard has values",
        missing.is_empty(),
        missing.join("; "),
    );
    Ok(())
}

/// A query with the dashboard's variables filled in, as Grafana does it.
fn filled_in(expression: &str, reporter: &str) -> String {
    let mut out = expression.replace("$__rate_interval", "1m").replace("$reporter", reporter);
    for name in ["$namespace", "$service", "$workload", "$proxy"] {
        out = out.replace(name, ".*");
    }
    out
}

fn rules(context: &mut Context<'_>, prometheus: &Prometheus) -> anyhow::Result<()> {
    let rules = prometheus.rules()?;
    let ill: Vec<String> = rules
        .iter()
        .filter(|rule| rule["health"] != "ok" || rule["lastError"].as_str().is_some_and(|e| !e.is_empty()))
        .map(|rule| format!("{} {} {}", rule["name"], rule["health"], rule["lastError"]))
        .collect();
    context.report.claim(
        "every rule is evaluated without a fault",
        ill.is_empty() && !rules.is_empty(),
        if ill.is_empty() { format!("{} rules", rules.len()) } else { ill.join("; ") },
    );
    let mut silent = Vec::new();
    for rule in rules.iter().filter(|rule| rule["type"] == "recording") {
        let name = rule["name"].as_str().unwrap_or_default();
        if prometheus.query(name)?.is_empty() {
            silent.push(name.to_owned());
        }
    }
    context.report.claim("every recording rule records", silent.is_empty(), silent.join("; "));
    Ok(())
}

/// What promtool finds odd in what the binaries say, by metric.
fn lint(context: &mut Context<'_>, lab: &Lab, scratch: &Path) -> anyhow::Result<()> {
    let Some(promtool) = find(&["promtool"]) else {
        context.report.skip("promtool check metrics", "promtool is not installed");
        return Ok(());
    };
    let control = format!("http://{}:{}/metrics", lab.control.http().0, lab.control.http().1);
    let pages = [
        ("meshproxy", lab.proxies[0].local(15090, "/stats/prometheus")?.text()),
        ("meshd", Ask::get(control).send(&lab.control.host, None)?.text()),
    ];
    for (program, page) in pages {
        let file = scratch.join(format!("{program}.metrics"));
        std::fs::write(&file, &page)?;
        let found = linted(&promtool, &file)?;
        // Istio's own names do not keep to Prometheus' conventions: milliseconds in the place of seconds.
        let ours: Vec<&String> = found
            .iter()
            .filter(|(name, _)| !name.starts_with("istio_"))
            .map(|(_, complaint)| complaint)
            .collect();
        let names = page.lines().filter(|line| line.starts_with("# TYPE ")).count();
        context.report.claim(
            format!("promtool has nothing against the metrics of {program}, Istio's own names aside"),
            ours.is_empty() && names > 0,
            if ours.is_empty() { format!("{names} metrics") } else { format!("{ours:?}") },
        );
    }
    Ok(())
}

fn linted(promtool: &PathBuf, file: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let output = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::from(std::fs::File::open(file)?))
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let complaints: BTreeMap<String, String> = said
        .lines()
        .filter_map(|line| Some((line.split_whitespace().next()?.to_owned(), line.to_owned())))
        .collect();
    // 3 is what it says of lint; everything else is a page that it cannot read.
    anyhow::ensure!(matches!(output.status.code(), Some(0 | 3)), "promtool: {said}");
    Ok(complaints)
}
