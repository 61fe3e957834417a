use proptest::prelude::*;

use super::*;

/// Documents that are carried out.
const SEED: &str = include_str!("seed.yaml");
/// Documents with fields that are not, or not yet.
const FULL: &str = include_str!("full.yaml");

/// What must hold of any answer: findings have a place in the file, and what was accepted is read again
/// from its canonical form as the same.
fn check(bytes: &[u8]) {
    let parsed = parse(&[Input { file: "x.yaml", bytes }], &Options::default());
    let lines = bytes.iter().filter(|&&b| b == b'\n').count() + 2;
    for finding in &parsed.diagnostics {
        assert!(finding.line as usize <= lines, "{finding}");
        assert!(!finding.message.is_empty() && !finding.message.contains('\n'), "{finding}");
    }
    for document in &parsed.documents {
        let again = from_json(&document.json, document.resource.meta.created);
        let again = again.unwrap_or_else(|found| panic!("{found:?}"));
        assert_eq!(again.meta.key, document.resource.meta.key);
        assert_eq!(again.spec, document.resource.spec);
        let (line, _) = document.locate("spec");
        assert!(line > 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&bytes);
    }

    #[test]
    fn any_yaml_punctuation(text in "([a-c0:\\-?\\[\\]{},&*!|>'\"%@# \n\t.<~]){0,120}") {
        check(text.as_bytes());
    }

    #[test]
    fn mutated_documents(edits in prop::collection::vec((any::<prop::sample::Index>(), edit()), 1..6)) {
        let mut lines: Vec<String> = SEED.lines().chain(["---"]).chain(FULL.lines()).map(str::to_owned).collect();
        for (at, edit) in edits {
            let index = at.index(lines.len());
            match edit {
                Edit::Remove => lines[index].clear(),
                Edit::Double => lines.insert(index, lines[index].clone()),
                Edit::Value(value) => {
                    let line = &lines[index];
                    let key = line.find(": ").map_or(line.clone(), |colon| line[..colon].to_owned());
                    lines[index] = format!("{}: {value}", key.trim_end_matches(':'));
                }
                Edit::Indent => lines[index].insert_str(0, "  "),
                Edit::Key(key) => {
                    let line = &lines[index];
                    let start = line.len() - line.trim_start_matches([' ', '-']).len();
                    let after = line.find(':').unwrap_or(line.len());
                    lines[index] = format!("{}{key}{}", &line[..start], line.get(after.max(start)..).unwrap_or(""));
                }
            }
        }
        check(lines.join("\n").as_bytes());
    }
}

#[derive(Debug, Clone)]
enum Edit {
    Remove,
    Double,
    Value(String),
    Indent,
    Key(String),
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
    prop_oneof![
        Just(Edit::Remove),
        Just(Edit::Double),
        Just(Edit::Indent),
        prop::sample::select(values.to_vec()).prop_map(|value| Edit::Value(value.to_owned())),
        prop::sample::select(keys.to_vec()).prop_map(|key| Edit::Key(key.to_owned())),
    ]
}

#[test]
fn the_seed_is_valid() {
    let parsed = read(SEED);
    assert!(!parsed.is_refused(), "{}", show(&parsed));
    check(SEED.as_bytes());
    let parsed = parse(&[Input { file: "x.yaml", bytes: FULL.as_bytes() }], &Options::default());
    assert!(!parsed.is_refused() && !parsed.pending.is_empty(), "{}", show(&parsed));
    check(FULL.as_bytes());
}
