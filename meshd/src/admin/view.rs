//! The shapes of the admin API, which are those of `-o json`. Names are part of the contract with scripts.

use mesh_core::resource::diagnostic::Diagnostic;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A file to apply, delete or judge.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FileView {
    /// Name for messages.
    pub name: String,
    /// Content.
    pub text: String,
}

/// What to apply.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ApplyRequest {
    /// The files, in order.
    pub files: Vec<FileView>,
    /// Judge only.
    #[serde(default)]
    pub dry_run: bool,
    /// Refuse kinds that mean nothing here instead of skipping them.
    #[serde(default)]
    pub strict: bool,
    /// Namespace of resources that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// What to remove: what the files name, or one resource.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DeleteRequest {
    /// The files, in order.
    #[serde(default)]
    pub files: Vec<FileView>,
    /// Or the keys, as `virtualservice/default/reviews`.
    #[serde(default)]
    pub keys: Vec<String>,
    /// Judge only.
    #[serde(default)]
    pub dry_run: bool,
    /// Do not mind what is not there.
    #[serde(default)]
    pub ignore_not_found: bool,
    /// Namespace of resources that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Which version to go back to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RollbackRequest {
    /// The version.
    pub version: u64,
    /// Judge only.
    #[serde(default)]
    pub dry_run: bool,
}

/// What happened to one resource.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChangeView {
    /// `virtualservice/default/reviews`.
    pub resource: String,
    /// `created`, `configured`, `unchanged` or `deleted`.
    pub result: String,
}

/// An accepted batch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AppliedView {
    /// The version that the mesh has now.
    pub version: u64,
    /// What happened to each resource.
    pub resources: Vec<ChangeView>,
    /// What was skipped or looks odd.
    #[serde(default)]
    pub warnings: Vec<DiagnosticView>,
}

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiagnosticView {
    /// `IST0101`, `MSH0001`.
    pub code: String,
    /// `error`, `warning`, `info`.
    pub severity: String,
    /// `virtualservice/default/reviews`.
    pub resource: String,
    /// File.
    pub file: String,
    /// Line, from 1; 0 where it is not known.
    pub line: u32,
    /// Path of the field.
    pub field: String,
    /// What was found.
    pub message: String,
}

impl From<&Diagnostic> for DiagnosticView {
    fn from(found: &Diagnostic) -> DiagnosticView {
        DiagnosticView {
            code: found.code.to_owned(),
            severity: found.severity.name().to_owned(),
            resource: found.resource.to_string(),
            file: found.file.to_string(),
            line: found.line,
            field: found.field.clone(),
            message: found.message.clone(),
        }
    }
}

impl std::fmt::Display for DiagnosticView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}:", self.file)?;
            if self.line > 0 {
                write!(f, "{}:", self.line)?;
            }
            f.write_str(" ")?;
        }
        write!(f, "{}", self.severity)?;
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        if !self.resource.is_empty() {
            write!(f, " {}", self.resource)?;
        }
        if !self.field.is_empty() {
            write!(f, " {}", self.field)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Why a request was refused.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RefusalView {
    /// In one sentence.
    pub error: String,
    /// Or finding by finding.
    #[serde(default)]
    pub diagnostics: Vec<DiagnosticView>,
}

/// A stored resource.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResourceView {
    /// `virtualservice/default/reviews`.
    pub key: String,
    /// Namespace; empty for a Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// When it was first committed, in seconds since 1970.
    pub created: i64,
    /// The version that brought its content.
    pub version: u64,
    /// The `--config` file that owns it.
    pub owner: String,
    /// The whole resource.
    pub resource: Value,
}

/// A declared resource beside what is in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ComparedView {
    /// `virtualservice/default/reviews`.
    pub resource: String,
    /// `created`, `configured` or `unchanged`: what `apply` would say.
    pub result: String,
    /// Where it was read.
    pub file: String,
    /// Its first line.
    pub line: u32,
    /// The version that brought what is in force; 0 where nothing is.
    pub version: u64,
    /// What is in force; null where nothing is.
    pub before: Value,
    /// What was read.
    pub after: Value,
}

