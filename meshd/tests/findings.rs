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

/// A mesh of 10,000 resources is a matter of seconds even without optimisation, with selectors that all meet.
#[test]
fn time_grows_with_the_mesh_and_not_faster() {
    let mut text = String::new();
    for index in 0..2_500 {
        let namespace = index % 20;
        text.push_str(&format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{index}, namespace: n{namespace}}}\n\
             spec: {{selector: {{app: a{index}}}, ports: [{{name: http, port: 80}}]}}\n\
             ---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n\
             metadata: {{name: w{index}, namespace: n{namespace}, labels: {{app: a{index}, version: v1}}}}\n\
             spec: {{address: 10.0.0.1, serviceAccount: x}}\n\
             ---\napiVersion: networking.istio.io/v1\nkind: Gateway\n\
             metadata: {{name: g{index}, namespace: n{namespace}}}\n\
             spec: {{selector: {{version: v1}}, servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: [\"*\"]}}]}}\n\
             ---\napiVersion: networking.istio.io/v1\nkind: Sidecar\n\
             metadata: {{name: c{index}, namespace: n{namespace}}}\n\
             spec: {{workloadSelector: {{labels: {{version: v1}}}}, egress: [{{hosts: [\"./*\"]}}]}}\n"
        ));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("mesh.yaml");
    std::fs::write(&path, text).expect("written");
    let start = std::time::Instant::now();
    let found = found(&path);
    assert!(found.len() >= 5_000, "{}", found.len());
    // A tenth of a second where it is optimised; a slow machine that builds at the same time takes its time.
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}
