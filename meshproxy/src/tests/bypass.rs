//! Requests that try to slip past a policy: each is judged by the form in which it arrives, and the path that the
//! application hears is the path that was judged.

use http::{HeaderName, Request, Version};
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::matching::path::PathMatch;
use mesh_core::matching::text::{Pattern, TextMatch};
use mesh_core::message::path::Normalization::{self, Base, DecodeAndMergeSlashes, MergeSlashes};
use mesh_core::policy::authorization::{
    AuthorizationPolicy, AuthorizationRule, Condition, Operation, PolicyAction, Values,
};
use mesh_core::routing::rule::{DirectResponse, HttpRule, RuleAction};
use mesh_core::snapshot::section::Section;
use mesh_core::snapshot::security::TrustBundle;
use mesh_core::vocab::identity::TrustDomain;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::harness::{Mesh, Plan, default_rule, echo};

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It arrives, with this path and query.
    Arrives(&'static str),
    /// A policy is against it.
    Denied,
    /// It has no unambiguous form.
    Malformed,
}
use Verdict::{Arrives, Denied, Malformed};

fn any<M>(values: Vec<M>) -> Values<M> {
    Values { any: values, none: Vec::new() }
}

fn policy(action: PolicyAction, rule: AuthorizationRule) -> AuthorizationPolicy {
    AuthorizationPolicy {
        namespace: "default".into(),
        name: "guard".into(),
        action,
        provider: None,
        dry_run: false,
        rules: vec![rule],
    }
}

fn operation(action: PolicyAction, operation: Operation) -> AuthorizationPolicy {
    policy(action, AuthorizationRule { to: vec![operation], ..AuthorizationRule::default() })
}

fn paths(action: PolicyAction, paths: &[&str]) -> AuthorizationPolicy {
    let paths = any(paths.iter().map(|path| PathMatch::policy(path).unwrap()).collect());
    operation(action, Operation { paths, ..Operation::default() })
}

fn hosts(action: PolicyAction, hosts: &[&str]) -> AuthorizationPolicy {
    let hosts = any(hosts.iter().map(|host| TextMatch::policy(host).ignoring_case()).collect());
    operation(action, Operation { hosts, ..Operation::default() })
}

fn methods(action: PolicyAction, methods: &[&str]) -> AuthorizationPolicy {
    let methods = any(methods.iter().map(|method| TextMatch::policy(method)).collect());
    operation(action, Operation { methods, ..Operation::default() })
}

fn role(action: PolicyAction, values: Values<TextMatch>) -> AuthorizationPolicy {
    let when = vec![Condition::Header(HeaderName::from_static("x-role"), values)];
    policy(action, AuthorizationRule { when, ..AuthorizationRule::default() })
}

/// A mesh whose application is guarded by one policy, and a version to change it with.
struct Guarded {
    mesh: Mesh,
    version: u64,
}

impl Guarded {
    async fn start() -> Guarded {
        Guarded { mesh: Mesh::start(Plan::new(&[echo("127.0.0.2").await])).await, version: 1 }
    }

    async fn by(&mut self, policy: AuthorizationPolicy, normalization: Normalization) {
        self.version += 1;
        let trust = TrustBundle {
            domain: TrustDomain::new("cluster.local").unwrap(),
            aliases: Vec::new(),
            roots: Vec::new(),
            normalization,
            revoked: Vec::new(),
        };
        let change = |plan: &mut Plan| {
            plan.policies = vec![policy];
            plan.extra = vec![Section::Trust(trust)];
        };
        self.mesh.change(self.version, change).await;
    }

    /// Sends a request as it stands: its first line without the version, then its fields.
    async fn check(&self, line: &str, fields: &[&str], expected: Verdict) {
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let head = format!("{line} HTTP/1.1\r\n{fields}connection: close\r\n\r\n");
        let mut stream = TcpStream::connect(self.mesh.a.explicit).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.get(9..12).unwrap_or("nothing");
        let found = match status {
            "200" => {
                let (method, _) = line.split_once(' ').unwrap();
                let (_, heard) = answer.split_once(&format!("{method} ")).unwrap_or_default();
                Some(heard.lines().next().unwrap_or_default())
            }
            _ => None,
        };
        let said = match expected {
            Arrives(path) => ("200", Some(path)),
            Denied => ("403", None),
            Malformed => ("400", None),
        };
        assert_eq!((status, found), said, "{line} {fields}: {answer}");
    }

