//! Endpoints that report their load get traffic by it. They are servers of nginx on h2, before which no proxy stands.

use std::time::{Duration, Instant};

use super::protocols::{at_h2, find};
use super::{Claim, Context, shared};
use crate::harness::bookshop::version;
use crate::harness::client::Ask;
use crate::harness::lab::{Lab, host_address};
use crate::harness::load::Tally;
use crate::harness::process::{Process, Spec};

/// Requests of one look.
const MANY: usize = 200;

pub(super) fn claims() -> Vec<Claim> {
    vec![shared("balancing/reports", reports)]
}

/// Two servers, busy to a fifth and to four fifths, that serve the same number of requests a second. Asked with
/// `x-silent` they report nothing.
fn servers(lab: &Lab, program: &std::path::Path) -> anyhow::Result<Process> {
    let folder = lab.scratch.join("reporting");
    std::fs::create_dir_all(&folder)?;
    let place = folder.display();
    let paths: Vec<String> = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("{name}_temp_path {place}/{name};"))
        .collect();
    let server = |port: u16, name: &str, report: &str| {
        format!(
            "map $http_x_silent ${name} {{ default ''; '' '{report}'; }}\n\
             server {{ listen {}:{port}; add_header endpoint-load-metrics ${name}; default_type application/json;\n\
             location / {{ return 200 '{{\"version\": \"{name}\"}}'; }} }}\n",
            host_address(1)
        )
    };
    let text = format!(
        "daemon off; worker_processes 1; pid {place}/pid; error_log {place}/error.log;\nevents {{}}\n\
         http {{ access_log off; {}\n{}{} }}\n",
        paths.join(" "),
        server(7091, "idle", "TEXT application_utilization=0.2,rps_fractional=50"),
        server(
            7092,
            "busy",
            r#"JSON {"cpu_utilization": 0.3, "rps_fractional": 50, "named_metrics": {"queue": 0.8}}"#
        ),
    );
    let config = folder.join("nginx.conf");
    std::fs::write(&config, text)?;
    let arguments =
        ["-c".to_owned(), config.display().to_string(), "-e".into(), format!("{place}/error.log")];
    Spec::new("nginx", program).args(arguments).start(&lab.proxies[1].host, &lab.logs())
}

/// Looks again and again until the idle server gets such a share, and for twenty seconds at most.
fn look(lab: &Lab, ask: &Ask, idle: f64) -> (bool, Tally) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let tally = lab.count(lab.h1(), lab.user("productpage-v1"), ask.clone(), MANY, version);
        let holds = tally.failed() == 0 && (tally.count("idle") as f64 / MANY as f64 - idle).abs() <= 0.03;
        if holds || Instant::now() > end {
            return (holds, tally);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn reports(context: &mut Context<'_>) -> anyhow::Result<()> {
    let Some(program) = find(&["nginx"]) else {
        context.report.skip("reports of load", "nginx is not installed");
        return Ok(());
    };
    let lab = context.lab()?;
    let server = servers(lab, &program)?;
    let [first, second] = [at_h2(7091), at_h2(7092)];
    lab.control.apply_text(&format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: reporting, namespace: default}}\n\
         spec:\n  hosts: [reporting.example]\n  location: MESH_EXTERNAL\n  resolution: STATIC\n\
         \x20 ports: [{{number: 80, name: http, protocol: HTTP}}]\n\
         \x20 endpoints:\n  - {{address: {}, ports: {{http: {}}}}}\n  - {{address: {}, ports: {{http: {}}}}}\n---\n\
         apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reporting, namespace: default}}\n\
         spec:\n  host: reporting.example\n  trafficPolicy:\n    loadBalancer:\n      backendUtilization:\n\
         \x20       {{metricNamesForComputingUtilization: [named_metrics.queue], weightStabilizationPeriod: 3s,\n\
         \x20        weightExpirationPeriod: 1s, weightUpdatePeriod: 200ms}}\n",
        first.ip(),
        first.port(),
        second.ip(),
        second.port(),
    ))?;
    let ask = Ask::get("http://reporting.example/");
    let passed = lab.as_productpage(&ask)?.header("endpoint-load-metrics").to_owned();
    let even = look(lab, &ask, 0.5);
    let weighted = look(lab, &ask, 0.8);
    let silent = look(lab, &ask.header("x-silent", "1"), 0.5);
    drop(server);
    for (claim, (holds, tally)) in [
        ("at first all have the same share", even),
        ("an endpoint that is used a quarter as much gets four times the requests", weighted),
        ("who reports no more is as any other", silent),
    ] {
        context.report.claim(claim, holds, tally.figure());
    }
    let holds = ["TEXT", "JSON"].iter().any(|format| passed.starts_with(format));
    context.report.claim("what was reported reaches the caller", holds, passed);
    Ok(())
}
