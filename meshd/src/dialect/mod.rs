//! Documents to resources: strict, with file, line and field of every fault, all faults at once.
//!
//! The layers, each ignorant of the next: `yaml` and `json` make nodes with places, `field` reads typed values out of
//! nodes and collects what does not fit, `istio` and `kubernetes` know the shapes. What comes out is valid by
//! itself; whether it fits other resources is not judged here.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use mesh_core::resource::Resource;
use mesh_core::resource::diagnostic::{Diagnostic, Severity};
use mesh_core::resource::kubernetes::PodTemplate;
use mesh_core::vocab::name::Text;
use mesh_core::vocab::origin::{Kind, ResourceKey};

mod annotation;
pub mod compatibility;
mod document;
mod export;
mod field;
mod istio;
mod json;
pub(crate) mod kind;
mod kubernetes;
mod mesh;
mod metadata;
mod node;
mod re2;
mod scalar;
mod yaml;

pub use yaml::LARGEST_FILE;

#[cfg(test)]
mod tests;

use document::{Interpreted, Meaning, interpret};
use field::Compiled;
pub(crate) use field::NOT_CARRIED_OUT;
use node::{Entry, Mark, Node, Value};

/// A file could not be read as YAML, or is beyond the limits.
pub const UNREADABLE: &str = "MSH0011";
/// A resource is there twice.
pub const TWICE: &str = "MSH0012";
/// A kind of Kubernetes that means nothing here was skipped.
pub const SKIPPED: &str = "MSH0013";

/// Most resources in one batch.
const MOST_RESOURCES: usize = 100_000;
/// The age of what is to lose against everything older: the end of the year 9999, in milliseconds since 1970.
pub(crate) const YOUNGEST: u64 = 253_402_300_799_000;
/// Most refused resources that are kept for analysis.
const MOST_FAULTY: usize = 1_000;
/// Most errors that are worth showing.
const MOST_ERRORS: usize = 1_000;
/// Most warnings that are kept; they stop nothing.
const MOST_WARNINGS: usize = 10_000;

/// A file, by the name under which faults are to be reported.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Name; `-` for standard input.
    pub file: &'a str,
    /// Contents.
    pub bytes: &'a [u8],
}

/// How to read.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether kinds of Kubernetes that mean nothing here are refused instead of skipped.
    pub strict: bool,
    /// Namespace of resources that name none.
    pub default_namespace: Text,
    /// Whether the resources are to be carried out: what has no effect on the wire yet is then an error instead
    /// of an entry of [`Parsed::pending`].
    pub carried_out: bool,
}

impl Options {
    /// For resources that proxies are to follow.
    pub fn to_apply() -> Options {
        Options { carried_out: true, ..Options::default() }
    }
}

impl Default for Options {
    fn default() -> Options {
        Options { strict: false, default_namespace: "default".into(), carried_out: false }
    }
}

/// A resource and the document that declared it.
#[derive(Debug, Clone)]
pub struct Document {
    /// What it declares. `created` is the document's `creationTimestamp`, 0 where it has none.
    pub resource: Resource,
    /// The document in canonical form, as JSON: keys in the order in which they were written, the namespace
    /// filled in, without `status` and what a server sets.
    pub json: Box<str>,
    marks: Box<[Mark]>,
}

impl Document {
    /// Line and column of a field such as `spec.http[0].route[0].destination.host`, or of the nearest one
    /// above it that is written.
    pub fn locate(&self, field: &str) -> (u32, u32) {
        // Seldom asked for, so it is text that is kept.
        let json = serde_json::from_str(&self.json).unwrap_or_default();
        let mark = node::locate(&json, &self.marks, field);
        (mark.line, mark.column)
    }

    /// A document out of the store, to be carried out again. `created_ms` is when it was first committed.
    pub fn from_json(json: &str, created_ms: u64) -> Result<Document, Vec<Diagnostic>> {
        let read = interpret(&stored(json)?, &"".into(), "default", &Rc::default());
        let resource = understood(read, created_ms, true)?;
        Ok(Document { resource, json: json.into(), marks: Box::default() })
    }
}

