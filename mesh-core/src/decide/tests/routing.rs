//! What a rule does with a request, and hosts that a view does not know.

use super::*;
use crate::decide::plan::MirrorPlan;
use crate::matching::scope::{EgressListener, Import};
use crate::resilience::fault::{AbortStatus, FaultPolicy};
use crate::routing::cors::CorsPolicy;
use crate::routing::mirror::Mirror;
use crate::routing::rewrite::{PathRewrite, Redirect, RedirectPort};
use crate::routing::rule::DirectResponse;
use crate::snapshot::view::{Outbound, View};
use crate::vocab::ratio::Ratio;

/// The plan for `METHOD PATH[?QUERY]` with these fields.
fn plan(tables: &Tables, line: &str, fields: &[(&'static str, &str)]) -> Result<Plan, Refusal> {
    let (method, target) = line.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, value.parse().unwrap());
    }
    let labels = Labels::default();
    let request = Request {
        method,
        scheme: "http",
        authority: "reviews:9080",
        path,
        query,
        headers: &headers,
        claims: None,
    };
    let caller = Caller { namespace: "default", labels: &labels, view: None };
    let facts = OutboundRequest {
        request,
        port: 9080,
        owner: None,
        listener: None,
        caller: Some(caller),
        source: None,
    };
    outbound(tables, &facts, &mut Random::seeded(3), &mut Silent)
}

fn told(tables: &Tables, line: &str, fields: &[(&'static str, &str)]) -> crate::decide::explain::Explanation {
    let (method, target) = line.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, value.parse().unwrap());
    }
    let labels = Labels::default();
    let request = Request {
        method,
        scheme: "http",
        authority: "reviews:9080",
        path,
        query,
        headers: &headers,
        claims: None,
    };
    let caller = Caller { namespace: "default", labels: &labels, view: None };
    let question = Question {
        identity: None,
        caller,
        node: None,
        gateway: false,
        captured: false,
        request,
        host: "reviews",
        port: 9080,
        stream: false,
        source: None,
        now: 0,
    };
    explain(tables, &question)
}

fn all(change: impl FnOnce(&mut HttpRule)) -> Tables {
    let mut only = rule(0, vec![], vec![backend("v1", 100)]);
    change(&mut only);
    mesh(vec![routes(vec![only])])
}

#[test]
fn mirrors_are_rolled_and_marked_and_one_to_nowhere_is_left_out() {
    let mirror =
        |subset: &str, share| Mirror { host: HOST.into(), port: 9080, subset: Some(subset.into()), share };
    let tables = all(|rule| {
        rule.mirrors = vec![mirror("v2", Ratio::ONE), mirror("v9", Ratio::ONE), mirror("v2", Ratio::ZERO)];
    });
    let found = plan(&tables, "GET /", &[]).unwrap();
    let Action::Forward(forward) = &found.action else { panic!("{found:?}") };
    let v2 = tables.destination(&key(Some("v2"), None)).unwrap();
    let copy = MirrorPlan { destination: v2, authority: "reviews-shadow:9080".to_owned() };
    assert_eq!(forward.mirrors, [copy]);
    let answer = told(&tables, "GET /", &[]);
    let mirrors: Vec<_> =
        answer.mirrors.iter().map(|mirror| (mirror.cluster.as_str(), mirror.exists)).collect();
    assert_eq!(
        mirrors[..2],
        [
            ("outbound|9080|v2|reviews.default.svc.cluster.local", true),
            ("outbound|9080|v9|reviews.default.svc.cluster.local", false),
        ]
    );
}

#[test]
fn a_preflight_is_answered_and_another_request_marked() {
    let tables = all(|rule| {
        let allow_origins = vec![TextMatch::Exact("https://a".into())];
        rule.cors = Some(CorsPolicy { allow_origins, ..CorsPolicy::default() });
    });
    let origin = ("origin", "https://a");
    let asks = ("access-control-request-method", "PUT");
    let preflight = plan(&tables, "OPTIONS /", &[origin, asks]).unwrap();
    assert!(matches!(preflight.action, Action::Preflight { .. }), "{preflight:?}");
    let marked = plan(&tables, "GET /", &[origin]).unwrap();
    assert!(matches!(marked.action, Action::Forward(_)));
    assert_eq!(marked.answer_fields.len(), 1);
    let answer = told(&tables, "OPTIONS /", &[origin, asks]);
    assert_eq!((answer.action, answer.status, answer.destinations.len()), ("direct_response", Some(200), 0));
    assert!(answer.why.iter().any(|step| step.contains("access-control-allow-origin: https://a")));
}

