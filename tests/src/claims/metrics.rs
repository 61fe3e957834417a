//! Istio's metrics as a scrape of both proxies tells them: labels of one request, how many series there may be, how long
//! they stay, and the form that is asked for.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::captured::restart;
use super::{Claim, Context, alone, shared};
use crate::harness::client::Ask;
use crate::harness::lab::{Lab, host_address};

pub(super) fn claims() -> Vec<Claim> {
    vec![
        shared("metrics/labels", labels),
        shared("metrics/forms", forms),
        shared("metrics/own", own),
        alone("metrics/bounds", bounds),
    ]
}

const EXPLICIT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15080);
const REQUESTS: &str = "istio_requests_total{";

fn scrape(lab: &Lab, proxy: usize) -> anyhow::Result<String> {
    Ok(lab.proxies[proxy].local(15090, "/stats/prometheus")?.text())
}

/// The lines of a metric whose labels have all these values.
fn lines(text: &str, name: &str, labels: &[(&str, &str)]) -> Vec<String> {
    let has = |line: &str| labels.iter().all(|(key, value)| line.contains(&format!("{key}=\"{value}\"")));
    text.lines().filter(|line| line.starts_with(name) && has(line)).map(str::to_owned).collect()
}

fn value(line: &str) -> f64 {
    line.rsplit_once(' ').and_then(|(_, value)| value.parse().ok()).unwrap_or(f64::NAN)
}