/// Files compared with what is in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CompareView {
    /// The resources, in the order of the files.
    pub resources: Vec<ComparedView>,
    /// What `apply` would say of them.
    pub findings: Vec<DiagnosticView>,
}

/// Something that a resource names or selects, or that names or selects it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceView {
    /// `routes to`.
    pub verb: String,
    /// The other resource; empty if there is none.
    pub resource: String,
    /// The field that names or selects.
    pub field: String,
    /// More about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// What lies between: the workload of a service that a policy selects.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub through: String,
}

/// A resource in words.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DescribeView {
    /// `virtualservice/default/reviews`.
    pub resource: String,
    /// The version that brought its content; absent where a node announced it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// When it was first committed.
    pub created: String,
    /// The `--config` file that owns it.
    pub owner: String,
    /// What it says, a line a thing.
    pub says: Vec<String>,
    /// Whom it refers to.
    pub refers_to: Vec<ReferenceView>,
    /// Who refers to it.
    pub referred_by: Vec<ReferenceView>,
    /// What is wrong with it.
    pub findings: Vec<DiagnosticView>,
}

/// A proxy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusView {
    /// Node.
    pub node: String,
    /// Where peers reach it.
    pub address: String,
    /// Whether its stream is open.
    pub connected: bool,
    /// Version last sent.
    pub sent: u64,
    /// Version last acknowledged.
    pub acknowledged: u64,
    /// `SYNCED`, `STALE` or `REJECTED`.
    pub state: String,
    /// Why it is not SYNCED.
    pub reason: String,
    /// Whether its workloads are taken out of every caller's snapshot: drained by the operator, or its proxy is ending.
    #[serde(default)]
    pub draining: bool,
    /// End of its certificate.
    pub certificate_expires: String,
    /// Sockets that it could not open, with the reason.
    #[serde(default)]
    pub listener_faults: Vec<String>,
    /// What of its announcement is not taken in, with the reason.
    #[serde(default)]
    pub refused: Vec<String>,
}

/// A port of a service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PortView {
    /// Name; may be empty.
    pub name: String,
    /// Number.
    pub port: u16,
    /// What it speaks.
    pub protocol: String,
}

/// A service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceView {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Fully qualified host.
    pub host: String,
    /// Ports.
    pub ports: Vec<PortView>,
    /// Its address in the default loopback net.
    pub address: String,
    /// How many workloads it has.
    pub workloads: usize,
    /// How many of them are healthy.
    pub healthy: usize,
}

/// A workload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkloadView {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Host that it runs on; empty if none has joined.
    pub node: String,
    /// Address.
    pub address: String,
    /// Service account; empty if it has none.
    pub service_account: String,
    /// SPIFFE ID; empty if it has none.
    pub identity: String,
    /// Labels.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Names of the services that it is part of.
    pub services: Vec<String>,
    /// `healthy`, `unhealthy` or `unknown`.
    pub health: String,
    /// Why it is not healthy.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// How a workload fares.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HealthView {
    /// Name of the workload.
    pub workload: String,
    /// Namespace.
    pub namespace: String,
    /// What its own proxy checks; empty for nothing.
    pub check: String,
    /// `healthy`, `unhealthy`, `unknown`, or `draining` where callers turn away from its host.
    pub health: String,
    /// Since when, as far as meshd knows; empty if nobody has told.
    pub since: String,
    /// Why it is not healthy.
    pub reason: String,
    /// Hosts whose callers leave it alone because it failed.
    pub ejected_by: Vec<String>,
}

/// A configuration version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HistoryView {
    /// Version.
    pub version: u64,
    /// When.
    pub time: String,
    /// Who.
    pub author: String,
    /// What.
    pub changes: Vec<String>,
    /// Connected proxies that run it or a later one.
    pub acknowledged: usize,
    /// Connected proxies.
    pub connected: usize,
}

/// What a token is to allow.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenRequestView {
    /// The only node that may use it.
    pub node: String,
    /// `NS/SA`, or `*`.
    pub service_accounts: Vec<String>,
    /// How long it is good, in seconds.
    pub ttl_seconds: u64,
    /// How many different keys may use it.
    pub uses: u32,
}

