//! The rules of `http`: matches, actions, changes of requests.

use http::HeaderName;
use mesh_core::matching::pseudo::Pseudo;
use mesh_core::matching::text::TextMatch;
use mesh_core::resource::virtual_service::{HttpAction, HttpRoute};
use mesh_core::routing::rewrite::{PathRewrite, RedirectPort};

use super::*;

fn rule_text(rule: &str) -> String {
    resource("VirtualService", &format!("{{hosts: [a], http: [{rule}]}}"))
}

fn validated(text: &str) -> Parsed {
    parse(&[Input { file: "x.yaml", bytes: text.as_bytes() }], &Options::default())
}

#[track_caller]
pub(super) fn rule_of(text: &str) -> HttpRoute {
    let mut parsed = validated(text);
    assert!(!parsed.is_refused(), "{text}\n{}", show(&parsed));
    let Spec::VirtualService(mut service) = parsed.documents.remove(0).resource.spec else { panic!() };
    service.http.remove(0)
}

/// An HTTP rule that is valid.
#[track_caller]
pub(super) fn rule(rule: &str) -> HttpRoute {
    rule_of(&rule_text(rule))
}

pub(super) fn with_route(fields: &str) -> String {
    format!("{{route: [{{destination: {{host: a}}}}], {fields}}}")
}

/// A rule with a route and these further fields.
#[track_caller]
pub(super) fn routed(fields: &str) -> HttpRoute {
    rule(&with_route(fields))
}

/// Checks that a rule is refused, with one fault: at this field of the rule, with these words.
#[track_caller]
pub(super) fn invalid(rule: &str, field: &str, words: &str) {
    let parsed = validated(&rule_text(rule));
    let found: Vec<_> = parsed.diagnostics.iter().filter(|d| d.severity == Severity::Error).collect();
    assert_eq!(found.len(), 1, "{rule}\n{}", show(&parsed));
    assert_eq!(found[0].field, format!("spec.http[0]{field}"), "{}", found[0]);
    assert!(found[0].message.contains(words), "{}\nwanted: {words}", found[0]);
}

/// Checks that the fields are accepted with a warning of these words.
#[track_caller]
pub(super) fn warned(rule: &str, words: &str) {
    let parsed = validated(&rule_text(rule));
    let found = parsed.diagnostics.iter().any(|d| d.message.contains(words));
    assert!(!parsed.is_refused() && found, "{rule}\nwanted: {words}\n{}", show(&parsed));
}

