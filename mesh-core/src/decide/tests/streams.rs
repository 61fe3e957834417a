//! Byte streams and TLS that is passed on.

use super::*;
use crate::decide::facts::OutboundStream;
use crate::decide::stream;
use crate::routing::rule::StreamMatch;
use crate::snapshot::routes::Fallback;
use crate::snapshot::view::{Outbound, View};
use crate::tables::routes::StreamKind;

fn stream_rule(index: u32, matches: Vec<StreamMatch>, subset: &str) -> TcpRule {
    let origin = Origin { resource: "virtualservice/default/reviews".into(), rule: Some(index) };
    TcpRule { origin, matches, numbers: Vec::new(), backends: vec![backend(subset, 100)] }
}

fn default_rule(port: u16) -> TcpRule {
    let origin = Origin { resource: "service/default/reviews".into(), rule: None };
    TcpRule::default_route(&origin, HOST.into(), port)
}

/// Subset of the rule that a stream gets, or the reason why it gets none.
fn ask(tables: &Tables, port: u16, sni: Option<&str>, to: &str, namespace: &str) -> String {
    let labels = Labels::default();
    let facts = OutboundStream {
        service: tables.service_index(HOST).unwrap(),
        port,
        destination: to.parse().ok(),
        sni,
        caller: Some(Caller { namespace, labels: &labels, view: None }),
        source: None,
    };
    match stream::outbound(tables, &facts, &mut Random::seeded(1), &mut Silent) {
        Ok(plan) => plan.rule().backends[0].subset.as_deref().unwrap_or("-").to_owned(),
        Err(refusal) => format!("{:?} {}", refusal.reason, refusal.flag()),
    }
}

fn names(hosts: &[&str]) -> StreamMatch {
    StreamMatch { sni_hosts: hosts.iter().map(|host| (*host).into()).collect(), ..StreamMatch::default() }
}

#[test]
fn tls_goes_by_server_name_and_what_no_rule_names_is_passed_on() {
    let tls = vec![
        stream_rule(0, vec![names(&["*.example"])], "v2"),
        stream_rule(1, vec![names(&["a.example", "b.example"])], "v1"),
        stream_rule(2, vec![names(&["a.example"])], "v2"),
    ];
    let section = || Section::Routes(Routes { tls: tls.clone(), ..list(9443, vec![]) });
    let tables = mesh(vec![section()]);
    let check = |tables: &Tables, sni: Option<&str>, expected: &str| {
        assert_eq!(ask(tables, 9443, sni, "10.0.0.9", "default"), expected, "{sni:?}");
    };
    check(&tables, Some("a.example"), "v1");
    check(&tables, Some("b.example"), "v1");
    check(&tables, Some("c.example"), "v2");
    check(&tables, Some("c.other"), "UnknownHost NR");
    check(&tables, None, "UnknownHost NR");
    let closed = Section::View(View { outbound: Outbound::Refuse, ..View::default() });
    check(&mesh(vec![section(), closed]), Some("c.other"), "BlackHole UH");
}

#[test]
fn byte_streams_go_by_network_and_caller_and_else_to_the_service() {
    let network =
        |net: &str| StreamMatch { destination_subnets: vec![net.parse().unwrap()], ..StreamMatch::default() };
    let caller =
        |namespace: &str| StreamMatch { caller_namespace: Some(namespace.into()), ..StreamMatch::default() };
    let tcp = vec![
        stream_rule(0, vec![network("10.1.0.0/16"), network("10.2.0.0/16")], "v1"),
        stream_rule(1, vec![caller("shop")], "v2"),
        default_rule(9080),
    ];
    let tables = mesh(vec![Section::Routes(Routes { tcp, ..list(9090, vec![]) })]);
    for (to, namespace, expected) in [
        ("10.2.3.4", "default", "v1"),
        ("10.3.3.4", "default", "-"),
        ("10.3.3.4", "shop", "v2"),
        ("", "shop", "v2"),
        ("", "default", "-"),
    ] {
        assert_eq!(ask(&tables, 9090, None, to, namespace), expected, "{to} {namespace}");
    }
}

#[test]
fn tls_whose_rules_are_all_for_others_goes_to_the_service() {
    let foreign = StreamMatch { caller_namespace: Some("shop".into()), ..names(&["*.example"]) };
    let origin = Origin { resource: "service/default/reviews".into(), rule: None };
    let fallback = Fallback {
        http: HttpRule::default_route(&origin, HOST.into(), 9080, RetryPolicy::default()),
        stream: default_rule(9080),
    };
    let section = Routes {
        tls: vec![stream_rule(0, vec![foreign], "v1")],
        fallback: Some(Box::new(fallback)),
        ..list(9443, vec![])
    };
    let tables = mesh(vec![Section::Routes(section)]);
    assert_eq!(ask(&tables, 9443, Some("a.example"), "", "shop"), "v1");
    assert_eq!(ask(&tables, 9443, Some("a.other"), "", "shop"), "UnknownHost NR");
    assert_eq!(ask(&tables, 9443, Some("a.other"), "", "default"), "-");
    let table = tables.service(HOST).unwrap().routes(9443).unwrap();
    assert_eq!(table.stream_rules(StreamKind::Tls).len(), 1);
}
