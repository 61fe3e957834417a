//! Every field of a policy by what it lets in: the wire, `explain` and the meaning of the field say the same.
//!
//! The last column is written by hand from what the fields mean: a letter for each question that may pass.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use http::Method;

use super::protocols::{Caller, Extra, at_h2, ended, python, script};
use super::streams::server;
use super::{Claim, Context, shared};
use crate::harness::client::Ask;
use crate::harness::echo::{Echo, send};
use crate::harness::lab::Lab;
use crate::harness::process::Spec;

pub(super) fn claims() -> Vec<Claim> {
    vec![
        shared("policy/verdicts", verdicts),
        shared("policy/byte-streams", byte_streams),
        shared("policy/open", open),
    ]
}

/// A request to reviews.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// The letter that stands for it.
    pub letter: char,
    /// Whether productpage asks; else reviews does.
    pub productpage: bool,
    /// Method.
    pub method: &'static str,
    /// Host as sent, with its port.
    pub host: &'static str,
    /// Path and query.
    pub path: &'static str,
    /// Header fields.
    pub headers: &'static [(&'static str, &'static str)],
}

const fn question(letter: char, path: &'static str) -> Question {
    Question { letter, productpage: true, method: "GET", host: "reviews:9080", path, headers: &[] }
}

/// What is asked under each set of policies. productpage is at 10.77.0.11, the reviews that asks at 10.77.0.13.
pub const QUESTIONS: [Question; 9] = [
    question('a', "/reviews/0"),
    Question { method: "POST", ..question('b', "/reviews/0") },
    question('c', "/admin/x?q=1"),
    Question { headers: &[("end-user", "jason")], ..question('d', "/reviews/0") },
    Question { productpage: false, ..question('e', "/reviews/0") },
    Question { productpage: false, ..question('f', "/health") },
    Question { host: "reviews.default.svc.cluster.local:9080", ..question('g', "/reviews/0") },
    Question { headers: &[("x-forwarded-for", "203.0.113.9")], ..question('h', "/reviews/0") },
    Question { headers: &[("x-forwarded-for", "203.0.113.9, 198.51.100.7")], ..question('i', "/reviews/0") },
];

const ALL: &str = "abcdefghi";
/// What productpage asks.
const PAGE: &str = "abcdghi";

/// A policy: action and rules.
pub type Policy = (&'static str, &'static str);

