//! What is generated: code from the schema, the table of compatibility from the dialects. Written, and proved
//! fresh.

use std::path::Path;

use crate::run::{Outcome, cargo, root, shown, target};

const CHECKED_IN: &str = "mesh-proto/src/generated";
const COMPATIBILITY: &str = "docs/compatibility.md";

/// Writes all that is generated.
pub(crate) fn write() -> Outcome {
    shown(&mut cargo(&["run", "--quiet", "--package", "mesh-proto", "--example", "codegen"]))?;
    shown(&mut cargo(&["fmt", "--package", "mesh-proto"]))?;
    shown(&mut cargo(&["run", "--quiet", "--package", "meshd", "--example", "compatibility"]))
}

/// Whether the table of compatibility says what the dialects do.
pub(crate) fn compatibility() -> Outcome<Option<String>> {
    let out = target().join("compatibility-check.md");
    let name = out.display().to_string();
    shown(&mut cargo(&["run", "--quiet", "--package", "meshd", "--example", "compatibility", "--", &name]))?;
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()));
    let fresh = read(&out)?;
    let kept = read(&root().join(COMPATIBILITY)).unwrap_or_default();
    let stale = || format!("{COMPATIBILITY} is not what the code does: run `cargo xtask codegen`");
    Ok((fresh != kept).then(stale))
}

/// Whether what is checked in is what the schema gives.
pub(crate) fn is_fresh() -> Outcome {
    let out = target().join("codegen-check");
    drop(std::fs::remove_dir_all(&out));
    let name = out.display().to_string();
    shown(&mut cargo(&["run", "--quiet", "--package", "mesh-proto", "--example", "codegen", "--", &name]))?;
    for entry in std::fs::read_dir(&out).map_err(|e| e.to_string())?.flatten() {
        let kept = root().join(CHECKED_IN).join(entry.file_name());
        if formatted(&entry.path())? != formatted(&kept)? {
            return Err(format!("{} is stale: run `cargo xtask codegen`", kept.display()));
        }
    }
    Ok(())
}

/// The text of a file without regard to its layout.
fn formatted(path: &Path) -> Outcome<String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(text.chars().filter(|c| !c.is_whitespace() && *c != ',').collect())
}
