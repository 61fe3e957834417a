//! Host patterns: names and wildcards.

/// Whether a host pattern (`*`, `*.suffix` or a name) covers a host. Both in lower case.
/// `*.foo.com` covers `a.foo.com` and `a.b.foo.com`, never `foo.com`.
pub fn host_matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        None => pattern == host,
        Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
    }
}

/// Orders host patterns by how specific they are: exact names above wildcards, longer above shorter.
pub fn specificity(pattern: &str) -> (bool, usize) {
    (!pattern.starts_with('*'), pattern.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_lead_only() {
        for (pattern, host, expected) in [
            ("*", "a", true),
            ("*.foo.com", "a.foo.com", true),
            ("*.foo.com", "a.b.foo.com", true),
            ("*.foo.com", "foo.com", false),
            ("foo.com", "foo.com", true),
            ("foo.com", "a.foo.com", false),
        ] {
            assert_eq!(host_matches(pattern, host), expected, "{pattern} {host}");
        }
        assert!(specificity("a.b") > specificity("*.aaaaaaaa"));
    }
}
