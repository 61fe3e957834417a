use std::collections::HashMap;
use std::time::Duration;

use super::{Expression, ExpressionError};
use crate::telemetry::attribute::{Attribute, Attributes, Value, flag_bits};

struct Known(HashMap<Attribute, Value<'static>>);

impl Attributes for Known {
    fn value(&self, attribute: &Attribute) -> Option<Value<'_>> {
        self.0.get(attribute).cloned()
    }
}

fn known() -> Known {
    let text = |text: &'static str| Value::Text(text.into());
    Known(HashMap::from([
        (Attribute::RequestHost, text("reviews")),
        (Attribute::RequestUrlPath, text("/v1/reviews")),
        (Attribute::RequestMethod, text("GET")),
        (Attribute::RequestHeader("x-user".into()), text("ann")),
        (Attribute::RequestDuration, Value::Duration(Duration::from_millis(1500))),
        (Attribute::ResponseCode, Value::Int(404)),
        (Attribute::DestinationPort, Value::Int(8080)),
        (Attribute::ConnectionMtls, Value::Bool(true)),
    ]))
}

#[test]
fn conditions() {
    let known = known();
    for (source, holds) in [
        ("response.code >= 400", true),
        ("response.code >= 500", false),
        ("response.code >= 400 && connection.mtls", true),
        ("!connection.mtls || request.method == 'GET'", true),
        ("connection.mtls", true),
        ("request.url_path.contains('v1')", true),
        ("request.url_path.startsWith('/v1/') && request.url_path.endsWith('s')", true),
        ("request.url_path.matches('^/v[0-9]+/')", true),
        ("matches(request.url_path, '^/v2')", false),
        ("request.headers['x-user'] == 'ann'", true),
        ("request.headers['X-User'] == \"ann\"", true),
        ("request.headers['x-other'] == 'ann'", false),
        ("'x-user' in request.headers", true),
        ("!('x-other' in request.headers)", true),
        ("has(request.host)", true),
        ("has(request.useragent)", false),
        ("has(request.useragent) || response.code == 404", true),
        // What has an error on one side holds if the other decides.
        ("request.useragent == 'x' || response.code == 404", true),
        ("request.useragent == 'x' && response.code == 404", false),
        ("request.host in ['reviews', 'ratings']", true),
        ("request.duration > duration('1s')", true),
        ("request.duration > duration('1m30s')", false),
        ("response.code", false),
        ("response.code + 'x' == 'x'", false),
        ("[400, 404].exists(c, c == response.code)", true),
        ("['a', 'b'].all(x, request.host != x)", true),
        ("[1, 2, 3].filter(x, x > 1).map(x, x * 2) == [4, 6]", true),
        ("size(request.host) == 7 ? response.code == 404 : false", true),
        ("int('404') == response.code && string(response.code) == '404'", true),
        ("{'a': 404}.a == response.code", true),
        ("response.code / 0 == 1", false),
        ("true", true),
    ] {
        let expression = Expression::new(source).unwrap_or_else(|error| panic!("{source}: {error}"));
        assert_eq!(expression.as_condition(&known), holds, "{source}");
    }
}

#[test]
fn texts() {
    let known = known();
    for (source, text) in [
        ("\"literal\"", "literal"),
        ("request.host", "reviews"),
        ("request.useragent", "unknown"),
        ("string(destination.port)", "8080"),
        ("destination.port", "8080"),
        ("connection.mtls", "true"),
        ("request.host + ':' + string(response.code)", "reviews:404"),
        ("response.code >= 400 ? 'bad' : 'good'", "bad"),
        ("'x-user' in request.headers ? request.headers['x-user'] : 'nobody'", "ann"),
        ("request.duration", "1.5s"),
        ("1.5", "1.5"),
        ("[1]", "unknown"),
    ] {
        let expression = Expression::new(source).unwrap_or_else(|error| panic!("{source}: {error}"));
        assert_eq!(expression.as_text(&known), text, "{source}");
    }
}

