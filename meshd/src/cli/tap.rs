//! `tap`: single requests, as they end or out of what proxies remember.

use std::io::{ErrorKind, Write};
use std::ops::ControlFlow;
use std::time::Duration;

use serde_json::Value;

use super::output::{self, Format};
use super::{CliError, OutputArgs};
use crate::admin::client::Client;
use crate::admin::view::{TapLineView, TapRequestView};
use crate::config::duration;

/// Flags of `tap`.
#[derive(Debug, Clone, clap::Args)]
pub struct TapArgs {
    /// The service that is called: NAME, NAME.NAMESPACE, NAMESPACE/NAME or its host [default: all]
    pub service: Option<String>,
    /// Only requests from or to this namespace [default: all]
    #[arg(short, long, env = "MESHD_NAMESPACE", value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// All namespaces, as without --namespace
    #[arg(short = 'A', long, env = "MESHD_ALL_NAMESPACES", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub all_namespaces: bool,
    /// The caller: a workload, service, app or namespace, NAMESPACE/SERVICEACCOUNT, or a SPIFFE ID; `*` is any text
    #[arg(long, env = "MESHD_FROM", value_name = "WHO")]
    pub from: Vec<String>,
    /// The called one, by the same names
    #[arg(long, env = "MESHD_TO", value_name = "WHO")]
    pub to: Vec<String>,
    /// Method
    #[arg(short = 'X', long, env = "MESHD_METHOD", value_name = "METHOD")]
    pub method: Vec<String>,
    /// How the path begins; with a `*`, the form of the whole path
    #[arg(long, env = "MESHD_PATH", value_name = "PREFIX")]
    pub path: Vec<String>,
    /// Status: 503, 5xx, '>=400', 500-503; several with commas
    #[arg(long, env = "MESHD_STATUS", value_name = "STATUS")]
    pub status: Vec<String>,
    /// A header field of the request, 'NAME: VALUE' or NAME; `*` is any text; all must be there
    #[arg(short = 'H', long, env = "MESHD_HEADER", value_name = "NAME: VALUE")]
    pub header: Vec<String>,
    /// Only what this node's proxy tells
    #[arg(long, env = "MESHD_NODE", value_name = "NODE")]
    pub node: Option<String>,
    /// What the callers' proxies tell, those of the called, or both [default: each request once]
    #[arg(long, env = "MESHD_REPORTER", value_name = "SIDE", value_parser = ["source", "destination", "both"])]
    pub reporter: Option<String>,
    /// At most so many requests a second; the others are counted
    #[arg(long, env = "MESHD_MAX_RPS", value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_rps: u32,
    /// End after so many; of --last, the newest
    #[arg(long, env = "MESHD_LIMIT", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Show the header fields of requests and answers, credentials as ***
    #[arg(long, env = "MESHD_SHOW_HEADERS", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub show_headers: bool,
    /// End after so long
    #[arg(long = "for", env = "MESHD_FOR", value_name = "DURATION", value_parser = duration)]
    pub for_time: Option<Duration>,
    /// What proxies remember of the last time, such as 5m, in the place of what happens from now on
    #[arg(long, env = "MESHD_LAST", value_name = "DURATION", value_parser = duration, conflicts_with_all = ["for_time", "header", "show_headers"])]
    pub last: Option<Duration>,
    /// What proxies saved when success fell: a list, or NAME@NODE
    #[arg(long, env = "MESHD_SAVED", value_name = "NAME@NODE", num_args = 0..=1, default_missing_value = "", conflicts_with_all = ["for_time", "last", "service", "from", "to", "method", "path", "status", "header", "reporter", "show_headers"])]
    pub saved: Option<String>,
    /// How to print
    #[command(flatten)]
    pub output: OutputArgs,
}

impl TapArgs {
    fn request(&self) -> Result<TapRequestView, CliError> {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (mut saved, mut node) = (None, self.node.clone());
        if let Some(name) = &self.saved {
            saved = Some(String::new());
            if !name.is_empty() {
                let Some((file, at)) =
                    name.rsplit_once('@').filter(|(file, at)| !file.is_empty() && !at.is_empty())
                else {
                    return Err(CliError::Usage(format!(
                        "--saved {name:?}: expected NAME@NODE, as the list has them"
                    )));
                };
                (saved, node) = (Some(file.to_owned()), Some(at.to_owned()));
            }
        }
        Ok(TapRequestView {
            services: self.service.iter().cloned().collect(),
            namespace: self.namespace.clone().filter(|_| !self.all_namespaces),
            from: self.from.clone(),
            to: self.to.clone(),
            methods: self.method.clone(),
            paths: self.path.clone(),
            statuses: self.status.clone(),
            headers: self.header.clone(),
            reporter: self.reporter.clone(),
            node,
            most_per_second: self.max_rps,
            limit: self.limit,
            show_headers: self.show_headers,
            for_milliseconds: self.for_time.map(milliseconds),
            last_milliseconds: self.last.map(milliseconds),
            saved,
        })
    }

