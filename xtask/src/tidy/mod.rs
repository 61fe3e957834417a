//! What the compiler does not check: who may import whom, what the core may not name, links, licences.

mod imports;
mod licences;
mod links;
mod purity;

use std::path::{Path, PathBuf};

use crate::codegen;
use crate::run::{Outcome, root};

/// A question at this many lines: what second thing lives in the file?
const LONG: usize = 500;

/// Checks everything and reports all that is wrong at once.
pub(crate) fn run() -> Outcome {
    let mut faults = Vec::new();
    for source in sources() {
        faults.extend(imports::check(&source));
        faults.extend(purity::check(&source));
        if source.lines > LONG && !source.is("mesh-proto", "generated") {
            println!("note: {} has {} lines", source.name, source.lines);
        }
    }
    faults.extend(links::check()?);
    faults.extend(licences::check()?);
    faults.extend(codegen::compatibility()?);
    for fault in &faults {
        println!("tidy: {fault}");
    }
    if faults.is_empty() { Ok(()) } else { Err(format!("{} faults", faults.len())) }
}

/// A file of Rust in one of the crates that have rules.
pub(crate) struct Source {
    /// The path within the workspace.
    pub(crate) name: String,
    /// The crate.
    pub(crate) package: String,
    /// The first part of the path below `src`, without `.rs`.
    pub(crate) folder: String,
    /// The text without comments and without the tests at its end.
    pub(crate) code: String,
    lines: usize,
}

impl Source {
    pub(crate) fn is(&self, package: &str, folder: &str) -> bool {
        self.package == package && self.folder == folder
    }
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for package in ["mesh-core", "mesh-proto", "meshd", "meshproxy"] {
        let start = root().join(package).join("src");
        for path in files(&start, "rs") {
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            let below = path.strip_prefix(&start).unwrap_or(&path);
            let first = below.components().next().map(|c| c.as_os_str().to_string_lossy().into_owned());
            let is_test = below.components().any(|c| c.as_os_str().to_string_lossy().contains("test"));
            found.push(Source {
                name: path.strip_prefix(root()).unwrap_or(&path).display().to_string(),
                package: package.to_owned(),
                folder: first.unwrap_or_default().trim_end_matches(".rs").to_owned(),
                code: if is_test { String::new() } else { code(&text) },
                lines: text.lines().count(),
            });
        }
    }
    found
}

/// Files below a folder that end so, in a stable order.
pub(crate) fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|e| e == ending) {
            found.push(path);
        }
    }
    found
}

/// Rust without its comments and without the tests at the end of the file.
fn code(text: &str) -> String {
    let mut kept = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("#[cfg(test)]") {
            break;
        }
        kept.push_str(line.split("//").next().unwrap_or_default());
        kept.push('\n');
    }
    kept
}
