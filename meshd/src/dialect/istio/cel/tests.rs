use super::check;

#[test]
fn expressions() {
    for good in [
        "true",
        "response.code >= 400",
        "connection.mtls && request.url_path.contains('v1beta3')",
        "!has(request.auth_claims) || request.headers['x-a'] in [\"a\", \"b\"]",
        "a ? b : c ? d : e",
        "-1 + 2.5e-3 * 0xFFu % .5",
        "{'a': 1, 'b': [1, 2,]}.a",
        "a.b.C{x: 1}",
        r#"r'\d' == b"\x00" // a comment"#,
        "'''two\nlines'''",
        "some-cel-expression",
        "in_list",
        "has((a.b)) && a.all(x, x.exists(y, y)) && has()",
        "f(a).map(x, x > 1, x + 1)[0].b",
        "1.a",
    ] {
        assert_eq!(check(good), Ok(()), "{good}");
    }
    let deep = format!("{}1{}", "(".repeat(500), ")".repeat(500));
    for bad in [
        "",
        "response.code >=",
        "a b",
        "a &&",
        "(a",
        "a)",
        "'a",
        "a.",
        "a[",
        "if",
        "1 = 2",
        "a ? b",
        "'\\q'",
        "99999999999999999999",
        "f(a b)",
        "1x",
        "has(a)",
        "has(a[0])",
        "a.all(1, x)",
        "a.map(x.y, x)",
        "f(a,)",
        "C{1: x}",
        r#"b"\u0041""#,
        deep.as_str(),
    ] {
        assert!(check(bad).is_err(), "{bad}");
    }
}