/// What a batch of files holds.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    /// The valid resources, in the order in which they were written.
    pub documents: Vec<Document>,
    /// Errors and warnings. With an error among them nothing is to be applied.
    pub diagnostics: Vec<Diagnostic>,
    /// What is valid and understood but has no effect on the wire yet.
    pub pending: Vec<Diagnostic>,
    /// Resources that were refused and could still be read: what they refer to can be analysed.
    pub faulty: Vec<Document>,
    /// Templates of pods in kinds of Kubernetes that are skipped otherwise, for analysis.
    pub pods: Vec<PodTemplate>,
}

impl Parsed {
    /// Whether anything was refused.
    pub fn is_refused(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }
}

/// Reads all documents of all files.
pub fn parse(inputs: &[Input<'_>], options: &Options) -> Parsed {
    let mut batch = Batch::new(options);
    for input in inputs {
        batch.file(input);
    }
    batch.finish()
}

/// Reads a document out of the store again. `created_ms` is when it was first committed.
pub fn from_json(json: &str, created_ms: u64) -> Result<Resource, Vec<Diagnostic>> {
    Stored::default().resource(json, created_ms)
}

/// Reads the documents of a store; what is in several of them is made once.
#[derive(Default)]
pub struct Stored {
    compiled: Rc<Compiled>,
}

impl Stored {
    /// The resource of a document. `created_ms` is when it was first committed.
    pub fn resource(&self, json: &str, created_ms: u64) -> Result<Resource, Vec<Diagnostic>> {
        understood(interpret(&stored(json)?, &"".into(), "default", &self.compiled), created_ms, false)
    }
}

fn stored(json: &str) -> Result<Node, Vec<Diagnostic>> {
    let value: Result<serde_json::Value, _> = serde_json::from_str(json);
    value
        .map(|value| Node::from_json(&value))
        .map_err(|error| vec![unplaced(UNREADABLE, "", error.to_string())])
}

fn understood(read: Interpreted, created_ms: u64, carried_out: bool) -> Result<Resource, Vec<Diagnostic>> {
    match read.meaning {
        Meaning::Resource(_) if carried_out && !read.pending.is_empty() => Err(read.pending),
        Meaning::Resource(mut resource) => {
            resource.meta.created = created_ms;
            Ok(*resource)
        }
        Meaning::Faulty(_) | Meaning::Refused => Err(read.diagnostics),
        Meaning::Skipped(kind) => Err(vec![unplaced(SKIPPED, "kind", format!("{kind} means nothing here"))]),
    }
}

/// Settings of the mesh as a document by a name of their own, so that they are beside those that were applied and
/// not in their place. Istio's ConfigMaps are told by how their name begins.
fn mesh_config_of(node: Node) -> Node {
    let mark = node.mark;
    let Value::Map(mut entries) = node.value else { return node };
    let text = |text: &str| Node { mark, value: Value::Text(text.into()) };
    let entry = |key: &str, value| Entry { key: key.into(), mark, value };
    if !entries.iter().any(|entry| &*entry.key == "kind") {
        entries.insert(0, entry("kind", text(Kind::MeshConfig.name())));
    }
    let name = entry("name", text("istio-mesh-config-file"));
    match entries.iter_mut().find(|entry| &*entry.key == "metadata").map(|entry| &mut entry.value.value) {
        Some(Value::Map(metadata)) => {
            metadata.retain(|entry| &*entry.key != "name");
            metadata.insert(0, name);
        }
        Some(_) => {}
        None => entries.insert(1, entry("metadata", Node { mark, value: Value::Map(vec![name]) })),
    }
    Node { mark, value: Value::Map(entries) }
}

fn unplaced(code: &'static str, field: &str, message: String) -> Diagnostic {
    let (resource, file) = ("".into(), "".into());
    Diagnostic {
        code,
        severity: Severity::Error,
        resource,
        file,
        line: 0,
        column: 0,
        field: field.to_owned(),
        message,
    }
}

/// Reads files one after another; of each its resources are kept, not its text.
pub struct Batch<'o> {
    options: &'o Options,
    parsed: Parsed,
    errors: usize,
    warnings: usize,
    compiled: Rc<Compiled>,
    /// Where each resource was seen first.
    seen: HashMap<ResourceKey, (Text, u32)>,
    /// Kinds that were skipped: the first one and how many.
    skipped: BTreeMap<String, (Diagnostic, usize)>,
}

