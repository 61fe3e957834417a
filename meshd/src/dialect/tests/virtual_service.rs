//! VirtualService as a whole: hosts, gateways, delegates, rules for streams, what is never reached.

use mesh_core::resource::reach::{Export, GatewayRef};
use mesh_core::resource::virtual_service::{HttpAction, VirtualService};

use super::*;

const ROUTE: &str = "route: [{destination: {host: b}}]";

/// Reads without the wish to carry it out.
fn validated(spec: &str) -> Parsed {
    let text = resource("VirtualService", spec);
    parse(&[Input { file: "x.yaml", bytes: text.as_bytes() }], &Options::default())
}

#[track_caller]
fn valid(spec: &str) -> VirtualService {
    let mut parsed = validated(spec);
    assert!(!parsed.is_refused(), "{spec}\n{}", show(&parsed));
    let Spec::VirtualService(service) = parsed.documents.remove(0).resource.spec else { panic!() };
    service
}

/// Checks that this is refused, and that the first fault is at this field with these words.
#[track_caller]
fn invalid(spec: &str, field: &str, words: &str) {
    let parsed = validated(spec);
    let found = parsed.diagnostics.iter().find(|d| d.severity == Severity::Error);
    let found = found.unwrap_or_else(|| panic!("accepted: {spec}"));
    assert_eq!(found.field, field, "{found}");
    assert!(found.message.contains(words), "{found}\nwanted: {words}");
}

/// What is understood, but not carried out.
#[track_caller]
fn pending(spec: &str, field: &str) {
    let parsed = validated(spec);
    assert!(!parsed.is_refused(), "{spec}\n{}", show(&parsed));
    assert!(parsed.pending.iter().any(|d| d.field == field), "{spec}: {:?}", parsed.pending);
}

#[test]
fn hosts() {
    let with = |hosts: &str| format!("{{hosts: [{hosts}], http: [{{{ROUTE}}}]}}");
    let at_gateway = |hosts: &str| format!("{{hosts: [{hosts}], gateways: [g], http: [{{{ROUTE}}}]}}");
    for hosts in
        ["a", "A.b", "a.b.", "'*.a.b'", "'*-a.b'", "'*a.b'", "1.2.3.4", "'::1'", "a1.b, a2.b", "'*.a', a"]
    {
        valid(&with(hosts));
    }
    valid(&at_gateway("'*'"));
    assert_eq!(&*valid(&with("A.Com")).hosts[0], "a.com");
    for (hosts, index, words) in [
        ("''", 0, "must not be empty"),
        ("a_b", 0, "is no host"),
        ("foo.ba!r", 0, "is no host"),
        ("a.*.b", 0, "is no host"),
        ("a.5", 0, "is no host"),
        ("1.2.3.4.5", 0, "is no host"),
        ("-a", 0, "is no host"),
        ("'*'", 0, "not allowed in the mesh"),
        ("a, a", 1, "there twice"),
        ("'*.a.b', '*.b'", 0, "overlap"),
        ("'*.b', a.b", 1, "overlap"),
        ("a.b, '*a.b'", 0, "overlap"),
        ("null", 0, "null is not allowed"),
        ("outbound_.80_._.a.b", 0, "is no host"),
    ] {
        invalid(&with(hosts), &format!("spec.hosts[{index}]"), words);
    }
    invalid(&at_gateway("'*', a.b"), "spec.hosts[1]", "overlap");
    invalid(
        &format!("{{hosts: ['*'], gateways: [g, mesh], http: [{{{ROUTE}}}]}}"),
        "spec.hosts[0]",
        "not allowed in the mesh",
    );
}

