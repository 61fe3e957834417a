//! Any bytes as a file of resources: read, told what is wrong, written back, compiled, analysed and asked.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use mesh_core::snapshot::Version;
use mesh_core::state::Settings;
use mesh_core::vocab::identity::TrustDomain;
use meshd::admin::view::ExplainRequest;
use meshd::admin::{analysis, explain};
use meshd::dialect::{self, Input, Options};

/// Longest message: it may repeat a piece of the file, but not the file.
const LONGEST_MESSAGE: usize = 2_000;

fuzz_target!(|bytes: &[u8]| {
    read(bytes, &Options::to_apply());
    read(bytes, &Options::default());
});

fn read(bytes: &[u8], options: &Options) {
    let parsed = dialect::parse(&[Input { file: "x.yaml", bytes }], options);
    for finding in parsed.diagnostics.iter().chain(&parsed.pending) {
        let length = finding.message.chars().count();
        assert!(length > 0 && length < LONGEST_MESSAGE, "{finding}");
    }
    for document in &parsed.documents {
        let again = dialect::from_json(&document.json, document.resource.meta.created);
        let again = again.unwrap_or_else(|found| panic!("what was accepted is refused: {found:?}"));
        assert_eq!(again.spec, document.resource.spec, "the canonical form means something else");
    }
    if parsed.is_refused() {
        return;
    }
    let settings = Settings {
        trust_domain: TrustDomain::new("cluster.local").expect("a valid name"),
        root_namespace: "istio-system".into(),
    };
    let resources: Vec<_> = parsed.documents.into_iter().map(|found| Arc::new(found.resource)).collect();
    let _findings = analysis::across(&resources, &parsed.pods, "istio-system");
    let (state, compiled) = explain::offline(settings, resources);
    let services: Vec<_> = state.services().map(|service| service.host.to_string()).take(4).collect();
    for host in services {
        let request = ExplainRequest {
            from: "default/caller".to_owned(),
            to: format!("http://{host}/api/v1?debug=1"),
            method: "GET".to_owned(),
            ..ExplainRequest::default()
        };
        let _answer = explain::answer(&state, &compiled, Version::default(), &request);
    }
}