#[test]
fn conditions() {
    let matches = routed(
        "match: [{uri: {prefix: /Api}, ignoreUriCase: true, method: {regex: 'GET|HEAD'}, scheme: {}, headers: {End-User: {exact: jason}, \
         x: {}, y: {regex: '*'}, 'funky!$#_': {exact: ''}}, withoutHeaders: {z: {}}, queryParams: {q: {regex: '*'}}, port: 80, \
         sourceLabels: {a: b}, sourceNamespace: n, gateways: []}, {}]",
    )
    .matches;
    let first = &matches[0];
    assert_eq!(first.request.uri, Some(TextMatch::PrefixIgnoringCase("/api".into())));
    assert_eq!((first.port, &first.request.scheme), (Some(80), &None));
    assert!(first.request.method.as_ref().is_some_and(|method| method.matches(b"HEAD")));
    let header = |name: &'static str, test| (HeaderName::from_static(name), test);
    assert_eq!(
        first.request.headers,
        [
            header("end-user", TextMatch::Exact("jason".into())),
            header("x", TextMatch::Present),
            header("y", TextMatch::Present),
            header("funky!$#_", TextMatch::Exact("".into())),
        ]
    );
    assert_eq!(first.request.without_headers, [header("z", TextMatch::Present)]);
    assert_eq!(first.request.query, [("q".into(), TextMatch::Present)]);
    assert_eq!(first.request.caller_namespace.as_deref(), Some("n"));
    assert_eq!(matches[1].request, Default::default());
    for (fields, field, words) in [
        ("{uri: {prefix: ''}}", ".uri.prefix", "must not be empty"),
        ("{uri: {regex: ''}}", ".uri.regex", "must not be empty"),
        ("{method: {regex: ''}}", ".method.regex", "must not be empty"),
        ("{queryParams: {q: {regex: ''}}}", ".queryParams.q.regex", "must not be empty"),
        ("{uri: {prefix: /a, exact: ''}}", ".uri", "only one of exact, prefix and regex"),
        ("{uri: {regex: '('}}", ".uri.regex", "not a regular expression of RE2"),
        ("{uri: {regex: '*'}}", ".uri.regex", "not a regular expression of RE2"),
        ("{uri: {regex: '(?=a)'}}", ".uri.regex", "not a regular expression of RE2"),
        ("{uri: /a}", ".uri", "found the text \"/a\", wanted a map"),
        ("{headers: {'a b': {exact: x}}}", ".headers[\"a b\"]", "is no header name"),
        ("{headers: {'': {exact: x}}}", ".headers[\"\"]", "must not be empty"),
        ("{headers: {'::': {exact: x}}}", ".headers[\"::\"]", "is no header name"),
        ("{headers: {a: null}}", ".headers.a", "null is not allowed"),
        ("{headers: {a: {prefix: ''}}}", ".headers.a.prefix", "must not be empty"),
        ("{headers: {a: {exact: 1}}}", ".headers.a.exact", "put it in quotes"),
        ("{withoutHeaders: {a: {regex: '['}}}", ".withoutHeaders.a.regex", "not a regular expression"),
        ("{port: 65536}", ".port", "out of range"),
        ("{ignoreUriCase: yes}", ".ignoreUriCase", "wanted true or false"),
        ("{sourceNamespace: a_b}", ".sourceNamespace", "no name of a namespace"),
        ("{sourceLabels: {a: 'b c'}}", ".sourceLabels.a", "no label value"),
        ("{gateways: ['b@d']}", ".gateways[0]", "is no gateway"),
        (
            "{headers: {'@request.auth.claims.': {}}}",
            ".headers[\"@request.auth.claims.\"]",
            "is no header name",
        ),
    ] {
        invalid(&with_route(&format!("match: [{fields}]")), &format!(".match[0]{field}"), words);
    }
    invalid(&with_route("match: {uri: {exact: /a}}"), ".match", "found a map, wanted a list");
    warned(&with_route("match: [{headers: {uri: {exact: x}}}]"), "has no effect");
    warned(&with_route("match: [{statPrefix: x}]"), "has no effect");
    assert!(validated(&rule_text(&with_route("match: [{gateways: [g]}]"))).pending.is_empty());
    let conditions = "match: [{method: {exact: GET}, headers: {':path': {exact: a}, ':method': {prefix: G}}, \
                      withoutHeaders: {':status': {}}}]";
    let request = &routed(conditions).matches[0].request;
    let expected =
        [(Pseudo::Path, TextMatch::Exact("a".into())), (Pseudo::Method, TextMatch::Prefix("G".into()))];
    assert_eq!(request.pseudo, expected);
    assert_eq!(request.without_pseudo, [(Pseudo::Status, TextMatch::Present)]);
    let request = &routed("match: [{headers: {':authority': {exact: a}, ':method': {}}}]").matches[0].request;
    assert_eq!((&request.authority, &request.method), (&Some(TextMatch::Exact("a".into())), &None));
}

#[test]
fn claims() {
    let text = |gateways: &str| {
        let tests = "{'@request.auth.claims.a.b': {exact: x}, '@Request.Auth.Claims[c][d.e]': {}}";
        let rule = with_route(&format!("match: [{{headers: {tests}, withoutHeaders: {tests}}}]"));
        resource("VirtualService", &format!("{{hosts: [a], gateways: [{gateways}], http: [{rule}]}}"))
    };
    let request = &rule_of(&text("g")).matches[0].request;
    let path = |parts: &[&str]| parts.iter().map(|part| Text::from(*part)).collect::<Vec<_>>();
    let expected =
        [(path(&["a", "b"]), TextMatch::Exact("x".into())), (path(&["c", "d.e"]), TextMatch::Present)];
    assert_eq!((&request.claims[..], &request.without_claims[..]), (&expected[..], &expected[..]));
    for gateways in ["", "mesh", "g, mesh"] {
        let parsed = validated(&text(gateways));
        let faults = parsed.diagnostics.iter().filter(|d| d.message.contains("for gateways only"));
        assert_eq!(faults.count(), 4, "{gateways}\n{}", show(&parsed));
    }
}

