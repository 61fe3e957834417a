//! The table of `docs/compatibility.md`: every field of every kind and what becomes of it, told from the same
//! messages that documents are read with, so that it cannot say anything else than what happens.

use std::fmt::Write;

use mesh_core::vocab::origin::Kind;

use super::field::{Message, Note};
use super::kind::{self, Fate};
use super::{document, istio, kubernetes, mesh, metadata};

/// What stands in the fields: one entry a file that has messages.
static NOTES: &[&[Note]] = &[
    kubernetes::endpoints::NOTES,
    kubernetes::service::NOTES,
    istio::destination_rule::NOTES,
    istio::header::NOTES,
    istio::http::NOTES,
    istio::virtual_service::NOTES,
    istio::stream_rule::NOTES,
    istio::http_rule::NOTES,
    istio::fault::NOTES,
    istio::destination::NOTES,
    istio::cors::NOTES,
    istio::redirect::NOTES,
    istio::authorization_policy::NOTES,
    istio::extension_provider::NOTES,
    istio::mesh_config::NOTES,
    istio::mesh_proxy::NOTES,
    istio::peer_authentication::NOTES,
    istio::request_authentication::NOTES,
    istio::telemetry::NOTES,
    istio::telemetry_provider::NOTES,
    istio::tracing::NOTES,
    istio::service_entry::NOTES,
    istio::connection_pool::NOTES,
    istio::consistent_hash::NOTES,
    istio::gateway::NOTES,
    istio::load_balancer::NOTES,
    istio::locality::NOTES,
    istio::probe::NOTES,
    istio::proxy_config::NOTES,
    istio::server_tls::NOTES,
    istio::sidecar::NOTES,
    istio::traffic_policy::NOTES,
    istio::workload_group::NOTES,
    mesh::rate_limit::NOTES,
];

