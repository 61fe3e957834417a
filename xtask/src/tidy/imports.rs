//! Which folder of a crate may import which: the table of `docs/architecture.md`.

use super::Source;

/// What the folders of `mesh-core` may import.
const CORE: &[(&str, &[&str])] = &[
    ("vocab", &[]),
    ("framing", &[]),
    ("matching", &["vocab"]),
    ("message", &["matching", "framing"]),
    ("resilience", &["vocab"]),
    ("balancing", &["vocab"]),
    ("routing", &["vocab", "matching", "resilience"]),
    ("policy", &["vocab", "matching"]),
    ("telemetry", &["vocab", "matching", "routing"]),
    (
        "resource",
        &["vocab", "matching", "message", "resilience", "balancing", "routing", "policy", "telemetry"],
    ),
    (
        "state",
        &[
            "vocab",
            "matching",
            "message",
            "resilience",
            "balancing",
            "routing",
            "policy",
            "telemetry",
            "resource",
        ],
    ),
    ("analysis", &["vocab", "matching", "policy", "resource", "state"]),
    (
        "snapshot",
        &["vocab", "matching", "message", "resilience", "balancing", "routing", "policy", "telemetry"],
    ),
    (
        "compile",
        &[
            "vocab",
            "matching",
            "resilience",
            "balancing",
            "routing",
            "policy",
            "telemetry",
            "resource",
            "state",
            "snapshot",
        ],
    ),
    ("sync", &["vocab", "snapshot"]),
    (
        "tables",
        &[
            "vocab",
            "matching",
            "message",
            "resilience",
            "balancing",
            "routing",
            "policy",
            "telemetry",
            "snapshot",
        ],
    ),
    (
        "decide",
        &[
            "vocab",
            "matching",
            "message",
            "resilience",
            "balancing",
            "routing",
            "policy",
            "telemetry",
            "snapshot",
            "tables",
        ],
    ),
];

/// What the folders of `meshd` may import. Folders that are not named here may import anything.
const CONTROL: &[(&str, &[&str])] = &[
    ("telemetry", &[]),
    ("clock", &[]),
    ("dialect", &[]),
    ("source", &["dialect"]),
    ("store", &["source"]),
    ("controller", &["source", "telemetry", "dialect", "store", "identity", "registry"]),
    ("identity", &["store", "telemetry"]),
    ("registry", &["store", "identity", "dialect", "telemetry"]),
    ("discovery", &["controller", "identity", "telemetry"]),
    ("traffic", &["identity", "telemetry"]),
    ("tap", &["identity", "telemetry"]),
    ("cli", &["app", "config", "dialect", "source", "telemetry", "admin"]),
];

/// What the folders of `meshproxy` may import.
const PROXY: &[(&str, &[&str])] = &[
    ("runtime", &[]),
    ("telemetry", &[]),
    ("identity", &[]),
    ("net", &[]),
    ("capture", &[]),
    ("intercept", &["live", "telemetry"]),
    ("live", &["telemetry", "identity"]),
    ("workload", &["live", "identity"]),
    ("dns", &["live", "telemetry"]),
    ("control", &["live", "identity", "telemetry", "workload"]),
    ("otlp", &["live", "identity", "telemetry", "dns"]),
    ("upstream", &["live", "identity", "telemetry", "net", "runtime", "dns"]),
    ("http", &["upstream", "live", "identity", "net", "telemetry", "runtime"]),
    ("tcp", &["upstream", "live", "identity", "net", "telemetry"]),
    (
        "listener",
        &[
            "http",
            "tcp",
            "upstream",
            "live",
            "net",
            "telemetry",
            "runtime",
            "capture",
            "workload",
            "identity",
        ],
    ),
    ("admin", &["live", "telemetry", "runtime"]),
];

/// Modules of their crates that stand below everything.
const GROUND: [&str; 1] = ["clock"];

/// Faults of one file.
pub(super) fn check(source: &Source) -> Vec<String> {
    let table = match source.package.as_str() {
        "mesh-core" => CORE,
        "meshd" => CONTROL,
        "meshproxy" => PROXY,
        _ => return Vec::new(),
    };
    let mut faults = Vec::new();
    if let Some((_, allowed)) = table.iter().find(|(folder, _)| *folder == source.folder) {
        for used in named(&source.code, "crate") {
            let fine =
                used == source.folder || allowed.contains(&used.as_str()) || GROUND.contains(&used.as_str());
            // Macros and types at the crate's root have no folder.
            let known = table.iter().any(|(folder, _)| *folder == used);
            if !fine && known {
                faults.push(format!("{}: {} may not import {used}", source.name, source.folder));
            }
        }
    }
    let core = named(&source.code, "mesh_core");
    let (forbidden, free): (&[&str], &[&str]) = match source.package.as_str() {
        "meshproxy" => (&["resource", "state", "compile"], &[]),
        "meshd" => (&["tables", "decide"], &["cli", "admin"]),
        _ => (&[], &[]),
    };
    for used in core.iter().filter(|u| forbidden.contains(&u.as_str())) {
        if !free.contains(&source.folder.as_str()) {
            faults.push(format!("{}: {} may not name mesh_core::{used}", source.name, source.package));
        }
    }
    faults
}

/// The modules named right below a root, as `b` of `crate::b::c`, also within braces.
fn named(code: &str, root: &str) -> Vec<String> {
    let mut found = Vec::new();
    let pattern = format!("{root}::");
    for (at, _) in code.match_indices(&pattern) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + pattern.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(heads(group)),
            None => found.push(word(rest)),
        }
    }
    found.sort();
    found.dedup();
    found.retain(|w| !w.is_empty());
    found
}

/// The first words of the entries of a group, up to its closing brace.
fn heads(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut found) = (0, true, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            c if start && (c.is_alphabetic() || c == '_') => {
                found.push(word(&group[at..]));
                start = false;
            }
            _ => {}
        }
    }
    found
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_in_plain_and_grouped_imports() {
        let code = "use crate::a::B;\nuse crate::{c::{D, e}, f};\nlet x = my_crate::g::H; crate::i::j();";
        assert_eq!(named(code, "crate"), ["a", "c", "f", "i"]);
    }

    #[test]
    fn a_forbidden_import_is_a_fault() {
        let source = |package: &str, folder: &str, code: &str| Source {
            name: "x.rs".into(),
            package: package.into(),
            folder: folder.into(),
            code: code.into(),
            lines: 1,
        };
        assert_eq!(check(&source("mesh-core", "vocab", "use crate::routing::Rule;")).len(), 1);
        assert_eq!(check(&source("mesh-core", "tables", "use crate::state::MeshState;")).len(), 1);
        assert_eq!(check(&source("mesh-core", "decide", "use crate::tables::Tables;")).len(), 0);
        assert_eq!(check(&source("meshproxy", "live", "use mesh_core::resource::Resource;")).len(), 1);
        assert_eq!(check(&source("meshd", "discovery", "use mesh_core::decide::request;")).len(), 1);
        assert_eq!(check(&source("meshd", "cli", "use mesh_core::decide::request;")).len(), 0);
    }
}
