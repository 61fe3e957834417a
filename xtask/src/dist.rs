//! Release archives.

use std::process::Command;

use crate::run::{Outcome, cargo, root, shown, target};

/// Builds the two programs as they are shipped and packs them.
pub(crate) fn run() -> Outcome {
    shown(&mut cargo(&[
        "build",
        "--profile",
        "dist",
        "--package",
        "meshd",
        "--package",
        "meshproxy",
        "--bins",
    ]))?;
    let name = format!("mesh-{}-{}-linux", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    let (from, to) = (target().join("dist"), target().join("archives").join(&name));
    std::fs::create_dir_all(&to).map_err(|e| e.to_string())?;
    for program in ["meshd", "meshproxy"] {
        std::fs::copy(from.join(program), to.join(program)).map_err(|e| format!("{program}: {e}"))?;
    }
    for text in ["LICENSE", "README.md", "CHANGELOG.md"] {
        std::fs::copy(root().join(text), to.join(text)).map_err(|e| format!("{text}: {e}"))?;
    }
    let archives = target().join("archives");
    let archive = archives.join(format!("{name}.tar.gz"));
    shown(Command::new("tar").arg("-czf").arg(&archive).arg("-C").arg(&archives).arg(&name))?;
    println!("{}", archive.display());
    Ok(())
}