/// The message of a kind's `spec`. A kind whose fields stand in the document itself has none, but notes on
/// [`document::top`].
static SPECS: &[(Kind, &Message)] = &[
    (Kind::Service, &kubernetes::service::SPEC),
    (Kind::WorkloadEntry, &istio::workload::ENTRY),
    (Kind::ServiceEntry, &istio::service_entry::SPEC),
    (Kind::VirtualService, &istio::virtual_service::SPEC),
    (Kind::DestinationRule, &istio::destination_rule::SPEC),
    (Kind::WorkloadGroup, &istio::workload_group::SPEC),
    (Kind::Gateway, &istio::gateway::SPEC),
    (Kind::Sidecar, &istio::sidecar::SPEC),
    (Kind::ProxyConfig, &istio::proxy_config::SPEC),
    (Kind::PeerAuthentication, &istio::peer_authentication::SPEC),
    (Kind::AuthorizationPolicy, &istio::authorization_policy::SPEC),
    (Kind::RequestAuthentication, &istio::request_authentication::SPEC),
    (Kind::Telemetry, &istio::telemetry::SPEC),
    (Kind::MeshConfig, &istio::mesh_config::SPEC),
    (Kind::RateLimit, &mesh::rate_limit::SPEC),
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
    let above = match kind::fate(kind) {
        Fate::Carried => Standing::CarriedOut,
        Fate::Later => Standing::ExplainedOnly,
        Fate::Refused(why) => Standing::Refused(why),
    };
    for (key, standing) in fields(top) {
        let standing = weaker(standing, above);
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
    below(&metadata::METADATA, "metadata", Standing::CarriedOut, 0, &mut rows);
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

/// What becomes of a field with this standing in something with that one.
fn weaker(own: Standing, above: Standing) -> Standing {
    match (own, above) {
        (Standing::Skipped | Standing::Refused(_), _) | (_, Standing::CarriedOut) => own,
        _ => above,
    }
}

fn below(message: &'static Message, path: &str, above: Standing, depth: usize, rows: &mut Vec<Row>) {
    for (key, standing) in fields(message) {
        let standing = weaker(standing, above);
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
    let passed = !matches!(standing, Standing::Skipped | Standing::Refused(_));
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
        "| other kinds of Kubernetes | | skipped with one warning a kind, `--strict` refuses them; templates of pods tell \
         `analyze` labels and ports |\n",
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::dialect::node::{Node, Value};
    use crate::dialect::yaml::Reader;

    #[test]
    fn paths_tell_lists_and_maps() {
        let rows = rows(Kind::VirtualService);
        let standing = |path: &str| rows.iter().find(|row| row.path == path).map(|row| row.standing);
        assert_eq!(standing("spec.hosts"), Some(Standing::CarriedOut));
        assert_eq!(standing("spec.http[].route[].destination.port.number"), Some(Standing::CarriedOut));
        assert_eq!(standing("spec.http[].match[].headers{}.regex"), Some(Standing::CarriedOut));
        assert_eq!(standing("status"), Some(Standing::Skipped));
        assert_eq!(standing("spec.nothing"), None);
    }

    #[test]
    fn what_is_explained_only_has_nothing_carried_out_below_it() {
        for kind in Kind::ALL {
            let rows = rows(kind);
            for row in rows.iter().filter(|row| row.standing == Standing::ExplainedOnly) {
                let below = rows.iter().filter(|other| {
                    let rest = other.path.strip_prefix(&row.path);
                    rest.is_some_and(|rest| rest.starts_with(['.', '[', '{']))
                });
                for other in below {
                    assert_ne!(other.standing, Standing::CarriedOut, "{} of {}", other.path, kind.name());
                }
            }
        }
    }

    /// The names of the messages that hang together with `message`.
    fn names(message: &'static Message, depth: usize, found: &mut BTreeSet<&'static str>) {
        found.insert(message.name);
        for note in NOTES.iter().copied().flatten() {
            if let Note::Holds(of, _, other) = note
                && std::ptr::eq(*of, message)
                && depth < DEEPEST
            {
                names(other, depth + 1, found);
            }
        }
    }

    #[test]
    fn no_message_is_forgotten() {
        let mut found = BTreeSet::new();
        let tops = Kind::ALL.into_iter().map(document::top);
        for message in tops.chain(SPECS.iter().map(|(_, message)| *message)).chain([&metadata::METADATA]) {
            names(message, 0, &mut found);
        }
        let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dialect")];
        let mut forgotten = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                for message in text.split(": Message =").skip(1) {
                    let name = message.split("name: \"").nth(1).and_then(|rest| rest.split('"').next());
                    let Some(name) = name.filter(|name| !found.contains(name)) else { continue };
                    forgotten.push(format!("{}: {name}", path.display()));
                }
            }
        }
        assert!(forgotten.is_empty(), "no Note::Holds leads to {forgotten:#?}");
    }

    /// Files of this crate and of Istio, where they are at hand.
    fn files() -> Vec<std::path::PathBuf> {
        let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut folders = vec![
            here.join("src/dialect/tests"),
            here.join("tests/analysis"),
            here.join("../../shared/istio/samples"),
        ];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "yaml") {
                    files.push(path);
                }
            }
        }
        files
    }

    #[test]
    fn a_kind_that_is_explained_only_is_refused_by_apply() {
        let specs = [
            (
                Kind::Gateway,
                "{selector: {a: b}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}",
            ),
            (Kind::ProxyConfig, "{concurrency: 2}"),
            (Kind::RequestAuthentication, "{jwtRules: [{issuer: a}]}"),
            (Kind::Telemetry, "{tracing: [{randomSamplingPercentage: 5}]}"),
            (Kind::Sidecar, "{egress: [{hosts: ['*/*']}]}"),
        ];
        for (kind, spec) in specs {
            let version =
                kind::all().into_iter().find(|known| known.name == kind.name()).unwrap().versions.remove(0);
            let text = format!(
                "{{apiVersion: {version}, kind: {}, metadata: {{name: a, namespace: b}}, spec: {spec}}}",
                kind.name()
            );
            let input = crate::dialect::Input { file: "x.yaml", bytes: text.as_bytes() };
            let parsed = crate::dialect::parse(&[input], &crate::dialect::Options::default());
            assert!(parsed.diagnostics.is_empty(), "{text}");
            let is_later = matches!(kind::fate(kind), Fate::Later);
            assert_eq!(!parsed.pending.is_empty(), is_later, "{text}");
        }
    }

    #[test]
    fn what_apply_would_refuse_is_said_in_the_table() {
        // A row as a pattern of the paths that messages name.
        let pattern = |row: Row| {
            let path = regex::escape(&row.path)
                .replace(r"\[\]", r"\[\d+\]")
                .replace(r"\{\}", r#"(\.[^.\[]+|\["[^"]*"\])"#);
            regex::Regex::new(&format!(r"^{path}($|[.\[])")).unwrap()
        };
        let weak = |row: &Row| {
            let refused = matches!(row.standing, Standing::ExplainedOnly | Standing::Refused(_));
            refused || !row.except.is_empty()
        };
        let mut wrong = BTreeSet::new();
        let mut seen = 0;
        for path in files() {
            let bytes = std::fs::read(&path).unwrap();
            let input = crate::dialect::Input { file: "x.yaml", bytes: &bytes };
            let parsed = crate::dialect::parse(&[input], &crate::dialect::Options::default());
            for found in parsed.pending {
                let kind = found.resource.split('/').next().and_then(Kind::from_word).unwrap();
                seen += 1;
                // Said of the kind as a whole, in the table of kinds.
                if found.message.starts_with("the kind ") {
                    continue;
                }
                // Settings of the mesh stand in several places.
                let bare = found.field.strip_prefix("data.mesh.").unwrap_or(&found.field);
                let kind = if bare.len() < found.field.len() { Kind::MeshConfig } else { kind };
                let field = match kind == Kind::MeshConfig && !bare.starts_with("spec") {
                    true => format!("spec.{bare}"),
                    false => bare.to_owned(),
                };
                let mut rows = rows(kind).into_iter().chain(metadata()).filter(weak);
                let said = match field.as_str() {
                    // What is missing has no place of its own.
                    "spec" => rows.any(|row| row.path.starts_with("spec.")),
                    field => rows.map(pattern).any(|row| row.is_match(field)),
                };
                if !said {
                    wrong.insert(format!("{} {}: {}", kind.name(), found.field, found.message));
                }
            }
        }
        assert!(seen > 50, "{seen}");
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// The fields of a schema, as paths.
    fn fields(schema: &Node, path: &str, found: &mut BTreeSet<String>) {
        if let Some(Value::Map(properties)) = schema.entry("properties").map(|entry| &entry.value.value) {
            for property in properties {
                let path = format!("{path}.{}", property.key);
                fields(&property.value, &path, found);
                found.insert(path);
            }
        }
        for (key, many) in [("items", "[]"), ("additionalProperties", "{}")] {
            if let Some(entry) = schema.entry(key) {
                fields(&entry.value, &format!("{path}{many}"), found);
            }
        }
    }

    /// Fields of `spec` by kind, over all versions, of Istio's own schemas; `None` where they are not at hand.
    fn istio() -> Option<BTreeMap<String, BTreeSet<String>>> {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/istio/crd-all.gen.yaml");
        let text = std::fs::read_to_string(file).ok()?;
        let mut kinds: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut reader = Reader::new(&text);
        while let Some(read) = reader.next() {
            let (root, _) = read.unwrap();
            let Some(spec) = root.entry("spec").map(|entry| &entry.value) else { continue };
            let kind = spec.entry("names").unwrap().value.text_at("kind").unwrap().to_owned();
            let Value::List(versions) = &spec.entry("versions").unwrap().value.value else { panic!() };
            for version in versions {
                let schema = &version.entry("schema").unwrap().value.entry("openAPIV3Schema").unwrap().value;
                let spec = schema.entry("properties").unwrap().value.entry("spec");
                if let Some(spec) = spec {
                    fields(&spec.value, "spec", kinds.entry(kind.clone()).or_default());
                }
            }
        }
        Some(kinds)
    }

    #[test]
    fn every_field_of_istio_is_in_the_table() {
        let Some(kinds) = istio() else { return };
        let mut missing = Vec::new();
        for (name, fields) in kinds {
            let known = kind::all().into_iter().find(|known| known.name == name);
            let Some(known) = known else {
                missing.push(format!("the kind {name}"));
                continue;
            };
            if matches!(known.fate, Fate::Refused(_)) {
                continue;
            }
            let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name).unwrap();
            let rows: BTreeMap<String, Standing> =
                rows(kind).into_iter().map(|row| (row.path, row.standing)).collect();
            for field in fields {
                // What is not carried out as a whole need not be told in parts.
                let is_part = |(path, standing): (&String, &Standing)| {
                    *standing != Standing::CarriedOut
                        && field
                            .strip_prefix(path.as_str())
                            .is_some_and(|rest| rest.starts_with(['.', '[', '{']))
                };
                if !rows.contains_key(&field) && !rows.iter().any(is_part) {
                    missing.push(format!("{name} {field}"));
                }
            }
        }
        assert!(missing.is_empty(), "{} fields: {missing:#?}", missing.len());
    }
}
