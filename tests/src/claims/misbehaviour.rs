//! Servers that do not keep to the protocol, outside the mesh and in it: what their caller gets, what the logs of both
//! proxies say, and that nobody else notices. The long table is the proxy's own test; this is the same from outside.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::protocols::{Extra, at_h2};
use super::{Claim, Context, shared};
use crate::harness::client::Ask;
use crate::harness::lab::{Lab, host_address};
use crate::harness::load::{Load, LoadSpec};
use crate::harness::proxy::Proxy;
use crate::harness::script::{End, Line, Script};

pub(super) fn claims() -> Vec<Claim> {
    vec![shared("misbehaviour/servers", servers), shared("misbehaviour/unreachable", unreachable)]
}

const PORT: u16 = 7100;

const SCRIPT: &[Line] = &[
    ("/closes", b"", End::Close),
    ("/resets", b"", End::Reset),
    ("/garbage", b"\x00\x01\x02 garbage\r\n\r\n", End::Silence),
    ("/lengths", b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nevil", End::Silence),
    ("/endless", b"HTTP/1.1 200 OK\r\nx-a: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", End::Repeat),
    ("/unasked", b"HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", End::Silence),
    (
        "/surplus",
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngoodHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
        End::Silence,
    ),
    ("/cut", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", End::Close),
    ("/cut-chunk", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nA\r\nabc", End::Reset),
    ("/bad-chunk", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n", End::Silence),
    ("/silent", b"", End::Silence),
];

/// Path, status (0 where the body is cut short), and the flag that the proxy next to the server logs.
const EXPECTED: &[(&str, u16, &str)] = &[
    ("/closes", 503, "UC"),
    ("/resets", 503, "UC"),
    ("/garbage", 502, "UPE"),
    ("/lengths", 502, "UPE"),
    ("/endless", 502, "UPE"),
    ("/unasked", 502, "UPE"),
    ("/surplus", 200, "-"),
    ("/cut", 0, "UPE"),
    ("/cut-chunk", 0, "UPE"),
    ("/bad-chunk", 0, "UPE"),
    ("/silent", 504, "UT"),
];

/// The flag of the last line about a path, once there is one.
fn flag(proxy: &Proxy, authority: &str, path: &str) -> String {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let log = proxy.access_log();
        let is_of = |line: &&Value| line["path"] == path && line["authority"] == authority;
        if let Some(line) = log.iter().rev().find(is_of) {
            return line["response_flags"].as_str().unwrap_or_default().to_owned();
        }
        if Instant::now() > end {
            return "no line".to_owned();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What is not as it should be of one host's answers.
fn wrong(lab: &Lab, host: &str) -> Vec<String> {
    let user = lab.user("productpage-v1");
    let meshed = !host.contains('.');
    let authority = format!("{host}:{PORT}");
    let mut wrong = Vec::new();
    for (path, status, told) in EXPECTED {
        let answer = Ask::get(format!("http://{authority}{path}")).send(lab.h1(), user);
        let got = answer.as_ref().map_or(0, |answer| answer.status);
        let after = Ask::get(format!("http://{authority}/after")).send(lab.h1(), user);
        let after = after.map_or_else(|error| format!("{error:#}"), |answer| answer.text());
        if got != *status || after != "good" {
            wrong.push(format!("{host}{path}: {got}, then {after}"));
        }
        // In the mesh the caller's proxy hears of it from the other one, but for its own time.
        let (caller, server) = match (meshed, *told, *status) {
            (false, told, _) => (told, None),
            (true, "UT", _) => ("UT", Some("DC")),
            (true, told, 0) => ("UR", Some(told)),
            (true, told, _) => ("-", Some(told)),
        };
        let seen = flag(&lab.proxies[0], &authority, path);
        let there = server.map(|_| flag(&lab.proxies[1], &authority, path));
        if seen != caller || there.as_deref() != server {
            wrong.push(format!("{host}{path}: logged as {seen} and {there:?}"));
        }
    }
    wrong
}

fn servers(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let server = Script::start(&lab.proxies[1].host, at_h2(PORT), SCRIPT)?;
    let extra = Extra::announce(lab, "odd", PORT, "http")?;
    let timeout = |name: &str, host: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: default}}\n\
             spec: {{hosts: [{host}], http: [{{timeout: 1s, route: [{{destination: {{host: {host}}}}}]}}]}}\n---\n"
        )
    };
    lab.control.apply_text(&format!(
        "{}{}apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: odd, namespace: default}}\n\
         spec: {{hosts: [odd.example], location: MESH_EXTERNAL, resolution: STATIC, \
         ports: [{{number: {PORT}, name: http, protocol: HTTP}}], endpoints: [{{address: {}}}]}}\n",
        timeout("odd", "odd"),
        timeout("odd-outside", "odd.example"),
        host_address(1)
    ))?;
    let load = Load::start(
        lab.h1(),
        lab.user("productpage-v1"),
        LoadSpec {
            ask: Ask::get("http://reviews:9080/health"),
            connections: 4,
            pause: Duration::from_millis(5),
            count: None,
            judge: crate::harness::bookshop::status,
        },
    );
    let before = lab.proxies[0].running()?.resident_kib()?;
    let outside = wrong(lab, "odd.example");
    let inside = wrong(lab, "odd");
    let after = lab.proxies[0].running()?.resident_kib()?;
    let beside = load.stop();
    drop(extra);
    drop(server);
    for (what, wrong) in [("outside the mesh", outside), ("behind its own proxy", inside)] {
        context.report.claim(
            format!("a server {what} that breaks off, talks nonsense or is silent: status and flag are right, and its next request is answered"),
            wrong.is_empty(),
            if wrong.is_empty() { format!("{} ways", EXPECTED.len()) } else { wrong.join("; ") },
        );
    }
    context.report.claim(
        "requests beside it do not notice",
        beside.failed() == 0 && beside.total > 50,
        beside.figure(),
    );
    context.report.claim(
        "and memory stays where it was",
        after < before + 8 * 1024,
        format!("{before} KiB, then {after} KiB"),
    );
    Ok(())
}

fn unreachable(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    // Nobody listens there.
    lab.control.apply_text(&format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: away, namespace: default}}\n\
         spec: {{hosts: [refused.example], location: MESH_EXTERNAL, resolution: STATIC, \
         ports: [{{number: 7199, name: http, protocol: HTTP}}], endpoints: [{{address: {}}}]}}\n",
        host_address(1)
    ))?;
    let answer =
        Ask::get("http://refused.example:7199/refused").send(lab.h1(), lab.user("productpage-v1"))?;
    let told = flag(&lab.proxies[0], "refused.example:7199", "/refused");
    context.report.claim(
        "a server that is not there: 503, and the log says that retries were of no use",
        answer.status == 503 && told == "URX,UF",
        format!("{} {told}", answer.status),
    );
    Ok(())
}