impl<'o> Batch<'o> {
    /// A batch without files.
    pub fn new(options: &'o Options) -> Batch<'o> {
        Batch {
            options,
            parsed: Parsed::default(),
            errors: 0,
            warnings: 0,
            compiled: Rc::default(),
            seen: HashMap::new(),
            skipped: BTreeMap::new(),
        }
    }

    /// Adds the documents of a file.
    pub fn file(&mut self, input: &Input<'_>) {
        self.each(input, |node| node);
    }

    fn each(&mut self, input: &Input<'_>, prepare: impl Fn(Node) -> Node) {
        let file = Text::from(input.file);
        let text = match yaml::text(input.bytes) {
            Ok(text) => text,
            Err(fault) => return self.unreadable(&file, fault),
        };
        let json = json::document(text);
        if let (None, Err(fault)) = (&json, yaml::check_shape(text)) {
            return self.unreadable(&file, fault);
        }
        let is_json = json.is_some();
        let mut reader = yaml::Reader::new(text);
        let yaml = std::iter::from_fn(|| if is_json { None } else { reader.next() });
        for read in json.into_iter().chain(yaml) {
            if self.is_full() {
                return;
            }
            match read {
                Ok((node, faults)) => {
                    for fault in faults {
                        self.unreadable(&file, fault);
                    }
                    self.document(&file, prepare(node));
                }
                Err(fault) => return self.unreadable(&file, fault),
            }
        }
    }

    /// Adds the settings of the mesh that `--mesh-config` names: a document, Istio's ConfigMap, or the settings
    /// bare. They are as young as can be, so that a MeshConfig among the resources wins.
    pub fn mesh_config(&mut self, input: &Input<'_>) {
        let first = self.parsed.documents.len();
        self.each(input, mesh_config_of);
        let mut strangers = Vec::new();
        for document in &mut self.parsed.documents[first..] {
            let meta = &mut document.resource.meta;
            meta.created = YOUNGEST;
            if meta.key.kind != Kind::MeshConfig {
                strangers.push((meta.place.clone(), meta.key.to_string()));
            }
        }
        for (place, key) in strangers {
            let mark = Mark { line: place.line, column: 1 };
            let message = "--mesh-config takes a MeshConfig only".to_owned();
            self.finding(UNREADABLE, &key, &place.file, mark, message);
        }
    }

    fn is_full(&self) -> bool {
        self.errors > MOST_ERRORS || self.parsed.documents.len() > MOST_RESOURCES
    }

    fn keep(&mut self, found: Diagnostic) {
        let (count, most) = match found.severity {
            Severity::Error => (&mut self.errors, MOST_ERRORS),
            Severity::Warning | Severity::Info => (&mut self.warnings, MOST_WARNINGS),
        };
        *count += 1;
        if *count <= most {
            self.parsed.diagnostics.push(found);
        }
    }

    /// A document, or each item of a list of them.
    fn document(&mut self, file: &Text, node: Node) {
        if node.value == Value::Null {
            return;
        }
        if let Value::List(items) = node.value {
            // As `get -o yaml` prints several.
            for item in items {
                if self.is_full() {
                    return;
                }
                self.document(file, item);
            }
            return;
        }
        let is_list = node.text_at("kind").is_some_and(|kind| kind.ends_with("List"));
        if !is_list || node.entry("items").is_none() {
            return self.resource(file, node);
        }
        let Value::Map(entries) = node.value else { return };
        let Some(items) = entries.into_iter().find(|entry| &*entry.key == "items") else { return };
        let mark = items.value.mark;
        match items.value.value {
            Value::List(items) => {
                for item in items {
                    if self.is_full() {
                        return;
                    }
                    self.document(file, item);
                }
            }
            Value::Null => {}
            found => {
                let message = format!("items: found {found}, wanted a list of resources");
                self.unreadable(file, yaml::Fault { mark, message });
            }
        }
    }

    fn resource(&mut self, file: &Text, node: Node) {
        let options = self.options;
        let read = interpret(&node, file, &options.default_namespace, &self.compiled);
        if self.parsed.pods.len() < MOST_RESOURCES {
            self.parsed.pods.extend(read.pods);
        }
        read.diagnostics.into_iter().for_each(|found| self.keep(found));
        if self.options.carried_out {
            read.pending.into_iter().for_each(|found| self.keep(found));
        } else if self.parsed.pending.len() < MOST_WARNINGS {
            self.parsed.pending.extend(read.pending);
        }
        match read.meaning {
            Meaning::Refused => {}
            Meaning::Faulty(resource) => {
                if !self.options.carried_out && self.parsed.faulty.len() < MOST_FAULTY {
                    let (json, marks) = document::canonical(node, &resource.meta.key);
                    self.parsed.faulty.push(Document { resource: *resource, json, marks });
                }
            }
            Meaning::Skipped(kind) => self.skip(file, &node, kind),
            Meaning::Resource(resource) => {
                let key = resource.meta.key.clone();
                let line = resource.meta.place.line;
                if let Some((first, first_line)) = self.seen.get(&key) {
                    let message = format!("declared twice, first in {first}:{first_line}");
                    return self.finding(TWICE, &key.to_string(), file, node.mark, message);
                }
                let (json, marks) = document::canonical(node, &resource.meta.key);
                if self.parsed.documents.len() == MOST_RESOURCES {
                    let message = format!("more than {MOST_RESOURCES} resources at once");
                    self.finding(UNREADABLE, "", file, Mark { line, column: 1 }, message);
                }
                self.seen.insert(key, (file.clone(), line));
                self.parsed.documents.push(Document { resource: *resource, json, marks });
            }
        }
    }

    fn skip(&mut self, file: &Text, node: &Node, kind: String) {
        if let Some((_, count)) = self.skipped.get_mut(&kind) {
            *count += 1;
            return;
        }
        let severity = if self.options.strict { Severity::Error } else { Severity::Warning };
        let first = Diagnostic {
            code: SKIPPED,
            severity,
            resource: "".into(),
            file: file.clone(),
            line: node.mark.line,
            column: node.mark.column,
            field: String::new(),
            message: String::new(),
        };
        self.skipped.insert(kind, (first, 1));
    }

    fn unreadable(&mut self, file: &Text, fault: yaml::Fault) {
        self.finding(UNREADABLE, "", file, fault.mark, fault.message);
    }

    fn finding(&mut self, code: &'static str, resource: &str, file: &Text, mark: Mark, message: String) {
        self.keep(Diagnostic {
            code,
            severity: Severity::Error,
            resource: resource.into(),
            file: file.clone(),
            line: mark.line,
            column: mark.column,
            field: String::new(),
            message,
        });
    }

    /// What all files hold together.
    pub fn finish(mut self) -> Parsed {
        if self.errors > MOST_ERRORS {
            let message = format!("more than {MOST_ERRORS} errors; the rest is left out");
            self.parsed.diagnostics.push(unplaced(UNREADABLE, "", message));
        }
        if self.warnings > MOST_WARNINGS {
            let message = format!("{} more warnings are left out", self.warnings - MOST_WARNINGS);
            let severity = Severity::Warning;
            self.parsed.diagnostics.push(Diagnostic { severity, ..unplaced(UNREADABLE, "", message) });
        }
        for (kind, (mut diagnostic, count)) in std::mem::take(&mut self.skipped) {
            let times = if count > 1 { format!(" ({count} of them)") } else { String::new() };
            let verb = if self.options.strict { "means nothing here" } else { "means nothing here: skipped" };
            diagnostic.message = format!("{kind} {verb}{times}");
            self.parsed.diagnostics.push(diagnostic);
        }
        self.parsed
    }
}