/// Policies, and the questions that may pass under them.
pub const CASES: &[(&[Policy], &str)] = &[
    // No policy, no rule, a rule about everything.
    (&[], ALL),
    (&[("ALLOW", "[]")], ""),
    (&[("ALLOW", "[{}]")], ALL),
    (&[("DENY", "[{}]")], ""),
    (&[("AUDIT", "[{}]")], ALL),
    (&[("AUDIT", "[]")], ALL),
    // Sources.
    (
        &[(
            "ALLOW",
            "[{from: [{source: {principals: [cluster.local/ns/default/sa/bookinfo-productpage]}}]}]",
        )],
        PAGE,
    ),
    (&[("ALLOW", "[{from: [{source: {principals: ['*']}}]}]")], ALL),
    (&[("DENY", "[{from: [{source: {notPrincipals: ['*']}}]}]")], ALL),
    (&[("ALLOW", "[{from: [{source: {principals: ['cluster.local/ns/default/*']}}]}]")], ALL),
    (&[("ALLOW", "[{from: [{source: {principals: ['*/sa/bookinfo-reviews']}}]}]")], "ef"),
    (&[("ALLOW", "[{from: [{source: {principals: ['*/sa/Bookinfo-Reviews']}}]}]")], ""),
    (&[("ALLOW", "[{from: [{source: {notPrincipals: ['*productpage']}}]}]")], "ef"),
    (&[("ALLOW", "[{from: [{source: {namespaces: [default]}}]}]")], ALL),
    (&[("ALLOW", "[{from: [{source: {namespaces: [other]}}]}]")], ""),
    (&[("ALLOW", "[{from: [{source: {namespaces: ['d*t']}}]}]")], ALL),
    (&[("DENY", "[{from: [{source: {notNamespaces: [default]}}]}]")], ALL),
    (&[("ALLOW", "[{from: [{source: {serviceAccounts: [bookinfo-reviews]}}]}]")], "ef"),
    (&[("ALLOW", "[{from: [{source: {serviceAccounts: [default/bookinfo-productpage]}}]}]")], PAGE),
    (&[("ALLOW", "[{from: [{source: {serviceAccounts: [other/bookinfo-productpage]}}]}]")], ""),
    (&[("DENY", "[{from: [{source: {notServiceAccounts: [bookinfo-reviews]}}]}]")], "ef"),
    (&[("ALLOW", "[{from: [{source: {trustDomains: [cluster.local]}}]}]")], ALL),
    (&[("ALLOW", "[{from: [{source: {trustDomains: ['cluster*']}}]}]")], ALL),
    (&[("ALLOW", "[{from: [{source: {trustDomains: [elsewhere]}}]}]")], ""),
    (&[("DENY", "[{from: [{source: {notTrustDomains: [elsewhere]}}]}]")], ""),
    (&[("ALLOW", "[{from: [{source: {ipBlocks: [10.77.0.11]}}]}]")], PAGE),
    (&[("ALLOW", "[{from: [{source: {ipBlocks: [10.77.0.0/24]}}]}]")], ALL),
    (&[("ALLOW", "[{from: [{source: {notIpBlocks: [10.77.0.13/32]}}]}]")], PAGE),
    (&[("DENY", "[{from: [{source: {ipBlocks: [10.77.0.13, 'fd00::/8']}}]}]")], PAGE),
    // What a client says of where it comes from is not where it comes from.
    (&[("ALLOW", "[{from: [{source: {ipBlocks: [203.0.113.0/24]}}]}]")], ""),
    (&[("ALLOW", "[{from: [{source: {remoteIpBlocks: [203.0.113.0/24]}}]}]")], "h"),
    (&[("ALLOW", "[{from: [{source: {remoteIpBlocks: [198.51.100.7]}}]}]")], "i"),
    (&[("ALLOW", "[{from: [{source: {remoteIpBlocks: [10.77.0.11]}}]}]")], "abcdg"),
    (&[("ALLOW", "[{from: [{source: {notRemoteIpBlocks: [203.0.113.9]}}]}]")], "abcdefgi"),
    (&[("ALLOW", "[{from: [{source: {requestPrincipals: ['*']}}]}]")], ""),
    (&[("ALLOW", "[{from: [{source: {notRequestPrincipals: ['*']}}]}]")], ALL),
    (&[("DENY", "[{from: [{source: {notRequestPrincipals: ['*']}}]}]")], ""),
    // All that one source says; any source.
    (&[("ALLOW", "[{from: [{source: {principals: ['*productpage'], ipBlocks: [10.77.0.13]}}]}]")], ""),
    (
        &[(
            "ALLOW",
            "[{from: [{source: {principals: ['*productpage']}}, {source: {ipBlocks: [10.77.0.13]}}]}]",
        )],
        ALL,
    ),
    (&[("ALLOW", "[{from: [{source: {principals: ['*'], notPrincipals: ['*reviews']}}]}]")], PAGE),
    // Operations.
    (&[("ALLOW", "[{to: [{operation: {methods: [GET]}}]}]")], "acdefghi"),
    (&[("ALLOW", "[{to: [{operation: {methods: ['P*']}}]}]")], "b"),
    (&[("ALLOW", "[{to: [{operation: {methods: [get]}}]}]")], ""),
    (&[("ALLOW", "[{to: [{operation: {notMethods: [GET, PUT]}}]}]")], "b"),
    (&[("ALLOW", "[{to: [{operation: {hosts: ['reviews:9080']}}]}]")], "abcdefhi"),
    (&[("ALLOW", "[{to: [{operation: {hosts: ['REVIEWS:9080']}}]}]")], "abcdefhi"),
    (&[("ALLOW", "[{to: [{operation: {hosts: [reviews]}}]}]")], ""),
    (&[("ALLOW", "[{to: [{operation: {hosts: ['reviews*']}}]}]")], ALL),
    (&[("ALLOW", "[{to: [{operation: {hosts: ['*.cluster.local:9080']}}]}]")], "g"),
    (&[("ALLOW", "[{to: [{operation: {notHosts: ['reviews:*']}}]}]")], "g"),
    (&[("ALLOW", "[{to: [{operation: {ports: ['9080', '9081']}}]}]")], ALL),
    (&[("ALLOW", "[{to: [{operation: {ports: ['80']}}]}]")], ""),
    (&[("DENY", "[{to: [{operation: {notPorts: ['9080', '9081']}}]}]")], ALL),
    (&[("ALLOW", "[{to: [{operation: {paths: [/reviews/0]}}]}]")], "abdeghi"),
    (&[("ALLOW", "[{to: [{operation: {paths: ['/reviews/*', '*/x']}}]}]")], "abcdeghi"),
    (&[("ALLOW", "[{to: [{operation: {paths: ['/admin/x?q=1']}}]}]")], ""),
    (&[("ALLOW", "[{to: [{operation: {paths: ['/{*}/{*}']}}]}]")], "abcdeghi"),
    (&[("ALLOW", "[{to: [{operation: {paths: ['/reviews/{**}']}}]}]")], "abdeghi"),
    (&[("ALLOW", "[{to: [{operation: {paths: ['/{**}']}}]}]")], ALL),
    (&[("ALLOW", "[{to: [{operation: {paths: ['/{*}']}}]}]")], "f"),
    (&[("ALLOW", "[{to: [{operation: {notPaths: ['/admin/{*}']}}]}]")], "abdefghi"),
    (&[("DENY", "[{to: [{operation: {paths: ['/admin*'], methods: [GET]}}]}]")], "abdefghi"),
    (&[("ALLOW", "[{to: [{operation: {methods: [POST]}}, {operation: {paths: [/health]}}]}]")], "bf"),
    // Conditions.
    (&[("ALLOW", "[{when: [{key: 'request.headers[end-user]', values: [jason]}]}]")], "d"),
    (&[("ALLOW", "[{when: [{key: 'request.headers[End-User]', values: ['jas*']}]}]")], "d"),
    (&[("ALLOW", "[{when: [{key: 'request.headers[end-user]', values: ['*']}]}]")], "d"),
    (&[("ALLOW", "[{when: [{key: 'request.headers[end-user]', notValues: [jason]}]}]")], "abcefghi"),
    (&[("DENY", "[{when: [{key: 'request.headers[end-user]', notValues: [jason]}]}]")], "d"),
    (&[("ALLOW", "[{when: [{key: 'request.headers[:path]', values: ['/admin/x?q=1']}]}]")], "c"),
    (&[("ALLOW", "[{when: [{key: 'request.headers[:method]', values: [POST]}]}]")], "b"),
    (&[("ALLOW", "[{when: [{key: source.ip, values: [10.77.0.13]}]}]")], "ef"),
    (&[("ALLOW", "[{when: [{key: source.ip, notValues: [10.77.0.13]}]}]")], PAGE),
    (&[("ALLOW", "[{when: [{key: remote.ip, values: [198.51.100.0/24]}]}]")], "i"),
    (&[("ALLOW", "[{when: [{key: source.namespace, values: [default]}]}]")], ALL),
    (&[("ALLOW", "[{when: [{key: source.principal, values: ['*reviews']}]}]")], "ef"),
    (&[("ALLOW", "[{when: [{key: source.serviceAccount, values: [bookinfo-productpage]}]}]")], PAGE),
    (&[("ALLOW", "[{when: [{key: source.trustDomain, values: ['*.local']}]}]")], ALL),
    (&[("ALLOW", "[{when: [{key: destination.ip, values: [10.77.0.0/24]}]}]")], ALL),
    (&[("ALLOW", "[{when: [{key: destination.ip, values: [10.78.0.0/16]}]}]")], ""),
    (&[("ALLOW", "[{when: [{key: destination.port, values: ['9080', '9081']}]}]")], ALL),
    (&[("DENY", "[{when: [{key: destination.port, notValues: ['80']}]}]")], ""),
    (&[("ALLOW", "[{when: [{key: 'request.auth.claims[iss]', values: [x]}]}]")], ""),
    (&[("ALLOW", "[{when: [{key: 'request.auth.claims[iss]', notValues: [x]}]}]")], ALL),
    (&[("ALLOW", "[{when: [{key: request.auth.principal, values: ['*']}]}]")], ""),
    (&[("ALLOW", "[{when: [{key: 'experimental.envoy.filters.http.lua[a]', values: [b]}]}]")], ""),
    (&[("DENY", "[{when: [{key: 'experimental.envoy.filters.http.lua[a]', notValues: [b]}]}]")], ""),
    (
        &[(
            "ALLOW",
            "[{when: [{key: 'request.headers[end-user]', values: [jason]}, {key: source.ip, values: [10.77.0.11]}]}]",
        )],
        "d",
    ),
    (
        &[(
            "ALLOW",
            "[{when: [{key: 'request.headers[end-user]', values: [jason]}, {key: source.ip, values: [10.77.0.13]}]}]",
        )],
        "",
    ),
    // All parts of a rule; any rule; any policy; DENY before ALLOW.
    (
        &[(
            "ALLOW",
            "[{from: [{source: {principals: ['*productpage']}}], to: [{operation: {methods: [GET]}}], \
             when: [{key: 'request.headers[end-user]', notValues: ['*']}]}]",
        )],
        "acghi",
    ),
    (
        &[(
            "ALLOW",
            "[{from: [{source: {principals: ['*productpage']}}], to: [{operation: {methods: [POST]}}]}, \
             {from: [{source: {principals: ['*reviews']}}]}]",
        )],
        "bef",
    ),
    (
        &[
            ("ALLOW", "[{to: [{operation: {methods: [POST]}}]}]"),
            ("ALLOW", "[{to: [{operation: {paths: [/health]}}]}]"),
        ],
        "bf",
    ),
    (&[("ALLOW", "[{}]"), ("DENY", "[{to: [{operation: {paths: ['/admin/*']}}]}]")], "abdefghi"),
    (&[("ALLOW", "[]"), ("DENY", "[{to: [{operation: {methods: [POST]}}]}]")], ""),
    (
        &[
            ("ALLOW", "[{from: [{source: {principals: ['*productpage']}}]}]"),
            ("DENY", "[{to: [{operation: {methods: [POST]}}]}]"),
            ("AUDIT", "[{}]"),
        ],
        "acdghi",
    ),
    // In dry run nothing is enforced, and an ALLOW policy restricts nothing.
    (&[("DENY dry", "[{}]")], ALL),
    (&[("ALLOW dry", "[]")], ALL),
    (
        &[
            ("ALLOW dry", "[{from: [{source: {principals: ['*reviews']}}]}]"),
            ("DENY", "[{to: [{operation: {methods: [POST]}}]}]"),
        ],
        "acdefghi",
    ),
    (
        &[
            ("ALLOW", "[{from: [{source: {principals: ['*productpage']}}]}]"),
            ("ALLOW dry", "[{from: [{source: {principals: ['*reviews']}}]}]"),
            ("DENY dry", "[{}]"),
        ],
        PAGE,
    ),
];

