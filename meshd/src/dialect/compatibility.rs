//! The table of `docs/compatibility.md`: every field of every kind and what becomes of it, told from the same
//! [`Message`]s that documents are read with, so that it cannot say anything else than what happens.

use std::fmt::Write;

use mesh_core::vocab::origin::Kind;

use super::field::{Message, Note};
use super::kind::{self, Fate};
use super::{document, istio, kubernetes};

/// What stands in the fields: one entry a file that has messages.
static NOTES: &[&[Note]] = &[
    document::NOTES,
    kubernetes::NOTES,
    istio::destination_rule::NOTES,
    istio::header::NOTES,
    istio::http::NOTES,
    istio::networking::NOTES,
    istio::redirect::NOTES,
    istio::resilience::NOTES,
    istio::security::NOTES,
    istio::service_entry::NOTES,
    istio::workload::NOTES,
];

/// The message of a kind's `spec`. A kind whose fields stand in the document itself has none, but notes on
/// [`document::top`].
static SPECS: &[(Kind, &Message)] = &[
    (Kind::Service, &kubernetes::SPEC),
    (Kind::WorkloadEntry, &istio::workload::ENTRY),
    (Kind::ServiceEntry, &istio::service_entry::SPEC),
    (Kind::VirtualService, &istio::networking::SPEC),
    (Kind::DestinationRule, &istio::destination_rule::SPEC),
    (Kind::PeerAuthentication, &istio::security::PEER),
    (Kind::AuthorizationPolicy, &istio::security::POLICY),
];

/// Deepest path: no schema comes near; a message that holds itself ends here.
const DEEPEST: usize = 24;

/// What becomes of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The mesh does what it says.
    CarriedOut,
    /// Validated, analysed and explained; `apply` refuses it, as nothing on the wire follows it yet.
    ExplainedOnly,
    /// Has no meaning here and is passed over.
    Skipped,
    /// An error, for this reason.
    Refused(&'static str),
}

/// A field of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Where it stands: `spec.http[].match[].uri`.
    pub path: String,
    /// What becomes of it.
    pub standing: Standing,
    /// Values that fare worse than the field: explained only.
    pub except: Vec<&'static str>,
}

/// The fields of a kind below `metadata`, a message before its own fields.
pub fn rows(kind: Kind) -> Vec<Row> {
    let mut rows = Vec::new();
    let top = document::top(kind);
    for (key, standing) in fields(top) {
        if ["apiVersion", "kind", "metadata"].contains(&key) {
            continue;
        }
        match SPECS.iter().find(|(other, _)| key == "spec" && *other == kind) {
            Some((_, spec)) => below(spec, key, standing, 0, &mut rows),
            None => field(top, key, key, standing, 0, &mut rows),
        }
    }
    rows
}

/// The fields of `metadata`, which are the same for every kind.
pub fn metadata() -> Vec<Row> {
    let mut rows = Vec::new();
    below(&document::METADATA, "metadata", Standing::CarriedOut, 0, &mut rows);
    rows
}

/// The fields of a message in the order of the alphabet.
fn fields(message: &'static Message) -> Vec<(&'static str, Standing)> {
    let with = |names: &'static [&'static str], standing| names.iter().map(move |name| (*name, standing));
    let mut all: Vec<(&str, Standing)> = with(message.fields, Standing::CarriedOut)
        .chain(with(message.later, Standing::ExplainedOnly))
        .chain(with(message.skipped, Standing::Skipped))
        .collect();
    all.sort_unstable_by_key(|(name, _)| *name);
    all
}

fn below(message: &'static Message, path: &str, above: Standing, depth: usize, rows: &mut Vec<Row>) {
    for (key, standing) in fields(message) {
        let standing = if above == Standing::CarriedOut { standing } else { above };
        field(message, key, &format!("{path}.{key}"), standing, depth, rows);
    }
}

fn field(
    message: &'static Message,
    key: &str,
    path: &str,
    standing: Standing,
    depth: usize,
    rows: &mut Vec<Row>,
) {
    let mut row = Row { path: path.to_owned(), standing, except: Vec::new() };
    let mut held = None;
    for note in NOTES.iter().copied().flatten() {
        match note {
            Note::Holds(of, name, other) if std::ptr::eq(*of, message) => {
                let plain = name.strip_suffix("[]").or(name.strip_suffix("{}")).unwrap_or(name);
                if plain == key {
                    held = Some((*other, &name[plain.len()..]));
                }
            }
            Note::Later(of, name, what) if std::ptr::eq(*of, message) && *name == key => {
                row.except.push(what);
            }
            Note::Refused(of, name, why) if std::ptr::eq(*of, message) && *name == key => {
                row.standing = Standing::Refused(why);
            }
            Note::Holds(..) | Note::Later(..) | Note::Refused(..) => {}
        }
    }
    let standing = row.standing;
    if standing != Standing::CarriedOut {
        row.except.clear();
    }
    rows.push(row);
    let passed = matches!(standing, Standing::CarriedOut | Standing::ExplainedOnly);
    if let (Some((message, many)), true, true) = (held, passed, depth < DEEPEST) {
        below(message, &format!("{path}{many}"), standing, depth + 1, rows);
    }
}

/// The whole page.
pub fn page() -> String {
    let mut page = String::from(HEAD);
    kinds(&mut page);
    table(&mut page, "metadata of every kind", &metadata());
    for kind in Kind::ALL {
        let rows = rows(kind);
        if !rows.is_empty() {
            table(&mut page, kind.name(), &rows);
        }
    }
    page
}

const HEAD: &str = "\
# Compatibility

<!-- Written by `cargo xtask codegen` from the code that reads documents (meshd/src/dialect); not by hand. -->

Every field of every kind, and what becomes of it:

- **carried out**: the mesh does what it says.
- **explained only**: read, validated, analysed and explained like the others, but nothing on the wire follows it
  yet; `apply`, `--config` and announcements of workloads refuse it (MSH0010), `validate`, `analyze`, `explain` and
  `diff` take it. *Explained only: VALUES* is said of a field that is carried out but for these values.
- **skipped**: has no meaning without Kubernetes or is set by its server; passed over.
- **refused**: an error, for the reason given.

A field that is in no table is unknown, and an error. `[]` is a list, `{}` a map whose keys are free.

";

fn kinds(page: &mut String) {
    page.push_str("## Kinds\n\n| kind | versions | |\n|---|---|---|\n");
    for known in kind::all() {
        let fate = match known.fate {
            Fate::Carried => "carried out".to_owned(),
            Fate::Later => "explained only".to_owned(),
            Fate::Refused(why) => format!("refused: {why}"),
        };
        writeln!(page, "| {} | {} | {} |", known.name, code(&known.versions), cell(&fate)).ok();
    }
    page.push_str(
        "| other kinds of Kubernetes | | skipped with one warning a kind; `--strict` refuses them |\n",
    );
}

fn code(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    words.join(", ")
}

fn table(page: &mut String, title: &str, rows: &[Row]) {
    write!(page, "\n## {title}\n\n| field | |\n|---|---|\n").ok();
    for row in rows {
        let mut standing = match row.standing {
            Standing::CarriedOut => "carried out".to_owned(),
            Standing::ExplainedOnly => "explained only".to_owned(),
            Standing::Skipped => "skipped".to_owned(),
            Standing::Refused(why) => format!("refused: {why}"),
        };
        if !row.except.is_empty() {
            write!(standing, "; explained only: {}", row.except.join(", ")).ok();
        }
        writeln!(page, "| `{}` | {} |", row.path, cell(&standing)).ok();
    }
}

/// Text that ends no cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('*', "\\*")
}
