use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

/// Documents that are carried out.
const SEED: &str = include_str!("seed.yaml");
/// Documents with fields that are not, or not yet.
const FULL: &str = include_str!("full.yaml");
/// Documents of all other kinds.
const KINDS: &str = include_str!("kinds.yaml");

/// All these documents, one by one.
static DOCUMENTS: LazyLock<Vec<&str>> =
    LazyLock::new(|| [SEED, FULL, KINDS].into_iter().flat_map(|text| text.split("\n---\n")).collect());

/// Longest message: it may repeat a piece of the document, but not the document.
const LONGEST_MESSAGE: usize = 2_000;

/// What must hold of any answer, whatever the documents are read for: findings have a place in the file and are as
/// short as messages are, and what was accepted is read again from its canonical form as the same.
fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for options in [Options::default(), Options::to_apply()] {
        let parsed = parse(&[Input { file: "x.yaml", bytes }], &options);
        let lines = bytes.iter().filter(|&&b| b == b'\n').count() + 2;
        for finding in parsed.diagnostics.iter().chain(&parsed.pending) {
            assert!(finding.line as usize <= lines, "{finding}");
            assert!(!finding.message.is_empty() && !finding.message.contains('\n'), "{finding}");
            assert!(finding.message.chars().count() < LONGEST_MESSAGE, "{finding}");
        }
        for document in &parsed.documents {
            let again = from_json(&document.json, document.resource.meta.created);
            let again = again.unwrap_or_else(|found| panic!("{found:?}"));
            assert_eq!(again.meta.key, document.resource.meta.key);
            assert_eq!(again.spec, document.resource.spec);
            let (line, _) = document.locate("spec");
            assert!(line > 0);
        }
        // A document becomes a resource, an error, or is skipped with a warning; it never vanishes.
        let kept = parsed.documents.len() + parsed.diagnostics.len();
        let is_list =
            || text.lines().any(|line| line.trim_start().trim_start_matches("- ").starts_with("items"));
        assert!(kept > 0 || !text.starts_with("apiVersion:") || is_list(), "{text}");
    }
}

/// How many cases of each; `PROPTEST_CASES` asks for more.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(400)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases()) })]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&bytes);
    }

    #[test]
    fn any_yaml_punctuation(text in "([a-c0:\\-?\\[\\]{},&*!|>'\"%@# \n\t.<~]){0,120}") {
        check(text.as_bytes());
    }

    #[test]
    fn mutated_documents(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), edit()), 1..6),
    ) {
        let document = DOCUMENTS[which.index(DOCUMENTS.len())];
        let mut lines: Vec<String> = document.lines().map(str::to_owned).collect();
        for (at, edit) in edits {
            change(&mut lines, at, edit);
        }
        check(lines.join("\n").as_bytes());
    }

    #[test]
    fn documents_mixed_with_each_other(
        which in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 2..5),
    ) {
        // The beginning of one and the end of another: fields at places where they do not belong.
        let mut mixed = String::new();
        for (document, end) in which {
            let document = DOCUMENTS[document.index(DOCUMENTS.len())];
            let lines: Vec<&str> = document.lines().collect();
            let end = end.index(lines.len()) + 1;
            mixed.push_str(&lines[..end].join("\n"));
            mixed.push('\n');
        }
        check(mixed.as_bytes());
    }
}

fn set_value(line: &mut String, value: &str) {
    let key = line.find(": ").map_or(line.as_str(), |colon| &line[..colon]);
    *line = format!("{}: {value}", key.trim_end_matches(':'));
}

fn change(lines: &mut Vec<String>, at: prop::sample::Index, edit: Edit) {
    let index = at.index(lines.len());
    match edit {
        Edit::Remove => lines[index].clear(),
        Edit::Double => lines.insert(index, lines[index].clone()),
        Edit::Value(value) => set_value(&mut lines[index], &value),
        Edit::Long => set_value(&mut lines[index], &format!("'{}'", "Long é".repeat(LONGEST_MESSAGE))),
        Edit::Indent => lines[index].insert_str(0, "  "),
        Edit::Key(key) => {
            let line = &lines[index];
            let start = line.len() - line.trim_start_matches([' ', '-']).len();
            let after = line.find(':').unwrap_or(line.len());
            lines[index] = format!("{}{key}{}", &line[..start], line.get(after.max(start)..).unwrap_or(""));
        }
        Edit::Letter(place, letter) => {
            let line = &mut lines[index];
            let places: Vec<usize> = line.char_indices().map(|(at, _)| at).chain([line.len()]).collect();
            line.insert(places[place.index(places.len())], letter);
        }
        Edit::Cut(place) => {
            let line = &mut lines[index];
            let places: Vec<usize> = line.char_indices().map(|(at, _)| at).chain([line.len()]).collect();
            line.truncate(places[place.index(places.len())]);
        }
    }
}

#[derive(Debug, Clone)]
enum Edit {
    Remove,
    Double,
    Value(String),
    /// A value that no message can repeat.
    Long,
    Indent,
    Key(String),
    /// One letter more in a line.
    Letter(prop::sample::Index, char),
    /// The end of a line less.
    Cut(prop::sample::Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    let values = [
        "null",
        "[]",
        "{}",
        "0",
        "-1",
        "1.5",
        "99999999999999999999",
        "''",
        "'*'",
        "true",
        "[null]",
        "{a: {}}",
        "'%'",
        "'é'",
        "1s",
    ];
    let keys = [
        "hosts",
        "rules",
        "source",
        "jwks",
        "mesh",
        "data",
        "labels",
        "port",
        "kind",
        "http",
        "tcp",
        "route",
        "match",
        "exact",
        "regex",
        "spec",
        "name",
        "''",
        "a.b",
        "\"\\u0000\"",
    ];
    let letters = [
        '/',
        '*',
        '{',
        '}',
        '[',
        ']',
        '%',
        '(',
        '\\',
        ':',
        '.',
        '-',
        '9',
        'é',
        '\u{1f600}',
        '"',
        '\'',
        '~',
        '!',
    ];
    prop_oneof![
        Just(Edit::Remove),
        Just(Edit::Double),
        Just(Edit::Indent),
        prop::sample::select(values.to_vec()).prop_map(|value| Edit::Value(value.to_owned())),
        prop::sample::select(keys.to_vec()).prop_map(|key| Edit::Key(key.to_owned())),
        (any::<prop::sample::Index>(), prop::sample::select(letters.to_vec()))
            .prop_map(|(place, letter)| Edit::Letter(place, letter)),
        Just(Edit::Long),
        any::<prop::sample::Index>().prop_map(Edit::Cut),
    ]
}

#[test]
fn the_seed_is_valid() {
    let parsed = read(SEED);
    assert!(!parsed.is_refused(), "{}", show(&parsed));
    check(SEED.as_bytes());
    for text in [FULL, KINDS] {
        let parsed = offline(text);
        assert!(!parsed.is_refused() && !parsed.pending.is_empty(), "{}", show(&parsed));
        check(text.as_bytes());
    }
}