#[test]
fn gateways() {
    let with = |gateways: &str| format!("{{hosts: [a], gateways: [{gateways}], http: [{{{ROUTE}}}]}}");
    let named =
        |namespace: &str, name: &str| GatewayRef::Named { namespace: namespace.into(), name: name.into() };
    assert_eq!(valid(&with("mesh")).gateways, []);
    assert_eq!(
        valid(&with("g, ns/h, mesh, i.ns2.svc.cluster.local")).gateways,
        [named("default", "g"), named("ns", "h"), GatewayRef::Mesh, named("ns2", "i")]
    );
    let old = validated(&with("i.ns2.svc.cluster.local"));
    assert!(old.diagnostics.iter().any(|d| d.message.contains("write ns2/i")), "{}", show(&old));
    assert!(validated(&with("mesh, g")).pending.is_empty());
    pending(&with("g"), "spec.gateways");
    for gateway in ["b@d", "ns1/*", "'*/g'", "/g", "ns/", "./g", "a/b/c", "''", "a.7"] {
        invalid(&with(gateway), "spec.gateways[0]", "is no gateway");
    }
    let rule = format!("match: [{{gateways: [g], sourceNamespace: x}}], {ROUTE}");
    let service = valid(&format!("{{hosts: [a], http: [{{{rule}}}]}}"));
    let first = &service.http[0].matches[0];
    assert_eq!((&first.gateways[..], &first.request.caller_namespace), (&[named("default", "g")][..], &None));
}

#[test]
fn who_sees_it() {
    let with = |export: &str| format!("{{hosts: [a], exportTo: [{export}], http: [{{{ROUTE}}}]}}");
    assert_eq!(valid(&with("., n")).export_to.entries, [Export::Own, Export::Namespace("n".into())]);
    assert!(validated(&with("'*'")).pending.is_empty());
    assert!(validated(&with(".")).pending.is_empty());
    for (export, index, words) in [
        ("'*', b", 0, "combined"),
        ("'*', .", 0, "combined"),
        ("b, b", 1, "there twice"),
        ("., default", 1, "there twice"),
        ("'~'", 0, "for a ServiceEntry only"),
        ("a_b", 0, "wanted '*', '.'"),
    ] {
        invalid(&with(export), &format!("spec.exportTo[{index}]"), words);
    }
}

#[test]
fn delegates() {
    let root = |rule: &str| format!("{{hosts: [a], http: [{{{rule}}}]}}");
    let service = valid(&root("delegate: {name: d}, rewrite: {uri: /x}, match: [{uri: {regex: x}}]"));
    let HttpAction::Delegate { namespace, name, rewrite } = &service.http[0].action else { panic!() };
    assert_eq!((&**namespace, &**name, rewrite.path.is_some()), ("default", "d", true));
    valid(&root("delegate: {name: d, namespace: n}, route: []"));
    valid(&root("delegate: {}"));
    assert!(validated(&root("delegate: {name: d}")).pending.is_empty());
    invalid(&root(&format!("delegate: {{name: d}}, {ROUTE}")), "spec.http[0]", "delegate and route");
    invalid(&root("delegate: {name: d}, redirect: {uri: /}"), "spec.http[0]", "delegate and redirect");
    for leaf in [
        format!("{{http: [{{{ROUTE}}}]}}"),
        format!("{{hosts: [], http: [{{match: [{{sourceNamespace: n}}], {ROUTE}}}]}}"),
        "{http: [{redirect: {uri: /}}]}".to_owned(),
    ] {
        assert!(valid(&leaf).hosts.is_empty());
        assert!(validated(&leaf).pending.is_empty());
    }
    invalid("{http: [{}]}", "spec.http[0]", "needs route");
    invalid("{http: [{delegate: {name: d}}]}", "spec.http[0]", "cannot delegate");
    invalid(&format!("{{gateways: [g], http: [{{{ROUTE}}}]}}"), "spec.gateways", "is a delegate");
    invalid(&format!("{{tcp: [{{{ROUTE}}}]}}"), "spec.tcp", "is a delegate");
}