    async fn paths(&self, table: &[(&str, Verdict)]) {
        for (path, expected) in table {
            self.check(&format!("GET {path}"), &["host: reviews:9080"], *expected).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn denied_paths_have_no_other_spelling() {
    let mut guarded = Guarded::start().await;
    guarded.by(paths(PolicyAction::Deny, &["/admin", "/admin/*", "*.key", "/t/{*}/x"]), Base).await;
    guarded
        .paths(&[
            ("/", Arrives("/")),
            ("/public", Arrives("/public")),
            ("/admin", Denied),
            ("/admin/", Denied),
            ("/admin/a", Denied),
            ("/admin?x", Denied),
            ("/admin#x", Denied),
            ("/admin#/../public", Denied),
            ("/admin?/../public", Denied),
            ("http://reviews:9080/admin", Denied),
            ("HTTP://reviews:9080/x/../admin", Denied),
            ("/x/../admin", Denied),
            ("/./admin", Denied),
            ("/admin/.", Denied),
            ("/admin/./", Denied),
            ("/../admin", Denied),
            ("/x/y/../../admin", Denied),
            ("/admin/x/..", Denied),
            ("/%2e%2e/admin", Denied),
            ("/x/%2e%2E/admin", Denied),
            ("/x/.%2e/admin", Denied),
            ("/%2e/admin", Denied),
            ("/%61dmin", Denied),
            ("/%61%64%6D%69%6e", Denied),
            (r"\admin", Malformed),
            (r"/x\..\admin", Denied),
            (r"/admin\a", Denied),
            (r"/\..\admin", Denied),
            ("/x/..;/admin", Denied),
            ("/x/..;a=b/admin", Denied),
            ("/x/%2e%2e;a/admin", Denied),
            ("/.;/admin", Denied),
            ("/public/..;/..;/admin/a", Denied),
            ("/admin%00", Malformed),
            ("/%00/admin", Malformed),
            ("/admin%", Malformed),
            ("/%%36%31dmin", Malformed),
            ("/x/%%32e%%32e/admin", Malformed),
            ("/%u0061dmin", Malformed),
            ("/a.key", Denied),
            ("/a%2ekey", Denied),
            ("/a.key?x=.pub", Denied),
            ("/a.%6Bey", Denied),
            ("/t/1/x", Denied),
            ("/t/y/../1/x", Denied),
            ("/t/1/./x", Denied),
            ("/t//x", Arrives("/t//x")),
            ("/t/1/2/x", Arrives("/t/1/2/x")),
            // What BASE leaves alone is other paths: judged as such, and heard as such.
            ("//admin", Arrives("//admin")),
            ("/admin/..", Arrives("/")),
            ("/%2fadmin", Arrives("/%2fadmin")),
            ("/x/..%2fadmin", Arrives("/x/..%2fadmin")),
            ("/x%5c..%5cadmin", Arrives("/x%5c..%5cadmin")),
            ("/%2561dmin", Arrives("/%2561dmin")),
            ("/%252e%252e/admin", Arrives("/%252e%252e/admin")),
            ("/ADMIN", Arrives("/ADMIN")),
            ("/admin;x", Arrives("/admin;x")),
            ("/adm", Arrives("/adm")),
            ("/%C0%AE%C0%AE/admin", Arrives("/%C0%AE%C0%AE/admin")),
            ("/.admin", Arrives("/.admin")),
            ("/...", Arrives("/...")),
        ])
        .await;
    guarded.by(paths(PolicyAction::Deny, &["/admin", "/admin/*"]), MergeSlashes).await;
    guarded
        .paths(&[
            ("//admin", Denied),
            ("///admin//a", Denied),
            ("/x/..//admin", Denied),
            ("/x//../admin", Arrives("/x/admin")),
            ("/%2fadmin", Arrives("/%2fadmin")),
            ("/a//b/?q=//", Arrives("/a/b/?q=//")),
        ])
        .await;
    guarded.by(paths(PolicyAction::Deny, &["/admin", "/admin/*"]), DecodeAndMergeSlashes).await;
    guarded
        .paths(&[
            ("//admin", Denied),
            ("/%2fadmin", Denied),
            ("/%2Fadmin%2fa", Denied),
            ("/admin%5Ca", Denied),
            ("/x/..%2fadmin", Denied),
            ("/x%5c..%5cadmin", Denied),
            ("/x/%2e%2e%2Fadmin", Denied),
            ("/x/..;%2fadmin", Denied),
            ("/%252fadmin", Arrives("/%252fadmin")),
            ("/a%2Fb?c=%2F", Arrives("/a/b?c=%2F")),
        ])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn allowed_paths_lead_nowhere_else() {
    let mut guarded = Guarded::start().await;
    guarded.by(paths(PolicyAction::Allow, &["/public/*"]), Base).await;
    guarded
        .paths(&[
            ("/public/a", Arrives("/public/a")),
            ("/public/a?/admin", Arrives("/public/a?/admin")),
            ("/private/../public/a", Arrives("/public/a")),
            ("/%70ublic/a", Arrives("/public/a")),
            ("/public/../private", Denied),
            ("/public/..", Denied),
            ("/public/%2e%2e/private", Denied),
            ("/public/..;/private", Denied),
            ("/public/..;a=b/private", Denied),
            ("/public/%2E.;x/private", Denied),
            (r"/public/..\private", Denied),
            ("/private#/public/a", Denied),
            ("/private?/public/a", Denied),
            ("/PUBLIC/a", Denied),
            ("//public/a", Denied),
            ("/public", Denied),
            ("/public/%00", Malformed),
            ("/public/%2", Malformed),
            ("*", Malformed),
        ])
        .await;
    let options = &["host: reviews:9080"];
    guarded.check("OPTIONS *", options, Denied).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_by_pattern_sees_the_same_path() {
    let uri = Some(TextMatch::Regex(Pattern::new("/(admin|v[0-9]+)(/.*)?").unwrap()));
    let refuse = HttpRule {
        matches: vec![mesh_core::matching::request::RequestMatch { uri, ..Default::default() }],
        action: RuleAction::DirectResponse(DirectResponse { status: 403, body: [].into() }),
        ..default_rule()
    };
    let rules = Some(vec![refuse, default_rule()]);
    let mesh = Mesh::start(Plan { rules, ..Plan::new(&[echo("127.0.0.2").await]) }).await;
    let guarded = Guarded { mesh, version: 1 };
    guarded
        .paths(&[
            ("/admin", Denied),
            ("/x/../admin/a", Denied),
            ("/%61dmin", Denied),
            ("/v1%32/a", Denied),
            ("/x/..;/v2", Denied),
            ("/admin#x", Denied),
            ("/v", Arrives("/v")),
            ("/x/admin", Arrives("/x/admin")),
        ])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_one_host() {
    let mut guarded = Guarded::start().await;
    guarded.by(hosts(PolicyAction::Deny, &["reviews.default", "reviews.default:*"]), Base).await;
    for (line, fields, expected) in [
        ("GET /", &["host: reviews:9080"][..], Arrives("/")),
        ("GET /", &["host: reviews.default:9080"], Denied),
        ("GET /", &["Host: REVIEWS.Default:9080"], Denied),
        ("GET /", &["host:  \t reviews.default:9080 \t"], Denied),
        ("GET http://reviews.default:9080/", &["host: reviews:9080"], Denied),
        ("GET http://REVIEWS.DEFAULT:9080/", &["host: reviews:9080"], Denied),
        ("GET http://reviews:9080/", &["host: reviews.default:9080"], Arrives("/")),
        ("GET /", &["host: reviews:9080", "host: reviews.default:9080"], Malformed),
        ("GET /", &["host: reviews.default:9080", "host: reviews.default:9080"], Malformed),
        ("GET /", &["host: reviews.default:9080,reviews:9080"], Malformed),
        ("GET /", &["host: reviews.default:09080"], Malformed),
        ("GET /", &["host: x@reviews.default:9080"], Malformed),
        ("GET http://x@reviews.default:9080/", &["host: reviews:9080"], Malformed),
        ("GET /", &["host: reviews%2edefault:9080"], Malformed),
        ("GET /", &["host: reviews.default:9080/x"], Malformed),
        ("GET /", &["host: reviews.default:9080#x"], Malformed),
        (r"GET /", &[r"host: reviews.default\x:9080"], Malformed),
        ("GET /", &["host: "], Malformed),
        ("GET /", &["accept: x"], Malformed),
        ("GET ftp://reviews.default:9080/", &["host: reviews:9080"], Malformed),
        ("GET reviews.default:9080", &["host: reviews:9080"], Malformed),
    ] {
        guarded.check(line, fields, expected).await;
    }
    guarded.by(hosts(PolicyAction::Allow, &["reviews:9080"]), Base).await;
    for (host, expected) in [
        ("Reviews:9080", Arrives("/")),
        ("reviews.:9080", Denied),
        ("reviews.default:9080", Denied),
        ("reviews:9080, reviews:9080", Malformed),
    ] {
        guarded.check("GET /", &[&format!("host: {host}")], expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_and_fields_are_judged_one_by_one() {
    let mut guarded = Guarded::start().await;
    let host = "host: reviews:9080";
    guarded.by(methods(PolicyAction::Deny, &["DELETE"]), Base).await;
    for (line, fields, expected) in [
        ("GET /", &[host][..], Arrives("/")),
        ("DELETE /", &[host], Denied),
        // Methods are compared as they stand (RFC 9110, section 9.1), also by the application.
        ("delete /", &[host], Arrives("/")),
        ("GET /", &[host, "x-http-method-override: DELETE"], Arrives("/")),
        ("CONNECTX /", &[host], Arrives("/")),
    ] {
        guarded.check(line, fields, expected).await;
    }
    guarded.by(methods(PolicyAction::Allow, &["GET"]), Base).await;
    for (line, expected) in
        [("GET /", Arrives("/")), ("get /", Denied), ("HEAD /", Denied), ("OPTIONS *", Denied)]
    {
        guarded.check(line, &[host], expected).await;
    }
    let exact = |text: &str| TextMatch::Exact(text.into());
    guarded.by(role(PolicyAction::Deny, any(vec![exact("guest")])), Base).await;
    for (fields, expected) in [
        (&["x-role: admin"][..], Arrives("/")),
        (&["x-role: guest"], Denied),
        (&["X-ROLE:guest"], Denied),
        (&["x-role:  guest \t "], Denied),
        (&["x-role: guest", "x-role: admin"], Denied),
        (&["x-role: admin", "x-role: guest"], Denied),
        (&["x-role: admin,guest"], Arrives("/")),
        (&["x-role: guest", "connection: x-role"], Arrives("/")),
        (&["x-role : guest"], Malformed),
    ] {
        guarded.check("GET /", &[&[host], fields].concat(), expected).await;
    }
    let but = Values { any: Vec::new(), none: vec![exact("guest")] };
    guarded.by(role(PolicyAction::Allow, but), Base).await;
    for (fields, expected) in [
        (&["x-role: admin"][..], Arrives("/")),
        (&["x-role: guest"], Denied),
        (&["x-role: admin", "x-role: guest"], Denied),
        (&["x-role: guest", "x-role: admin"], Denied),
    ] {
        guarded.check("GET /", &[&[host], fields].concat(), expected).await;
    }
    guarded.by(role(PolicyAction::Allow, any(vec![exact("admin")])), Base).await;
    for (fields, expected) in [
        (&["x-role: admin"][..], Arrives("/")),
        (&["x_role: admin"], Denied),
        (&["x-role: admin", "connection: X-Role"], Denied),
        (&["x-role: Admin"], Denied),
        (&["accept: x"], Denied),
    ] {
        guarded.check("GET /", &[&[host], fields].concat(), expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_judged_alike() {
    let mut guarded = Guarded::start().await;
    guarded.by(paths(PolicyAction::Deny, &["/admin"]), Base).await;
    let ask = async |guarded: &Guarded, request: Request<Empty<bytes::Bytes>>| {
        let stream = TcpStream::connect(guarded.mesh.a.explicit).await.unwrap();
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.unwrap();
        let driver = tokio::spawn(connection);
        let status = sender.send_request(request).await.unwrap().status().as_u16();
        driver.abort();
        status
    };
    let get = |target: &str| Request::get(target).version(Version::HTTP_2);
    for (target, status) in [
        ("http://reviews:9080/public", 200),
        ("http://reviews:9080/x/../admin", 403),
        ("http://reviews:9080/%61dmin", 403),
        ("http://REVIEWS:9080/x/..;/admin", 403),
        ("https://reviews:9080/admin", 403),
        ("http://reviews:9080/a%zz", 400),
        ("http://x@reviews:9080/", 400),
    ] {
        assert_eq!(ask(&guarded, get(target).body(Empty::new()).unwrap()).await, status, "{target}");
    }
    guarded.by(hosts(PolicyAction::Deny, &["reviews.default:9080"]), Base).await;
    for (target, host, status) in [
        ("http://Reviews.Default:9080/", None, 403),
        // What the authority says counts; another Host is not heard of.
        ("http://reviews.default:9080/", Some("reviews:9080"), 403),
        ("http://reviews:9080/", Some("reviews.default:9080"), 200),
        ("http://reviews:9080/", Some("a,b"), 400),
    ] {
        let mut request = get(target);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        assert_eq!(ask(&guarded, request.body(Empty::new()).unwrap()).await, status, "{target} {host:?}");
    }
    let guest = TextMatch::Exact("guest".into());
    guarded.by(role(PolicyAction::Deny, any(vec![guest])), Base).await;
    for value in ["guest", "guest \t", " guest"] {
        let request = get("http://reviews:9080/").header("x-role", value).body(Empty::new()).unwrap();
        assert_eq!(ask(&guarded, request).await, 403, "{value:?}");
    }
}
