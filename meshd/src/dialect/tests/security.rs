use mesh_core::policy::authorization::PolicyAction;
use mesh_core::policy::mtls::MtlsMode;

use super::*;

#[test]
fn a_peer_authentication() {
    let text = resource(
        "PeerAuthentication",
        "{selector: {matchLabels: {app: x}}, mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: DISABLE}, \"81\": {mode: UNSET}}}",
    );
    let Spec::PeerAuthentication(peer) = &specs(&text)[0] else { panic!() };
    assert_eq!(peer.mode, Some(MtlsMode::Strict));
    assert_eq!(peer.ports, [(8080, Some(MtlsMode::Disable)), (81, None)]);
    assert!(peer.selector.is_some());
    let no_spec = "{apiVersion: security.istio.io/v1beta1, kind: PeerAuthentication, metadata: {name: a}}";
    let Spec::PeerAuthentication(peer) = &specs(no_spec)[0] else { panic!() };
    assert_eq!(*peer, Default::default());
}

#[test]
fn peer_authentications_that_are_refused() {
    for (spec, field, words) in [
        ("{mtls: {mode: strict}}", "spec.mtls.mode", "did you mean STRICT?"),
        ("{mtls: {mode: 3}}", "spec.mtls.mode", "found the number 3, wanted one of UNSET"),
        ("{mtls: null}", "spec.mtls", "null is not allowed"),
        ("{portLevelMtls: {80: {mode: STRICT}}}", "spec.portLevelMtls", "needs a selector"),
        (
            "{selector: {matchLabels: {a: b}}, portLevelMtls: {0: {}}}",
            "spec.portLevelMtls.0",
            "a port from 1",
        ),
        ("{selector: {matchLabels: {a: 'b*'}}}", "spec.selector.matchLabels.a", "no wildcard"),
        ("{selector: {matchExpressions: []}}", "spec.selector.matchExpressions", "unknown field"),
    ] {
        refused(&resource("PeerAuthentication", spec), field, words);
    }
}

#[test]
fn an_authorization_policy() {
    let text = resource(
        "AuthorizationPolicy",
        "{action: DENY, rules: [{from: [{source: {principals: ['*'], notNamespaces: ['a*b']}}], \
         to: [{operation: {hosts: ['A.com', '*.X'], methods: [GET], paths: ['/a/{**}', /b*], ports: ['80']}}]}, {}]}",
    );
    let Spec::AuthorizationPolicy(policy) = &specs(&text)[0] else { panic!() };
    assert_eq!((policy.action, policy.rules.len()), (PolicyAction::Deny, 2));
    let rule = &policy.rules[0];
    assert!(
        rule.from[0].namespaces.none[0].matches(b"axxb") && !rule.from[0].namespaces.none[0].matches(b"axx")
    );
    let operation = &rule.to[0];
    assert!(operation.hosts.any[0].matches(b"a.COM") && operation.hosts.any[1].matches(b"y.x"));
    assert!(operation.paths.any[0].matches("/a/") && operation.paths.any[1].matches("/bc"));
    assert_eq!(operation.ports.any, [80]);
    let Spec::AuthorizationPolicy(nothing) = &specs(&resource("AuthorizationPolicy", "{}"))[0] else {
        panic!()
    };
    assert_eq!((nothing.action, nothing.rules.len()), (PolicyAction::Allow, 0));
}

#[test]
fn authorization_policies_that_are_refused() {
    for (spec, field, words) in [
        ("{action: DENY}", "spec", "without rules would never match"),
        ("{action: AUDIT}", "spec.action", "action AUDIT is not carried out yet"),
        ("{action: CUSTOM, provider: {name: x}, rules: [{}]}", "spec.action", "not carried out yet"),
        ("{action: Allow}", "spec.action", "did you mean ALLOW?"),
        ("{provider: {name: x}}", "spec.provider", "for action CUSTOM only"),
        ("{rules: [{when: []}]}", "spec.rules[0].when", "the field when is not carried out yet"),
        ("{rules: [{from: []}]}", "spec.rules[0].from", "must not be empty"),
        ("{rules: [{from: [{}]}]}", "spec.rules[0].from[0]", "the field source is missing"),
        ("{rules: [{from: [{source: {}}]}]}", "spec.rules[0].from[0].source", "an empty source"),
        (
            "{rules: [{from: [{source: {principals: []}}]}]}",
            "spec.rules[0].from[0].source",
            "an empty source",
        ),
        ("{rules: [{to: [{operation: {}}]}]}", "spec.rules[0].to[0].operation", "an empty operation"),
        (
            "{rules: [{to: [{operation: {methods: ['']}}]}]}",
            "spec.rules[0].to[0].operation.methods[0]",
            "not be empty",
        ),
        (
            "{rules: [{to: [{operation: {ports: [80]}}]}]}",
            "spec.rules[0].to[0].operation.ports[0]",
            "in quotes",
        ),
        (
            "{rules: [{to: [{operation: {ports: ['x']}}]}]}",
            "spec.rules[0].to[0].operation.ports[0]",
            "wanted a port",
        ),
        (
            "{rules: [{to: [{operation: {paths: ['/{x}']}}]}]}",
            "spec.rules[0].to[0].operation.paths[0]",
            "template",
        ),
        (
            "{rules: [{from: [{source: {ipBlocks: [1.1.1.1]}}]}]}",
            "spec.rules[0].from[0].source.ipBlocks",
            "not carried out",
        ),
        (
            "{rules: [{from: [{source: {principal: [a]}}]}]}",
            "spec.rules[0].from[0].source.principal",
            "did you mean principals?",
        ),
        ("{targetRefs: []}", "spec.targetRefs", "not carried out yet"),
    ] {
        refused(&resource("AuthorizationPolicy", spec), field, words);
    }
    let dry = resource("AuthorizationPolicy", "{}")
        .replace("name: a", "name: a\n  annotations: {istio.io/dry-run: \"true\"}");
    refused(&dry, "metadata.annotations[\"istio.io/dry-run\"]", "not carried out yet");
}