#[test]
fn rules_for_streams() {
    let tls = |rule: &str| format!("{{hosts: [a.com, '*.b.com'], tls: [{{{rule}}}]}}");
    let service = valid(&tls(&format!(
        "match: [{{sniHosts: [A.com, x.b.com, '*.y.b.com'], port: 443, destinationSubnets: [10.1.2.3/8, '::1'], sourceLabels: {{a: b}}, \
         sourceNamespace: n, gateways: [mesh]}}], {ROUTE}"
    )));
    let first = &service.tls[0].matches[0];
    assert_eq!(
        first.sni_hosts.iter().map(|name| &**name).collect::<Vec<_>>(),
        ["a.com", "x.b.com", "*.y.b.com"]
    );
    assert_eq!((first.port, first.destination_subnets[0].to_string()), (Some(443), "10.0.0.0/8".to_owned()));
    assert!(validated(&tls(&format!("match: [{{sniHosts: [a.com]}}], {ROUTE}"))).pending.is_empty());
    let ip = validated(&tls(&format!("match: [{{sniHosts: [1.1.1.1]}}], {ROUTE}")));
    assert!(
        !ip.is_refused() && ip.diagnostics.iter().any(|d| d.message.contains("RFC 6066")),
        "{}",
        show(&ip)
    );
    let of_istio = "outbound_.15010_._.istiod.istio-system.svc.cluster.local";
    valid(&format!(
        "{{hosts: [{of_istio}], gateways: [n/g], tls: [{{match: [{{sniHosts: [{of_istio}]}}], {ROUTE}}}]}}"
    ));
    let below = |gateways: &str| {
        format!(
            "{{hosts: ['*.cluster.local'], gateways: [{gateways}], tls: [{{match: [{{sniHosts: [{of_istio}]}}], {ROUTE}}}]}}"
        )
    };
    valid(&below(""));
    valid(&below("n/g"));
    invalid(&below("n/g, mesh"), "spec.tls[0].match[0].sniHosts[0]", "is no host");
    for (rule, field, words) in [
        (format!("match: [], {ROUTE}"), ".match", "at least one match"),
        (ROUTE.to_owned(), "", "the field match is missing"),
        ("match: [{sniHosts: [a.com]}]".to_owned(), "", "the field route is missing"),
        (format!("match: [{{}}], {ROUTE}"), ".match[0]", "the field sniHosts is missing"),
        (format!("match: [{{sniHosts: []}}], {ROUTE}"), ".match[0].sniHosts", "at least one server name"),
        (format!("match: [{{sniHosts: [foo.*.com]}}], {ROUTE}"), ".match[0].sniHosts[0]", "is no host"),
        (format!("match: [{{sniHosts: [c.com]}}], {ROUTE}"), ".match[0].sniHosts[0]", "none of the hosts"),
        (format!("match: [{{sniHosts: ['*.com']}}], {ROUTE}"), ".match[0].sniHosts[0]", "none of the hosts"),
        (format!("match: [{{sniHosts: [a.com], port: 70000}}], {ROUTE}"), ".match[0].port", "out of range"),
    ] {
        invalid(&tls(&rule), &format!("spec.tls[0]{field}"), words);
    }
    let tcp = |rule: &str| format!("{{hosts: [a], tcp: [{{{rule}}}]}}");
    let service = valid(&tcp(&format!("match: [{{port: 0, sourceSubnet: 10.0.0.0/8}}], {ROUTE}")));
    assert_eq!(service.tcp[0].matches[0].port, None);
    valid(&tcp("route: [{destination: {host: b}, weight: 0}]"));
    valid(&tcp("route: [{destination: {host: b}, weight: 550}, {destination: {host: c}, weight: 0}]"));
    for (rule, field, words) in [
        ("match: [{port: 999}]", "", "the field route is missing"),
        ("route: []", ".route", "at least one destination"),
        ("route: [{destination: {host: b}, headers: {}}]", ".route[0].headers", "unknown field"),
        (
            "route: [{destination: {host: b}, weight: 1}, {destination: {host: c}, weight: -1}]",
            ".route[1].weight",
            "out of",
        ),
        ("route: [{destination: {host: b}}, {destination: {host: c}}]", ".route", "add up to 0"),
        (
            "match: [{destinationSubnets: [x]}], route: [{destination: {host: b}}]",
            ".match[0].destinationSubnets[0]",
            "no network",
        ),
        (
            "match: [{destinationSubnets: [10.0.0.0/08]}], route: [{destination: {host: b}}]",
            ".match[0].destinationSubnets[0]",
            "no network",
        ),
        (
            "match: [{destinationSubnets: [010.0.0.0/8]}], route: [{destination: {host: b}}]",
            ".match[0].destinationSubnets[0]",
            "no network",
        ),
        (
            "match: [{sourceSubnet: null}], route: [{destination: {host: b}}]",
            ".match[0].sourceSubnet",
            "null is not allowed",
        ),
        (
            "match: [{sourceSubnet: 1}], route: [{destination: {host: b}}]",
            ".match[0].sourceSubnet",
            "wanted text",
        ),
    ] {
        invalid(&tcp(rule), &format!("spec.tcp[0]{field}"), words);
    }
}

