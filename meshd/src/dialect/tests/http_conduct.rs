//! What happens to requests of a rule of `http` on their way: retries, timeouts, faults, mirrors, origins.

use std::time::Duration;

use mesh_core::matching::text::TextMatch;
use mesh_core::resilience::fault::AbortStatus;
use mesh_core::resilience::retry::{RetryCondition, RetryPolicy};
use mesh_core::routing::cors::UnmatchedPreflights;

use super::http_rule::{invalid, routed, warned, with_route};

#[test]
fn retries() {
    assert_eq!(routed("name: x").retry, None);
    assert_eq!(routed("retries: {}").retry, Some(RetryPolicy::disabled()));
    assert_eq!(routed("retries: {attempts: 0, backoff: 1s}").retry.unwrap().attempts, 0);
    let retry = routed(
        "retries: {attempts: 3, perTryTimeout: 1m30s, retryOn: '5xx,503,connect-failure', backoff: 10ms}",
    )
    .retry
    .unwrap();
    assert_eq!((retry.attempts, retry.per_try_timeout), (3, Some(Duration::from_secs(90))));
    let on = [RetryCondition::FiveXx, RetryCondition::ConnectFailure, RetryCondition::RetriableStatusCodes];
    assert_eq!((&retry.on[..], &retry.codes[..]), (&on[..], &[503][..]));
    assert_eq!((retry.backoff, retry.avoid_tried), (Duration::from_millis(10), true));
    let retry = routed(
        "retries: {attempts: 1, retryOn: '', retryIgnorePreviousHosts: false, retryRemoteLocalities: null}",
    )
    .retry
    .unwrap();
    assert_eq!((&retry.on[..], retry.avoid_tried), (&RetryPolicy::DEFAULT_CONDITIONS[..], false));
    warned(&with_route("retries: {attempts: 1, retryOn: retriable-headers}"), "never holds");
    assert!(routed("retries: {attempts: 1, retryRemoteLocalities: true}").retry.unwrap().remote_localities);
    for (fields, field, words) in [
        ("{attempts: -1}", ".attempts", "-1 is out of range"),
        ("{attempts: 0, retryOn: 5xx}", "", "turns retries off"),
        ("{perTryTimeout: 1s}", "", "turns retries off"),
        ("{retryRemoteLocalities: false}", "", "turns retries off"),
        ("{attempts: 1, perTryTimeout: 0s}", ".perTryTimeout", "at least 1ms"),
        ("{attempts: 1, perTryTimeout: 2.000000001s}", ".perTryTimeout", "whole milliseconds"),
        ("{attempts: 1, backoff: 999ns}", ".backoff", "whole milliseconds"),
        ("{attempts: 1, retryOn: gateway-eror}", ".retryOn", "did you mean gateway-error?"),
        ("{attempts: 1, retryOn: '600,reset'}", ".retryOn", "HTTP status codes"),
        ("{attempts: 1, retryOn: '5xx, reset'}", ".retryOn", "no space"),
        ("{attempts: 1, retryOn: '5xx,'}", ".retryOn", "HTTP status codes"),
        ("{attemps: 1, retryOn: 5xx}", ".attemps", "did you mean attempts?"),
    ] {
        invalid(&with_route(&format!("retries: {fields}")), &format!(".retries{field}"), words);
    }
}

#[test]
fn timeouts() {
    for (text, expected) in [
        ("1.5s", 1500),
        ("250ms", 250),
        ("1h2m3s4ms", 3_723_004),
        ("1000000us", 1000),
        ("1ms", 1),
        ("+5s", 5000),
    ] {
        let timeout = routed(&format!("timeout: {text}")).timeout;
        assert_eq!(timeout, Some(Duration::from_millis(expected)), "{text}");
    }
    for (text, words) in [
        ("0s", "at least 1ms"),
        ("5", "found the number 5, wanted a duration such as"),
        ("5 s", "wanted a duration such as"),
        ("-5s", "wanted a duration such as"),
        ("1d", "wanted a duration such as"),
        ("1.0005s", "whole milliseconds"),
        ("100us", "whole milliseconds"),
    ] {
        invalid(&with_route(&format!("timeout: {text}")), ".timeout", words);
    }
}

