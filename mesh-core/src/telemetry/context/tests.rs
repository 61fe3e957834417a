//! Contexts as they come, and as they go on.

use super::*;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

fn fields(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn begun(headers: &HeaderMap, tracing: &Tracing) -> Context {
    Context::begin(&Heard::read(headers), tracing, &mut Random::seeded(7))
}

/// What goes on: names and values, in order of name. The proxy's own span is shown as `SPAN`, a new trace as `TRACE`.
fn passed_on(pairs: &[(&'static str, &str)], tracing: &Tracing) -> String {
    let mut headers = fields(pairs);
    let context = begun(&headers, tracing);
    context.write(&mut headers);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut lines: Vec<String> =
        headers.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
    lines.sort();
    lines.join(" ").replace(&hex(&context.span), "SPAN").replace(&hex(&context.trace), "TRACE")
}

fn share(percent: f64) -> Tracing {
    Tracing { sampling: Ratio::from_percent(percent), ..Tracing::default() }
}

#[test]
fn what_came_goes_on_in_its_form() {
    let w3c = |flags: &str| format!("00-{TRACE}-{SPAN}-{flags}");
    for (pairs, expected) in [
        (&[][..], "traceparent=00-TRACE-SPAN-02"),
        (&[("traceparent", &*w3c("01"))], "traceparent=00-TRACE-SPAN-01"),
        (&[("traceparent", &*w3c("00"))], "traceparent=00-TRACE-SPAN-00"),
        (&[("traceparent", &*w3c("03"))], "traceparent=00-TRACE-SPAN-03"),
        (
            &[("traceparent", &*w3c("01")), ("tracestate", "a=1"), ("tracestate", "b@c=2 3")],
            "traceparent=00-TRACE-SPAN-01 tracestate=a=1 tracestate=b@c=2 3",
        ),
        (&[("b3", "0")], "b3=TRACE-SPAN-0"),
        (&[("b3", "d")], "b3=TRACE-SPAN-d"),
        (&[("b3", &*format!("{TRACE}-{SPAN}-1"))], "b3=TRACE-SPAN-1-b7ad6b7169203331"),
        (&[("b3", &*format!("{TRACE}-{SPAN}-0-{SPAN}"))], "b3=TRACE-SPAN-0-b7ad6b7169203331"),
        (&[("b3", &*format!("8448eb211c80319c-{SPAN}-1"))], "b3=8448eb211c80319c-SPAN-1-b7ad6b7169203331"),
        (
            &[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-sampled", "1")],
            "x-b3-parentspanid=b7ad6b7169203331 x-b3-sampled=1 x-b3-spanid=SPAN x-b3-traceid=TRACE",
        ),
        (
            &[("x-b3-traceid", "8448EB211C80319C"), ("x-b3-spanid", SPAN), ("x-b3-flags", "1")],
            "x-b3-flags=1 x-b3-parentspanid=b7ad6b7169203331 x-b3-spanid=SPAN x-b3-traceid=8448eb211c80319c",
        ),
        (&[("x-b3-sampled", "0")], "x-b3-sampled=0 x-b3-spanid=SPAN x-b3-traceid=TRACE"),
        // W3C decides, and B3 goes on beside it.
        (
            &[("traceparent", &*w3c("00")), ("b3", "1")],
            "b3=TRACE-SPAN-0-b7ad6b7169203331 traceparent=00-TRACE-SPAN-00",
        ),
    ] {
        assert_eq!(passed_on(pairs, &share(0.0)), expected, "{pairs:?}");
    }
}

#[test]
fn what_no_specification_allows_counts_as_absent_and_does_not_go_on() {
    let new = "traceparent=00-TRACE-SPAN-02";
    for bad in [
        String::new(),
        "00".to_owned(),
        format!("ff-{TRACE}-{SPAN}-01"),
        format!("0x-{TRACE}-{SPAN}-01"),
        format!("00-{TRACE}-{SPAN}-01-more"),
        format!("00-{TRACE}-{SPAN}-1"),
        format!("01-{TRACE}-{SPAN}-01more"),
        format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
        format!("00-{}-{SPAN}-01", "0".repeat(32)),
        format!("00-{TRACE}-{}-01", "0".repeat(16)),
        format!("00_{TRACE}-{SPAN}-01"),
        format!("00-{TRACE}-{SPAN}-zz"),
        format!("00-{}-{SPAN}-01", "é".repeat(16)),
    ] {
        let value = HeaderValue::from_bytes(bad.as_bytes()).unwrap();
        let mut headers = fields(&[("tracestate", "a=1")]);
        headers.insert(&TRACEPARENT, value);
        assert_eq!(Heard::read(&headers).parent, None, "{bad}");
        let context = begun(&headers, &share(0.0));
        context.write(&mut headers);
        assert_eq!(headers.len(), 1, "{bad}");
        assert!(Heard::read(&headers).parent.is_some(), "{bad}");
    }
    // A later version is read as far as it is known.
    let later = format!("cc-{TRACE}-{SPAN}-01-what-the-future-holds");
    assert_eq!(passed_on(&[("traceparent", &later)], &share(0.0)), "traceparent=00-TRACE-SPAN-01");
    let twice = format!("00-{TRACE}-{SPAN}-01");
    assert_eq!(passed_on(&[("traceparent", &twice), ("traceparent", &twice)], &share(0.0)), new);
    assert_eq!(passed_on(&[("tracestate", "a=1")], &share(0.0)), new);
    for bad in ["2", "", "-", &format!("{TRACE}-{SPAN}-x"), TRACE, &format!("{TRACE}-{SPAN}-1-{SPAN}-")] {
        assert_eq!(passed_on(&[("b3", bad)], &share(0.0)), new, "{bad}");
    }
    for bad in [
        &[("x-b3-traceid", TRACE)][..],
        &[("x-b3-traceid", "zz"), ("x-b3-spanid", SPAN)],
        &[("x-b3-traceid", TRACE), ("x-b3-spanid", "0000000000000000")],
        &[("x-b3-sampled", "maybe")],
    ] {
        assert_eq!(passed_on(bad, &share(0.0)), new, "{bad:?}");
    }
}

#[test]
fn a_state_of_vendors_that_is_none_or_too_long_does_not_go_on() {
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let many: Vec<String> = (0..33).map(|index| format!("k{index}=v")).collect();
    for bad in [many.join(","), "novalue".to_owned(), "A=1".to_owned(), format!("a={}", "x".repeat(257))] {
        let passed = passed_on(&[("traceparent", &parent), ("tracestate", &bad)], &share(0.0));
        assert_eq!(passed, "traceparent=00-TRACE-SPAN-01", "{bad}");
    }
    let most = many[..32].join(",");
    let passed = passed_on(&[("traceparent", &parent), ("tracestate", &most)], &share(0.0));
    assert!(passed.ends_with(&most), "{passed}");
}

#[test]
fn who_decides_whether_it_is_sampled() {
    const PLAIN: &str = "ffffffff-0000-4000-8000-000000000000";
    const MARKED: &str = "ffffffff-0000-9000-8000-000000000000";
    let unsampled = format!("00-{TRACE}-{SPAN}-00");
    for (pairs, percent, expected) in [
        (&[][..], 0.0, false),
        (&[], 100.0, true),
        (&[("traceparent", &*unsampled)], 100.0, false),
        (&[("b3", "0")], 100.0, false),
        (&[("b3", "1")], 0.0, true),
        (&[("x-request-id", PLAIN)], 0.0, false),
        (&[("x-request-id", MARKED)], 0.0, true),
        (&[("x-request-id", MARKED), ("traceparent", &*unsampled)], 100.0, false),
        (&[("x-request-id", "00000000-0000-4000-8000-000000000000")], 0.0001, true),
        (&[("x-request-id", "000f423f-0000-4000-8000-000000000000")], 99.9999, false),
        (&[("x-client-trace-id", "mine")], 0.0, true),
        // The context says nothing of it.
        (&[("b3", &*format!("{TRACE}-{SPAN}"))], 100.0, true),
    ] {
        assert_eq!(begun(&fields(pairs), &share(percent)).sampled, expected, "{pairs:?} {percent}");
    }
    let by_trace = Tracing { use_request_id: false, ..share(0.0) };
    assert!(!begun(&fields(&[("x-request-id", MARKED)]), &by_trace).sampled);
    // One in a hundred where nothing is said.
    let mut random = Random::seeded(1);
    let tracing = Tracing::default();
    let count =
        (0..100_000).filter(|_| Context::begin(&Heard::default(), &tracing, &mut random).sampled).count();
    assert!((800..1_200).contains(&count), "{count}");
    assert!(!begun(&fields(&[("b3", "d")]), &share(0.0)).of_copy().sampled);
}

#[test]
fn only_random_ids_are_marked() {
    for (id, expected) in [
        ("12345678-0000-4000-8000-000000000000", Some("12345678-0000-9000-8000-000000000000")),
        ("12345678-0000-7000-8000-000000000000", None),
        ("log-me", None),
    ] {
        let mut bytes = id.as_bytes().to_vec();
        assert_eq!(mark(&mut bytes), expected.is_some());
        assert_eq!(bytes, expected.unwrap_or(id).as_bytes());
    }
}
