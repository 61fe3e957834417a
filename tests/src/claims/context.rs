//! What a claim is given: the lab, the report, and the way back to the beginning.

use anyhow::Context as _;
use serde_json::Value;

use crate::harness::bookshop::whole_page;
use crate::harness::client::Ask;
use crate::harness::isolate::Inside;
use crate::harness::lab::{Lab, yaml};
use crate::harness::load::{Judge, Load, LoadSpec, Tally};
use crate::harness::netns::Namespace;
use crate::report::Report;

/// The files that a fresh lab has applied.
const BASELINE: [&str; 3] = ["bookshop.yaml", "destination-rules.yaml", "strict.yaml"];

/// What a claim works with.
pub struct Context<'a> {
    /// Where findings go.
    pub report: &'a mut Report,
    /// The namespaces and the scratch directory.
    pub inside: &'a Inside,
    lab: Option<Lab>,
    labs: u32,
}

impl<'a> Context<'a> {
    pub(super) fn new(inside: &'a Inside, report: &'a mut Report) -> Self {
        Self { report, inside, lab: None, labs: 0 }
    }

    /// The lab, started if none runs.
    pub fn lab(&mut self) -> anyhow::Result<&mut Lab> {
        if self.lab.is_none() {
            self.labs += 1;
            let scratch = self.inside.scratch.join("logs").join(format!("lab-{}", self.labs));
            let report = &*self.report;
            let lab = Lab::start(self.inside, &scratch, |_| ()).context("starting the lab")?;
            report.say("  (a lab of three hosts has been started)");
            self.lab = Some(lab);
        }
        self.lab.as_mut().context("no lab")
    }

    /// A control node with the bookshop declared, and hosts on which nothing runs.
    pub fn control_only(&mut self) -> anyhow::Result<Lab> {
        let scratch = self.scratch()?;
        let mut lab = Lab::lay_out(self.inside, &scratch)?;
        lab.control.start()?;
        for file in BASELINE {
            lab.control.apply(&yaml(file))?;
        }
        Ok(lab)
    }

    /// A directory for a claim that starts its own things.
    pub fn scratch(&mut self) -> anyhow::Result<std::path::PathBuf> {
        self.labs += 1;
        let scratch = self.inside.scratch.join("logs").join(format!("lab-{}", self.labs));
        std::fs::create_dir_all(&scratch)?;
        Ok(scratch)
    }

    /// Ends the lab.
    pub fn discard_lab(&mut self) {
        self.lab = None;
    }

    /// Brings the lab's configuration back to what it was, or ends a lab that cannot be brought back.
    pub(super) fn settle(&mut self) {
        if let Some(lab) = &self.lab
            && let Err(error) = reset(lab)
        {
            self.report.say(&format!("  (the lab could not be brought back and is started anew: {error:#})"));
            self.lab = None;
        }
    }
}

/// Removes what claims have applied and applies the beginning again.
fn reset(lab: &Lab) -> anyhow::Result<()> {
    let control = &lab.control;
    for kind in [
        "virtualservice",
        "authorizationpolicy",
        "ratelimit",
        "serviceentry",
        "destinationrule",
        "peerauthentication",
        "sidecar",
        "workloadgroup",
        "secret",
        "meshconfig",
    ] {
        let listed = control.must(["get", kind, "-A", "-o", "json"])?.json()?;
        let rows = listed.as_array().or_else(|| listed["items"].as_array()).cloned().unwrap_or_default();
        for row in rows {
            let text = |path: &str| row.pointer(path).and_then(Value::as_str).unwrap_or("default").to_owned();
            control.must(["delete", kind, &text("/metadata/name"), "-n", &text("/metadata/namespace")])?;
        }
    }
    for file in BASELINE {
        control.apply(&yaml(file))?;
    }
    Ok(())
}

impl Lab {
    /// Makes so many requests over eight connections and counts the answers.
    pub fn count(&self, from: &Namespace, user: Option<u32>, ask: Ask, count: usize, judge: Judge) -> Tally {
        let connections = count.min(8);
        let spec = LoadSpec { ask, connections, pause: std::time::Duration::ZERO, count: Some(count), judge };
        Load::run(from, user, spec)
    }

    /// Gets so many pages and counts the versions of the reviews in them.
    pub fn pages(&self, ask: Ask, count: usize) -> Tally {
        self.count(self.h1(), None, ask, count, whole_page)
    }

    /// Makes a request as productpage does.
    pub fn as_productpage(&self, ask: &Ask) -> anyhow::Result<crate::harness::client::Answer> {
        ask.send(self.h1(), self.user("productpage-v1"))
    }

    /// Makes a request as reviews v3 does.
    pub fn as_reviews(&self, ask: &Ask) -> anyhow::Result<crate::harness::client::Answer> {
        ask.send(&self.proxies[2].host, self.user("reviews-v3"))
    }
}