/// The same for byte streams: `p` stands for productpage, `r` for reviews.
pub const STREAMS: &[(&[Policy], &str)] = &[
    (&[], "pr"),
    (&[("ALLOW", "[{from: [{source: {principals: ['*productpage']}}]}]")], "p"),
    (&[("ALLOW", "[{from: [{source: {remoteIpBlocks: [10.77.0.11]}}]}]")], "p"),
    (&[("ALLOW", "[{to: [{operation: {ports: ['7000']}}]}]")], "pr"),
    (&[("ALLOW", "[{when: [{key: destination.port, values: ['7000']}]}]")], "pr"),
    (&[("ALLOW", "[{when: [{key: source.namespace, values: [other]}]}]")], ""),
    // An ALLOW rule that reads requests is none.
    (&[("ALLOW", "[{from: [{source: {principals: ['*']}}], to: [{operation: {methods: [GET]}}]}]")], ""),
    (&[("ALLOW", "[{to: [{operation: {ports: ['7000']}}, {operation: {paths: [/x]}}]}]")], ""),
    (
        &[("ALLOW", "[{to: [{operation: {methods: [GET]}}]}, {from: [{source: {ipBlocks: [10.77.0.11]}}]}]")],
        "p",
    ),
    (&[("ALLOW", "[{from: [{source: {notRequestPrincipals: ['*']}}]}]")], ""),
    (&[("ALLOW", "[{when: [{key: 'request.headers[x]', notValues: [y]}]}]")], ""),
    // Of a DENY rule the rest decides, and where nothing is left it is about everything.
    (&[("DENY", "[{to: [{operation: {methods: [GET]}}]}]")], ""),
    (&[("DENY", "[{to: [{operation: {hosts: [nobody], notPaths: [/x]}}]}]")], ""),
    (&[("DENY", "[{to: [{operation: {methods: [GET], ports: ['80']}}]}]")], "pr"),
    (&[("DENY", "[{to: [{operation: {methods: [GET], ports: ['7000']}}]}]")], ""),
    (
        &[("DENY", "[{from: [{source: {principals: ['*productpage']}}], to: [{operation: {paths: [/x]}}]}]")],
        "r",
    ),
    (
        &[(
            "DENY",
            "[{when: [{key: 'request.headers[x]', values: [y]}, {key: source.ip, values: [10.77.0.13]}]}]",
        )],
        "p",
    ),
    (&[("DENY", "[{from: [{source: {requestPrincipals: [nobody/x]}}]}]")], ""),
    (&[("DENY", "[{from: [{source: {requestPrincipals: [nobody/x], namespaces: [other]}}]}]")], "pr"),
    (&[("AUDIT", "[{to: [{operation: {methods: [GET]}}]}]")], "pr"),
    (&[("DENY dry", "[{to: [{operation: {methods: [GET]}}]}]")], "pr"),
];

