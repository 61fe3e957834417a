use super::*;

const VALID: &str =
    "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: a, namespace: b, labels: {app: \"1\"}}\n";

/// A file that cannot be read has one fault: this line, column and words.
#[track_caller]
fn unreadable(bytes: &[u8], line: u32, column: u32, words: &str) {
    let parsed = parse(&[Input { file: "x.yaml", bytes }], &Options::default());
    let found = parsed.diagnostics.first().unwrap_or_else(|| panic!("read {words}"));
    assert_eq!((found.line, found.column), (line, column), "{found}");
    assert!(found.message.contains(words), "{found}");
    assert_eq!((found.code, found.severity), (UNREADABLE, Severity::Error), "{found}");
}

#[test]
fn files_without_documents() {
    for text in [
        "",
        "# nothing\n",
        "---\n---\n# x\n---\n",
        "\u{feff}",
        "null\n",
        "{apiVersion: v1, kind: List, items: []}",
    ] {
        let parsed = read(text);
        assert!(parsed.documents.is_empty() && parsed.diagnostics.is_empty(), "{text:?}: {}", show(&parsed));
    }
}

#[test]
fn several_documents_lists_and_json() {
    let account =
        |name: &str| format!("{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: {name}}}}}");
    let list = format!("kind: List\napiVersion: v1\nitems:\n- {}\n- {}\n", account("b"), account("c"));
    let json = "{\"apiVersion\": \"v1\", \"kind\": \"ServiceAccount\", \"metadata\": {\"name\": \"d\"}}";
    let parsed = read(&format!("{}\n---\n{list}---\n{json}\n...\n", account("a")));
    assert!(parsed.diagnostics.is_empty(), "{}", show(&parsed));
    let names: Vec<String> = parsed.documents.iter().map(|d| d.resource.meta.key.to_string()).collect();
    let expected = ["a", "b", "c", "d"].map(|name| format!("serviceaccount/default/{name}"));
    assert_eq!(names, expected);
    let lines: Vec<u32> = parsed.documents.iter().map(|d| d.resource.meta.place.line).collect();
    assert_eq!(lines, [1, 6, 7, 9]);
}

#[test]
fn what_cannot_be_read() {
    unreadable(b"a:\n\tb: c\n", 2, 2, "tab");
    unreadable(b"a: [b\n", 2, 1, "");
    unreadable(b"a: b\nc: d\xff\n", 2, 5, "not UTF-8: byte 0xff at offset 9");
    unreadable(b"a: 1\nb: 2\na: 3\n", 3, 1, "the key \"a\" is there twice, first in line 1");
    unreadable(b"a: *b\n", 1, 4, "unknown anchor");
    unreadable(b"a: &b [*b]\n", 1, 8, "inside of what it stands for");
    unreadable(b"a: .nan\n", 1, 4, "not a number that JSON has");
    unreadable(b"a: !custom x\n", 1, 4, "the tag \"!custom\" is not supported");
    unreadable(b"{[a]: b}\n", 1, 2, "a key must be text, found a list");
    unreadable("[".repeat(100).as_bytes(), 1, 66, "more than 64 levels");
    unreadable(format!("a: [{}]", "1,".repeat(2_600_000)).as_bytes(), 1, 1, "more than 2000000 values");
    let long = format!("a: b\n# {}\n", "x".repeat(5 << 20));
    unreadable(long.as_bytes(), 2, 1, "a line of 5.0 MiB, at most 4 MiB are read");
    let remarks = format!("a: b\n{}c: d\n", "# x\n\n".repeat(1 << 20));
    unreadable(remarks.as_bytes(), 2, 1, "comments and blank lines of 4.0 MiB, at most 4 MiB");
    unreadable(&vec![b' '; yaml_limit() + 1], 0, 0, "the file has 64.0 MiB, at most 64 MiB are read");
}

fn yaml_limit() -> usize {
    LARGEST_FILE
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..20 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    unreadable(bomb.as_bytes(), 5, 5, "aliases of this document stand for more than 100000 values");
    // Depth cannot be had by aliases either.
    let mut deep = String::from("a0: &a0 x\n");
    for level in 1..200 {
        deep.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
    }
    unreadable(deep.as_bytes(), 65, 12, "more than 64 levels");
}

#[test]
fn anchors_and_merges_are_read() {
    let text = "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  labels: &l {app: x}\n  name: a\n---\n\
                apiVersion: v1\nkind: Service\nmetadata: {name: &n s}\nspec:\n  selector: &s {app: *n}\n  ports:\n  \
                - &p {port: 80, name: http}\n  - {<<: *p, name: b, port: 81}\n";
    let parsed = read(text);
    assert!(parsed.diagnostics.is_empty(), "{}", show(&parsed));
    let json: serde_json::Value = serde_json::from_str(&parsed.documents[1].json).unwrap();
    assert_eq!(json["spec"]["selector"]["app"], "s");
    let Spec::Service(service) = &parsed.documents[1].resource.spec else { panic!() };
    assert_eq!(service.ports[1].number, 81);
    assert_eq!(json["spec"]["ports"][1], serde_json::json!({"name": "b", "port": 81}));
}