#[test]
fn faults() {
    let fault = routed(
        "fault: {delay: {fixedDelay: 7s, percentage: {value: 0.1}}, abort: {httpStatus: 555, percentage: {value: 100}}}",
    )
    .fault
    .unwrap();
    assert_eq!(fault.delay.map(|(share, wait)| (share.ppm(), wait)), Some((1000, Duration::from_secs(7))));
    assert_eq!(
        fault.abort.map(|(share, status)| (share.ppm(), status)),
        Some((1_000_000, AbortStatus::Http(555)))
    );
    let fault = routed("fault: {abort: {grpcStatus: UNAVAILABLE, percentage: {}}}").fault.unwrap();
    assert_eq!(fault.abort.map(|(share, status)| (share.ppm(), status)), Some((0, AbortStatus::Grpc(14))));
    let fault = routed("fault: {delay: {fixedDelay: 3s, percent: 20}}").fault.unwrap();
    assert_eq!(fault.delay.map(|(share, _)| share.ppm()), Some(200_000));
    warned(&with_route("fault: {abort: {httpStatus: 200}}"), "0%: no request is concerned");
    warned(&with_route("fault: {abort: {percentage: {value: 1}}}"), "nothing is aborted");
    warned(&with_route("fault: {delay: {percentage: {value: 1}}}"), "nothing is delayed");
    for (fields, field, words) in [
        ("{}", "", "needs delay or abort"),
        ("{abort: {httpStatus: 601, percentage: {value: 1}}}", ".abort.httpStatus", "200 to 599"),
        ("{abort: {httpStatus: 100, percentage: {value: 1}}}", ".abort.httpStatus", "200 to 599"),
        ("{abort: {httpStatus: 500, grpcStatus: OK, percentage: {}}}", ".abort", "only one of"),
        ("{abort: {http2Error: x, percentage: {}}}", ".abort.http2Error", "not supported"),
        (
            "{abort: {grpcStatus: UNAVAILBLE, percentage: {}}}",
            ".abort.grpcStatus",
            "did you mean UNAVAILABLE?",
        ),
        ("{abort: {grpcStatus: '14', percentage: {}}}", ".abort.grpcStatus", "allowed: OK"),
        ("{delay: {fixedDelay: 1s, percentage: {value: 101}}}", ".delay.percentage.value", "out of range"),
        ("{delay: {fixedDelay: 1s, percentage: {value: -10}}}", ".delay.percentage.value", "out of range"),
        (
            "{delay: {fixedDelay: 1s, percentage: {value: 0.00001}}}",
            ".delay.percentage.value",
            "out of range",
        ),
        ("{delay: {fixedDelay: 1s, percentage: 10}}", ".delay.percentage", "wanted a map"),
        ("{delay: {fixedDelay: 0s, percentage: {}}}", ".delay.fixedDelay", "at least 1ms"),
        ("{delay: {fixedDelay: 3.000000042s, percentage: {}}}", ".delay.fixedDelay", "whole milliseconds"),
        ("{delay: {exponentialDelay: 1s, percentage: {}}}", ".delay.exponentialDelay", "not supported"),
    ] {
        invalid(&with_route(&format!("fault: {fields}")), &format!(".fault{field}"), words);
    }
}