/// So many policies are declared in each case; those that a case does not need say nothing.
const DECLARED: usize = 3;

/// The policies of a case for reviews, as an operator writes them.
pub fn yaml(policies: &[Policy]) -> String {
    declared("reviews", policies)
}

fn declared(app: &str, policies: &[Policy]) -> String {
    let mut text = String::new();
    for number in 0..DECLARED {
        let (action, rules) = policies.get(number).copied().unwrap_or(("AUDIT", "[]"));
        let (action, dry) = action.split_once(' ').unwrap_or((action, ""));
        let annotations = if dry.is_empty() { "" } else { ", annotations: {istio.io/dry-run: 'true'}" };
        text.push_str(&format!(
            "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{name: verdict-{number}, namespace: default{annotations}}}\n\
             spec: {{selector: {{matchLabels: {{app: {app}}}}}, action: {action}, rules: {rules}}}\n"
        ));
    }
    text
}

/// Whether the wire lets it in.
fn passes(lab: &Lab, question: &Question) -> anyhow::Result<bool> {
    let mut ask = Ask::get(format!("http://{}{}", question.host, question.path));
    ask = ask.method(Method::from_bytes(question.method.as_bytes())?);
    for (name, value) in question.headers {
        ask = ask.header(name, value);
    }
    let answer = if question.productpage { lab.as_productpage(&ask)? } else { lab.as_reviews(&ask)? };
    Ok(answer.status != 403 || answer.text() != "RBAC: access denied")
}