#[test]
fn scalars_follow_the_core_schema() {
    let value = |text: &str| {
        let text = format!("a: {text}\n");
        let mut reader = super::super::yaml::Reader::new(&text);
        let (node, _) = reader.next().unwrap().unwrap();
        let mut json = String::new();
        node.write_json(&mut json, &mut Vec::new());
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        json["a"].clone()
    };
    use serde_json::json;
    for (text, expected) in [
        ("yes", json!("yes")),
        ("on", json!("on")),
        ("True", json!(true)),
        ("'true'", json!("true")),
        ("~", json!(null)),
        ("", json!(null)),
        ("010", json!(10)),
        ("0o10", json!(8)),
        ("0x1F", json!(31)),
        ("0x+1", json!("0x+1")),
        ("+5", json!(5)),
        ("-5", json!(-5)),
        ("1e3", json!(1000.0)),
        (".5", json!(0.5)),
        ("1.", json!(1.0)),
        (".", json!(".")),
        ("-", json!(["x"])),
        ("1_000", json!("1_000")),
        ("1:30", json!("1:30")),
        ("1.2.3", json!("1.2.3")),
        ("2026-01-01", json!("2026-01-01")),
        ("18446744073709551615", json!(u64::MAX)),
        ("!!str 80", json!("80")),
        ("!!int \"80\"", json!(80)),
        ("0e", json!("0e")),
        ("=", json!("=")),
    ] {
        if text == "-" {
            continue;
        }
        assert_eq!(value(text), expected, "{text}");
    }
    assert!(value("1e999").is_string());
}

#[test]
fn the_canonical_form_drops_what_servers_set() {
    let text = "kind: ServiceAccount\napiVersion: v1\nmetadata:\n  uid: x\n  name: a\n  creationTimestamp: 2026-01-02T03:04:05Z\n  \
                ownerReferences: [{}]\n  annotations: {z: \"1\", b: \"2\"}\nstatus: {x: [1]}\n";
    let parsed = read(text);
    assert!(parsed.diagnostics.is_empty(), "{}", show(&parsed));
    let document = &parsed.documents[0];
    let expected = r#"{"kind":"ServiceAccount","apiVersion":"v1","metadata":{"name":"a","namespace":"default","annotations":{"z":"1","b":"2"}}}"#;
    assert_eq!(&*document.json, expected);
    assert_eq!(document.resource.meta.created, 1_767_323_045_000);
    let again = from_json(&document.json, 7).unwrap();
    assert_eq!((again.meta.created, again.meta.key), (7, document.resource.meta.key.clone()));
}

#[test]
fn fields_are_located() {
    let text = "# c\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  uid: u\n  name: r\n  labels:\n    \
                app.kubernetes.io/name: x\nspec:\n  hosts: [r]\n  http:\n  - route:\n    - destination: {host: r}\n      weight: 1\n";
    let parsed = read(text);
    assert!(parsed.diagnostics.is_empty(), "{}", show(&parsed));
    for (field, expected) in [
        ("", (2, 1)),
        ("spec", (10, 3)),
        ("spec.http[0].route[0].weight", (14, 15)),
        ("spec.http[0].route[0].destination.host", (13, 27)),
        ("spec.http[0].route[0].destination.port.number", (13, 20)),
        ("spec.http[7]", (12, 5)),
        ("metadata.labels[\"app.kubernetes.io/name\"]", (8, 29)),
        ("metadata.labels.app.kubernetes.io/name", (8, 29)),
        ("spec.hosts[0]", (10, 11)),
    ] {
        assert_eq!(parsed.documents[0].locate(field), expected, "{field}");
    }
}

#[test]
fn all_faults_of_all_files_come_back() {
    let files = [
        Input { file: "a.yaml", bytes: b"kind: Service\n" },
        Input { file: "b.yaml", bytes: b"a: [" },
        Input { file: "c.yaml", bytes: VALID.as_bytes() },
        Input { file: "d.yaml", bytes: VALID.as_bytes() },
        Input { file: "e.yaml", bytes: b"just text\n" },
    ];
    let parsed = parse(&files, &Options::default());
    let found: Vec<(&str, &str)> = parsed.diagnostics.iter().map(|d| (&*d.file, d.code)).collect();
    assert_eq!(
        found,
        [("a.yaml", "IST0106"), ("b.yaml", UNREADABLE), ("d.yaml", TWICE), ("e.yaml", "IST0106")]
    );
    assert!(parsed.diagnostics[2].message.contains("first in c.yaml:1"));
}

#[test]
fn a_large_resource_is_refused() {
    let text = format!(
        "{VALID}---\n{}",
        VALID
            .replace("\"1\"", "\"1\"}, annotations: {x: LONG")
            .replace("LONG", &"y".repeat(3 << 19))
            .replace("name: a", "name: c")
    );
    let parsed = read(&text);
    assert_eq!(parsed.diagnostics.len(), 1, "{}", parsed.diagnostics.len());
    let found = &parsed.diagnostics[0];
    assert!(found.message.contains("at most 1572864 are allowed"), "{found}");
    assert_eq!(found.field, "metadata.annotations.x");
}

#[test]
fn findings_are_bounded() {
    let parsed = read(&"a: b\n---\n".repeat(5_000));
    assert!((1_000..1_010).contains(&parsed.diagnostics.len()), "{}", parsed.diagnostics.len());
}

#[test]
fn regular_expressions_are_bounded_by_document() {
    let text = |count| {
        let matches = "{uri: {regex: 'a{1000}'}}, ".repeat(count);
        resource(
            "VirtualService",
            &format!("{{hosts: [a], http: [{{match: [{matches}], route: [{{destination: {{host: a}}}}]}}]}}"),
        )
    };
    let faults = |count| {
        let parsed = offline(&text(count));
        parsed.diagnostics.into_iter().filter(|found| found.severity == Severity::Error).collect::<Vec<_>>()
    };
    assert!(faults(20).is_empty());
    let found = faults(100);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].message.contains("too many or too large"), "{}", found[0]);
}
