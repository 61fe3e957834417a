//! `meshd analyze -f FILE`: each file in `analysis/` names in its head exactly what is found in it.

use std::path::Path;
use std::process::Command;

fn found(path: &Path) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_meshd"))
        .args(["analyze", "-o", "json", "-f"])
        .arg(path)
        .output()
        .expect("meshd runs");
    let findings: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}: {}", path.display(), String::from_utf8_lossy(&output.stderr)));
    let text = |finding: &serde_json::Value, key: &str| finding[key].as_str().unwrap_or("").to_owned();
    let findings = findings.as_array().expect("a list").iter();
    let mut found: Vec<String> = findings
        .map(|finding| {
            let words = ["severity", "code", "resource", "field"].map(|key| text(finding, key));
            words.join(" ").trim().to_owned()
        })
        .collect();
    found.sort();
    found
}

#[test]
fn every_file_has_the_findings_that_it_names() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/analysis");
    let mut files = 0;
    let mut wrong = String::new();
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("readable").path();
        let text = std::fs::read_to_string(&path).expect("readable");
        let mut expected: Vec<String> =
            text.lines().filter_map(|line| line.strip_prefix("# expect: ")).map(str::to_owned).collect();
        expected.sort();
        let found = found(&path);
        let missing = expected.iter().filter(|line| !found.contains(line)).map(|line| format!("- {line}\n"));
        let surplus = found.iter().filter(|line| !expected.contains(line)).map(|line| format!("+ {line}\n"));
        let lines: String = missing.chain(surplus).collect();
        if !lines.is_empty() {
            wrong.push_str(&format!("{}:\n{lines}", path.display()));
        }
        files += 1;
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(files >= 6);
}
