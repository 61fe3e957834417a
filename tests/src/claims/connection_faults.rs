//! Faults of connections for game days: what callers notice, and that they end by themselves.

use std::time::{Duration, Instant};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::io::AsyncReadExt as _;

use super::protocols::{Extra, at_h2};
use super::{Claim, Context, shared};
use crate::harness::client::{Ask, dial};
use crate::harness::echo::Echo;
use crate::harness::lab::Lab;

pub(super) fn claims() -> Vec<Claim> {
    vec![shared("faults/connection", connection)]
}

fn rule(host: &str, fault: &str, end: Duration) -> anyhow::Result<String> {
    let seconds = i64::try_from(end.as_secs())?;
    let now = OffsetDateTime::now_utc().replace_nanosecond(0)?;
    let until = (now + time::Duration::seconds(seconds)).format(&Rfc3339)?;
    Ok(format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
         metadata: {{name: {host}, namespace: default, annotations: {{mesh.io/fault: '{fault},until={until}'}}}}\n\
         spec: {{host: {host}}}\n"
    ))
}

/// What becomes of a connection whose server speaks first, within a second and a half.
fn greeting(lab: &Lab) -> anyhow::Result<String> {
    lab.h1().block_on(lab.user("productpage-v1"), || async {
        let mut stream = dial("gameday:7090").await?;
        let mut bytes = [0; 5];
        let read = tokio::time::timeout(Duration::from_millis(1500), stream.read_exact(&mut bytes)).await;
        Ok(match read {
            Err(_) => "nothing".to_owned(),
            Ok(Err(error)) => format!("{:?}", error.kind()),
            Ok(Ok(_)) => String::from_utf8_lossy(&bytes).into_owned(),
        })
    })
}

/// Waits for a greeting, or for what comes in its place.
fn comes(lab: &Lab, expected: &str) -> anyhow::Result<String> {
    let end = Instant::now() + Duration::from_secs(40);
    loop {
        let found = greeting(lab).unwrap_or_else(|error| format!("{error:#}"));
        if found == expected || Instant::now() > end {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn connection(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let mut found = Vec::new();
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    // Requests.
    let ask = Ask::get("http://ratings:9080/health");
    lab.as_productpage(&ask)?;
    lab.control.apply_text(&rule("ratings", "kind=latency,value=400ms", minutes(10))?)?;
    let slow = lab.as_productpage(&ask)?;
    let holds = slow.status == 200 && slow.took >= Duration::from_millis(800);
    found.push(("a latency of 400 ms is met there and back", holds, format!("{:?}", slow.took)));
    let arguments =
        ["explain", "--from", "default/bookinfo-productpage", "--to", "http://ratings:9080/", "-o", "json"];
    let told = lab.control.must(arguments)?.json()?["destinations"][0]["fault"].clone();
    found.push((
        "explain tells of it",
        told["kind"] == "latency" && told["percent"] == 100,
        told.to_string(),
    ));
    let metrics = lab.proxies[0].local(15090, "/stats/prometheus")?.text();
    let counted = metrics.lines().find(|line| line.starts_with("mesh_proxy_faults_total{kind=\"latency\"}"));
    found.push(("a metric counts it", counted.is_some(), counted.unwrap_or("none").to_owned()));
    lab.control.apply_text(&rule("ratings", "kind=reset", minutes(10))?)?;
    let answer = lab.as_productpage(&ask)?;
    found.push(("a reset is a 503", answer.status == 503, answer.text()));
    let refused = lab.control.apply_text(&rule("ratings", "kind=reset", minutes(120))?).err();
    let words = refused.map_or_else(|| "it was accepted".to_owned(), |error| format!("{error:#}"));
    found.push(("two hours are refused", words.contains("MSH0108"), words));
    // Byte streams; they end by themselves.
    let echo = Echo::start(&lab.proxies[1].host, at_h2(7090), b"hello")?;
    let extra = Extra::announce(lab, "gameday", 7090, "tcp")?;
    let plain = comes(lab, "hello")?;
    lab.control.apply_text(&rule("gameday", "kind=reset", minutes(10))?)?;
    let reset = comes(lab, "ConnectionReset")?;
    found.push((
        "a byte stream is reset",
        plain == "hello" && reset == "ConnectionReset",
        format!("{plain}, {reset}"),
    ));
    let begun = Instant::now();
    lab.control.apply_text(&rule("gameday", "kind=blackhole", Duration::from_secs(12))?)?;
    let lost = comes(lab, "nothing")?;
    found.push(("in a blackhole it is open and nothing comes", lost == "nothing", lost));
    let back = comes(lab, "hello")?;
    let took = begun.elapsed();
    let holds = back == "hello" && took > Duration::from_secs(5);
    found.push((
        "and it is over by itself, with no change of configuration",
        holds,
        format!("{back} after {took:?}"),
    ));
    let said = lab.control.must(["analyze"]).map(|said| said.out);
    let said = said.unwrap_or_else(|error| format!("{error:#}"));
    found.push(("meshd analyze says that it is over", said.contains("MSH0107"), said));
    drop((extra, echo));
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}