/// What explain says of it; of a denial it must name what decided.
fn explained(lab: &Lab, question: &Question) -> anyhow::Result<(bool, bool)> {
    let caller = if question.productpage { "bookinfo-productpage@h1" } else { "bookinfo-reviews@h3" };
    let (from, to) = (format!("default/{caller}"), format!("http://{}{}", question.host, question.path));
    let mut arguments = vec!["explain", "--from", &from, "--to", &to, "-X", question.method, "-o", "json"];
    let headers: Vec<String> =
        question.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    arguments.extend(headers.iter().flat_map(|header| ["-H", header.as_str()]));
    let said = lab.control.must(arguments)?.json()?["authorization"].clone();
    let names = said["decided_by"]
        .as_str()
        .is_some_and(|name| name.starts_with("authorizationpolicy/default/verdict-"));
    let by_rule = said["rule"].is_u64();
    let missed = said["nearest_miss"].is_string();
    Ok((said["verdict"] != "deny", names && (by_rule || missed)))
}

fn verdicts(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let (mut asked, mut wrong, mut untold) = (0, Vec::new(), Vec::new());
    for (policies, expected) in CASES {
        lab.control.apply_text(&yaml(policies))?;
        for question in &QUESTIONS {
            asked += 1;
            let (may, letter) = (expected.contains(question.letter), question.letter);
            let wire = passes(lab, question)?;
            let (foretold, told) = explained(lab, question)?;
            if (wire, foretold) != (may, may) {
                wrong.push(format!("{policies:?} {letter}: wanted {may}, wire {wire}, explain {foretold}"));
            }
            if !foretold && !told {
                untold.push(format!("{policies:?} {letter}"));
            }
        }
    }
    lab.control.apply_text(&yaml(&[]))?;
    context.report.claim(
        "the wire and explain say what the fields mean",
        wrong.is_empty(),
        format!("{asked} questions under {} sets of policies; {}", CASES.len(), wrong.join("; ")),
    );
    context.report.claim("explain names what decided each denial", untold.is_empty(), untold.join("; "));
    Ok(())
}

