use std::time::Duration;

use mesh_core::policy::jwt::{JwtRule, Keys};

use super::*;

const KEYS: &str = r#"{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}"#;

fn text(rule: &str) -> String {
    resource("RequestAuthentication", &format!("{{jwtRules: [{rule}]}}"))
}

#[track_caller]
fn rule(rule: &str) -> JwtRule {
    let Spec::RequestAuthentication(mut read) = offline_specs(&text(rule)).remove(0) else { panic!() };
    read.rules.remove(0)
}

#[test]
fn rules() {
    let full = rule(
        "{issuer: i, jwksUri: 'https://i/keys', audiences: [a], fromHeaders: [{name: X-Token, prefix: 'T '}, {name: b}], \
         fromParams: [p], fromCookies: [c], outputPayloadToHeader: X-Payload, forwardOriginalToken: true, \
         outputClaimToHeaders: [{header: X-Sub, claim: a.b}], spaceDelimitedClaims: [s], timeout: 2s, presence: REQUIRED}",
    );
    let expected = JwtRule {
        issuer: Some("i".into()),
        audiences: vec!["a".into()],
        keys: Keys::Uri("https://i/keys".into()),
        from_headers: vec![("x-token".into(), "T ".into()), ("b".into(), "".into())],
        from_params: vec!["p".into()],
        from_cookies: vec!["c".into()],
        payload_header: Some("x-payload".into()),
        claim_headers: vec![("x-sub".into(), "a.b".into())],
        forward_original: true,
        space_delimited: vec!["s".into()],
        timeout: Some(Duration::from_secs(2)),
        required: true,
    };
    assert_eq!(full, expected);
    assert_eq!(rule("{issuer: i}").keys, Keys::Discovery);
    assert_eq!(rule("{jwksUri: 'http://i'}").issuer, None);
    assert_eq!(rule(&format!("{{issuer: i, jwks: '{KEYS}'}}")).keys, Keys::Inline(KEYS.into()));
    for spec in ["{}", "{jwtRules: []}", "{targetRefs: [{kind: Service, name: a}], jwtRules: [{issuer: a}]}"]
    {
        accepted(&resource("RequestAuthentication", spec), "");
    }
    let secret = r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}"#;
    accepted(&text(&format!("{{issuer: i, jwks: '{secret}'}}")), "key 0 is a secret");
    refused(&text("{issuer: i}"), "spec", "the kind RequestAuthentication is not carried out yet");
}

#[test]
fn rules_that_are_refused() {
    let at = "spec.jwtRules[0]";
    for (rule, field, words) in [
        ("null", "", "null is not allowed"),
        ("{}", "", "issuer or jwksUri"),
        ("{issuer: ''}", ".issuer", "must not be empty"),
        ("{jwks: '{\"keys\": []}'}", "", "issuer or jwksUri"),
        ("{issuer: a, audiences: ['']}", ".audiences[0]", "must not be empty"),
        ("{issuer: a, jwksUri: foo.com}", ".jwksUri", "wanted a URL"),
        ("{issuer: a, jwksUri: 'https://foo.com:not-a-number'}", ".jwksUri", "wanted a URL"),
        ("{issuer: a, jwksUri: 'hTPp\\\\blah'}", ".jwksUri", "wanted a URL"),
        ("{issuer: a, jwks: foo}", ".jwks", "is no set of keys: is not JSON"),
        ("{issuer: a, jwks: '', jwksUri: 'http://a'}", "", "only one of jwks and jwksUri"),
        ("{issuer: a, fromHeaders: [{prefix: a}]}", ".fromHeaders[0]", "name is missing"),
        ("{issuer: a, fromHeaders: [{name: ''}]}", ".fromHeaders[0].name", "must not be empty"),
        ("{issuer: a, fromParams: ['']}", ".fromParams[0]", "must not be empty"),
        ("{issuer: a, fromCookies: ['']}", ".fromCookies[0]", "must not be empty"),
        ("{issuer: a, outputClaimToHeaders: [null]}", ".outputClaimToHeaders[0]", "null"),
        (
            "{issuer: a, outputClaimToHeaders: [{claim: '', header: h}]}",
            ".outputClaimToHeaders[0].claim",
            "must not be empty",
        ),
        (
            "{issuer: a, outputClaimToHeaders: [{claim: x, header: ':authority'}]}",
            ".outputClaimToHeaders[0].header",
            "no name of a header field",
        ),
        (
            "{issuer: a, outputClaimToHeaders: [{claim: x, header: h}, {claim: y, header: H}]}",
            ".outputClaimToHeaders[1].header",
            "there twice",
        ),
        ("{issuer: a, timeout: apple}", ".timeout", "wanted a duration"),
        ("{issuer: a, timeout: 0s}", ".timeout", "at least 1ms"),
        ("{issuer: a, spaceDelimitedClaims: ['']}", ".spaceDelimitedClaims[0]", "must not be empty"),
        ("{issuer: a, presence: MANDATORY}", ".presence", "allowed: OPTIONAL, REQUIRED"),
        ("{issuer: a, forwardOriginalToken: yes}", ".forwardOriginalToken", "true or false"),
        ("{issuer: a, jwtHeaders: [x]}", ".jwtHeaders", "unknown field"),
    ] {
        faulty(&text(rule), &format!("{at}{field}"), words);
    }
    let both = "{targetRefs: [{kind: Service, name: a}], targetRef: {kind: Service, name: a}}";
    faulty(&resource("RequestAuthentication", both), "spec", "only one of targetRef and targetRefs");
}
