//! Logging, and what meshd counts.

use std::io::IsTerminal;
use std::time::Duration;

use mesh_core::telemetry::exposition::{Family, Form, Kind, Page};
use metrics::Recorder as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

mod counted;
pub mod names;
mod open_metrics;

pub use counted::*;
/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// Sends the program's log to standard error; `RUST_LOG` chooses what, `fallback` where it is not set.
pub fn start_logging(format: LogFormat, fallback: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(fallback));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A second start in one process (tests) keeps the first.
    let _already_set = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}

/// Collects what is counted and renders it for Prometheus.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

/// What was measured is folded into buckets so often: it is kept singly until then.
const FOLD: Duration = Duration::from_secs(5);
const SECONDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];
const LONG_SECONDS: [f64; 10] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];

impl Metrics {
    /// Installs the recorder of this process. A second one in the same process records nothing.
    pub fn install() -> Metrics {
        let convergence = Matcher::Full(names::CONVERGENCE.name.to_owned());
        let builder = PrometheusBuilder::new();
        // Both fail only for an empty list of buckets.
        let builder = builder.set_buckets(&SECONDS).expect("there are buckets");
        let builder = builder.set_buckets_for_metric(convergence, &LONG_SECONDS).expect("there are buckets");
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        for Family { name, kind, help } in names::ALL {
            match kind {
                Kind::Counter => recorder.describe_counter((*name).into(), None, (*help).into()),
                Kind::Gauge => recorder.describe_gauge((*name).into(), None, (*help).into()),
                Kind::Histogram => recorder.describe_histogram((*name).into(), None, (*help).into()),
            }
        }
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::debug!("metrics are recorded by an earlier instance in this process");
        }
        Metrics { handle }
    }

    /// The text that Prometheus scrapes, with what is added to it.
    pub fn render(&self, form: Form, add: impl FnOnce(&mut Page)) -> String {
        let counted = self.handle.render();
        let mut page = Page::new(form, 4096);
        add(&mut page);
        match form {
            Form::Text => counted + &page.finish(),
            Form::OpenMetrics => open_metrics::of_text(&counted) + &page.finish(),
        }
    }

    /// Folds what was measured, so that it does not grow where nobody scrapes; runs until it is dropped.
    pub async fn keep(self) {
        loop {
            tokio::time::sleep(FOLD).await;
            self.handle.run_upkeep();
        }
    }
}
