//! Live traffic in the terminal: `stat`, `edges`, `routes`, `top`.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::output::{self, Format};
use super::{CliError, NamespaceArgs, OutputArgs, fleet};
use crate::admin::client::Client;
use crate::admin::traffic::view::{EdgeView, EndView, RouteView, RuleView, StatView, TcpView, TopView};
use crate::clock;
use crate::config::duration;

/// How often `-w` looks again.
const AGAIN: Duration = Duration::from_secs(1);
/// Goes to the top of a terminal and empties it.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// What the commands for live traffic share.
#[derive(Debug, Clone, clap::Args)]
pub struct TrafficArgs {
    /// The service: NAME, NAME.NAMESPACE or its host [default: all]
    pub service: Option<String>,
    /// Which namespace
    #[command(flatten)]
    pub namespace: NamespaceArgs,
    /// Of so much time before now, 1s to 1h
    #[arg(long, env = "MESHD_WINDOW", value_name = "DURATION", default_value = "1m", value_parser = window)]
    pub window: Duration,
    /// Only calls of this workload or account: NAME or NAMESPACE/NAME
    #[arg(long, env = "MESHD_FROM", value_name = "WORKLOAD")]
    pub from: Option<String>,
    /// Only calls to this workload or account: NAME or NAMESPACE/NAME
    #[arg(long, env = "MESHD_TO", value_name = "WORKLOAD")]
    pub to: Option<String>,
    /// Look again every second; with JSON one object a line
    #[arg(short, long, env = "MESHD_WATCH", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub watch: bool,
    /// How to print
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Flags of `stat`.
#[derive(Debug, Clone, clap::Args)]
pub struct StatArgs {
    /// What all share.
    #[command(flatten)]
    pub traffic: TrafficArgs,
    /// What a line is for
    #[arg(long, env = "MESHD_BY", value_enum, default_value = "service")]
    pub by: By,
    /// Whose word counts
    #[arg(long, env = "MESHD_REPORTER", value_enum, default_value = "both")]
    pub reporter: Speaker,
}

/// What a line of `stat` is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// A service, and its subsets or versions below it
    Service,
    /// A workload that is called
    Workload,
    /// A rule
    Route,
    /// A subset of a service, or a version of its workloads
    Version,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            By::Service => "service",
            By::Workload => "workload",
            By::Route => "route",
            By::Version => "version",
        }
    }
}

/// Which side speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Speaker {
    /// The caller's proxy
    Source,
    /// The proxy of the workload that is called
    Destination,
    /// Each for itself
    Both,
}

impl Speaker {
    fn name(self) -> &'static str {
        match self {
            Speaker::Source => "source",
            Speaker::Destination => "destination",
            Speaker::Both => "both",
        }
    }
}

/// What is remembered.
fn window(text: &str) -> Result<Duration, String> {
    let window = duration(text)?;
    let fits = (Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&window);
    if fits { Ok(window) } else { Err("from 1s to 1h, for longer is not remembered".to_owned()) }
}

fn path(what: &str, args: &TrafficArgs, more: &[(&str, &str)]) -> String {
    let window = args.window.as_millis().to_string();
    let mut pairs = vec![("window_ms", window.as_str())];
    pairs.extend(args.namespace.wanted().map(|namespace| ("namespace", namespace)));
    pairs.extend(args.service.as_deref().map(|service| ("service", service)));
    pairs.extend(args.from.as_deref().map(|from| ("from", from)));
    pairs.extend(args.to.as_deref().map(|to| ("to", to)));
    pairs.extend(more);
    let pairs: Vec<String> =
        pairs.into_iter().map(|(key, value)| format!("{key}={}", fleet::encoded(value))).collect();
    format!("/v1/traffic/{what}?{}", pairs.join("&"))
}

/// A kind of line.
struct Shape<T> {
    columns: Vec<&'static str>,
    row: fn(&T, bool) -> Vec<String>,
}

