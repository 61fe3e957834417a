//! Licences, bans and sources: the essence of `deny.toml`, checked without cargo-deny.

use crate::run::{Outcome, captured, cargo, root};

/// Licences that may be part of what is shipped; `deny.toml` says the same.
const ALLOWED: [&str; 10] = [
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Unicode-3.0",
    "Zlib",
    "CC0-1.0",
];

/// Packages that must not come in: a second TLS stack, or what has been abandoned.
const BANNED: [&str; 6] = ["openssl", "openssl-sys", "native-tls", "boring", "serde_yaml", "chrono"];

/// Faults of the packages that are built.
pub(super) fn check() -> Outcome<Vec<String>> {
    let arguments = [
        "tree",
        "--workspace",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
        "--format",
        "{p}|{l}",
        "--locked",
    ];
    let mut lines: Vec<String> = captured(&mut cargo(&arguments))?.lines().map(str::to_owned).collect();
    lines.sort();
    lines.dedup();
    let mut faults = Vec::new();
    for line in &lines {
        let Some((package, licence)) = line.trim_end_matches(" (*)").rsplit_once('|') else { continue };
        let name = package.split(' ').next().unwrap_or_default();
        if !may_ship(licence.trim_end_matches(" (*)")) {
            faults.push(format!("{package}: the licence {licence:?} is not on the list"));
        }
        if BANNED.contains(&name) {
            faults.push(format!("{package} is banned"));
        }
        if name == "ring" {
            faults.push("ring is a second crypto provider beside aws-lc-rs".to_owned());
        }
    }
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).map_err(|e| e.to_string())?;
    for source in lock.lines().filter_map(|l| l.strip_prefix("source = ")) {
        if !source.starts_with("\"registry+") {
            faults.push(format!("a package comes from {source}, not from the registry"));
        }
    }
    Ok(faults)
}

/// Whether an SPDX expression can be met with allowed licences.
fn may_ship(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let tokens: Vec<&str> = expression
        .split_inclusive([' ', '(', ')'])
        .flat_map(pieces)
        .filter(|t| !t.trim().is_empty())
        .collect();
    let mut at = 0;
    any_of(&tokens, &mut at)
}

fn pieces(text: &str) -> Vec<&str> {
    match text.find(['(', ')']) {
        Some(cut) => vec![text[..cut].trim(), &text[cut..=cut]],
        None => vec![text.trim()],
    }
}

fn any_of(tokens: &[&str], at: &mut usize) -> bool {
    let mut good = all_of(tokens, at);
    while tokens.get(*at) == Some(&"OR") {
        *at += 1;
        good |= all_of(tokens, at);
    }
    good
}

fn all_of(tokens: &[&str], at: &mut usize) -> bool {
    let mut good = one(tokens, at);
    while tokens.get(*at) == Some(&"AND") {
        *at += 1;
        good &= one(tokens, at);
    }
    good
}

fn one(tokens: &[&str], at: &mut usize) -> bool {
    let Some(token) = tokens.get(*at) else { return false };
    *at += 1;
    if *token == "(" {
        let good = any_of(tokens, at);
        *at += 1;
        return good;
    }
    if tokens.get(*at) == Some(&"WITH") {
        let name = format!("{token} WITH {}", tokens.get(*at + 1).copied().unwrap_or_default());
        *at += 2;
        return ALLOWED.contains(&name.as_str());
    }
    ALLOWED.contains(token)
}

#[cfg(test)]
mod tests {
    use super::may_ship;

    #[test]
    fn expressions_are_understood() {
        for good in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0 OR MIT",
            "(MIT OR GPL-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
            "ISC AND (Apache-2.0 OR ISC) AND BSD-3-Clause AND (Apache-2.0 OR ISC OR MIT-0)",
        ] {
            assert!(may_ship(good), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-2.0", "", "(GPL-3.0 OR AGPL-3.0) AND MIT"] {
            assert!(!may_ship(bad), "{bad}");
        }
    }
}
