use mesh_core::policy::mtls::MtlsMode;

use super::*;

#[test]
fn modes() {
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
fn what_is_accepted() {
    for (spec, warning) in [
        ("{}", ""),
        ("{selector: {}}", "without labels"),
        ("{selector: {matchLabels: {}}}", "without labels"),
        ("{selector: {matchLabels: {app: '', a/b/c: x}}}", ""),
        ("{mtls: {}}", ""),
        ("{mtls: {mode: UNSET}}", ""),
        ("{selector: {matchLabels: {a: b}}, portLevelMtls: {65535: {}}}", ""),
    ] {
        accepted(&resource("PeerAuthentication", spec), warning);
    }
}

#[test]
fn what_is_refused() {
    for (spec, field, words) in [
        ("{mtls: {mode: strict}}", "spec.mtls.mode", "did you mean STRICT?"),
        ("{mtls: {mode: 3}}", "spec.mtls.mode", "found the number 3, wanted one of UNSET"),
        ("{mtls: null}", "spec.mtls", "null is not allowed"),
        ("{portLevelMtls: {80: {mode: STRICT}}}", "spec.portLevelMtls", "needs a selector"),
        ("{selector: {}, portLevelMtls: {80: {mode: STRICT}}}", "spec.portLevelMtls", "needs a selector"),
        (
            "{selector: {matchLabels: {a: b}}, portLevelMtls: {0: {}}}",
            "spec.portLevelMtls.0",
            "a port from 1",
        ),
        (
            "{selector: {matchLabels: {a: b}}, portLevelMtls: {42949672: {}}}",
            "spec.portLevelMtls.42949672",
            "a port from 1",
        ),
        (
            "{selector: {matchLabels: {a: b}}, portLevelMtls: {http: {}}}",
            "spec.portLevelMtls.http",
            "a port from 1",
        ),
        ("{selector: {matchLabels: {a: b}}, portLevelMtls: {}}", "spec.portLevelMtls", "must not be empty"),
        ("{selector: {matchLabels: {a: 'b*'}}}", "spec.selector.matchLabels.a", "no wildcard"),
        ("{selector: {matchLabels: {'a*': b}}}", "spec.selector.matchLabels[\"a*\"]", "no wildcard"),
        ("{selector: {matchLabels: {'': b}}}", "spec.selector.matchLabels[\"\"]", "empty"),
        ("{selector: {matchExpressions: []}}", "spec.selector.matchExpressions", "unknown field"),
    ] {
        refused(&resource("PeerAuthentication", spec), field, words);
    }
}