fn byte_streams(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let service = Echo::start(&lab.proxies[1].host, at_h2(7000), b"")?;
    let extra = Extra::announce(lab, "echo", 7000, "tcp")?;
    let callers = [
        ('p', lab.h1(), lab.user("productpage-v1"), "default/bookinfo-productpage@h1"),
        ('r', &lab.proxies[2].host, lab.user("reviews-v3"), "default/bookinfo-reviews@h3"),
    ];
    let mut wrong = Vec::new();
    for (policies, expected) in STREAMS {
        lab.control.apply_text(&declared("echo", policies))?;
        for (letter, host, user, from) in &callers {
            let wanted = expected.contains(*letter);
            let wire = send(host, *user, "echo:7000", b"ping".to_vec()).is_ok_and(|heard| heard == b"ping");
            let told =
                lab.control.must(["explain", "--from", from, "--to", "tcp://echo:7000", "-o", "json"])?;
            let foretold = told.json()?["authorization"]["verdict"] != "deny";
            if (wire, foretold) != (wanted, wanted) {
                wrong
                    .push(format!("{policies:?} {letter}: wanted {wanted}, wire {wire}, explain {foretold}"));
            }
        }
    }
    lab.control.apply_text(&declared("echo", &[]))?;
    drop((extra, service));
    context.report.claim(
        "on byte streams too the wire and explain say what the fields mean",
        wrong.is_empty(),
        format!("two callers under {} sets of policies; {}", STREAMS.len(), wrong.join("; ")),
    );
    Ok(())
}

/// A policy of one rule for a workload of this name.
fn against(app: &str, action: &str, operation: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: against-{app}, namespace: default}}\n\
         spec: {{selector: {{matchLabels: {{app: {app}}}}}, action: {action}, \
         rules: [{{to: [{{operation: {operation}}}]}}]}}\n"
    )
}

