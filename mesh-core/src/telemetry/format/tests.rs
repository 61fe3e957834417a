use super::*;

#[test]
fn what_has_a_value_is_read() {
    for text in [
        "",
        "plain 100%%",
        "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE%",
        "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS%",
        "%START_TIME(%Y/%m/%dT%H:%M:%S.%3f%z %s)%",
        "%REQ(X-A?X-B):12% %RESP(SERVER)% %TRAILER(GRPC-STATUS)% %REQ_WITHOUT_QUERY(:PATH)%",
        "%ENVIRONMENT(HOME):3% %QUERY_PARAM(a)% %PATH(NQ)% %PATH% %GRPC_STATUS(SNAKE_STRING)%",
        "%CEL(request.headers['x-a'])% %CEL(request.path.startsWith('/a'))% %SNAPSHOT_VERSION% %RULE% %TRACE_ID% %UPSTREAM_REMOTE_PORT%",
    ] {
        assert_eq!(Template::parse(text).map(|read| read.source().to_owned()), Ok(text.to_owned()));
    }
}

#[test]
fn what_is_refused_says_why() {
    for (text, why) in [
        ("50%", "begins no operator"),
        ("%PROTOCOL", "begins no operator"),
        ("%REQ(a", "begins no operator"),
        ("%RESPONSE_COD%", "did you mean %RESPONSE_CODE%"),
        ("%RESPONSE_FLAG%", "did you mean %RESPONSE_FLAGS%"),
        ("%TOTALLY_DIFFERENT_THING_OF_NOBODY%", "no operator of access logs"),
        ("%DYNAMIC_METADATA(a:b)%", "the nearest is %RULE%"),
        ("%FILTER_STATE(x)%", "has no value in this mesh"),
        ("%REQ%", "names a header field"),
        ("%REQ(a b)%", "no name of a header field"),
        ("%TRAILER(x-a)%", "only grpc-status"),
        ("%PROTOCOL(x)%", "takes nothing in parentheses"),
        ("%START_TIME(%Q)%", "%Q is no part of a time"),
        ("%GRPC_STATUS(X)%", "CAMEL_STRING"),
        ("%PATH(Q)%", "WQ"),
        ("%CEL(nobody.knows)%", "no attribute"),
    ] {
        let error = Template::parse(text).unwrap_err().to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
    assert_eq!(Template::parse(&"x".repeat(LONGEST + 1)), Err(FormatError::TooLarge));
}

#[test]
fn objects_are_sorted_and_nested() {
    let object = Object::parse(r#"{"b": "%PROTOCOL%", "a": {"y": [1, "%DURATION%"], "x": null}}"#).unwrap();
    let keys: Vec<&str> = object.members.iter().map(|(key, _)| &**key).collect();
    assert_eq!(keys, ["\"a\"", "\"b\""]);
    assert_eq!(object.templates().len(), 2);
    assert!(Object::parse("[]").is_err());
    assert!(Object::parse(r#"{"a": "%NOBODY%"}"#).is_err());
    let deep = format!("{}1{}", "{\"a\":".repeat(12), "}".repeat(12));
    assert_eq!(Object::parse(&deep), Err(FormatError::TooLarge));
}

#[test]
fn fields_are_asked_for_only_where_lines_do_not_have_them_anyway() {
    for (text, asks) in [
        ("%REQ(USER-AGENT)% %REQ(:AUTHORITY)%", false),
        ("%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%", false),
        ("%REQ(x-a)%", true),
        ("%RESP(server)%", true),
        ("%CEL(request.path)%", false),
        ("%CEL(response.headers['x-a'])%", true),
    ] {
        assert_eq!(Template::parse(text).unwrap().reads_fields(), asks, "{text}");
    }
}

#[test]
fn times_are_written_as_asked_for() {
    let at = Moment {
        year: 2026,
        month: 1,
        day: 2,
        day_of_year: 2,
        weekday: 5,
        hour: 13,
        minute: 4,
        second: 5,
        nanosecond: 67_800_000,
        epoch: 1_767_359_045,
    };
    for (format, expected) in [
        ("%Y-%m-%dT%H:%M:%S.%3fZ", "2026-01-02T13:04:05.067Z"),
        ("%F %T%z %Z", "2026-01-02 13:04:05+0000 UTC"),
        ("%d/%b/%Y:%I:%M:%S %p", "02/Jan/2026:01:04:05 PM"),
        ("%s %3s %f %6f", "1767359045 1767359045067 067800000 067800"),
        ("%a %A %e %j %D %R %B %%", "Fri Friday  2 002 01/02/26 13:04 January %"),
    ] {
        let mut out = String::new();
        TimeFormat::parse(format).unwrap().write(&at, &mut out);
        assert_eq!(out, expected, "{format}");
    }
    assert_eq!(TimeFormat::parse("%").unwrap_err(), "%");
    assert_eq!(TimeFormat::parse("%12f").unwrap_err(), "%12f");
}