#[test]
fn refused() {
    let nested = format!("{}1{}", "(".repeat(500), ")".repeat(500));
    let long = format!("{}1", "1+".repeat(500));
    let choices = format!("{}1", "true?1:".repeat(280));
    let doubled = format!("['a']{}", ".map(x, x + x)".repeat(20));
    for (source, words) in [
        ("", "is empty"),
        ("response.code >=", "mismatched input the end, at character 17"),
        ("a b", "extraneous input"),
        ("request.hosts", "request.hosts is no attribute that this mesh answers; did you mean request.host?"),
        ("response.cod == 1", "did you mean response.code?"),
        ("foo", "foo is no attribute that this mesh answers"),
        ("filter_state.request.host", "is no attribute"),
        ("request.headers == 1", "request.headers['NAME'] is one"),
        ("request.headers[request.host]", "all header fields at once"),
        ("has(request.headers['x'])", "write 'NAME' in request.headers"),
        ("request.host.reverse()", "reverse is no function here"),
        ("request.host.matches(request.method)", "must be a literal"),
        ("request.host.matches('(')", "unclosed group"),
        ("duration(request.host) > duration('1s')", "duration takes a literal"),
        ("C{x: 1}", "messages such as C"),
        ("[1].map(x, x.y)", "x has no fields"),
        ("[[1]].exists(x, x.exists(y, y == 1))", "loops go over lists that are written out"),
        (&nested, "nested too deep"),
        (&long, "nested too deep"),
        (&choices, "nested too deep"),
        (&doubled, "may take too much"),
        (&" ".repeat(3000), "at most 2048 bytes"),
    ] {
        match Expression::new(source) {
            Ok(_) => panic!("{source} is read"),
            Err(error) => assert!(error.to_string().contains(words), "{source}: {error}"),
        }
    }
    let many: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let loops = format!("[{0}].exists(x, [{0}].exists(y, x == y))", many.join(","));
    assert_eq!(Expression::new(&loops).err(), Some(ExpressionError::TooMuch("work")));
}

/// The stack of a thread bears what is read, parsed and computed at the limits.
#[test]
fn hostile_texts_need_little_stack() {
    let texts = [
        format!("{}1{}", "(".repeat(64), ")".repeat(64)),
        format!("{}1{}", "[".repeat(64), "]".repeat(64)),
        format!("{}1{}", "{1:".repeat(64), "}".repeat(64)),
        format!("{}1", "1+".repeat(60)),
        format!("{}1", "1+".repeat(1023)),
        format!("{}1", "!".repeat(2047)),
        format!("{}true", "true&&".repeat(340)),
        format!("{}true", "true?true:".repeat(200)),
        format!("a{}", ".a".repeat(1023)),
        format!("size{}", "(".repeat(2000)),
        "[".repeat(2048),
        "'".repeat(2047),
    ];
    for text in &texts {
        if let Ok(expression) = Expression::new(text) {
            expression.evaluate(&Known(HashMap::new()));
        }
    }
}

#[test]
fn what_is_asked_for() {
    let source =
        "request.headers['X-A'] == response.headers['b'] && has(request.host) && request.referer != ''";
    let expression = Expression::new(source).expect("an expression");
    assert_eq!(expression.request_headers().collect::<Vec<_>>(), ["x-a", "referer"]);
    assert_eq!(expression.response_headers().collect::<Vec<_>>(), ["b"]);
    assert_eq!(expression.attributes().count(), 4);
}

#[test]
fn parties() {
    for source in [
        "upstream_peer.workload",
        "filter_state.upstream_peer.namespace",
        "downstream_peer.labels['app'].value",
        "filter_state['downstream_peer'].app",
        "xds.node.metadata['NAMESPACE']",
        "node.metadata.LABELS.version",
        "xds.cluster_name",
    ] {
        assert!(Expression::new(source).is_ok(), "{source}");
    }
}

#[test]
fn bits_of_flags() {
    assert_eq!(flag_bits(["UF", "URX"].into_iter()), 1 << 5 | 1 << 15);
    assert_eq!(flag_bits(["-"].into_iter()), 0);
}
