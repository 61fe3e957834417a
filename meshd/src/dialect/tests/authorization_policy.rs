use mesh_core::matching::text::TextMatch;
use mesh_core::policy::authorization::{Condition, PolicyAction, Values};
use mesh_core::resource::security::AuthorizationPolicy;

use super::*;

#[track_caller]
fn policy(spec: &str) -> AuthorizationPolicy {
    let Spec::AuthorizationPolicy(policy) = offline_specs(&resource("AuthorizationPolicy", spec)).remove(0)
    else {
        panic!()
    };
    policy
}

#[test]
fn a_policy_that_is_carried_out() {
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
fn sources() {
    let source = |fields: &str| {
        let mut policy = policy(&format!("{{rules: [{{from: [{{source: {{{fields}}}}}]}}]}}"));
        policy.rules.remove(0).from.remove(0)
    };
    let accounts = source("serviceAccounts: [a, b/c], notServiceAccounts: [d]");
    assert_eq!(accounts.service_accounts.any, ["default/a".into(), "b/c".into()]);
    assert_eq!(accounts.service_accounts.none, ["default/d".into()]);
    let blocks =
        source("ipBlocks: [1.2.3.4, 10.1.2.3/8, '::1', 'fe80::1%eth0'], notRemoteIpBlocks: ['fd00::/8']");
    let any: Vec<String> = blocks.ip_blocks.any.iter().map(ToString::to_string).collect();
    assert_eq!(any, ["1.2.3.4/32", "10.1.2.3/8", "::1/128", "fe80::1/128"]);
    assert_eq!(blocks.remote_ip_blocks.none.len(), 1);
    let others = source("requestPrincipals: ['*'], notTrustDomains: ['x*', td]");
    assert_eq!(others.request_principals.any, [TextMatch::NotEmpty]);
    assert_eq!(others.trust_domains.none, [TextMatch::Prefix("x".into()), TextMatch::Exact("td".into())]);
}

fn none<M>(value: M) -> Values<M> {
    Values { any: Vec::new(), none: vec![value] }
}

#[test]
fn conditions() {
    let condition = |key: &str, value: &str| {
        let text = format!("{{rules: [{{when: [{{key: '{key}', notValues: ['{value}']}}]}}]}}");
        policy(&text).rules.remove(0).when.remove(0)
    };
    let exact = |text: &str| TextMatch::Exact(text.into());
    for (key, value, expected) in [
        ("request.headers[X-A]", "v", Condition::Header("x-a".parse().unwrap(), none(exact("v")))),
        ("request.headers[X-A]", "*", Condition::Header("x-a".parse().unwrap(), none(TextMatch::Present))),
        ("request.headers[:authority]", "a", Condition::Pseudo(":authority".into(), none(exact("a")))),
        ("source.ip", "10.0.0.0/8", Condition::SourceIp(none("10.0.0.0/8".parse().unwrap()))),
        ("remote.ip", "::/0", Condition::RemoteIp(none("::/0".parse().unwrap()))),
        ("destination.ip", "::/0", Condition::DestinationIp(none("::/0".parse().unwrap()))),
        ("source.namespace", "n", Condition::SourceNamespace(none(exact("n")))),
        ("source.serviceAccount", "a", Condition::SourceServiceAccount(none("default/a".into()))),
        ("source.principal", "p", Condition::SourcePrincipal(none(exact("p")))),
        ("source.trustDomain", "td", Condition::SourceTrustDomain(none(exact("td")))),
        ("request.auth.principal", "i/s", Condition::RequestPrincipal(none(exact("i/s")))),
        ("request.auth.audiences", "a", Condition::Audiences(none(exact("a")))),
        ("request.auth.presenter", "a", Condition::Presenter(none(exact("a")))),
        ("request.auth.claims[a]", "v", Condition::Claim(vec!["a".into()], none(exact("v")))),
        ("request.auth.claims[a][b]", "v", Condition::Claim(vec!["a".into(), "b".into()], none(exact("v")))),
        ("destination.port", "80", Condition::DestinationPort(none(80))),
        ("connection.sni", "*.a", Condition::Sni(none(TextMatch::Suffix(".a".into())))),
        (
            "experimental.envoy.filters.a.b[c]",
            "v",
            Condition::Metadata("experimental.envoy.filters.a.b[c]".into(), none(exact("v"))),
        ),
    ] {
        assert_eq!(condition(key, value), expected, "{key}");
    }
    let Condition::Header(_, values) = condition("request.experimental.inline.headers[x]", "b*") else {
        panic!()
    };
    for (header, expected) in [("a, bc,d", true), ("b", true), ("a,c", false), ("ab", false)] {
        assert_eq!(values.none[0].matches(header.as_bytes()), expected, "{header}");
    }
}

#[test]
fn paths() {
    let text = |path: &str| {
        resource(
            "AuthorizationPolicy",
            &format!("{{rules: [{{to: [{{operation: {{paths: ['{path}']}}}}]}}]}}"),
        )
    };
    for path in
        ["/{*}/foo", "/foo/{**}/bar", "/a/{*}/", "/{*}/{**}", "/a//b", "*", "/a*", "*/b", "/%41~@=/{*}"]
    {
        accepted(&text(path), "");
    }
    accepted(&text("{*}/foo"), "never matches");
    for path in [
        "/{*}/foo/{}/bar",
        "/foo/{*}/bar/*",
        "/foo/{*}/bar/**/buzz",
        "/foo/{buzz}/bar/{**}.txt",
        "/{**}/{*}",
        "/{**}/a/{**}",
        "/{buzz}",
        "/a}b",
        "/a//{*}",
        "/{*}x",
        "*/{*}",
    ] {
        faulty(&text(path), "spec.rules[0].to[0].operation.paths[0]", "is no path template");
    }
}

#[test]
fn scopes_and_actions() {
    let scoped = policy(
        "{targetRefs: [{kind: Service, name: a}, {group: gateway.networking.k8s.io, kind: Gateway, name: b}]}",
    );
    assert_eq!(scoped.targets.len(), 2);
    assert_eq!(&*scoped.targets[1].kind, "Gateway");
    let custom =
        policy("{action: CUSTOM, provider: {name: ext}, rules: [{to: [{operation: {paths: [/a]}}]}]}");
    assert_eq!((custom.action, custom.provider.as_deref()), (PolicyAction::Custom, Some("ext")));
    for spec in [
        "{action: AUDIT}",
        "{targetRef: {group: networking.istio.io, kind: ServiceEntry, name: a, namespace: ''}}",
        "{targetRef: {group: core, kind: Service, name: a}}",
        "{rules: [{when: []}]}",
        "{action: DENY, rules: [{}]}",
        "{action: DENY, rules: [{from: [{source: {requestPrincipals: [a]}}], to: [{operation: {ports: ['1']}}]}]}",
        "{action: DENY, rules: [{from: [{source: {ipBlocks: [1.1.1.1]}}]}]}",
    ] {
        accepted(&resource("AuthorizationPolicy", spec), "");
    }
    for spec in [
        "{action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]}",
        "{action: DENY, rules: [{from: [{source: {requestPrincipals: [a]}}]}]}",
        "{action: DENY, rules: [{from: [{source: {principals: [a]}}], to: [{operation: {paths: [/]}}]}]}",
    ] {
        accepted(
            &resource("AuthorizationPolicy", spec),
            "denies every connection to ports that are not HTTP",
        );
    }
}

#[test]
fn policies_that_are_refused() {
    let source = "spec.rules[0].from[0].source";
    let operation = "spec.rules[0].to[0].operation";
    let of_source = |fields: &str| format!("{{rules: [{{from: [{{source: {{{fields}}}}}]}}]}}");
    let of_operation = |fields: &str| format!("{{rules: [{{to: [{{operation: {{{fields}}}}}]}}]}}");
    let when = |condition: &str| format!("{{rules: [{{when: [{{{condition}}}]}}]}}");
    let at = |base: &str, rest: &str| format!("{base}.{rest}");
    for (spec, field, words) in [
        ("{action: DENY}".to_owned(), "spec".to_owned(), "without rules would never match"),
        ("{action: DENY, rules: []}".into(), "spec".into(), "without rules would never match"),
        ("{action: CUSTOM, provider: {name: x}}".into(), "spec".into(), "without rules would never match"),
        ("{action: CUSTOM, rules: [{}]}".into(), "spec".into(), "needs provider.name"),
        ("{action: CUSTOM, provider: {}, rules: [{}]}".into(), "spec.provider".into(), "name is missing"),
        ("{action: CUSTOM, provider: {name: ''}, rules: [{}]}".into(), "spec.provider.name".into(), "empty"),
        ("{action: Allow}".into(), "spec.action".into(), "did you mean ALLOW?"),
        ("{provider: {name: x}}".into(), "spec.provider".into(), "for action CUSTOM only"),
        ("{provider: {}}".into(), "spec.provider".into(), "for action CUSTOM only"),
        ("{rules: [null]}".into(), "spec.rules[0]".into(), "null is not allowed"),
        ("{rules: [{from: []}]}".into(), "spec.rules[0].from".into(), "must not be empty"),
        ("{rules: [{to: []}]}".into(), "spec.rules[0].to".into(), "must not be empty"),
        ("{rules: [{from: [{}]}]}".into(), "spec.rules[0].from[0]".into(), "the field source is missing"),
        ("{rules: [{to: [{}]}]}".into(), "spec.rules[0].to[0]".into(), "the field operation is missing"),
        (of_source(""), source.into(), "an empty source"),
        (of_source("principals: []"), source.into(), "an empty source"),
        (of_source("principals: [p, '']"), at(source, "principals[1]"), "must not be empty"),
        (of_source("ipBlocks: [x]"), at(source, "ipBlocks[0]"), "wanted an IP address"),
        (of_source("remoteIpBlocks: [1.1.1.1/33]"), at(source, "remoteIpBlocks[0]"), "wanted an IP address"),
        (of_source("notIpBlocks: [1.1.1.1/08]"), at(source, "notIpBlocks[0]"), "wanted an IP address"),
        (of_source("serviceAccounts: [a], namespaces: [b]"), source.into(), "cannot be combined"),
        (of_source("notServiceAccounts: [a], notPrincipals: [b]"), source.into(), "cannot be combined"),
        (of_source("serviceAccounts: ['a*']"), at(source, "serviceAccounts[0]"), "no wildcard"),
        (of_source("serviceAccounts: [a/b/c]"), at(source, "serviceAccounts[0]"), "NAMESPACE/ACCOUNT"),
        (of_source("serviceAccounts: [/a]"), at(source, "serviceAccounts[0]"), "NAMESPACE/ACCOUNT"),
        (of_source("trustDomains: [a/b]"), at(source, "trustDomains[0]"), "no trust domain"),
        (of_source("principal: [a]"), at(source, "principal"), "did you mean principals?"),
        (of_operation(""), operation.into(), "an empty operation"),
        (of_operation("methods: ['']"), at(operation, "methods[0]"), "not be empty"),
        (of_operation("ports: [80]"), at(operation, "ports[0]"), "in quotes"),
        (of_operation("ports: ['x']"), at(operation, "ports[0]"), "wanted a port"),
        (of_operation("notPorts: ['65536']"), at(operation, "notPorts[0]"), "wanted a port"),
        (when("values: [a]"), "spec.rules[0].when[0]".into(), "the field key is missing"),
        (when("key: '', values: [a]"), "spec.rules[0].when[0].key".into(), "must not be empty"),
        (when("key: source.principal"), "spec.rules[0].when[0]".into(), "one of values and notValues"),
        (when("key: source.ip, values: [a.b.c.d]"), "spec.rules[0].when[0].values[0]".into(), "IP address"),
        (when("key: destination.port, values: [x]"), "spec.rules[0].when[0].values[0]".into(), "a port"),
        (when("key: key1, values: [a]"), "spec.rules[0].when[0].key".into(), "allowed: request.headers"),
        (when("key: source.user, values: [a]"), "spec.rules[0].when[0].key".into(), "allowed: "),
        (when("key: 'request.headers[]', values: [a]"), "spec.rules[0].when[0].key".into(), "in brackets"),
        (when("key: request.headers, values: [a]"), "spec.rules[0].when[0].key".into(), "in brackets"),
        (when("key: 'request.auth.claims[]', values: [a]"), "spec.rules[0].when[0].key".into(), "brackets"),
        (
            when("key: experimental.envoy.filters.a, values: [a]"),
            "spec.rules[0].when[0].key".into(),
            "brackets",
        ),
        (
            when("key: destination.namespace, values: [a]"),
            "spec.rules[0].when[0].key".into(),
            "own namespace",
        ),
        (when("key: 'destination.labels[a]', values: [a]"), "spec.rules[0].when[0].key".into(), "selector"),
        (when("key: destination.user, values: [a]"), "spec.rules[0].when[0].key".into(), "selector"),
        (
            when("key: 'request.headers[:authority]', values: [a, '']"),
            "spec.rules[0].when[0].values[1]".into(),
            "must not be empty",
        ),
        ("{selector: {}, targetRef: {kind: Service, name: a}}".into(), "spec".into(), "only one of"),
        ("{targetRefs: [{kind: Service}]}".into(), "spec.targetRefs[0]".into(), "name is missing"),
        ("{targetRefs: [{kind: Pod, name: a}]}".into(), "spec.targetRefs[0].kind".into(), "allowed: Service"),
        (
            "{targetRefs: [{kind: Gateway, name: a}]}".into(),
            "spec.targetRefs[0].kind".into(),
            "Gateway of gateway.networking.k8s.io",
        ),
        (
            "{targetRef: {kind: Service, name: a, namespace: b}}".into(),
            "spec.targetRef.namespace".into(),
            "another namespace",
        ),
    ] {
        faulty(&resource("AuthorizationPolicy", &spec), &field, words);
    }
}

#[test]
fn keys_that_no_request_has() {
    for key in [
        "request.headers[a b]",
        "request.headers[:foo]",
        "request.headers.x[a]",
        "request.experimental.inline.headers[a]]",
        "request.auth.claims[a][]",
        "request.auth.claims.x[a]",
    ] {
        let spec = format!("{{rules: [{{when: [{{key: '{key}', values: [a]}}]}}]}}");
        accepted(&resource("AuthorizationPolicy", &spec), "it never has a value");
    }
    let many = |count: usize| vec!["{}"; count].join(", ");
    accepted(&resource("AuthorizationPolicy", &format!("{{rules: [{}]}}", many(512))), "");
    let spec = format!("{{rules: [{}]}}", many(513));
    faulty(&resource("AuthorizationPolicy", &spec), "spec.rules", "at most 512");
}

#[test]
fn what_a_custom_policy_cannot_look_at() {
    let text = |rule: &str| {
        let spec = format!("{{action: CUSTOM, provider: {{name: x}}, rules: [{rule}]}}");
        resource("AuthorizationPolicy", &spec)
    };
    for field in [
        "principals",
        "notPrincipals",
        "namespaces",
        "notNamespaces",
        "serviceAccounts",
        "notServiceAccounts",
        "trustDomains",
        "notTrustDomains",
        "requestPrincipals",
        "notRequestPrincipals",
    ] {
        let rule = format!("{{from: [{{source: {{{field}: [a]}}}}]}}");
        faulty(
            &text(&rule),
            &format!("spec.rules[0].from[0].source.{field}"),
            "cannot be used with action CUSTOM",
        );
    }
    for key in [
        "source.namespace",
        "source.serviceAccount",
        "source.principal",
        "source.trustDomain",
        "request.auth.principal",
    ] {
        let rule = format!("{{when: [{{key: {key}, values: [a]}}]}}");
        faulty(&text(&rule), "spec.rules[0].when[0].key", "cannot be used with action CUSTOM");
    }
    accepted(
        &text("{from: [{source: {ipBlocks: [1.1.1.1]}}], when: [{key: 'request.headers[a]', values: [b]}]}"),
        "",
    );
}

#[test]
fn policies_that_are_tried_out() {
    let text = |spec: &str, value: &str| {
        resource("AuthorizationPolicy", spec)
            .replace("name: a", &format!("name: a\n  annotations: {{istio.io/dry-run: \"{value}\"}}"))
    };
    for (value, expected) in [("true", true), ("1", true), ("false", false), ("F", false)] {
        let Spec::AuthorizationPolicy(policy) = &offline_specs(&text("{}", value))[0] else { panic!() };
        assert_eq!(policy.dry_run, expected);
    }
    let field = "metadata.annotations[\"istio.io/dry-run\"]";
    faulty(&text("{}", "foo"), field, "wanted \"true\" or \"false\"");
    faulty(&text("{action: AUDIT}", "true"), field, "cannot be tried out");
    let other = text("{}", "true").replace("AuthorizationPolicy", "PeerAuthentication");
    faulty(&other, field, "for AuthorizationPolicy only");
    let Spec::AuthorizationPolicy(policy) = &specs(&text("{}", "true"))[0] else { panic!() };
    assert!(policy.dry_run);
}

#[test]
fn what_has_no_effect_on_the_wire_yet() {
    let custom = resource("AuthorizationPolicy", "{action: CUSTOM, provider: {name: x}, rules: [{}]}");
    refused(&custom, "spec.action", "not carried out yet");
    for (target, words) in [
        ("{kind: Service, name: a}", "kind Service is for waypoint proxies"),
        (
            "{group: networking.istio.io, kind: ServiceEntry, name: a}",
            "use `selector` with the labels of its",
        ),
        ("{group: gateway.networking.k8s.io, kind: Gateway, name: a}", "labels of the gateway's workload"),
        ("{group: gateway.networking.k8s.io, kind: GatewayClass, name: a}", "Kubernetes' Gateway API"),
    ] {
        let several = resource("AuthorizationPolicy", &format!("{{targetRefs: [{target}]}}"));
        refused(&several, "spec.targetRefs[0]", words);
        refused(
            &resource("AuthorizationPolicy", &format!("{{targetRef: {target}}}")),
            "spec.targetRef",
            words,
        );
    }
}