#[test]
fn header_operations() {
    let rule = rule(
        "{headers: {request: {add: {y: add}, set: {X-B: b, x-a: '50%%', ':authority': 'set.example:80'}, remove: [Z, y]}, \
         response: {add: {x: ''}}}, route: [{destination: {host: a}, headers: {request: {add: {Host: d}}}}]}",
    );
    let set: Vec<_> =
        rule.request_headers.set.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    assert_eq!(set, [("x-a", &b"50%%"[..]), ("x-b", b"b")]);
    assert_eq!(rule.request_headers.remove, ["y", "z"]);
    assert_eq!(rule.response_headers.add.len(), 1);
    let HttpAction::Route { destinations, rewrite } = rule.action else { panic!() };
    assert_eq!(rewrite.authority.as_deref(), Some("set.example:80"));
    assert_eq!(destinations[0].authority.as_deref(), Some("d"));
    let known =
        "headers: {request: {set: {x: '%REQ(a?:path)% 100%%'}}, response: {add: {x: 'a %HOSTNAME%'}}}";
    let parsed = validated(&rule_text(&with_route(known)));
    assert!(!parsed.is_refused() && parsed.pending.is_empty(), "{}", show(&parsed));
    for value in ["%START_TIME(%s)%", "%UPSTREAM_LOCAL_ADDRESS%", "%UNKNOWN%"] {
        warned(&with_route(&format!("headers: {{request: {{set: {{x: 'a {value}'}}}}}}")), "always empty");
    }
    warned(&with_route("headers: {request: {set: {Content-Length: '0'}}}"), "frames the message");
    for (fields, field, words) in [
        ("{request: {set: {x: '5%'}}}", ".request.set.x", "written %%"),
        ("{request: {set: {host: '%REQ(a)%'}}}", ".request.set.host", "formatters are not read in it"),
        ("{request: {add: {x: 'abcd%oijasodifj'}}}", ".request.add.x", "written %%"),
        ("{request: {set: {x: \"a\\nb\"}}}", ".request.set.x", "no header value may have"),
        ("{request: {set: {':path': a}}}", ".request.set[\":path\"]", "cannot be changed"),
        ("{response: {set: {Host: a}}}", ".response.set.Host", "cannot be changed"),
        ("{response: {remove: [':status']}}", ".response.remove[0]", "cannot be changed"),
        ("{request: {remove: [host]}}", ".request.remove[0]", "cannot be removed"),
        ("{request: {remove: ['']}}", ".request.remove[0]", "must not be empty"),
        ("{request: {add: {'': a}}}", ".request.add[\"\"]", "must not be empty"),
        ("{response: {set: {'': a}}}", ".response.set[\"\"]", "must not be empty"),
        ("{set: {a: b}}", ".set", "unknown field"),
        ("{request: {set: {a: 1}}}", ".request.set.a", "put it in quotes"),
    ] {
        invalid(&with_route(&format!("headers: {fields}")), &format!(".headers{field}"), words);
        let at_destination = format!("{{route: [{{destination: {{host: a}}, headers: {fields}}}]}}");
        invalid(&at_destination, &format!(".route[0].headers{field}"), words);
    }
    for fields in [
        "headers: {request: {set: {host: a, ':authority': b}}}",
        "headers: {request: {set: {host: a}, add: {host: b}}}",
        "headers: {request: {set: {host: a}}}, rewrite: {authority: b}",
    ] {
        invalid(&with_route(fields), "", "set more than once");
    }
}