#[test]
fn rewrites_tell_what_was_before() {
    let tables = all(|rule| {
        rule.matches =
            vec![RequestMatch { uri: Some(TextMatch::Prefix("/v1/".into())), ..RequestMatch::default() }];
        let mut alone = backend("v1", 100);
        alone.authority = Some("of-the-backend".into());
        let rewrite =
            Rewrite { path: Some(PathRewrite::Matched("/".into())), authority: Some("of-the-rule".into()) };
        rule.action = RuleAction::Route { backends: vec![alone], rewrite };
    });
    let found = plan(&tables, "GET /v1/a?b", &[]).unwrap();
    let Action::Forward(forward) = &found.action else { panic!("{found:?}") };
    assert_eq!(forward.path.as_deref(), Some("/a"));
    assert_eq!(forward.authority.as_deref(), Some("of-the-rule"));
    let answer = told(&tables, "GET /v1/a?b", &[]);
    assert_eq!(answer.rewrite_path.as_deref(), Some("/a"));
    assert!(
        answer.why.iter().any(|step| step.contains("x-envoy-original-path says /v1/a?b")),
        "{:?}",
        answer.why
    );
}

#[test]
fn the_proxy_s_own_answers() {
    let tables = all(|rule| {
        rule.action = RuleAction::Redirect(Redirect {
            code: 307,
            path: None,
            prefix: None,
            authority: Some("elsewhere".into()),
            scheme: None,
            port: RedirectPort::Request,
        });
    });
    let answer = told(&tables, "GET /x?y", &[]);
    assert_eq!((answer.action, answer.status), ("redirect", Some(307)));
    assert_eq!(answer.location.as_deref(), Some("http://elsewhere:9080/x?y"));
    let tables = all(|rule| {
        rule.action = RuleAction::DirectResponse(DirectResponse { status: 418, body: b"teapot"[..].into() });
    });
    let answer = told(&tables, "GET /", &[]);
    assert_eq!((answer.action, answer.status, answer.flags), ("direct_response", Some(418), "-"));
}

#[test]
fn certain_faults_end_it() {
    let abort = |status| FaultPolicy { delay: None, abort: Some((Ratio::ONE, status)) };
    let delay = Some((Ratio::ONE, std::time::Duration::from_secs(1)));
    let grpc = [("content-type", "application/grpc+proto")];
    for (fault, fields, expected) in [
        (abort(AbortStatus::Http(418)), &[][..], (Some(418), "FI")),
        (abort(AbortStatus::Grpc(14)), &[], (Some(503), "FI")),
        (abort(AbortStatus::Grpc(14)), &grpc, (Some(200), "FI")),
        (FaultPolicy { delay, ..abort(AbortStatus::Http(500)) }, &[], (Some(500), "DI,FI")),
        (FaultPolicy { delay, abort: None }, &[], (None, "DI")),
    ] {
        let answer = told(&all(|rule| rule.fault = fault), "POST /", fields);
        assert_eq!((answer.status, answer.flags), expected, "{fault:?}");
    }
}

#[test]
fn a_match_is_named_by_its_number_in_the_resource() {
    let tables = all(|rule| {
        rule.matches = vec![jason(), RequestMatch { name: Some("rest".into()), ..RequestMatch::default() }];
        rule.numbers = vec![1, 4];
        rule.name = Some("mine".into());
    });
    let route = told(&tables, "GET /", &[]).route.unwrap();
    assert_eq!((route.matched, route.name.as_deref()), (Some(4), Some("mine.rest")));
}

#[test]
fn a_view_hides_services_and_settles_what_is_unknown() {
    let import = |host: &str| Import { excluded: false, namespace: None, host: host.into() };
    let view = |egress: Option<&str>, outbound| {
        let listeners = egress.map(|host| vec![EgressListener { port: None, imports: vec![import(host)] }]);
        Section::View(View { egress: listeners, outbound, ..View::default() })
    };
    let check = |section: Section, status: Option<u16>, action: &str| {
        let answer = told(&mesh(vec![section]), "GET /", &[]);
        assert_eq!((answer.status, answer.action), (status, action), "{:?}", answer.why);
    };
    check(view(None, Outbound::Refuse), None, "route");
    check(view(Some("*"), Outbound::Refuse), None, "route");
    check(view(Some("other.example"), Outbound::Refuse), Some(502), "blocked");
    check(view(Some("other.example"), Outbound::Allow(None)), None, "passthrough");
    let proxy = Outbound::Allow(Some(backend("v2", 100)));
    check(view(Some("other.example"), proxy), None, "passthrough");
}

#[test]
fn no_endpoint_is_503_uh_and_no_destination_503_nc() {
    let mut nobody = destination(Some("v3"), None);
    if let Section::Destination(found) = &mut nobody {
        found.labels = [("version", "v3")].into_iter().collect();
    }
    for (subset, expected) in [("v1", (None, "-")), ("v3", (Some(503), "UH")), ("v9", (Some(503), "NC"))] {
        let tables = mesh(vec![nobody.clone(), routes(vec![rule(0, vec![], vec![backend(subset, 100)])])]);
        let answer = told(&tables, "GET /", &[]);
        assert_eq!((answer.status, answer.flags), expected, "{subset}");
        assert_eq!(answer.action, "route");
    }
}
