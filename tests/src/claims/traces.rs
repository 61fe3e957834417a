//! Traces: both proxies tell a real collector of a request, in one trace.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;

use super::protocols::python;
use super::{Claim, Context, alone};
use crate::harness::client::Ask;
use crate::harness::lab::{Lab, host_address};
use crate::harness::process::{Process, Spec};

/// How long spans may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take until what cannot be exported is given up.
const GIVING_UP: Duration = Duration::from_secs(90);
const REVIEWS: &str = "http://reviews:9080/reviews/0";
const PARENT: &str = "b7ad6b7169203331";

pub(super) fn claims() -> Vec<Claim> {
    vec![alone("traces/collector", collector)]
}

/// A collector, and what reads by the published protocol what it passes on.
struct Collector {
    agent: Process,
    receiver: Process,
    file: PathBuf,
}

impl Collector {
    /// Starts both on h3.
    fn start(lab: &Lab, python: &Path) -> anyhow::Result<Collector> {
        let at = host_address(2);
        let host = &lab.proxies[2].host;
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let file = lab.scratch.join("spans.json");
        let program = root.join("python/otlp_receiver.py").display().to_string();
        let arguments = [program, file.display().to_string(), at.to_string(), "14318".into(), "14317".into()];
        let mut receiver = Spec::new("otlp-receiver", python).args(arguments).start(host, &lab.logs())?;
        receiver.wait_for_line("ready", PATIENCE)?;
        let venv = python.parent().and_then(Path::parent).context("no virtual environment")?;
        let agent = std::fs::read_dir(venv.join("lib"))?
            .flatten()
            .map(|entry| entry.path().join("site-packages/rotel/rotel-agent"))
            .find(|path| path.exists())
            .context("the collector is not installed")?;
        let agent = Spec::new("collector", &agent)
            .args(["start", "--otlp-grpc-endpoint", &format!("{at}:4317")])
            .args(["--otlp-http-endpoint", &format!("{at}:4318"), "--exporter", "otlp"])
            .args([
                "--otlp-exporter-endpoint",
                &format!("http://{at}:14318"),
                "--otlp-exporter-protocol",
                "http",
            ])
            .args(["--batch-timeout", "200ms"])
            .start(host, &lab.logs())?;
        Ok(Collector { agent, receiver, file })
    }

    /// The spans of a trace so far.
    fn spans(&self, trace: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        let rows = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        rows.filter(|row| row["trace"] == trace).collect()
    }

    /// The spans of a trace, once there are a client's and a server's.
    fn both(&self, trace: &str) -> Option<(Value, Value)> {
        const SERVER: u64 = 2;
        const CLIENT: u64 = 3;
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let spans = self.spans(trace);
            let of = |kind: u64, parent: &Value| {
                spans.iter().find(|span| span["kind"] == kind && span["parent"] == *parent).cloned()
            };
            let client = of(CLIENT, &PARENT.into());
            if let Some((client, server)) =
                client.and_then(|client| of(SERVER, &client["span"]).map(|server| (client, server)))
            {
                return Some((client, server));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        None
    }

    /// The one span of a trace.
    fn any(&self, trace: &str) -> Option<Value> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(span) = self.spans(trace).into_iter().next() {
                return Some(span);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        None
    }
}

/// A request as productpage makes it.
fn ask(lab: &Lab, fields: &[(&str, &str)]) -> anyhow::Result<u16> {
    let ask = fields.iter().fold(Ask::get(REVIEWS), |ask, (name, value)| ask.header(name, value));
    Ok(lab.as_productpage(&ask)?.status)
}

fn collector(context: &mut Context<'_>) -> anyhow::Result<()> {
    let Some(python) = python() else {
        context.report.skip("traces", "there are no Python helpers");
        return Ok(());
    };
    let lab = context.lab()?;
    let mut collector = Collector::start(lab, &python)?;
    let at = host_address(2);
    for (index, port) in [(0, 4317), (1, 4318), (2, 4318)] {
        let proxy = &mut lab.proxies[index];
        proxy.with_env("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{at}:{port}"));
        proxy.with(["--trace-tail-errors"]);
        proxy.running()?.terminate(PATIENCE)?;
        proxy.launch()?;
    }
    for proxy in &mut lab.proxies {
        proxy.wait_ready()?;
    }
    lab.wait_serving()?;