#[test]
fn rewrites() {
    let path = |fields: &str| match routed(fields).action {
        HttpAction::Route { rewrite, .. } => rewrite.path.unwrap(),
        other => panic!("{other:?}"),
    };
    let PathRewrite::Regex { pattern, .. } =
        path("rewrite: {uriRegexRewrite: {match: '(a)(b)', rewrite: '\\2\\0'}, authority: a.com}")
    else {
        panic!()
    };
    assert_eq!(pattern.source(), "(a)(b)");
    assert_eq!(path("rewrite: {uri: /a}"), PathRewrite::Matched("/a".into()));
    for (fields, field, words) in [
        ("{}", "", "needs uri, uriRegexRewrite or authority"),
        ("{uri: ''}", "", "needs uri, uriRegexRewrite or authority"),
        ("{uri: 1}", ".uri", "put it in quotes"),
        ("{uri: /a, uriRegexRewrite: {match: a, rewrite: b}}", "", "only one of"),
        ("{uri: /a b}", ".uri", "no path may have"),
        ("{uriRegexRewrite: {match: a}}", ".uriRegexRewrite", "the field rewrite is missing"),
        ("{uriRegexRewrite: {rewrite: a}}", ".uriRegexRewrite", "the field match is missing"),
        (
            "{uriRegexRewrite: {match: '[', rewrite: '['}}",
            ".uriRegexRewrite.match",
            "not a regular expression",
        ),
        ("{uriRegexRewrite: {match: a, rewrite: '\\1'}}", ".uriRegexRewrite.rewrite", "does not have"),
        ("{authority: 'a b'}", ".authority", "cannot be an authority"),
    ] {
        invalid(&with_route(&format!("rewrite: {fields}")), &format!(".rewrite{field}"), words);
    }
}

#[test]
fn redirects() {
    let redirect = |text: &str| match rule(text).action {
        HttpAction::Redirect(redirect) => redirect,
        other => panic!("{other:?}"),
    };
    let first = redirect(
        "{match: [{uri: {prefix: /a}}, {}], redirect: {prefixRewrite: /b, derivePort: FROM_REQUEST_PORT}}",
    );
    assert_eq!((first.code, first.prefix.as_deref(), first.port), (301, Some("/b"), RedirectPort::Request));
    let second = redirect("{redirect: {uri: t, authority: t, redirectCode: 308, port: 8080}, route: []}");
    assert_eq!((second.code, second.port), (308, RedirectPort::Fixed(8080)));
    let third = redirect("{redirect: {port: 0, redirectCode: 0, scheme: ''}}");
    assert_eq!((third.code, third.port, third.scheme), (301, RedirectPort::ProtocolDefault, None));
    warned("{redirect: {uri: /, redirectCode: 305}}", "305 cannot be used");
    for (fields, field, words) in [
        ("{}", "", "a redirect needs"),
        ("{uri: '', authority: '', scheme: ''}", "", "a redirect needs"),
        ("{uri: t, redirectCode: 299}", ".redirectCode", "no code of a redirect"),
        ("{uri: t, redirectCode: 400}", ".redirectCode", "no code of a redirect"),
        ("{uri: t, scheme: ftp}", ".scheme", "allowed: http, https"),
        ("{uri: t, port: 1, derivePort: FROM_REQUEST_PORT}", "", "only one of port"),
        ("{uri: t, port: 65536}", ".port", "out of range"),
        ("{uri: t, derivePort: OTHER}", ".derivePort", "found \"OTHER\""),
        ("{uri: t, prefixRewrite: /}", "", "only one of uri"),
    ] {
        invalid(&format!("{{redirect: {fields}}}"), &format!(".redirect{field}"), words);
    }
    invalid(
        "{match: [{uri: {exact: /a}}], redirect: {prefixRewrite: /b}}",
        ".redirect.prefixRewrite",
        "to be a prefix",
    );
}

#[test]
fn direct_responses() {
    let HttpAction::DirectResponse(answer) =
        rule("{directResponse: {status: 503, body: {bytes: aGk=}}}").action
    else {
        panic!()
    };
    assert_eq!((answer.status, &answer.body[..]), (503, &b"hi"[..]));
    let with_body =
        |size: usize| format!("{{directResponse: {{status: 200, body: {{string: {}}}}}}}", "a".repeat(size));
    warned(&with_body(101 << 10), "keeps it in memory");
    rule("{directResponse: {status: 200, body: {}}}");
    for (fields, field, words) in [
        ("{}", "", "the field status is missing"),
        ("{status: 199}", ".status", "200 to 599"),
        ("{status: 601}", ".status", "200 to 599"),
        ("{status: '200'}", ".status", "wanted a whole number"),
        ("{status: 200, body: {bytes: '!'}}", ".body.bytes", "not base64"),
        ("{status: 200, body: {bytes: _-8_}}", ".body.bytes", "not base64"),
        ("{status: 200, body: {string: a, bytes: aGk=}}", ".body", "only one of"),
    ] {
        invalid(&format!("{{directResponse: {fields}}}"), &format!(".directResponse{field}"), words);
    }
}

