//! Any text as `host[:port]`: what is accepted is put together again from its parts.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_core::message::authority::Authority;

fuzz_target!(|text: &str| {
    let Ok(Authority { host, port }) = Authority::parse(text) else { return };
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let whole = [format!("{host}{port}"), format!("{host}.{port}")];
    assert!(whole.iter().any(|whole| whole == text), "{whole:?}");
    assert!(!host.is_empty() && host.is_ascii());
    assert!(!text.contains(['@', '/', '\\', '?', '#', '%', ',', ' ']));
    assert!(host.starts_with('[') || !host.contains(':'));
});
