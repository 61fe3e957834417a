//! A workload under very many policies, of which each is about something else.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use mesh_core::decide::inbound::{Inbound, admit};
use mesh_core::decide::witness::Silent;
use mesh_core::matching::path::PathMatch;
use mesh_core::matching::request::Request;
use mesh_core::matching::text::TextMatch;
use mesh_core::policy::authorization::{
    AuthorizationPolicy, AuthorizationRule, Condition, Operation, PolicyAction, Source, Values,
};
use mesh_core::snapshot::section::Section;
use mesh_core::tables::Tables;
use mesh_core::vocab::name::Text;

use super::Run;
use super::entry::{account, workload};
use super::mesh::{HOST, PORT, tables};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

fn one<M>(value: M) -> Values<M> {
    Values { any: vec![value], none: vec![] }
}

fn text(text: &str) -> Values<TextMatch> {
    one(TextMatch::policy(text))
}

/// Kinds of demands take turns; every fourth policy denies.
fn rule(number: usize) -> AuthorizationRule {
    let mut rule = AuthorizationRule::default();
    let net = IpNet::from(IpAddr::from([10, 9, (number / 256) as u8, (number % 256) as u8]));
    let source = match number % 9 {
        0 => Some(Source {
            principals: text(&format!("cluster.local/ns/shop/sa/{number}")),
            ..Source::default()
        }),
        1 => Some(Source { namespaces: text(&format!("team-{number}*")), ..Source::default() }),
        2 => Some(Source { service_accounts: one(format!("shop/{number}").into()), ..Source::default() }),
        3 => Some(Source { ip_blocks: one(net), ..Source::default() }),
        4 => Some(Source { remote_ip_blocks: one(net), ..Source::default() }),
        _ => None,
    };
    rule.from.extend(source);
    match number % 9 {
        5 => rule.to.push(Operation {
            hosts: one(TextMatch::policy(&format!("h{number}.example")).ignoring_case()),
            ..Operation::default()
        }),
        6 => rule
            .when
            .push(Condition::Header(HeaderName::from_static("end-user"), text(&format!("user-{number}")))),
        7 => rule.when.push(Condition::SourcePrincipal(text(&format!("*/sa/worker-{number}")))),
        8 => {
            let template = PathMatch::policy(&format!("/shops/{number}/{{*}}/{{**}}"));
            let paths = one(template.expect("a template"));
            rule.to.push(Operation { paths, methods: text("GET"), ..Operation::default() });
        }
        _ => rule.to.push(Operation { methods: text("GET"), ..Operation::default() }),
    }
    rule
}

fn made(size: usize) -> Tables {
    let name = |number: usize| Text::from(format!("p{number:04}"));
    let mut sections = vec![workload(ADDRESS, (0..size).map(name).collect())];
    for number in 0..size {
        let last = AuthorizationRule {
            from: vec![Source { principals: text("cluster.local/ns/default/sa/last"), ..Source::default() }],
            ..AuthorizationRule::default()
        };
        let is_last = number + 1 == size;
        sections.push(Section::Authorization(AuthorizationPolicy {
            namespace: "default".into(),
            name: name(number),
            action: if number % 4 == 1 && !is_last { PolicyAction::Deny } else { PolicyAction::Allow },
            provider: None,
            dry_run: false,
            rules: vec![if is_last { last } else { rule(number) }],
        }));
    }
    tables(sections)
}

fn judged(size: usize, caller: &str, stream: bool, passes: bool) -> Run {
    let tables = made(size);
    let peer = account(caller);
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("user-agent", "bench"),
        ("accept", "*/*"),
        ("end-user", "jason"),
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "http"),
        ("x-request-id", "0d1c0a4f-2f4c-4b4f-9a55-0d1c0a4f2f4c"),
        ("x-envoy-attempt-count", "1"),
        ("accept-encoding", "gzip"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    Box::new(move || {
        let request = Request {
            method: "GET",
            scheme: "http",
            authority: HOST,
            path: "/orders/17",
            query: None,
            headers: &headers,
            claims: None,
        };
        let facts = Inbound {
            to: SocketAddr::from((ADDRESS, PORT)),
            peer: Some(&peer),
            shown: None,
            source: Some(IpAddr::from([10, 0, 0, 1])),
            sni: None,
            request: (!stream).then_some(&request),
            now: 0,
        };
        let admitted = admit(&tables, black_box(&facts), &mut Silent);
        assert_eq!(admitted.is_ok(), passes, "as the last policy says");
        drop(black_box(admitted));
    })
}

/// A request that the last policy lets in.
pub(crate) fn last(size: usize) -> Run {
    judged(size, "last", false, true)
}

/// A request that no policy is about: it is refused.
pub(crate) fn none(size: usize) -> Run {
    judged(size, "stranger", false, false)
}

/// A byte stream. It is refused: of a policy that denies requests to a host only the denial is left.
pub(crate) fn stream(size: usize) -> Run {
    judged(size, "last", true, false)
}
