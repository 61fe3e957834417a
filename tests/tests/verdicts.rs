//! The table of policies and requests that the lab is asked, judged without a wire: dialect and program alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot read its cases must fail")]

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_core::policy::authorization::AuthorizationPolicy;
use mesh_core::policy::judge::Program;
use mesh_core::policy::subject::{HttpSubject, Subject, client_address};
use mesh_core::resource::Spec;
use mesh_core::vocab::identity::SpiffeId;
use mesh_tests::claims::verdicts::{CASES, QUESTIONS, yaml};
use meshd::dialect::{Input, Options, parse};

fn program(text: &str) -> Program {
    let parsed = parse(&[Input { file: "policies.yaml", bytes: text.as_bytes() }], &Options::default());
    assert!(!parsed.is_refused() && parsed.pending.is_empty(), "{text}: {:?}", parsed.diagnostics);
    let policies = parsed.documents.into_iter().map(|document| {
        let resource = document.resource;
        let Spec::AuthorizationPolicy(declared) = resource.spec else { panic!("not a policy: {text}") };
        Arc::new(AuthorizationPolicy {
            namespace: resource.meta.key.namespace,
            name: resource.meta.key.name,
            action: declared.action,
            provider: None,
            dry_run: declared.dry_run,
            rules: declared.rules,
        })
    });
    Program::new(policies.collect())
}

#[test]
fn policies_mean_what_their_fields_say() {
    let mut wrong = Vec::new();
    for (policies, expected) in CASES {
        let program = program(&yaml(policies));
        for question in &QUESTIONS {
            let (name, host) = if question.productpage { ("productpage", 11) } else { ("reviews", 13) };
            let identity =
                SpiffeId::parse(&format!("spiffe://cluster.local/ns/default/sa/bookinfo-{name}")).unwrap();
            let mut headers = HeaderMap::new();
            for (name, value) in question.headers {
                headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            let source = Some(IpAddr::from([10, 77, 0, host]));
            let (path, query) = match question.path.split_once('?') {
                Some((path, query)) => (path, Some(query)),
                None => (question.path, None),
            };
            let subject = Subject {
                identity: Some(&identity),
                source,
                remote: client_address(&headers, source),
                destination: IpAddr::from([10, 77, 0, 12]),
                port: 9080,
                sni: None,
                http: Some(HttpSubject {
                    method: question.method,
                    path,
                    query,
                    scheme: "http",
                    authority: question.host,
                    headers: &headers,
                    claims: None,
                    every_value: false,
                }),
            };
            let (found, wanted) = (program.judge(&subject).is_allowed(), expected.contains(question.letter));
            if found != wanted {
                wrong.push(format!("{policies:?} {}: wanted {wanted}", question.letter));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
