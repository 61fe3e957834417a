//! What the mesh tells about itself, and what it weighs.

use std::time::Duration;

use super::{Claim, Context, alone, shared};

pub(super) fn claims() -> Vec<Claim> {
    vec![
        shared("observe/metrics", metrics),
        shared("observe/log", log),
        shared("observe/views", views),
        alone("observe/idle", idle),
    ]
}

fn metrics(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.pages(lab.page(), 30);
    std::thread::sleep(Duration::from_millis(200));
    let out = lab.proxies[0].local(15090, "/stats/prometheus")?.text();
    let find = |text: &str, name: &str, parts: &[&str]| {
        text.lines().find(|l| l.starts_with(name) && parts.iter().all(|p| l.contains(p))).map(str::to_owned)
    };
    let source = find(
        &out,
        "istio_requests_total",
        &[
            "reporter=\"source\"",
            "destination_service_name=\"reviews\"",
            "response_code=\"200\"",
            "source_workload=\"productpage-v1\"",
            "connection_security_policy=",
        ],
    );
    let duration = find(&out, "istio_request_duration_milliseconds_bucket", &["le="]);
    let there = lab.proxies[1].local(15090, "/stats/prometheus")?.text();
    let destination = find(
        &there,
        "istio_requests_total",
        &[
            "reporter=\"destination\"",
            "source_principal=\"spiffe://cluster.local/ns/default/sa/bookinfo-productpage\"",
            "connection_security_policy=\"mutual_tls\"",
        ],
    );
    context.report.claim(
        "the caller's proxy counts by Istio's names",
        source.is_some() && duration.is_some(),
        source.unwrap_or_else(|| out.lines().take(3).collect()),
    );
    context.report.claim(
        "the server's proxy names the caller's principal",
        destination.is_some(),
        destination.unwrap_or_else(|| "no such line".into()),
    );
    Ok(())
}

fn log(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.as_productpage(
        &crate::harness::client::Ask::get("http://reviews:9080/reviews/0?log-me")
            .header("x-request-id", "log-me-1"),
    )?;
    std::thread::sleep(Duration::from_millis(1200));
    let lines = lab.proxies[0].access_log();
    let line = lines.iter().find(|l| l["path"].as_str().is_some_and(|p| p.contains("log-me")));
    let fields = [
        "start_time",
        "method",
        "path",
        "protocol",
        "response_code",
        "response_flags",
        "duration",
        "authority",
        "upstream_host",
        "upstream_cluster",
        "request_id",
    ];
    let holds = line.is_some_and(|l| {
        fields.iter().all(|f| !l[*f].is_null()) && l["response_code"] == 200 && l["request_id"] == "log-me-1"
    });
    let figure = line.map_or_else(|| format!("not among {} lines", lines.len()), ToString::to_string);
    context.report.claim("a request is one JSON line with Istio's field names", holds, figure);
    Ok(())
}

fn views(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let services = lab.control.must(["services", "-A", "-o", "json"])?.json()?;
    let reviews = services
        .as_array()
        .and_then(|s| s.iter().find(|r| r["name"] == "reviews"))
        .cloned()
        .unwrap_or_default();
    let workloads = lab.control.must(["workloads", "-A", "-o", "json"])?.json()?;
    let v2 = workloads
        .as_array()
        .and_then(|s| s.iter().find(|r| r["name"] == "reviews-v2"))
        .cloned()
        .unwrap_or_default();
    let config = lab.control.cli(["proxy", "config", "h1", "routes", "-o", "json"])?;
    let http = crate::harness::client::Ask::get(format!(
        "http://{}:{}/readyz",
        lab.control.http().0,
        lab.control.http().1
    ))
    .send(lab.h1(), None)?;
    context.report.claim(
        "services counts three healthy workloads of reviews",
        reviews["workloads"] == 3 && reviews["healthy"] == 3,
        reviews.to_string(),
    );
    context.report.claim(
        "workloads names node, identity and health",
        v2["node"] == "h2"
            && v2["identity"] == "spiffe://cluster.local/ns/default/sa/bookinfo-reviews"
            && v2["health"] == "healthy",
        v2.to_string(),
    );
    context.report.claim(
        "proxy config shows what a proxy runs",
        config.code == 0 && config.out.contains("reviews"),
        format!("exit {}, {} bytes", config.code, config.out.len()),
    );
    context.report.claim("meshd is ready over HTTP", http.status == 200, http.status.to_string());
    Ok(())
}

/// Resident memory of a mesh that does nothing. `bench idle` keeps the bars of what is shipped, 40 and 20 MiB; the
/// code of a debug build alone is larger than that.
fn idle(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    std::thread::sleep(Duration::from_secs(2));
    let (control, proxies) = resident(lab)?;
    let worst = proxies.iter().copied().max().unwrap_or(u64::MAX);
    context.report.claim(
        "an idle meshd of the debug build weighs under 60 MiB",
        control < 60 << 10,
        format!("{} KiB", control),
    );
    context.report.claim(
        "an idle meshproxy of the debug build weighs under 50 MiB",
        worst < 50 << 10,
        format!("{proxies:?} KiB"),
    );
    Ok(())
}

/// KiB of meshd and of each proxy.
pub fn resident(lab: &mut crate::harness::lab::Lab) -> anyhow::Result<(u64, Vec<u64>)> {
    let control =
        lab.control.process.as_ref().map_or(Ok(0), crate::harness::process::Process::resident_kib)?;
    let proxies =
        lab.proxies.iter_mut().map(|p| p.running()?.resident_kib()).collect::<anyhow::Result<_>>()?;
    Ok((control, proxies))
}
