//! The table in the kernel, by way of the program `nft`: every change is one transaction.
//!
//! What `nft` prints depends on its version, so that what was installed is known by what it printed then: an empty chain
//! carries a digest of that. Whoever changes the table later changes the digest.

use std::io::{self, Write as _};
use std::process::{Command, Output, Stdio};

use sha2::{Digest as _, Sha256};

use super::rules::{Rules, TABLE, removal};
use crate::live::interception::Interception;

/// Begins the name of the chain that carries the digest.
const SEAL: &str = "seal_";

/// Why the table could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The program is not there, or may not be run.
    #[error("cannot run nft, the program of nftables, which must be installed: {0}")]
    Program(#[source] io::Error),
    /// It refused.
    #[error(
        "nft refuses the rules (they need CAP_NET_ADMIN, and a kernel with nf_tables, redirect and tproxy): {0}"
    )]
    Refused(String),
}

/// The table as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Whether it is what was installed.
    pub interception: Interception,
    /// As `nft` prints it; empty where there is none.
    pub listing: String,
}

/// Puts the table there, in the place of one that is there.
pub fn install(rules: &Rules) -> Result<(), NftError> {
    run(&["-f", "-"], &rules.script())?;
    let seal = seal(&list()?);
    run(&["-f", "-"], &format!("add chain {TABLE} {SEAL}{seal}\n")).map(drop)
}

/// Takes the table away, whether there is one or not.
pub fn remove() -> Result<(), NftError> {
    run(&["-f", "-"], &removal()).map(drop)
}

/// Looks at the table.
pub fn find() -> Result<Found, NftError> {
    let listing = list()?;
    Ok(Found { interception: judge(&listing), listing })
}

fn judge(listing: &str) -> Interception {
    if listing.is_empty() {
        return Interception::Missing;
    }
    let wanted = format!("chain {SEAL}{} {{", seal(listing));
    match listing.lines().any(|line| line.trim() == wanted) {
        true => Interception::Installed,
        false => Interception::Altered,
    }
}

/// The table as `nft` prints it; empty where there is none.
fn list() -> Result<String, NftError> {
    let words: Vec<&str> = ["list", "table"].into_iter().chain(TABLE.split(' ')).collect();
    let output = start(&words, "")?;
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false if said.contains("No such file or directory") => Ok(String::new()),
        false => Err(NftError::Refused(said.trim().to_owned())),
    }
}

/// A digest of what `nft` prints, but for what changes by itself: who is alive, and the digest.
fn seal(listing: &str) -> String {
    let mut digest = Sha256::new();
    let mut skipping = false;
    for line in listing.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let is_seal = line.starts_with("chain ") && line.contains(SEAL);
        if is_seal || line.starts_with("elements = {") {
            skipping = true;
        }
        if !skipping {
            digest.update(line);
            digest.update("\n");
        }
        if line.ends_with('}') {
            skipping = false;
        }
    }
    let bytes = digest.finalize();
    bytes[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn run(words: &[&str], script: &str) -> Result<Output, NftError> {
    let output = start(words, script)?;
    match output.status.success() {
        true => Ok(output),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            let first: Vec<&str> =
                said.lines().map(str::trim).filter(|line| !line.is_empty()).take(3).collect();
            Err(NftError::Refused(first.join(" ")))
        }
    }
}

fn start(words: &[&str], script: &str) -> Result<Output, NftError> {
    // Administrators' programs are not on every user's path.
    let path = std::env::var("PATH").unwrap_or_default();
    let mut child = Command::new("nft")
        .args(words)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(NftError::Program)?;
    if let Some(mut stdin) = child.stdin.take() {
        // It reads all of a script before it says anything; one that ends early says why.
        drop(stdin.write_all(script.as_bytes()));
    }
    child.wait_with_output().map_err(NftError::Program)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "table inet mesh {\n\tset alive {\n\t\ttype nf_proto\n\t\tELEMENTS\n\t}\n\n\
         \tchain outbound {\n\t\tmeta mark 0x00000539 accept\n\t}\n}\n";

    #[test]
    fn what_was_installed_is_told_from_what_was_changed() {
        let sealed = |text: &str| {
            let chain = format!("\n\tchain {SEAL}{} {{\n\t}}\n}}\n", seal(text));
            text.strip_suffix("}\n").unwrap().to_owned() + &chain
        };
        let silent = LISTING.replace("\t\tELEMENTS\n", "");
        let installed = sealed(&silent);
        assert_eq!(judge(&installed), Interception::Installed, "{installed}");
        let alive = installed.replace(
            "type nf_proto",
            "type nf_proto\n\t\telements = { ipv4 timeout 3s expires 2s,\n\t\t\t ipv6 timeout 3s }",
        );
        assert_eq!(judge(&alive), Interception::Installed, "{alive}");
        assert_eq!(judge(&installed.replace("meta mark 0x00000539 accept", "")), Interception::Altered);
        assert_eq!(judge(&silent), Interception::Altered);
        assert_eq!(judge(""), Interception::Missing);
    }
}
