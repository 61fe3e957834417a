//! Requests from head to foot: rules that need more than one step, and the form compared with a slow reference.

use http::{HeaderName, HeaderValue, Request, Version};

use super::fault::Fault;
use super::framing::Framing;
use super::path::Normalization;
use super::request::{Head, Sender, canonical};
use crate::framing::Sizes;

mod properties;
mod reference;

/// What a codec hands over.
pub(super) struct Sent<'a> {
    pub(super) version: Version,
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) fields: &'a [(&'a str, &'a str)],
    pub(super) ended: bool,
}

impl Sent<'_> {
    /// The canonical form; `None` where no codec would have read it.
    pub(super) fn form(&self, normalization: Normalization, sender: Sender) -> Option<Result<Head, Fault>> {
        let request = Request::builder().version(self.version).method(self.method).uri(self.target);
        let mut request = request.body(()).ok()?;
        for (name, value) in self.fields {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            request.headers_mut().append(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
        }
        Some(canonical(request.into_parts().0, self.ended, normalization, sender, &Sizes::DEFAULT))
    }
}

/// A head in words; its fields sorted.
fn told(head: &Head) -> String {
    let told =
        |(name, value): (&HeaderName, &HeaderValue)| format!("{name}={}", value.to_str().unwrap_or("?"));
    let mut fields: Vec<String> = head.headers.iter().map(told).collect();
    fields.sort();
    let fields = fields.join(" ");
    format!("{} {}://{} {} [{fields}]", head.method, head.scheme.name(), head.authority, head.target)
}

#[track_caller]
fn check(version: Version, line: &str, fields: &[(&str, &str)], ended: bool, expected: Result<&str, Fault>) {
    let (method, target) = line.split_once(' ').unwrap();
    let sent = Sent { version, method, target, fields, ended };
    let found = sent.form(Normalization::Base, Sender::Anybody).expect("a codec reads it");
    let found = found.map(|head| told(&head));
    assert_eq!(found.as_deref().map_err(|fault| *fault), expected, "{line} {fields:?}");
}

#[test]
fn who_is_asked() {
    let one = |line, fields: &[(&str, &str)], expected| check(Version::HTTP_11, line, fields, true, expected);
    let two = |line, fields: &[(&str, &str)], expected| check(Version::HTTP_2, line, fields, true, expected);
    one("GET /", &[("host", "Reviews:9080")], Ok("GET http://Reviews:9080 / []"));
    one("GET /", &[], Err(Fault::HostMissing));
    one("GET /", &[("host", "")], Err(Fault::Host));
    one("GET /", &[("host", "a"), ("host", "a")], Err(Fault::Host));
    one("GET /", &[("host", "a,b")], Err(Fault::Host));
    one("GET http://A/x", &[("host", "b")], Ok("GET http://A /x []"));
    one("GET http://a/x", &[], Ok("GET http://a /x []"));
    one("GET http://a/x", &[("host", "b c")], Err(Fault::Host));
    one("GET http://a/x", &[("host", "a"), ("host", "a")], Err(Fault::Host));
    one("GET http://u@a/x", &[("host", "a")], Err(Fault::Host));
    one("GET HTTPS://a/x", &[("host", "a")], Ok("GET https://a /x []"));
    two("GET http://a/x", &[("host", "a")], Ok("GET http://a /x []"));
    two("GET http://a/x", &[("host", "b")], Ok("GET http://a /x []"));
    two("GET /x", &[("host", "B")], Ok("GET http://B /x []"));
    two("GET /x", &[], Err(Fault::HostMissing));
    two("GET gopher://a/x", &[], Err(Fault::Scheme));
}

#[test]
fn methods() {
    fn one(line: &str, expected: Result<&str, Fault>) {
        check(Version::HTTP_11, line, &[("host", "a")], true, expected);
    }
    one("BREW /", Ok("BREW http://a / []"));
    one("get /", Ok("get http://a / []"));
    one("TRACE /", Ok("TRACE http://a / []"));
    one("OPTIONS *", Ok("OPTIONS http://a * []"));
    one("GET *", Err(Fault::Target));
    one("CONNECT a:80", Err(Fault::Method));
    let longest = "A".repeat(32);
    one(&format!("{longest} /"), Ok(&*format!("{longest} http://a / []")));
    one(&format!("{longest}A /"), Err(Fault::MethodLength));
    check(Version::HTTP_10, "GET /", &[("host", "a")], true, Err(Fault::Version));
    check(Version::HTTP_11, "TRACE /", &[("host", "a"), ("content-length", "1")], false, Err(Fault::Content));
}

