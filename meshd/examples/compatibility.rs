//! Writes `docs/compatibility.md` from the code that reads documents: `cargo run -p meshd --example compatibility
//! [-- OUTPUT_FILE]`.

use std::path::{Path, PathBuf};

fn main() -> std::io::Result<()> {
    let kept = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/compatibility.md");
    let out = std::env::args_os().nth(1).map_or_else(kept, PathBuf::from);
    std::fs::write(out, meshd::dialect::compatibility::page())
}