    fn lists(&self) -> bool {
        self.saved.as_deref() == Some("")
    }
}

/// Shows requests until it is over, or interrupted.
pub async fn tap(client: &Client, args: &TapArgs) -> Result<(), CliError> {
    let mut printer = Printer::new(args);
    let request = args.request()?;
    let ended = {
        let lines = client.lines("/v1/tap", &request, |line: TapLineView| printer.take(line));
        tokio::select! {
            ended = lines => ended.map_err(CliError::from),
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.map_err(|error| CliError::Failed(format!("cannot take signals: {error}")))
            }
        }
    };
    printer.last_words();
    ended?;
    match printer.failed {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Prints what comes.
struct Printer<'a> {
    args: &'a TapArgs,
    has_header: bool,
    shown: u64,
    over_limit: u64,
    lost: u64,
    problems: Vec<String>,
    failed: Option<CliError>,
}

impl<'a> Printer<'a> {
    fn new(args: &'a TapArgs) -> Printer<'a> {
        Printer {
            args,
            has_header: false,
            shown: 0,
            over_limit: 0,
            lost: 0,
            problems: Vec::new(),
            failed: None,
        }
    }

    fn take(&mut self, line: TapLineView) -> ControlFlow<()> {
        self.over_limit = line.over_limit.unwrap_or(self.over_limit);
        self.lost = line.lost.unwrap_or(self.lost);
        self.problems.extend(line.problem);
        let Some(event) = line.event else { return ControlFlow::Continue(()) };
        self.shown += 1;
        let mut text = String::new();
        if !self.has_header && matches!(self.args.output.output, Format::Table | Format::Wide) {
            self.has_header = true;
            text.push_str(&row(&self.columns().map(|(name, _)| ((*name).to_owned(), *name))));
        }
        match self.args.output.output {
            Format::Json => {
                text.push_str(&event.to_string());
                text.push('\n');
            }
            Format::Yaml => {
                text.push_str("---\n");
                text.push_str(&output::yaml(&event));
            }
            Format::Table | Format::Wide => {
                let cells = self.columns().map(|(name, read)| (read(&event), *name));
                text.push_str(&row(&cells));
                text.push_str(&fields(&event));
            }
        }
        self.write(&text)
    }

    /// Names of the columns, and what stands in them.
    fn columns(&self) -> Columns {
        let all: &'static [Column] = match (self.args.lists(), self.args.output.output) {
            (true, _) => &FILES,
            (false, Format::Wide) => &WIDE,
            (false, _) => &TABLE,
        };
        Columns(all)
    }

    /// A reader that has gone wants no more.
    fn write(&mut self, text: &str) -> ControlFlow<()> {
        let mut out = std::io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                if error.kind() != ErrorKind::BrokenPipe {
                    self.failed = Some(CliError::Failed(format!("cannot write the result: {error}")));
                }
                ControlFlow::Break(())
            }
        }
    }

    /// What was not shown, and why.
    fn last_words(&mut self) {
        let is_past = self.args.last.is_some() || self.args.saved.is_some();
        if is_past && self.shown == 0 && !self.problems.is_empty() && self.failed.is_none() {
            self.failed = Some(CliError::Failed(self.problems.join("\n")));
            return;
        }
        let mut text = String::new();
        for problem in &self.problems {
            text.push_str(&format!("warning: {problem}\n"));
        }
        if self.over_limit > 0 {
            let limit = self.args.max_rps;
            text.push_str(&format!(
                "{} requests matched and were not shown (limit {limit} rps)\n",
                self.over_limit
            ));
        }
        if self.lost > 0 {
            text.push_str(&format!(
                "{} requests matched and were lost: they were not read in time\n",
                self.lost
            ));
        }
        let _unwritable = std::io::stderr().lock().write_all(text.as_bytes());
    }
}