#[test]
fn a_virtual_service_has_rules() {
    for spec in ["{hosts: [a]}", "{hosts: [a], http: [], tcp: []}", "{}"] {
        invalid(spec, "spec", "at least one rule");
    }
    invalid("{hosts: [a], http: null}", "spec.http", "null is not allowed");
    invalid("{hosts: [a], http: [null]}", "spec.http[0]", "null is not allowed");
    invalid("{hosts: [a], htp: []}", "spec.htp", "did you mean http?");
    let misspelt = validated(&format!("{{hots: [a], http: [{{{ROUTE}}}]}}"));
    assert_eq!(misspelt.diagnostics.len(), 1, "{}", show(&misspelt));
    assert!(misspelt.diagnostics[0].message.contains("did you mean hosts?"));
}

#[test]
fn what_is_never_reached() {
    let check = |rules: &str, expected: &[(&str, &str)]| {
        let parsed = validated(&format!("{{hosts: [a], http: [{rules}]}}"));
        let mut found: Vec<_> = parsed.diagnostics.iter().map(|d| (d.code, d.field.as_str())).collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{rules}\n{}", show(&parsed));
    };
    let rule = |matches: &str| format!("{{match: [{matches}], {ROUTE}}}");
    let all = format!("{{{ROUTE}}}");
    check(&format!("{all}, {all}"), &[("IST0130", "spec.http[1]")]);
    check(&format!("{all}, {}", rule("{uri: {exact: /}}")), &[("IST0130", "spec.http[1]")]);
    check(
        &format!("{}, {}", rule("{port: 1, name: a}"), rule("{name: b, port: 1}")),
        &[("IST0130", "spec.http[1]"), ("IST0131", "spec.http[1].match[0]")],
    );
    check(
        &format!(
            "{}, {}",
            rule("{uri: {prefix: /api}}"),
            rule("{uri: {prefix: /apis}, method: {exact: GET}}")
        ),
        &[("IST0131", "spec.http[1].match[0]")],
    );
    for rules in [
        rule("{uri: {prefix: /}}, {uri: {exact: /}, method: {exact: GET}}"),
        format!("{}, {all}", rule("{uri: {prefix: /}}")),
        rule("{uri: {prefix: /a}, headers: {x: {exact: a}}}, {uri: {prefix: /ab}, headers: {x: {exact: b}}}"),
        rule("{uri: {prefix: /a}}, {uri: {prefix: /ab}, method: {exact: POST}}"),
        rule("{uri: {prefix: /ab}}, {uri: {prefix: /a}}"),
        rule("{uri: {prefix: /a}, port: 1}, {uri: {prefix: /ab}}"),
    ] {
        check(&rules, &[]);
    }
}
