use std::time::Duration;

use http::HeaderName;
use mesh_core::balancing::balancer::LoadBalancer;
use mesh_core::matching::text::TextMatch;
use mesh_core::policy::mtls::ClientTls;
use mesh_core::resilience::fault::AbortStatus;
use mesh_core::resilience::retry::{RetryCondition, RetryPolicy};
use mesh_core::resource::service::{Location, TargetPort};
use mesh_core::resource::virtual_service::{HttpAction, HttpRoute};
use mesh_core::routing::rewrite::{PathRewrite, RedirectPort};
use mesh_core::vocab::protocol::Protocol;

use super::*;

fn rule_text(rule: &str) -> String {
    resource("VirtualService", &format!("{{hosts: [a], http: [{rule}]}}"))
}

/// An HTTP rule that is valid.
#[track_caller]
fn rule(rule: &str) -> HttpRoute {
    let Spec::VirtualService(mut service) = specs(&rule_text(rule)).remove(0) else { panic!() };
    service.http.remove(0)
}

/// A rule with a route and these further fields.
#[track_caller]
fn routed(fields: &str) -> HttpRoute {
    rule(&format!("{{route: [{{destination: {{host: a}}}}], {fields}}}"))
}

#[test]
fn conditions() {
    let matches = routed(
        "match: [{uri: {prefix: /Api}, ignoreUriCase: true, method: {regex: 'GET|HEAD'}, scheme: {}, headers: {End-User: {exact: jason}, \
         x: {}, y: {regex: '*'}}, withoutHeaders: {z: {}}, queryParams: {q: {regex: '*'}}, port: 80, sourceLabels: {a: b}, \
         sourceNamespace: n, gateways: []}, {}]",
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
            header("y", TextMatch::Present)
        ]
    );
    assert_eq!(first.request.without_headers, [header("z", TextMatch::Present)]);
    assert_eq!(first.request.query, [("q".into(), TextMatch::Present)]);
    assert_eq!(first.request.caller_namespace.as_deref(), Some("n"));
    assert_eq!(matches[1].request, Default::default());
}

#[test]
fn header_operations() {
    let rule = rule(
        "{headers: {request: {add: {host: add.example}, set: {X-B: b, x-a: '50%%', ':authority': 'set.example:80'}, remove: [Z, y]}, \
         response: {add: {x: ''}}}, route: [{destination: {host: a}, headers: {request: {add: {Host: d}}}}]}",
    );
    let set: Vec<_> =
        rule.request_headers.set.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    assert_eq!(set, [("x-a", &b"50%"[..]), ("x-b", b"b")]);
    assert_eq!(rule.request_headers.remove, ["y", "z"]);
    assert_eq!(rule.response_headers.add.len(), 1);
    let HttpAction::Route { destinations, rewrite } = rule.action else { panic!() };
    assert_eq!(rewrite.authority.as_deref(), Some("set.example:80"));
    assert_eq!(destinations[0].authority.as_deref(), Some("d"));
    let with_rewrite = routed("rewrite: {authority: r}, headers: {request: {set: {host: s}}}");
    let HttpAction::Route { rewrite, .. } = with_rewrite.action else { panic!() };
    assert_eq!(rewrite.authority.as_deref(), Some("r"));
}

#[test]
fn retries() {
    assert_eq!(routed("timeout: 0s").retry, RetryPolicy::default());
    assert_eq!(routed("retries: {}").retry, RetryPolicy::disabled());
    assert_eq!(routed("retries: {attempts: 0}").retry.attempts, 0);
    let retry = routed(
        "retries: {attempts: 3, perTryTimeout: 1m30s, retryOn: '5xx, 503,connect-failure', backoff: 10ms}",
    )
    .retry;
    assert_eq!((retry.attempts, retry.per_try_timeout), (3, Some(Duration::from_secs(90))));
    let on = [RetryCondition::FiveXx, RetryCondition::ConnectFailure, RetryCondition::RetriableStatusCodes];
    assert_eq!((&retry.on[..], &retry.codes[..]), (&on[..], &[503][..]));
    assert_eq!((retry.backoff, retry.avoid_tried), (Duration::from_millis(10), true));
    let retry = routed(
        "retries: {attempts: 1, retryOn: '', retryIgnorePreviousHosts: false, retryRemoteLocalities: false}",
    )
    .retry;
    assert_eq!((&retry.on[..], retry.avoid_tried), (&RetryPolicy::DEFAULT_CONDITIONS[..], false));
}