type Column = (&'static str, fn(&Value) -> String);

struct Columns(&'static [Column]);

impl Columns {
    fn map(&self, cell: impl Fn(&Column) -> (String, &'static str)) -> Vec<(String, &'static str)> {
        self.0.iter().map(cell).collect()
    }
}

const TABLE: [Column; 8] = [
    ("TIME", |event| event["time"].as_str().and_then(|time| time.get(11..23)).unwrap_or("").to_owned()),
    ("SOURCE", |event| text(event, "/source/workload")),
    ("DESTINATION", destination),
    ("METHOD", |event| text(event, "/method")),
    ("STATUS", |event| text(event, "/status")),
    ("FLAGS", |event| text(event, "/flags")),
    ("DURATION", |event| event["duration_ms"].as_f64().map_or_else(String::new, |ms| format!("{ms:.1}ms"))),
    ("PATH", |event| text(event, "/path")),
];
const WIDE: [Column; 14] = [
    TABLE[0],
    TABLE[1],
    TABLE[2],
    ("WORKLOAD", |event| text(event, "/destination/workload")),
    TABLE[3],
    TABLE[4],
    TABLE[5],
    TABLE[6],
    ("ATTEMPTS", |event| text(event, "/attempts")),
    ("ENDPOINT", |event| text(event, "/endpoint")),
    ("NODE", |event| text(event, "/node")),
    ("RULE", |event| {
        let rule = event.pointer("/route/rule").map_or_else(String::new, |rule| format!("[{rule}]"));
        format!("{}{rule}", text(event, "/route/resource"))
    }),
    ("REQUEST-ID", |event| text(event, "/request_id")),
    TABLE[7],
];
const FILES: [Column; 3] = [
    ("NAME", |event| format!("{}@{}", text(event, "/name"), text(event, "/node"))),
    ("NODE", |event| text(event, "/node")),
    ("BYTES", |event| text(event, "/bytes")),
];

/// The service, short where it is one of the mesh's.
fn destination(event: &Value) -> String {
    let host = text(event, "/destination/service");
    match host.split_once(".svc.") {
        Some((short, _)) => short.to_owned(),
        None => host,
    }
}

fn text(event: &Value, pointer: &str) -> String {
    match event.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    }
}

/// One row. It is printed before the next is known, so widths are what is usual.
fn row(cells: &[(String, &'static str)]) -> String {
    let mut line = String::new();
    for (cell, name) in cells {
        let width = match *name {
            "TIME" => 12,
            "SOURCE" | "WORKLOAD" => 18,
            "DESTINATION" => 24,
            "ENDPOINT" => 21,
            "REQUEST-ID" => 36,
            "RULE" => 40,
            "NAME" => 48,
            "DURATION" | "ATTEMPTS" | "BYTES" | "NODE" => 9,
            _ => 6,
        };
        // What comes from clients must not move the cursor.
        let cell: String = cell.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        let cell = if cell.is_empty() { "-" } else { &cell };
        line.push_str(&format!("{cell:<width$}   "));
    }
    format!("{}\n", line.trim_end())
}

/// Header fields, a line each below the row.
fn fields(event: &Value) -> String {
    let mut text = String::new();
    for (sign, name) in [('>', "request_headers"), ('<', "response_headers")] {
        for (name, value) in event[name].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            let line = format!("{name}: {value}").replace(char::is_control, "?");
            text.push_str(&format!("    {sign} {line}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;
    use crate::cli::{Cli, Command};

    fn args(words: &[&str]) -> Option<TapArgs> {
        match Cli::try_parse_from(["meshd", "tap"].iter().chain(words)).ok()?.command {
            Command::Tap(args) => Some(*args),
            _ => None,
        }
    }

    #[test]
    fn flags_become_a_request() {
        let request =
            args(&["reviews", "-X", "GET", "--status", "5xx", "-H", "k: v", "--for", "10s", "--node", "h1"]);
        let request = request.unwrap().request().unwrap();
        assert_eq!(request.services, ["reviews"]);
        assert_eq!((request.methods.len(), request.headers.len()), (1, 1));
        assert_eq!(request.statuses, ["5xx"]);
        assert_eq!((request.for_milliseconds, request.most_per_second), (Some(10_000), 100));
        assert_eq!(request.node.as_deref(), Some("h1"));
        let saved =
            |words: &[&str]| args(words).unwrap().request().map(|request| (request.saved, request.node));
        assert_eq!(saved(&["--saved"]).unwrap(), (Some(String::new()), None));
        assert_eq!(saved(&["--saved", "a.jsonl@h1"]).unwrap(), (Some("a.jsonl".into()), Some("h1".into())));
        assert!(saved(&["--saved", "a.jsonl"]).is_err());
    }

    #[test]
    fn what_does_not_go_together_is_wrong_usage() {
        for bad in [
            &["--last", "5m", "-H", "k: v"][..],
            &["--last", "5m", "--for", "1s"],
            &["--saved", "--status", "5xx"],
            &["--reporter", "nobody"],
            &["--max-rps", "0"],
            &["--limit", "0"],
        ] {
            assert!(args(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn rows_hold_nothing_that_moves_the_cursor() {
        let event = json!({"time": "2026-01-02T03:04:05.678Z", "path": "/\u{1b}[2J", "status": 200});
        let cells = Columns(&TABLE).map(|(name, read)| (read(&event), *name));
        let line = row(&cells);
        assert!(line.starts_with("03:04:05.678") && line.ends_with("/?[2J\n"), "{line:?}");
    }
}