    let mut findings = Vec::new();
    let trace = |last: u8| format!("0af7651916cd43dd8448eb211c8031{last:02x}");
    let [w3c, single, several, not, failed] = [1, 2, 3, 4, 5].map(trace);
    ask(lab, &[("traceparent", &format!("00-{not}-{PARENT}-00"))])?;
    ask(lab, &[("traceparent", &format!("00-{w3c}-{PARENT}-01"))])?;
    ask(lab, &[("b3", &format!("{single}-{PARENT}-1"))])?;
    ask(lab, &[("x-b3-traceid", &several), ("x-b3-spanid", PARENT), ("x-b3-sampled", "1")])?;
    let hop = collector.both(&w3c);
    let linked = hop.as_ref().is_some_and(|(client, server)| {
        client["resource"]["service.name"] == "productpage"
            && server["resource"]["service.name"] == "reviews"
            && client["attributes"]["http.response.status_code"] == 200
            && server["attributes"]["mesh.snapshot_version"].as_u64().is_some_and(|version| version > 0)
    });
    let figure = hop.as_ref().map_or_else(
        || "no spans".to_owned(),
        |(client, server)| {
            format!(
                "{} -> {} ({})",
                client["resource"]["service.name"], server["resource"]["service.name"], client["name"]
            )
        },
    );
    findings.push(("the spans of both proxies are parent and child of one trace", linked, figure));
    for (form, trace) in [("one field", &single), ("several fields", &several)] {
        let both = collector.both(trace);
        let figure = both.map_or_else(|| "no spans".to_owned(), |(client, _)| client["trace"].to_string());
        let name =
            if form == "one field" { "B3 in one field goes on" } else { "B3 in several fields goes on" };
        findings.push((name, figure.contains(trace.as_str()), figure));
    }
    // What came later is there by now.
    let unsampled = collector.spans(&not).len();
    findings.push(("a caller that wants no trace has none", unsampled == 0, format!("{unsampled} spans")));

    lab.control.apply_text(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: traced, namespace: default}\n\
         spec:\n  hosts: [reviews]\n  http:\n  - fault: {abort: {percentage: {value: 100}, httpStatus: 503}}\n\
         \x20   match: [{headers: {x-fail: {exact: \"1\"}}}]\n    route: [{destination: {host: reviews}}]\n\
         \x20 - route: [{destination: {host: reviews}}]\n",
    )?;
    lab.control.must(["wait", "--synced", "--timeout", "20s"])?;
    let status = ask(lab, &[("traceparent", &format!("00-{failed}-{PARENT}-00")), ("x-fail", "1")])?;
    let span = collector.any(&failed);
    let rule = span
        .as_ref()
        .map_or_else(|| "no span".to_owned(), |span| span["attributes"]["mesh.rule"].to_string());
    let holds = status == 503
        && span.is_some_and(|span| span["attributes"]["http.response.status_code"] == 503)
        && rule.contains("virtualservice/default/traced");
    findings.push(("a request that fails is told of though it was not sampled", holds, rule));

    collector.agent.kill()?;
    collector.receiver.kill()?;
    let good = (0..100)
        .filter(|index| {
            let parent = format!("00-{}-{PARENT}-01", trace(100 + index % 100));
            ask(lab, &[("traceparent", &parent)]).is_ok_and(|status| status == 200)
        })
        .count();
    findings.push(("without its collector the traffic goes on", good == 100, format!("{good} of 100")));
    let end = Instant::now() + GIVING_UP;
    let dropped = loop {
        let text = lab.proxies[0].local(15090, "/stats/prometheus")?.text();
        let lines =
            text.lines().filter(|line| line.starts_with("mesh_proxy_otlp_dropped_total{signal=\"traces\""));
        let lost: u64 = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum();
        if lost > 0 || Instant::now() > end {
            break lost;
        }
        std::thread::sleep(Duration::from_millis(500));
    };
    findings.push(("what cannot be exported is counted", dropped > 0, format!("{dropped} spans dropped")));
    for (claim, holds, figure) in findings {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}