#[test]
fn what_follows_is_said_once() {
    let one = |fields: &[(&str, &str)], ended, expected| {
        let fields = [&[("host", "a")], fields].concat();
        check(Version::HTTP_11, "POST /", &fields, ended, expected);
    };
    one(&[("content-length", "3")], false, Ok("POST http://a / [content-length=3]"));
    one(&[("content-length", "0")], true, Ok("POST http://a / [content-length=0]"));
    one(&[("transfer-encoding", "chunked")], false, Ok("POST http://a / []"));
    one(&[("transfer-encoding", "chunked"), ("content-length", "3")], false, Err(Fault::LengthAndEncoding));
    one(&[("transfer-encoding", "gzip, chunked")], false, Err(Fault::Encoding));
    one(&[("content-length", "3"), ("content-length", "3")], false, Err(Fault::Length));
    one(
        &[("expect", "100-continue"), ("content-length", "3")],
        false,
        Ok("POST http://a / [content-length=3]"),
    );
    one(&[("expect", "a-miracle")], true, Err(Fault::Expectation));
    let two = |fields: &[(&str, &str)], ended| {
        let sent = Sent { version: Version::HTTP_2, method: "GET", target: "http://a/", fields, ended };
        sent.form(Normalization::Base, Sender::Anybody).unwrap().map(|head| head.framing)
    };
    assert_eq!(two(&[("content-length", "10")], true), Err(Fault::Length));
    assert_eq!(two(&[("content-length", "10")], false), Ok(Framing::Length(10)));
    assert_eq!(two(&[("content-length", "0")], true), Ok(Framing::Length(0)));
    assert_eq!(two(&[], false), Ok(Framing::Open));
    assert_eq!(two(&[], true), Ok(Framing::Nothing));
    for foreign in ["connection", "keep-alive", "proxy-connection", "upgrade", "transfer-encoding"] {
        assert_eq!(two(&[(foreign, "chunked")], false), Err(Fault::Connection), "{foreign}");
    }
}

#[test]
fn what_belongs_to_the_hop_ends_with_it() {
    let one = |fields: &[(&str, &str)], expected| {
        let fields = [&[("host", "a")], fields].concat();
        check(Version::HTTP_11, "GET /", &fields, true, expected);
    };
    one(
        &[
            ("connection", "upgrade, http2-settings"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABk"),
            ("x", "1"),
        ],
        Ok("GET http://a / [x=1]"),
    );
    one(&[("connection", "host, x"), ("x", "1"), ("y", "2")], Ok("GET http://a / [y=2]"));
    one(&[("x-mesh-hop", "1"), ("X_Mesh_From", "2"), ("x-envoy-retry-on", "3")], Ok("GET http://a / []"));
    one(&[("cookie", "a=1"), ("cookie", "b=2")], Ok("GET http://a / [cookie=a=1; b=2]"));
    one(&[("x-role", "admin\t "), ("te", "Trailers")], Ok("GET http://a / [te=trailers x-role=admin]"));
    let asking = [("host", "a"), ("connection", "upgrade"), ("upgrade", "websocket")];
    let sent = Sent { version: Version::HTTP_11, method: "GET", target: "/", fields: &asking, ended: true };
    let head = sent.form(Normalization::Base, Sender::Anybody).unwrap().unwrap();
    assert!(head.websocket && head.headers.is_empty());
    let filled = [&asking[..], &[("content-length", "5")]].concat();
    check(Version::HTTP_11, "GET /", &filled, false, Err(Fault::Content));
}

#[test]
fn a_proxy_is_believed() {
    let fields = [("host", "a"), ("x-mesh-hop", "1"), ("x-forwarded-client-cert", "By=x")];
    let sent = Sent { version: Version::HTTP_11, method: "GET", target: "/", fields: &fields, ended: true };
    let head = sent.form(Normalization::Base, Sender::Proxy).unwrap().unwrap();
    assert_eq!(told(&head), "GET http://a / [x-forwarded-client-cert=By=x x-mesh-hop=1]");
}