/// A token, shown once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewTokenView {
    /// Its name.
    pub id: String,
    /// The secret text.
    pub token: String,
}

/// A token in a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TokenView {
    /// Its name.
    pub id: String,
    /// The only node that may use it.
    pub node: String,
    /// `NS/SA`, or `*`.
    pub service_accounts: Vec<String>,
    /// When it was made.
    pub created: String,
    /// When it ends.
    pub expires: String,
    /// How many different keys may use it.
    pub uses: u32,
    /// How many did.
    pub used: usize,
    /// `valid`, `used` or `expired`.
    pub state: String,
}

/// A joined host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeView {
    /// Name.
    pub node: String,
    /// Where peers reach it.
    pub address: String,
    /// `NS/SA`, or `*`.
    pub service_accounts: Vec<String>,
    /// When it joined first.
    pub joined: String,
    /// End of its certificate.
    pub certificate_expires: String,
    /// Thrown out.
    pub revoked: bool,
    /// Whether its proxy is connected.
    pub connected: bool,
    /// Whether the operator has drained it.
    #[serde(default)]
    pub drained: bool,
}

/// How long to wait for those who call the workloads of a host that is drained, or let back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DrainRequest {
    /// In milliseconds.
    pub timeout_ms: u64,
}

/// What to allow a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AllowRequest {
    /// `NS/SA`, or `*`.
    pub service_accounts: Vec<String>,
}

/// Whether all connected proxies run a version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SyncView {
    /// The version that was waited for.
    pub version: u64,
    /// Connected proxies that do not run it; empty when the wait was fulfilled.
    pub lagging: Vec<StatusView>,
}

/// One check of the installation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckView {
    /// What was looked at.
    pub check: String,
    /// Whether it is sound.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

/// A question for `explain`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ExplainRequest {
    /// `NS/SERVICEACCOUNT[@NODE]`; empty for a client outside of the mesh.
    #[serde(default)]
    pub from: String,
    /// Gateway that a client outside of the mesh enters through, `NS/NAME`; empty for none.
    #[serde(default)]
    pub gateway: String,
    /// Whether the caller's connections are captured: then the address that one is opened to has a meaning.
    #[serde(default)]
    pub captured: bool,
    /// URL.
    pub to: String,
    /// Method.
    pub method: String,
    /// `Name: value`.
    pub headers: Vec<String>,
    /// `key=value` of the caller's workload.
    pub labels: Vec<String>,
}

/// What `tap` asks for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TapRequestView {
    /// Services that are called.
    pub services: Vec<String>,
    /// Namespace of the caller or the called.
    pub namespace: Option<String>,
    /// Callers.
    pub from: Vec<String>,
    /// Those who are called.
    pub to: Vec<String>,
    /// Methods.
    pub methods: Vec<String>,
    /// Beginnings or forms of paths.
    pub paths: Vec<String>,
    /// Statuses.
    pub statuses: Vec<String>,
    /// `Name: value`.
    pub headers: Vec<String>,
    /// `source`, `destination` or `both`; each exchange once where it is not said.
    pub reporter: Option<String>,
    /// The one node whose proxy is asked.
    pub node: Option<String>,
    /// At most so many a second.
    pub most_per_second: u32,
    /// At most so many at all.
    pub limit: Option<u64>,
    /// Whether the fields of requests and answers are shown.
    pub show_headers: bool,
    /// It ends after so long.
    pub for_milliseconds: Option<u64>,
    /// What is remembered of so long a time, in the place of what happens from now on.
    pub last_milliseconds: Option<u64>,
    /// What was saved: this file, or a list where it is empty.
    pub saved: Option<String>,
}

/// A line of the answer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TapLineView {
    /// An exchange.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<Value>,
    /// Exchanges that matched so far and were not shown: beyond the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub over_limit: Option<u64>,
    /// The same: nobody took them in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
    /// A proxy cannot answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Nothing more comes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub end: bool,
}
