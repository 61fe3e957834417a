//! Links between the documents.

use std::path::{Path, PathBuf};

use super::files;
use crate::run::{Outcome, root};

/// Relative links that lead nowhere.
pub(super) fn check() -> Outcome<Vec<String>> {
    let mut documents: Vec<PathBuf> = files(&root().join("docs"), "md");
    for name in ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        let path = root().join(name);
        if path.exists() {
            documents.push(path);
        }
    }
    let mut faults = Vec::new();
    for document in documents {
        let text = std::fs::read_to_string(&document).map_err(|e| format!("{}: {e}", document.display()))?;
        let folder = document.parent().unwrap_or(Path::new("."));
        for link in links(&text) {
            let file = link.split('#').next().unwrap_or_default();
            let outside = link.contains("://") || link.starts_with("mailto:");
            if !outside && !file.is_empty() && !folder.join(file).exists() {
                let name = document.strip_prefix(root()).unwrap_or(&document);
                faults.push(format!("{}: the link {link} leads nowhere", name.display()));
            }
        }
    }
    Ok(faults)
}

/// The targets of `[text](target)`, outside of code.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for (at, _) in line.match_indices("](") {
            if let Some(target) = line[at + 2..].split(')').next() {
                found.push(target.trim().to_owned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #[test]
    fn links_are_found_outside_of_code() {
        let text = "see [a](b.md#c) and [d](e)\n```\n[x](y)\n```\n";
        assert_eq!(super::links(text), ["b.md#c", "e"]);
    }
}