/// Prints once, or again and again.
async fn show<T: Serialize + DeserializeOwned>(
    client: &Client,
    path: &str,
    (format, watch): (Format, bool),
    shape: &Shape<T>,
) -> Result<(), CliError> {
    let wide = format == Format::Wide;
    if !watch {
        let items: Vec<T> = client.get(path).await?;
        return output::print_list(format, &items, &shape.columns, |item| (shape.row)(item, wide));
    }
    let mut tick = tokio::time::interval(AGAIN);
    loop {
        tick.tick().await;
        let items: Vec<T> = client.get(path).await?;
        let text = match format {
            Format::Json => lines(&items)?,
            Format::Yaml => format!("---\n{}", output::yaml(&value(&items)?)),
            Format::Table | Format::Wide => {
                let clear = if std::io::stdout().is_terminal() { CLEAR } else { "" };
                let rows = items.iter().map(|item| (shape.row)(item, wide));
                format!("{clear}{}\n", output::table(&shape.columns, rows))
            }
        };
        if !is_read(&text)? {
            return Ok(());
        }
    }
}

fn value<T: Serialize>(item: &T) -> Result<Value, CliError> {
    serde_json::to_value(item).map_err(|error| CliError::Failed(error.to_string()))
}

/// One object a line, with the time of looking.
fn lines<T: Serialize>(items: &[T]) -> Result<String, CliError> {
    let time = clock::text(clock::now_seconds());
    let mut text = String::new();
    for item in items {
        let mut item = value(item)?;
        if let Some(fields) = item.as_object_mut() {
            fields.insert("time".to_owned(), Value::from(time.as_str()));
        }
        text.push_str(&item.to_string());
        text.push('\n');
    }
    Ok(text)
}

/// Writes; says whether anybody reads on.
fn is_read(text: &str) -> Result<bool, CliError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(CliError::Failed(format!("cannot write the result: {error}"))),
    }
}

/// `stat`.
pub async fn stat(client: &Client, args: &StatArgs) -> Result<(), CliError> {
    let format = args.traffic.output.output;
    let by = match args.by {
        By::Service | By::Version => "subset",
        By::Workload => "workload",
        By::Route => "route",
    };
    let mut columns =
        vec!["service", by, "reporter", "requests", "success", "rps", "p50", "p95", "p99", "connections"];
    if format == Format::Wide {
        columns.extend(["tcp connections", "tcp failed", "received", "sent"]);
    }
    columns.push("worse since");
    let row = |view: &StatView, wide: bool| {
        let part = view.subset.clone().or_else(|| {
            let workload = view.workload.as_ref()?;
            Some(format!("{}/{workload}", view.namespace.as_deref().unwrap_or_default()))
        });
        let mut row = vec![
            view.service.clone(),
            part.or_else(|| view.route.as_ref().map(rule)).unwrap_or_default(),
            view.reporter.clone(),
            view.requests.to_string(),
            percent(view.success_rate),
            rate(view.rps),
            milliseconds(view.p50_ms),
            milliseconds(view.p95_ms),
            milliseconds(view.p99_ms),
            view.connections.to_string(),
        ];
        if wide {
            row.extend(tcp(view.tcp.as_ref()));
        }
        let worse = view.worse.as_deref().unwrap_or_default();
        row.push(view.worse_since.as_ref().map(|since| format!("{since} ({worse})")).unwrap_or_default());
        row
    };
    let path = path("stat", &args.traffic, &[("by", args.by.name()), ("reporter", args.reporter.name())]);
    show(client, &path, (format, args.traffic.watch), &Shape { columns, row }).await
}

/// `edges`.
pub async fn edges(client: &Client, args: &TrafficArgs) -> Result<(), CliError> {
    let format = args.output.output;
    let mut columns = vec!["source", "destination", "service", "mtls", "rps", "success", "p99"];
    if format == Format::Wide {
        columns.extend(["source identity", "destination identity"]);
        columns.extend(["tcp connections", "tcp failed", "received", "sent"]);
    }
    let row = |view: &EdgeView, wide: bool| {
        let mut row = vec![
            end(&view.source),
            end(&view.destination),
            view.destination.service.clone().unwrap_or_default(),
            if view.mtls { "yes" } else { "no" }.to_owned(),
            rate(view.rps),
            percent(view.success_rate),
            milliseconds(view.p99_ms),
        ];
        if wide {
            row.extend([&view.source, &view.destination].map(|end| end.identity.clone().unwrap_or_default()));
            row.extend(tcp(view.tcp.as_ref()));
        }
        row
    };
    show(client, &path("edges", args, &[]), (format, args.watch), &Shape { columns, row }).await
}

