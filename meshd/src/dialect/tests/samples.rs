use std::fs;
use std::path::{Path, PathBuf};

use super::*;

/// Files that bring kinds that are not read yet, with a word of the refusal.
const REFUSED: [(&str, &str); 11] = [
    ("bookinfo/gateway-api/bookinfo-gateway.yaml", "Gateway"),
    ("bookinfo/gateway-api/route-all-v1.yaml", "HTTPRoute"),
    ("bookinfo/gateway-api/route-reviews-50-v3.yaml", "HTTPRoute"),
    ("bookinfo/gateway-api/route-reviews-90-10.yaml", "HTTPRoute"),
    ("bookinfo/gateway-api/route-reviews-v1.yaml", "HTTPRoute"),
    ("bookinfo/gateway-api/route-reviews-v3.yaml", "HTTPRoute"),
    ("helloworld/gateway-api/helloworld-gateway.yaml", "Gateway"),
    ("helloworld/gateway-api/helloworld-route.yaml", "HTTPRoute"),
    ("httpbin/gateway-api/httpbin-gateway.yaml", "Gateway"),
    ("tcp-echo/gateway-api/tcp-echo-20-v2.yaml", "TCPRoute"),
    ("tcp-echo/gateway-api/tcp-echo-all-v1.yaml", "Gateway"),
];

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
}

#[test]
fn istio_s_samples() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/istio/samples");
    if !root.is_dir() {
        println!("skipped: {} is not here", root.display());
        return;
    }
    let mut found = Vec::new();
    files(&root, &mut found);
    found.sort();
    let mut wrong = String::new();
    for path in &found {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap();
        let bytes = fs::read(path).unwrap();
        let parsed = parse(&[Input { file: name, bytes: &bytes }], &Options::default());
        let expected = REFUSED.iter().find(|(refused, _)| *refused == name);
        let fits = match expected {
            Some((_, word)) => {
                let mut errors = parsed.diagnostics.iter().filter(|d| d.severity == Severity::Error);
                errors.any(|d| d.message.contains(word) && d.message.contains("not carried out yet"))
            }
            None => !parsed.is_refused(),
        };
        if !fits {
            wrong.push_str(&format!("{name}, expected {expected:?}:\n{}", show(&parsed)));
        }
        for document in &parsed.documents {
            let again = from_json(&document.json, document.resource.meta.created).unwrap();
            assert_eq!(again.spec, document.resource.spec, "{name}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(found.len() > 70, "{} files", found.len());
}
