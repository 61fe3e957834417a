//! A real Prometheus on a host of the lab, and what it answers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use http::Method;
use serde_json::Value;

use super::client::Ask;
use super::netns::Namespace;
use super::process::{Process, Spec};

/// How long it may take to start, and to see what happened.
const PATIENCE: Duration = Duration::from_secs(30);

/// One that runs.
pub struct Prometheus {
    process: Process,
    host: Namespace,
    at: SocketAddr,
}

/// One series of an answer: its labels, and its newest value.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Labels by name.
    pub labels: Value,
    /// The value; NaN where it is none.
    pub value: f64,
}

impl Prometheus {
    /// Where the shipped configuration is.
    pub fn shipped() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/prometheus")
    }

    /// Starts it with the shipped configuration, which names these targets; scrapes and rules come every half second.
    pub fn start(
        host: &Namespace,
        program: &Path,
        folder: &Path,
        proxies: &[SocketAddr],
        control: &[SocketAddr],
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let config = std::fs::read_to_string(Self::shipped().join("scrape.yaml"))?;
        std::fs::write(folder.join("scrape.yaml"), config.replace("15s", "500ms"))?;
        std::fs::copy(Self::shipped().join("rules.yaml"), folder.join("rules.yaml"))?;
        for (name, targets) in [("mesh-proxies.yaml", proxies), ("mesh-control.yaml", control)] {
            let targets: Vec<String> = targets.iter().map(|target| format!("\"{target}\"")).collect();
            std::fs::write(folder.join(name), format!("- targets: [{}]\n", targets.join(", ")))?;
        }
        let at = SocketAddr::from(([127, 0, 0, 1], 9090));
        let process = Spec::new("prometheus", program)
            .args([format!("--config.file={}", folder.join("scrape.yaml").display())])
            .args([format!("--storage.tsdb.path={}", folder.join("data").display())])
            .args([format!("--web.listen-address={at}"), "--log.level=warn".to_owned()])
            .start(host, folder)?;
        let mut started = Self { process, host: host.clone(), at };
        let all = proxies.len() + control.len();
        started.wait_for("count(up == 1)", |up| up as usize == all)?;
        Ok(started)
    }

    /// Asks its interface.
    fn ask(&self, path: &str, form: &[(&str, &str)]) -> anyhow::Result<Value> {
        let body: Vec<String> = form.iter().map(|(key, value)| format!("{key}={}", escaped(value))).collect();
        let mut ask = Ask::get(format!("http://{}{path}", self.at)).patience(PATIENCE);
        if !form.is_empty() {
            ask = ask
                .method(Method::POST)
                .header("content-type", "application/x-www-form-urlencoded")
                .body(body.join("&"));
        }
        let answer = ask.send(&self.host, None)?;
        let json = answer.json();
        if json["status"] != "success" {
            bail!("{} {}", answer.status, answer.text());
        }
        Ok(json["data"].clone())
    }

    /// What a query gives now.
    pub fn query(&self, query: &str) -> anyhow::Result<Vec<Sample>> {
        let data = self.ask("/api/v1/query", &[("query", query)]).with_context(|| query.to_owned())?;
        let number = |value: &Value| value.as_str().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN);
        if data["resultType"] == "scalar" {
            return Ok(vec![Sample { labels: Value::Null, value: number(&data["result"][1]) }]);
        }
        let rows = data["result"].as_array().cloned().unwrap_or_default();
        Ok(rows
            .into_iter()
            .map(|row| Sample { labels: row["metric"].clone(), value: number(&row["value"][1]) })
            .collect())
    }

    /// The one value of a query; 0 where there is nothing.
    pub fn value(&self, query: &str) -> anyhow::Result<f64> {
        let rows = self.query(query)?;
        match &rows[..] {
            [] => Ok(0.0),
            [one] => Ok(one.value),
            more => bail!("{} series of {query}", more.len()),
        }
    }

    /// Waits until the value of a query is as it should be; the last value, whatever it is.
    pub fn wait_for(&mut self, query: &str, is_so: impl Fn(f64) -> bool) -> anyhow::Result<f64> {
        let end = Instant::now() + PATIENCE;
        loop {
            let value = self.value(query);
            match value {
                Ok(value) if is_so(value) || Instant::now() > end => return Ok(value),
                Err(error) if Instant::now() > end || !self.process.is_running() => {
                    return Err(error.context(self.process.stderr()));
                }
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// The values of a label of the series that a selector means.
    pub fn label_values(&self, label: &str, selector: &str) -> anyhow::Result<Vec<String>> {
        let data = self.ask(&format!("/api/v1/label/{label}/values?match[]={}", escaped(selector)), &[])?;
        Ok(data.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect())
    }

    /// All rules with their health.
    pub fn rules(&self) -> anyhow::Result<Vec<Value>> {
        let data = self.ask("/api/v1/rules", &[])?;
        let groups = data["groups"].as_array().cloned().unwrap_or_default();
        Ok(groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect())
    }
}

/// A text as forms and queries have it.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