/// `routes`.
pub async fn routes(client: &Client, args: &TrafficArgs) -> Result<(), CliError> {
    let format = args.output.output;
    let mut columns =
        vec!["service", "route", "requests", "effective", "actual", "retries", "rps", "p99", "destinations"];
    if format == Format::Wide {
        columns.extend(["p50", "p95"]);
    }
    let row = |view: &RouteView, wide: bool| {
        let shares = view.destinations.iter().map(|one| {
            let name: Vec<&str> =
                [one.host.as_deref(), one.subset.as_deref()].into_iter().flatten().collect();
            let name = if name.is_empty() { "all".to_owned() } else { name.join(":") };
            let weight = one.weight.map_or_else(|| "-".to_owned(), |weight| weight.to_string());
            format!("{name} {} (weight {weight})", percent(Some(one.share)))
        });
        let mut row = vec![
            view.service.clone(),
            rule(&view.route),
            view.requests.to_string(),
            percent(view.effective_success_rate),
            percent(view.success_rate),
            view.retries.to_string(),
            rate(view.rps),
            milliseconds(view.p99_ms),
            shares.collect::<Vec<_>>().join(", "),
        ];
        if wide {
            row.extend([milliseconds(view.p50_ms), milliseconds(view.p95_ms)]);
        }
        row
    };
    show(client, &path("routes", args, &[]), (format, args.watch), &Shape { columns, row }).await
}

/// `top`: in a terminal until it is ended, else once.
pub async fn top(client: &Client, args: &TrafficArgs) -> Result<(), CliError> {
    let format = args.output.output;
    let is_table = matches!(format, Format::Table | Format::Wide);
    let watch = args.watch || (is_table && std::io::stdout().is_terminal());
    let columns =
        vec!["source", "destination", "service", "route", "rps", "count", "best", "worst", "last", "success"];
    let row = |view: &TopView, _wide: bool| {
        vec![
            end(&view.source),
            end(&view.destination),
            view.destination.service.clone().unwrap_or_default(),
            view.route.as_ref().map(rule).unwrap_or_default(),
            rate(view.rps),
            view.requests.to_string(),
            milliseconds(Some(view.best_ms)),
            milliseconds(Some(view.worst_ms)),
            milliseconds(Some(view.last_ms)),
            percent(view.success_rate),
        ]
    };
    show(client, &path("top", args, &[]), (format, watch), &Shape { columns, row }).await
}

fn end(end: &EndView) -> String {
    match (&end.namespace, &end.workload) {
        (Some(namespace), Some(workload)) => format!("{namespace}/{workload}"),
        (_, workload) => workload.clone().unwrap_or_default(),
    }
}

fn rule(rule: &RuleView) -> String {
    match rule.rule {
        Some(index) => format!("{} rule {index}", rule.resource),
        None => rule.resource.clone(),
    }
}

fn tcp(tcp: Option<&TcpView>) -> [String; 4] {
    tcp.map_or_else(Default::default, |tcp| {
        [tcp.connections, tcp.failed, tcp.received_bytes, tcp.sent_bytes].map(|number| number.to_string())
    })
}

/// Never 100 % of something that failed: what is cut off is no success.
fn percent(part: Option<f64>) -> String {
    part.map(|part| format!("{:.2}%", (part * 10_000.0 + 1e-6).floor() / 100.0)).unwrap_or_default()
}

fn rate(a_second: f64) -> String {
    format!("{a_second:.1}")
}

fn milliseconds(time: Option<f64>) -> String {
    match time {
        None => String::new(),
        Some(time) if time < 100.0 => format!("{time:.1}ms"),
        Some(time) if time < 10_000.0 => format!("{time:.0}ms"),
        Some(time) => format!("{:.1}s", time / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_for_people() {
        let check = |found: String, expected: &str| assert_eq!(found, expected);
        check(percent(Some(1.0)), "100.00%");
        check(percent(Some(0.999_999)), "99.99%");
        check(percent(Some(0.95)), "95.00%");
        check(percent(None), "");
        check(milliseconds(Some(1.234)), "1.2ms");
        check(milliseconds(Some(450.6)), "451ms");
        check(milliseconds(Some(60_000.0)), "60.0s");
    }
}
