//! Any text as a path, in every mode: its form is a fixed point, and hides neither a dot segment nor a slash.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_core::message::path::Normalization;

fuzz_target!(|path: &str| {
    for mode in Normalization::ALL {
        let Ok(form) = mode.apply(path) else { continue };
        assert_eq!(mode.apply(&form).as_deref(), Ok(&*form), "its form has another form");
        assert!(form == "*" || form.starts_with('/'));
        assert!(!form.contains("%00") && !form.contains('#') && !form.bytes().any(|byte| byte <= b' '));
        if mode == Normalization::None {
            continue;
        }
        let is_dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
        assert!(!form.split('/').any(is_dots) && !form.contains('\\'), "{form}");
        assert!(form.len() <= path.len(), "{form}");
        if mode != Normalization::Base {
            assert!(!form.contains("//"), "{form}");
        }
        if mode == Normalization::DecodeAndMergeSlashes {
            let lower = form.to_ascii_lowercase();
            assert!(!lower.contains("%2f") && !lower.contains("%5c"), "{form}");
        }
    }
});
