//! Writes `mesh.v1.rs` from the schema: `cargo run -p mesh-proto --example codegen [-- OUTPUT_DIR]`.
//!
//! Without an argument it writes to `src/generated`, where the result is checked in. Needs no `protoc`.

use std::error::Error;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = std::env::args_os().nth(1).map_or_else(|| crate_dir.join("src/generated"), PathBuf::from);
    let root = crate_dir.join("proto");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root.join("mesh/v1"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    // The order of a directory listing is the file system's; the output must not depend on it.
    files.sort();
    let descriptors = protox::compile(&files, [&root])?;
    std::fs::create_dir_all(&out)?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .build_transport(true)
        .emit_rerun_if_changed(false)
        .bytes(".mesh.v1.Document.content")
        .bytes(".mesh.v1.SectionEntry.section")
        .out_dir(&out)
        .compile_fds(descriptors)?;
    Ok(())
}