#[test]
fn actions_and_destinations() {
    for (rule, field, words) in [
        ("{}", "", "needs route, redirect or directResponse"),
        ("{route: []}", "", "needs route, redirect or directResponse"),
        ("{rout: []}", ".rout", "did you mean route?"),
        ("{delegat: {name: a}}", ".delegat", "did you mean delegate?"),
        ("{route: {}}", ".route", "found a map, wanted a list"),
        ("{route: [{}]}", ".route[0]", "the field destination is missing"),
        ("{route: [{destination: {}}]}", ".route[0].destination", "the field host is missing"),
        ("{route: [{destination: {host: ''}}]}", ".route[0].destination.host", "must not be empty"),
        ("{route: [{destination: {host: '*'}}]}", ".route[0].destination.host", "cannot be the host"),
        ("{route: [{destination: {host: foo.*}}]}", ".route[0].destination.host", "is no host"),
        ("{route: [{destination: {host: n/a}}]}", ".route[0].destination.host", "is no host"),
        (
            "{route: [{destination: {host: a, port: {}}}]}",
            ".route[0].destination.port",
            "the field number is missing",
        ),
        (
            "{route: [{destination: {host: a, port: {number: 0}}}]}",
            ".route[0].destination.port.number",
            "out of range",
        ),
        (
            "{route: [{destination: {host: a, port: 80}}]}",
            ".route[0].destination.port",
            "wanted a map: a port",
        ),
        (
            "{route: [{destination: {host: a, subset: v_1}}]}",
            ".route[0].destination.subset",
            "no name of a subset",
        ),
        ("{route: [{destination: {host: a}, weight: -1}]}", ".route[0].weight", "out of range"),
        ("{route: [{destination: {host: a}}, {destination: {host: b}, weight: 0}]}", ".route", "add up to 0"),
        ("{route: [{destination: {host: a}}], redirect: {uri: /}}", "", "route and redirect"),
        (
            "{route: [{destination: {host: a}}], directResponse: {status: 200}}",
            "",
            "route and directResponse",
        ),
        ("{redirect: {uri: /}, directResponse: {status: 200}}", "", "redirect and directResponse"),
        ("{redirect: {uri: /}, rewrite: {uri: /}}", "", "rewrite and redirect"),
        ("{directResponse: {status: 200}, rewrite: {uri: /}}", "", "rewrite and directResponse"),
        (
            "{redirect: {uri: /}, fault: {abort: {httpStatus: 500, percentage: {value: 1}}}}",
            "",
            "fault and redirect",
        ),
        (
            "{directResponse: {status: 200}, fault: {abort: {httpStatus: 500, percentage: {}}}}",
            "",
            "fault and direct",
        ),
        ("{route: [{destination: {host: a}}], per_try_timeout: 1s}", ".per_try_timeout", "unknown field"),
    ] {
        invalid(rule, field, words);
    }
    rule("{redirect: {uri: /}, mirror: {host: a}}");
    let HttpAction::Route { destinations, .. } =
        rule("{route: [{destination: {host: '*-Foo.baz', subset: Shiny, port: {number: 5000}}, weight: 0}]}")
            .action
    else {
        panic!()
    };
    let first = &destinations[0];
    assert_eq!((&*first.host, first.subset.as_deref(), first.port), ("*-foo.baz", Some("Shiny"), Some(5000)));
    assert_eq!(first.weight, Some(0));
}

#[test]
fn an_accepted_rule_that_is_not_carried_out_is_refused_when_applied() {
    let rule = with_route("name: r");
    let text = resource("VirtualService", &format!("{{hosts: [a], gateways: [g], http: [{rule}]}}"));
    assert!(!validated(&text).is_refused());
    refused(&text, "spec.gateways", "not carried out yet");
}