/// Looks until something is found, or for long enough.
fn until<T>(mut look: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<Option<T>> {
    let end = Instant::now() + Duration::from_secs(40);
    loop {
        let found = look()?;
        if found.is_some() || Instant::now() > end {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn labels(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.as_productpage(&Ask::get("http://reviews:9080/reviews/1"))?;
    let common = [
        ("source_workload", "productpage-v1"),
        ("source_workload_namespace", "default"),
        ("source_principal", "spiffe://cluster.local/ns/default/sa/bookinfo-productpage"),
        ("source_app", "productpage"),
        ("source_version", "v1"),
        ("source_cluster", "Kubernetes"),
        ("source_canonical_service", "productpage"),
        ("source_canonical_revision", "v1"),
        ("destination_workload_namespace", "default"),
        ("destination_principal", "spiffe://cluster.local/ns/default/sa/bookinfo-reviews"),
        ("destination_app", "reviews"),
        ("destination_cluster", "Kubernetes"),
        ("destination_canonical_service", "reviews"),
        ("destination_service", "reviews.default.svc.cluster.local"),
        ("destination_service_name", "reviews"),
        ("destination_service_namespace", "default"),
        ("request_protocol", "http"),
        ("response_code", "200"),
        ("grpc_response_status", ""),
        ("response_flags", "-"),
    ];
    let find = |proxies: &[usize], reporter: &str, security: &str| {
        until(|| {
            let own = [("reporter", reporter), ("connection_security_policy", security)];
            let wanted = [&common[..], &own].concat();
            for proxy in proxies {
                if let Some(line) = lines(&scrape(lab, *proxy)?, REQUESTS, &wanted).pop() {
                    return Ok(Some(line));
                }
            }
            Ok(None)
        })
    };
    let source = find(&[0], "source", "unknown")?;
    let destination = find(&[1, 2], "destination", "mutual_tls")?;
    let outside = format!("{}:9081", host_address(1));
    let ask = Ask::get(format!("http://{outside}/health")).through(EXPLICIT);
    lab.as_productpage(&ask)?;
    let passed = until(|| {
        let wanted = [
            ("destination_service", outside.as_str()),
            ("destination_service_name", "PassthroughCluster"),
            ("destination_service_namespace", "unknown"),
            ("destination_workload", "unknown"),
            ("destination_canonical_revision", "latest"),
            ("source_principal", "unknown"),
            ("reporter", "source"),
        ];
        Ok(lines(&scrape(lab, 0)?, REQUESTS, &wanted).pop())
    })?;
    let figure = |line: Option<String>| line.unwrap_or_else(|| "no such line".to_owned());
    context.report.claim(
        "the caller's proxy tells all labels of a request",
        source.is_some(),
        figure(source),
    );
    context.report.claim("so does the workload's", destination.is_some(), figure(destination));
    context.report.claim(
        "what leaves the mesh is PassthroughCluster, with the host that was asked for",
        passed.is_some(),
        figure(passed),
    );
    Ok(())
}

fn forms(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.pages(lab.page(), 3);
    let control = lab.control.http();
    let urls = [
        (
            "meshproxy",
            "http://127.0.0.1:15090/stats/prometheus".to_owned(),
            "# TYPE istio_requests counter\n",
        ),
        ("meshd", format!("http://{}:{}/metrics", control.0, control.1), "# TYPE meshd_deltas counter\n"),
    ];
    let mut found = Vec::new();
    for (program, url, typed) in urls {
        let open = Ask::get(&url)
            .header("accept", "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;q=0.5")
            .send(lab.h1(), None)?;
        let plain = Ask::get(&url).send(lab.h1(), None)?;
        let (text, kind) = (open.text(), open.header("content-type").to_owned());
        let is_open = kind.starts_with("application/openmetrics-text; version=1.0.0")
            && text.ends_with("# EOF\n")
            && text.contains(typed)
            && !text.contains("\n\n");
        let is_plain = plain.header("content-type").starts_with("text/plain; version=0.0.4")
            && !plain.text().contains("# EOF");
        found.push((program, is_open && is_plain, format!("{kind}, {} bytes", text.len())));
    }
    for (program, holds, figure) in found {
        context.report.claim(
            format!("{program} writes OpenMetrics for who asks for it, and the text format for others"),
            holds,
            figure,
        );
    }
    Ok(())
}

/// What the programs tell of themselves.
fn own(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.pages(lab.page(), 3);
    let proxy = until(|| {
        let text = scrape(lab, 0)?;
        let is_some = |name: &str| lines(&text, name, &[]).iter().any(|line| value(line) > 0.0);
        let names = [
            "mesh_proxy_snapshot_version",
            "mesh_proxy_snapshot_timestamp_seconds",
            "mesh_proxy_snapshot_build_seconds",
            "mesh_proxy_deltas_total{result=\"ack\"}",
            "mesh_proxy_certificate_expiry_timestamp_seconds",
            "mesh_proxy_handshakes_total{side=\"outbound\"}",
            "mesh_proxy_pool_connections{kind=\"mesh\"}",
            "mesh_proxy_worker_load",
            "mesh_proxy_series{metric=\"istio_requests_total\"}",
        ];
        Ok(names.iter().all(|name| is_some(name)).then_some(text.len()))
    })?;
    let control = lab.control.http();
    let control = until(|| {
        let text =
            Ask::get(format!("http://{}:{}/metrics", control.0, control.1)).send(lab.h1(), None)?.text();
        let is_some = |name: &str| lines(&text, name, &[]).iter().any(|line| value(line) > 0.0);
        let names = [
            "meshd_config_version",
            "meshd_proxies{state=\"synced\"}",
            "meshd_convergence_seconds_count",
            "meshd_store_bytes",
            "meshd_hosts{standing=\"serves\"}",
            "meshd_grpc_streams{service=\"discovery\"}",
            "meshd_grpc_streams{service=\"registry\"}",
            "meshd_certificates_total{of=\"workload\",result=\"issued\"}",
        ];
        let missing: Vec<&str> = names.into_iter().filter(|name| !is_some(name)).collect();
        Ok(missing.is_empty().then_some(text.len()))
    })?;
    let figure =
        |bytes: Option<usize>| bytes.map_or("something is missing".into(), |bytes| format!("{bytes} bytes"));
    context.report.claim("a proxy tells of itself", proxy.is_some(), figure(proxy));
    context.report.claim("meshd tells of itself", control.is_some(), figure(control));
    Ok(())
}

fn bounds(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    restart(lab, 0, "explicit,loopback", &["--max-series", "2", "--series-idle", "4s"])?;
    lab.wait_serving()?;
    // What came up with the lab is idle, and goes.
    let empty = |lab: &Lab| until(|| Ok(lines(&scrape(lab, 0)?, REQUESTS, &[]).is_empty().then_some(())));
    let fell_silent = empty(lab)?.is_some();
    let hosts = ["reviews", "ratings", "details"];
    for host in hosts.iter().cycle().take(12) {
        lab.as_productpage(&Ask::get(format!("http://{host}:9080/health")))?;
    }
    let sums = until(|| {
        let text = scrape(lab, 0)?;
        let of = |labels: &[(&str, &str)]| lines(&text, REQUESTS, labels);
        let all = of(&[("reporter", "source")]);
        let (sum, other) =
            (all.iter().map(|line| value(line)).sum::<f64>(), of(&[("response_code", "other")]));
        let swallowed =
            lines(&text, "mesh_proxy_series_overflow_total", &[("metric", "istio_requests_total")]);
        let figure = (all.len(), sum, other.iter().map(|line| value(line)).sum::<f64>());
        Ok((sum >= 12.0).then(|| (figure, swallowed.first().map_or(0.0, |line| value(line)))))
    })?;
    let holds = sums.is_some_and(|((series, sum, other), swallowed)| {
        series == 3 && sum == 12.0 && other >= 4.0 && swallowed >= other
    });
    let gone = empty(lab)?.is_some();
    lab.as_productpage(&Ask::get("http://ratings:9080/health"))?;
    let back = until(|| {
        let wanted = [("destination_service_name", "ratings"), ("response_code", "200")];
        Ok(lines(&scrape(lab, 0)?, REQUESTS, &wanted).pop())
    })?;
    context.report.claim(
        "beyond --max-series one more series takes the rest, and nothing is lost",
        holds,
        format!("{sums:?}"),
    );
    context.report.claim(
        "a series that nothing happens to for --series-idle goes, and begins at 0 when it comes back",
        fell_silent && gone && back.as_deref().is_some_and(|line| value(line) == 1.0),
        back.unwrap_or_else(|| format!("silent {fell_silent}, gone {gone}")),
    );
    Ok(())
}
