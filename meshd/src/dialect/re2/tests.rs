use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn whatever_is_translated_compiles(source in "([a-c0-3\\\\\\[\\](){}?*+|^$.,:<>Pidwsxb!=ä-]){0,14}") {
        if let Ok(text) = translate(&source) {
            prop_assert!(compile(&text).is_ok(), "{} as {}", source, text);
        }
    }
}

#[test]
fn what_re2_takes_means_the_same() {
    for (source, text, expected) in [
        ("v[0-9]+", "v12", true),
        (r"\d+", "12", true),
        (r"\d+", "\u{663}", false),
        (r"\w+", "\u{e4}", false),
        (r"[\w-]+", "a-b", true),
        (r"[^\s]+", "a b", false),
        (r"a\b.*", "a b", true),
        ("a{", "a{", true),
        ("a{,2}", "a{,2}", true),
        ("a{2}", "aa", true),
        ("x{01}", "x{01}", true),
        (r"\Qa.b\E+", "a.bb", true),
        (r"\Qa.b", "axb", false),
        (r"\/a\-b\_", "/a-b_", true),
        (r"\<a\>", "<a>", true),
        ("[a&&b]+", "a&b", true),
        ("[[a]b", "[b", true),
        ("[]a]+", "a]", true),
        ("[--a]", "A", true),
        (r"[\]\^]+", "]^", true),
        ("(?P<n>a)(?<m>b)", "ab", true),
        ("(?i)JASON", "jason", true),
        ("(?i-i:a)", "A", false),
        ("(?)a", "a", true),
        ("(?:a|b)+?", "ab", true),
        (r"\x41\x{42}\101", "ABA", true),
        (r"\pL\p{Greek}\P{^Greek}", "a\u{3b1}\u{3b1}", true),
        ("[[:alpha:]]+", "ab", true),
        ("a|", "", true),
        ("^*a$", "a", true),
        ("(a{10}){100}", "a", false),
        ("/.{0,1000}", "/a", true),
        ("[^/]{1,1000}", "a/", false),
    ] {
        let translated = translate(source).unwrap();
        let pattern = compile(&translated).unwrap();
        assert_eq!(pattern.matches(text.as_bytes()), expected, "{source} as {translated} on {text}");
    }
}

#[test]
fn what_re2_refuses_is_refused() {
    for bad in [
        "(",
        "a)",
        "[",
        "[]",
        "*",
        "a|*",
        "a**",
        "a*+",
        "a{2}{3}",
        "a{1001}",
        "a{2,1}",
        "(a{100}){11}",
        "(?=x)",
        "(?!x)",
        "(?<=x)",
        "(?x)a",
        "(?P=n)",
        "(?P<>a)",
        "(?P<n>a)(?P<n>b)",
        "(?i",
        "(?-)a",
        "(?i-)a",
        "a(?i)*",
        r"\1",
        r"(a)\1",
        r"\8",
        r"\C",
        r"\Z",
        r"\u0041",
        r"\x4",
        r"\x{110000}",
        "\\",
        r"[\b]",
        "[b-a]",
        "[[:nope:]]",
        r"\p{Nope}",
        r"\p{Script=Greek}",
        "[a",
    ] {
        let result = translate(bad).and_then(|text| compile(&text));
        assert!(result.is_err(), "{bad}");
    }
}