/// What is open when a policy turns against it is closed once that is acknowledged, and nothing else is.
fn open(context: &mut Context<'_>) -> anyhow::Result<()> {
    let Some(python) = python() else {
        context.report.skip("open streams", "no Python helpers: `cargo xtask test` installs them");
        return Ok(());
    };
    let lab = context.lab()?;
    let servers =
        (server(lab, &python, "ws_server.py", 7080)?, server(lab, &python, "grpc_server.py", 7070)?);
    let tcp = Echo::start(&lab.proxies[1].host, at_h2(7000), b"")?;
    let chat = Extra::announce(lab, "chat", 7080, "http")?;
    let greeter = Extra::announce(lab, "greeter", 7070, "grpc")?;
    let echo = Extra::announce(lab, "echo", 7000, "tcp")?;
    let caller = Caller::join(lab)?;
    let stop = lab.scratch.join("open-stop");
    drop(std::fs::remove_file(&stop));
    let mut client = Spec::new("open-client", &python)
        .args([script("streams_client.py"), "chat:7080".into(), "greeter:7070".into(), "echo:7000".into()])
        .args([stop.display().to_string()])
        .start(&caller.proxy.host, &lab.logs())?;
    for name in ["websocket", "grpc", "tcp"] {
        client.wait_for_line(&format!("open {name}"), Duration::from_secs(25))?;
    }
    let mut held = Vec::new();
    for (name, others, policy) in [
        ("websocket", &["grpc", "tcp"][..], against("chat", "DENY", "{paths: ['/chat']}")),
        ("grpc", &["tcp"], against("greeter", "DENY", "{paths: ['/lab.Greeter/*']}")),
        // A rule that reads requests lets no byte stream in.
        ("tcp", &[], against("echo", "ALLOW", "{methods: [GET]}")),
    ] {
        lab.control.apply_text(&policy)?;
        let acknowledged = Instant::now();
        let closed = client.wait_for_line(&format!("ended {name}"), Duration::from_secs(5)).is_ok();
        let late = acknowledged.elapsed();
        std::thread::sleep(Duration::from_millis(300));
        let out = client.stdout();
        let gone: Vec<_> = others.iter().filter(|other| out.contains(&format!("ended {other}"))).collect();
        let holds = closed && late < Duration::from_secs(1) && gone.is_empty();
        held.push((name, holds, format!("closed {closed} after {late:.1?}; others that ended: {gone:?}")));
    }
    std::fs::write(&stop, "")?;
    let (code, out) = ended(client)?;
    for app in ["chat", "greeter", "echo"] {
        lab.control.must(["delete", "authorizationpolicy", &format!("against-{app}"), "-n", "default"])?;
    }
    let lines = lab.proxies[1].access_log();
    drop((caller, echo, greeter, chat, tcp, servers));
    for (name, holds, figure) in held {
        context.report.claim(format!("an open {name} that is denied is closed, and no other"), holds, figure);
    }
    let told: serde_json::Value = serde_json::from_str(
        out.lines().find(|line| line.starts_with('{')).with_context(|| format!("exit {code}: {out}"))?,
    )?;
    let said = told["grpc"]["ended"].as_str().unwrap_or_default().to_owned();
    context.report.claim(
        "a gRPC client hears why",
        said.contains("PERMISSION_DENIED") && said.contains("RBAC: access denied"),
        said,
    );
    let told = |key: &str, matched: &str| {
        let details = format!("rbac_access_denied_matched_policy[{matched}]");
        lines.iter().any(|line| line[key] == details)
    };
    let named =
        |app: &str| told("response_code_details", &format!("ns[default]-policy[against-{app}]-rule[0]"));
    context.report.claim(
        "the log names the policy that closed each",
        named("chat") && named("greeter") && told("connection_termination_details", "none"),
        format!("{} lines", lines.len()),
    );
    Ok(())
}