#[test]
fn timeouts_and_faults() {
    for (text, expected) in [
        ("0s", None),
        ("1.5s", Some(1500)),
        ("250ms", Some(250)),
        ("1h2m3s4ms", Some(3_723_004)),
        ("1000000us", Some(1000)),
    ] {
        assert_eq!(
            routed(&format!("timeout: {text}")).timeout,
            expected.map(Duration::from_millis),
            "{text}"
        );
    }
    let fault = routed(
        "fault: {delay: {fixedDelay: 7s, percentage: {value: 0.1}}, abort: {httpStatus: 555, percentage: {value: 100}}}",
    )
    .fault;
    assert_eq!(fault.delay.map(|(share, wait)| (share.ppm(), wait)), Some((1000, Duration::from_secs(7))));
    assert_eq!(
        fault.abort.map(|(share, status)| (share.ppm(), status)),
        Some((1_000_000, AbortStatus::Http(555)))
    );
    let fault = routed("fault: {abort: {grpcStatus: UNAVAILABLE, percentage: {}}}").fault;
    assert_eq!(fault.abort.map(|(share, status)| (share.ppm(), status)), Some((0, AbortStatus::Grpc(14))));
}

#[test]
fn redirects_rewrites_and_direct_responses() {
    let HttpAction::Redirect(redirect) = rule(
        "{match: [{uri: {prefix: /a}}, {}], redirect: {prefixRewrite: /b, derivePort: FROM_REQUEST_PORT}}",
    )
    .action
    else {
        panic!()
    };
    assert_eq!(
        (redirect.code, redirect.prefix.as_deref(), redirect.port),
        (301, Some("/b"), RedirectPort::Request)
    );
    let HttpAction::DirectResponse(answer) =
        rule("{directResponse: {status: 503, body: {bytes: aGk=}}}").action
    else {
        panic!()
    };
    assert_eq!((answer.status, &answer.body[..]), (503, &b"hi"[..]));
    let HttpAction::Route { rewrite, .. } =
        routed("rewrite: {uriRegexRewrite: {match: '(a)(b)', rewrite: '\\2\\0'}}").action
    else {
        panic!()
    };
    let Some(PathRewrite::Regex { pattern, .. }) = rewrite.path else { panic!() };
    assert_eq!(pattern.source(), "(a)(b)");
}

#[test]
fn virtual_services_that_are_refused() {
    let route = "{route: [{destination: {host: a}}]}";
    for (spec, field, words) in [
        (format!("{{hots: [a], hosts: [a], http: [{route}]}}"), "spec.hots", "did you mean hosts?"),
        (format!("{{http: [{route}]}}"), "spec", "the field hosts is missing"),
        (format!("{{hosts: [], http: [{route}]}}"), "spec.hosts", "at least one host"),
        (format!("{{hosts: ['*'], http: [{route}]}}"), "spec.hosts[0]", "not allowed in the mesh"),
        (format!("{{hosts: [a_b], http: [{route}]}}"), "spec.hosts[0]", "is no host"),
        (format!("{{hosts: [a.*.b], http: [{route}]}}"), "spec.hosts[0]", "is no host"),
        (format!("{{hosts: [a, A], http: [{route}]}}"), "spec.hosts[1]", "is there twice"),
        (format!("{{hosts: ['*.bar', '*.foo.bar'], http: [{route}]}}"), "spec.hosts[1]", "overlap"),
        (format!("{{hosts: [a, null], http: [{route}]}}"), "spec.hosts[1]", "null is not allowed"),
        ("{hosts: [a]}".to_owned(), "spec", "at least one rule"),
        ("{hosts: [a], http: null}".to_owned(), "spec.http", "null is not allowed"),
        ("{hosts: [a], tls: []}".to_owned(), "spec.tls", "the field tls is not carried out yet"),
        (
            format!("{{hosts: [a], gateways: [g], http: [{route}]}}"),
            "spec.gateways[0]",
            "gateway other than mesh",
        ),
        (format!("{{hosts: [a], exportTo: [.], http: [{route}]}}"), "spec.exportTo", "not carried out yet"),
        (format!("{{hosts: [a], exportTo: ['*', b], http: [{route}]}}"), "spec.exportTo[0]", "combined"),
        ("{hosts: [a], tcp: [{}]}".to_owned(), "spec.tcp[0]", "the field route is missing"),
        (
            "{hosts: [a], tcp: [{match: [{destinationSubnets: [x]}], route: [{destination: {host: a}}]}]}"
                .to_owned(),
            "spec.tcp[0].match[0].destinationSubnets[0]",
            "no network",
        ),
        (
            "{hosts: [a], tcp: [{route: [{destination: {host: a}, headers: {}}]}]}".to_owned(),
            "spec.tcp[0].route[0].headers",
            "unknown field",
        ),
    ] {
        let parsed = read(&resource("VirtualService", &spec));
        // Some of these have more than one error; the first named one is meant.
        let found = parsed.diagnostics.iter().find(|d| d.field == field && d.message.contains(words));
        assert!(found.is_some() && parsed.is_refused(), "{spec}\n{}", show(&parsed));
    }
}

