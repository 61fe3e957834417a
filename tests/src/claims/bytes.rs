//! Bytes that can be read in two ways, sent to the real proxy: the answer, the line in its log, the metric, and that
//! everybody else is served as before.

use std::time::{Duration, Instant};

use super::{Claim, Context, shared};
use crate::harness::echo::send;
use crate::harness::lab::Lab;

pub(super) fn claims() -> Vec<Claim> {
    vec![shared("bytes/requests", requests)]
}

const PROXY: &str = "127.0.0.1:15080";
const HEAD: &str = "POST http://ratings:9080/ratings/0 HTTP/1.1\r\nHost: ratings:9080\r\n";
/// What would be smuggled in.
const NEXT: &str = "GET http://ratings:9080/smuggled HTTP/1.1\r\nHost: ratings:9080\r\n\r\n";

/// The section or advisory, the bytes, and the status of the one answer.
fn rows() -> Vec<(&'static str, String, u16)> {
    let chunked = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n");
    vec![
        (
            "RFC9112-6.1 both framings",
            format!("{HEAD}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{NEXT}"),
            400,
        ),
        (
            "RFC9112-6.3 two lengths",
            format!("{HEAD}Content-Length: 1\r\nContent-Length: 1\r\n\r\na{NEXT}"),
            400,
        ),
        ("RUSTSEC-2021-0078 a lenient length", format!("{HEAD}Content-Length: +1\r\n\r\na{NEXT}"), 400),
        (
            "RFC9112-6.1 another coding",
            format!("{HEAD}Transfer-Encoding: x, chunked\r\n\r\n0\r\n\r\n{NEXT}"),
            501,
        ),
        ("RFC9112-5.1 a blank before the colon", format!("{HEAD}X : a\r\n\r\n{NEXT}"), 400),
        ("RFC9112-5.2 a folded line", format!("{HEAD}X: a\r\n b\r\n\r\n{NEXT}"), 400),
        ("RFC9112-2.2 a bare line feed", format!("{HEAD}X: a\nY: b\r\n\r\n{NEXT}"), 400),
        (
            "CVE-2025-55315 a bare line feed in an extension",
            format!("{chunked}1;a\nx\r\n0\r\n\r\n{NEXT}"),
            400,
        ),
        ("RUSTSEC-2021-0079 a chunk without measure", format!("{chunked}fffffffffffffffff\r\na"), 400),
        (
            "CVE-2024-22019 an endless extension",
            format!("{chunked}1;{}\r\na\r\n0\r\n\r\n", "e".repeat(65_536)),
            400,
        ),
        ("a target of 64 KiB", format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(65_536)), 414),
        ("fields of 64 KiB", format!("{HEAD}X: {}\r\n\r\n", "a".repeat(65_536)), 431),
    ]
}

fn requests(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let before = refused(lab)?;
    let mut found = Vec::new();
    for (name, bytes, expected) in rows() {
        let heard = send(lab.h1(), lab.user("productpage-v1"), PROXY, bytes.into_bytes());
        let heard = heard.map(|heard| String::from_utf8_lossy(&heard).into_owned()).unwrap_or_default();
        let statuses: Vec<&str> = heard.split("HTTP/1.1 ").skip(1).filter_map(|line| line.get(..3)).collect();
        found.push((name, statuses == [expected.to_string()], statuses.join(" ")));
    }
    let sent = found.len();
    let flagged = || {
        let lines = lab.proxies[0].access_log();
        lines.iter().filter(|line| line["response_flags"] == "DPE").count()
    };
    let end = Instant::now() + Duration::from_secs(10);
    while flagged() < sent && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100));
    }
    let flagged = flagged();
    let smuggled = lab
        .proxies
        .iter()
        .filter_map(|proxy| proxy.process.as_ref())
        .filter(|process| process.stdout().contains("/smuggled"))
        .count();
    let counted = refused(lab)? - before;
    let pages = lab.pages(lab.page(), 50);
    for (name, holds, figure) in found {
        context.report.claim(format!("refused, with one answer: {name}"), holds, figure);
    }
    context.report.claim(
        "each has a line with DPE, counts in mesh_proxy_bytes_refused_total, and hides no other request",
        flagged >= sent && counted >= sent as u64 && smuggled == 0,
        format!("{sent} sent, {flagged} lines, {counted} counted, {smuggled} proxies saw the hidden one"),
    );
    context.report.claim("50 pages after it", pages.failed() == 0, format!("{} failed", pages.failed()));
    Ok(())
}

fn refused(lab: &Lab) -> anyhow::Result<u64> {
    let text = lab.proxies[0].local(15090, "/stats/prometheus")?.text();
    let lines = text.lines().filter(|line| line.starts_with("mesh_proxy_bytes_refused_total{"));
    Ok(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum())
}