#[test]
fn mirrors() {
    let shares = |fields: &str| {
        let mirrors = routed(fields).mirrors;
        mirrors
            .iter()
            .map(|mirror| (mirror.destination.host.to_string(), mirror.share.ppm()))
            .collect::<Vec<_>>()
    };
    let b = |ppm| vec![("b".to_owned(), ppm)];
    assert_eq!(shares("mirror: {host: B}"), b(1_000_000));
    assert_eq!(shares("mirror: {host: b}, mirrorPercentage: {value: 0.5}, mirrorPercent: 7"), b(5_000));
    assert_eq!(shares("mirror: {host: b}, mirror_percent: 7"), b(70_000));
    assert_eq!(shares("mirror: {host: b}, mirrorPercent: null"), b(1_000_000));
    assert_eq!(shares("mirror: {host: b}, mirrorPercentage: {}"), b(0));
    assert_eq!(
        shares("mirrors: [{destination: {host: b}, percentage: {value: 1}}, {destination: {host: c}}]"),
        [("b".to_owned(), 10_000), ("c".to_owned(), 1_000_000)]
    );
    warned(&with_route("mirrorPercent: 5"), "deprecated, use mirrorPercentage");
    for (fields, field, words) in [
        ("mirror: {}", ".mirror", "the field host is missing"),
        ("mirror: {host: b}, mirrors: [{destination: {host: c}}]", "", "only one of mirror and mirrors"),
        ("mirrorPercent: 101", ".mirrorPercent", "out of range"),
        ("mirrorPercentage: {value: 101}", ".mirrorPercentage.value", "out of range"),
        ("mirrorPercentage: {value: -1}", ".mirrorPercentage.value", "out of range"),
        ("mirrors: [{}]", ".mirrors[0]", "the field destination is missing"),
        (
            "mirrors: [{destination: {host: b}, percentage: {value: -1}}]",
            ".mirrors[0].percentage.value",
            "out of",
        ),
        ("mirrors: [{destination: {host: '*'}}]", ".mirrors[0].destination.host", "cannot be the host"),
    ] {
        invalid(&with_route(fields), field, words);
    }
}

#[test]
fn cross_origin() {
    let cors = routed(
        "corsPolicy: {allowOrigins: [{exact: 'https://a.com'}, {regex: '.*'}], allowMethods: [GET, '*'], allowHeaders: [X-A, '*'], \
         exposeHeaders: [x], maxAge: 24h, allowCredentials: true, unmatchedPreflights: IGNORE}",
    )
    .cors
    .unwrap();
    assert_eq!(cors.allow_origins, [TextMatch::Exact("https://a.com".into()), TextMatch::Present]);
    assert_eq!((cors.max_age, cors.allow_credentials), (Some(86_400), true));
    assert_eq!(cors.unmatched_preflights, UnmatchedPreflights::Ignore);
    let old = routed("corsPolicy: {allowOrigin: [a, '*'], allowCredentials: null}").cors.unwrap();
    assert_eq!(old.allow_origins, [TextMatch::Exact("a".into()), TextMatch::Present]);
    warned(&with_route("corsPolicy: {allowOrigin: [a]}"), "deprecated");
    for (fields, field, words) in [
        ("{allowOrigins: [{}]}", ".allowOrigins[0]", "not empty"),
        ("{allowOrigins: [{exact: ''}]}", ".allowOrigins[0]", "not empty"),
        ("{allowOrigins: [{regex: '*'}]}", ".allowOrigins[0].regex", "not a regular expression"),
        ("{allowMethods: [PUTT]}", ".allowMethods[0]", "did you mean PUT?"),
        ("{exposeHeaders: ['']}", ".exposeHeaders[0]", "must not be empty"),
        ("{allowHeaders: ['a b']}", ".allowHeaders[0]", "is no header name"),
        ("{maxAge: 1500ms}", ".maxAge", "whole seconds"),
        ("{maxAge: 0s}", ".maxAge", "at least 1ms"),
        ("{unmatchedPreflights: 1}", ".unmatchedPreflights", "one of UNSPECIFIED"),
    ] {
        invalid(&with_route(&format!("corsPolicy: {fields}")), &format!(".corsPolicy{field}"), words);
    }
}