#[test]
fn rules_that_are_refused() {
    let with_route = |fields: &str| format!("{{route: [{{destination: {{host: a}}}}], {fields}}}");
    let at = |field: &str| format!("spec.http[0].{field}");
    for (fields, field, words) in [
        ("match: [{uri: {prefix: ''}}]", "match[0].uri.prefix", "must not be empty"),
        ("match: [{uri: {prefix: /a, exact: /b}}]", "match[0].uri", "only one of exact, prefix and regex"),
        ("match: [{uri: {regex: '('}}]", "match[0].uri.regex", "not a regular expression of RE2"),
        ("match: [{uri: /a}]", "match[0].uri", "found the text \"/a\", wanted a map"),
        ("match: {uri: {exact: /a}}", "match", "found a map, wanted a list"),
        ("match: [{headers: {'a b': {exact: x}}}]", "match[0].headers[\"a b\"]", "is no header name"),
        (
            "match: [{headers: {'@request.auth.claims.x': {}}}]",
            "match[0].headers[\"@request.auth.claims.x\"]",
            "not carried out yet",
        ),
        ("match: [{headers: {a: {exact: 1}}}]", "match[0].headers.a.exact", "put it in quotes"),
        ("match: [{statPrefix: x}]", "match[0].statPrefix", "not carried out yet"),
        ("match: [{gateways: [g]}]", "match[0].gateways[0]", "not carried out yet"),
        ("match: [{port: 0}]", "match[0].port", "out of range"),
        ("match: [{ignoreUriCase: yes}]", "match[0].ignoreUriCase", "wanted true or false"),
        ("timeout: 5", "timeout", "found the number 5, wanted a duration such as"),
        ("timeout: 5 s", "timeout", "wanted a duration such as"),
        ("timeout: -5s", "timeout", "wanted a duration such as"),
        ("timeout: 1.0005s", "timeout", "whole milliseconds"),
        ("timeout: 100us", "timeout", "whole milliseconds"),
        ("retries: {attempts: -1}", "retries.attempts", "-1 is out of range"),
        ("retries: {attempts: 0, retryOn: 5xx}", "retries", "turns retries off"),
        ("retries: {attempts: 1, perTryTimeout: 0s}", "retries.perTryTimeout", "at least 1ms"),
        ("retries: {attempts: 1, retryOn: gateway-eror}", "retries.retryOn", "did you mean gateway-error?"),
        ("retries: {attempts: 1, retryOn: '999'}", "retries.retryOn", "HTTP status codes"),
        ("retries: {attempts: 1, retryOn: retriable-headers}", "retries.retryOn", "not carried out yet"),
        (
            "retries: {attempts: 1, retryRemoteLocalities: true}",
            "retries.retryRemoteLocalities",
            "not carried out yet",
        ),
        ("fault: {}", "fault", "needs delay or abort"),
        ("fault: {abort: {percentage: {value: 1}}}", "fault.abort", "exactly one of httpStatus"),
        ("fault: {abort: {httpStatus: 600, percentage: {value: 1}}}", "fault.abort.httpStatus", "200 to 599"),
        (
            "fault: {abort: {grpcStatus: UNAVAILBLE, percentage: {}}}",
            "fault.abort.grpcStatus",
            "did you mean UNAVAILABLE?",
        ),
        ("fault: {delay: {percentage: {value: 1}}}", "fault.delay", "the field fixedDelay is missing"),
        (
            "fault: {delay: {fixedDelay: 1s, percentage: {value: 101}}}",
            "fault.delay.percentage.value",
            "out of range",
        ),
        (
            "fault: {delay: {fixedDelay: 1s, percentage: {value: 0.00001}}}",
            "fault.delay.percentage.value",
            "out of range",
        ),
        ("fault: {delay: {fixedDelay: 1s, percentage: 10}}", "fault.delay.percentage", "wanted a map"),
        ("rewrite: {}", "rewrite", "needs uri, uriRegexRewrite or authority"),
        ("rewrite: {uri: /a, uriRegexRewrite: {match: a, rewrite: b}}", "rewrite", "only one of"),
        ("rewrite: {uriRegexRewrite: {match: a}}", "rewrite.uriRegexRewrite", "the field rewrite is missing"),
        (
            "rewrite: {uriRegexRewrite: {match: a, rewrite: '\\1'}}",
            "rewrite.uriRegexRewrite.rewrite",
            "a group that the match does not have",
        ),
        ("rewrite: {authority: 'a b'}", "rewrite.authority", "cannot be an authority"),
        (
            "headers: {request: {set: {x: '%REQ(a)%'}}}",
            "headers.request.set.x",
            "the formatter %REQ% is not carried out yet",
        ),
        ("headers: {request: {set: {x: '5%'}}}", "headers.request.set.x", "written %%"),
        ("headers: {request: {set: {x: \"a\\nb\"}}}", "headers.request.set.x", "no header value may have"),
        ("headers: {request: {set: {':path': a}}}", "headers.request.set[\":path\"]", "cannot be changed"),
        (
            "headers: {request: {set: {host: a, ':authority': b}}}",
            "headers.request.set[\":authority\"]",
            "set twice",
        ),
        ("headers: {request: {remove: [host]}}", "headers.request.remove[0]", "cannot be removed"),
        (
            "headers: {request: {set: {Content-Length: '0'}}}",
            "headers.request.set.Content-Length",
            "frames the message",
        ),
        ("headers: {set: {a: b}}", "headers.set", "unknown field"),
        ("mirror: {host: a}", "mirror", "the field mirror is not carried out yet"),
        ("corsPolicy: {}", "corsPolicy", "not carried out yet"),
        ("mirror_percent: 1", "mirror_percent", "not carried out yet"),
        ("per_try_timeout: 1s", "per_try_timeout", "unknown field"),
    ] {
        refused(&rule_text(&with_route(fields)), &at(field), words);
    }
    for (rule, field, words) in [
        ("{}", "", "needs route, redirect or directResponse"),
        ("{delegate: {name: a}}", ".delegate", "not carried out yet"),
        ("{route: []}", ".route", "at least one destination"),
        ("{route: [{}]}", ".route[0]", "the field destination is missing"),
        ("{route: [{destination: {}}]}", ".route[0].destination", "the field host is missing"),
        ("{route: [{destination: {host: '*'}}]}", ".route[0].destination.host", "cannot be the host"),
        (
            "{route: [{destination: {host: a, port: {}}}]}",
            ".route[0].destination.port",
            "the field number is missing",
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
        (
            "{route: [{destination: {host: a}}], redirect: {uri: /}}",
            "",
            "route and redirect cannot both be set",
        ),
        (
            "{redirect: {uri: /}, fault: {abort: {httpStatus: 500, percentage: {value: 1}}}}",
            "",
            "fault and redirect",
        ),
        ("{redirect: {}}", ".redirect", "a redirect needs"),
        ("{redirect: {uri: /, redirectCode: 305}}", ".redirect.redirectCode", "one of 301"),
        ("{redirect: {uri: /, scheme: ftp}}", ".redirect.scheme", "allowed: http, https"),
        ("{redirect: {uri: /, port: 1, derivePort: FROM_REQUEST_PORT}}", ".redirect", "only one of port"),
        (
            "{match: [{uri: {exact: /a}}], redirect: {prefixRewrite: /b}}",
            ".redirect.prefixRewrite",
            "to be a prefix",
        ),
        ("{directResponse: {status: 199}}", ".directResponse.status", "200 to 599"),
        ("{directResponse: {status: 200, body: {bytes: '!'}}}", ".directResponse.body.bytes", "not base64"),
        (
            "{directResponse: {status: 200, body: {string: a, bytes: aGk=}}}",
            ".directResponse.body",
            "only one of",
        ),
    ] {
        refused(&rule_text(rule), &format!("spec.http[0]{field}"), words);
    }
}

#[test]
fn destination_rules() {
    let text = resource(
        "DestinationRule",
        "{host: A, trafficPolicy: {tls: {}, loadBalancer: {simple: LEAST_CONN}}, subsets: [{name: v1, labels: {version: v1}, \
         trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {mode: ISTIO_MUTUAL}}], loadBalancer: {simple: ROUND_ROBIN}}}]}",
    );
    let Spec::DestinationRule(rule) = &specs(&text)[0] else { panic!() };
    let policy = rule.policy.as_ref().unwrap();
    assert_eq!((&*rule.host, &policy.blocks.tls), ("a", &Some(ClientTls::Disable)));
    assert_eq!(policy.blocks.load_balancer, Some(LoadBalancer::LeastRequest));
    let subset = rule.subsets[0].policy.as_ref().unwrap();
    assert_eq!(subset.blocks.load_balancer, Some(LoadBalancer::RoundRobin));
    assert_eq!((subset.ports[0].0, &subset.ports[0].1.tls), (80, &Some(ClientTls::IstioMutual)));
    for (spec, field, words) in [
        ("{}", "spec", "the field host is missing"),
        ("{host: a, trafficPolicy: {}}", "spec.trafficPolicy", "at least one field"),
        (
            "{host: a, trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}}",
            "spec.trafficPolicy.loadBalancer.simple",
            "not carried out yet",
        ),
        (
            "{host: a, trafficPolicy: {loadBalancer: {simple: RANDM}}}",
            "spec.trafficPolicy.loadBalancer.simple",
            "did you mean RANDOM?",
        ),
        (
            "{host: a, trafficPolicy: {connectionPool: {}}}",
            "spec.trafficPolicy.connectionPool",
            "not carried out yet",
        ),
        (
            "{host: a, trafficPolicy: {tls: {mode: SIMPLE}}}",
            "spec.trafficPolicy.tls.mode",
            "not carried out yet",
        ),
        (
            "{host: a, trafficPolicy: {portLevelSettings: [{port: {number: 1}}]}}",
            "spec.trafficPolicy.portLevelSettings[0]",
            "beside port",
        ),
        (
            "{host: a, trafficPolicy: {portLevelSettings: [{tls: {}}]}}",
            "spec.trafficPolicy.portLevelSettings[0]",
            "port is missing",
        ),
        ("{host: a, subsets: [{name: v1}, {name: v1}]}", "spec.subsets[1]", "is there twice"),
        ("{host: a, subsets: [{labels: {}}]}", "spec.subsets[0]", "the field name is missing"),
        ("{host: a, workloadSelector: {}}", "spec.workloadSelector", "not carried out yet"),
    ] {
        refused(&resource("DestinationRule", spec), field, words);
    }
}

#[test]
fn service_entries() {
    let text = resource(
        "ServiceEntry",
        "{hosts: [A.com], resolution: STATIC, location: MESH_INTERNAL, ports: [{number: 80, name: web, protocol: http, targetPort: 8080}, \
         {number: 81, name: x}], endpoints: [{address: 10.0.0.1, ports: {web: 1}, weight: 0}]}",
    );
    let Spec::ServiceEntry(entry) = &specs(&text)[0] else { panic!() };
    assert_eq!((&*entry.hosts[0], entry.location), ("a.com", Location::Internal));
    assert_eq!(
        (entry.ports[0].protocol, &entry.ports[0].target),
        (Protocol::Http, &TargetPort::Number(8080))
    );
    assert_eq!((entry.ports[1].protocol, entry.endpoints[0].weight), (Protocol::Auto, 1));
    let with = |fields: &str| format!("{{hosts: [a.com], resolution: STATIC, {fields}}}");
    for (spec, field, words) in [
        ("{hosts: [a.com]}".to_owned(), "spec", "resolution NONE (the default) is not carried out yet"),
        (
            "{hosts: [a.com], resolution: DNS}".to_owned(),
            "spec.resolution",
            "resolution DNS is not carried out yet",
        ),
        ("{resolution: STATIC}".to_owned(), "spec", "the field hosts is missing"),
        ("{resolution: STATIC, hosts: ['*']}".to_owned(), "spec.hosts[0]", "cannot have the host '*'"),
        ("{resolution: STATIC, hosts: ['*.a']}".to_owned(), "spec.hosts[0]", "needs resolution NONE"),
        (with("ports: [{number: 1, name: a}, {number: 1, name: b}]"), "spec.ports[1]", "1 is there twice"),
        (with("ports: [{number: 1}]"), "spec.ports[0]", "the field name is missing"),
        (
            with("endpoints: [{address: 1.1.1.1, ports: {x: 1}}]"),
            "spec.endpoints[0]",
            "no port of the ServiceEntry",
        ),
        (
            with("endpoints: [{address: a.com}]"),
            "spec.endpoints[0].address",
            "instead of an IP is not carried out yet",
        ),
        (
            with("endpoints: [{address: 'unix:///a'}]"),
            "spec.endpoints[0].address",
            "Unix socket is not carried out yet",
        ),
        (with("endpoints: [{}]"), "spec.endpoints[0]", "the field address is missing"),
        (with("endpoints: [], workloadSelector: {}"), "spec", "only one of endpoints"),
        (with("addresses: [10.0.0.0/8]"), "spec.addresses[0]", "not carried out yet"),
        (with("addresses: [x]"), "spec.addresses[0]", "no IP address"),
        (
            "{hosts: [a, b], resolution: STATIC, ports: [{number: 1, name: a, protocol: TCP}]}".to_owned(),
            "spec.ports",
            "plain TCP",
        ),
        (with("workloadSelector: {labels: {a: '*'}}"), "spec.workloadSelector.labels.a", "no wildcard"),
        (with("subjectAltNames: [a]"), "spec.subjectAltNames", "not carried out yet"),
    ] {
        refused(&resource("ServiceEntry", &spec), field, words);
    }
}

#[test]
fn workload_entries() {
    let text = resource(
        "WorkloadEntry",
        "{address: '::1', labels: {a: spec, b: spec}, locality: r/z, serviceAccount: x}",
    )
    .replace("name: a", "name: a\n  labels: {a: meta}\n  annotations: {mesh.io/user: '1001'}");
    let Spec::WorkloadEntry(entry) = &specs(&text)[0] else { panic!() };
    assert_eq!((entry.labels.value("a"), entry.labels.value("b")), (Some("meta"), Some("spec")));
    assert_eq!((entry.user, entry.locality.to_string().as_str(), entry.weight), (Some(1001), "r/z", 1));
    for (spec, field, words) in [
        ("{}", "spec", "the field address is missing"),
        ("{address: 1.2.3.4, network: n}", "spec.network", "not carried out yet"),
        ("{address: 1.2.3.4:80}", "spec.address", "no IP address"),
        ("{address: 1.2.3.4, ports: {'a_b': 1}}", "spec.ports.a_b", "no port name"),
        ("{address: 1.2.3.4, weight: -1}", "spec.weight", "out of range"),
        ("{address: 1.2.3.4, locality: a/b/c/d}", "spec.locality", "region/zone/subzone"),
        ("{address: 1.2.3.4, serviceAccount: 'A B'}", "spec.serviceAccount", "lower-case"),
    ] {
        refused(&resource("WorkloadEntry", spec), field, words);
    }
    let annotated = |key: &str| {
        resource("WorkloadEntry", "{address: 1.1.1.1}")
            .replace("name: a", &format!("name: a\n  annotations: {{mesh.io/{key}: x}}"))
    };
    refused(&annotated("user"), "metadata.annotations[\"mesh.io/user\"]", "wanted a user id");
    refused(&annotated("cgroup"), "metadata.annotations[\"mesh.io/cgroup\"]", "not carried out yet");
    refused(&annotated("usr"), "metadata.annotations[\"mesh.io/usr\"]", "did you mean mesh.io/user?");
}

#[test]
fn warnings_do_not_refuse() {
    let to_a = "route: [{destination: {host: a}}]";
    for (text, words) in [
        (rule_text(&format!("{{{to_a}}}, {{{to_a}}}")), "never used: rule 0 before it matches everything"),
        (
            rule_text(&format!("{{{to_a}, match: [{{uri: {{prefix: /}}, name: x}}]}}, {{{to_a}}}")),
            "never used: rule 0",
        ),
        (
            rule_text(&format!(
                "{{{to_a}, match: [{{port: 1}}]}}, {{{to_a}, match: [{{port: 1, name: x}}]}}"
            )),
            "all its matches are in earlier rules",
        ),
        (
            rule_text("{route: [{destination: {host: a}}], fault: {abort: {httpStatus: 500}}}"),
            "0%: no request is concerned",
        ),
        (
            rule_text("{route: [{destination: {host: a}}], match: [{headers: {uri: {exact: x}}}]}"),
            "has no effect",
        ),
        (
            resource(
                "ServiceEntry",
                "{hosts: [a.com], resolution: STATIC, ports: [{number: 1, name: a, protocol: HTP}]}",
            ),
            "did you mean HTTP?",
        ),
    ] {
        let parsed = read(&text);
        assert!(
            !parsed.is_refused() && parsed.diagnostics.iter().any(|d| d.message.contains(words)),
            "{}",
            show(&parsed)
        );
    }
}
