//! What a large configuration costs: analysed, explained, and edited.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::setup::{LOCAL, PROXY_CPU, Setup};
use crate::harness::client::Ask;
use crate::harness::control::READY;
use crate::harness::isolate::Inside;
use crate::harness::lab::programs;
use crate::harness::netns::Namespace;
use crate::harness::process::Spec;
use crate::report::Report;

/// Documents of the large mesh.
const LARGE: usize = 10_000;
/// Documents of the folder that is explained.
const SMALL: usize = 100;
/// How many documents one service has.
const PER_SERVICE: usize = 8;
/// How many edits are made, and how often the folder is explained.
const TIMES: usize = 21;
/// How long the longest of it may take before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures all of it.
pub(super) fn run(inside: &Inside, report: &mut Report) -> anyhow::Result<()> {
    report.title("A mesh of ten thousand resources");
    let host = Namespace::lonely("config", &[Ipv4Addr::new(10, 79, 0, 1)])?;
    let folder = inside.scratch.join("logs").join("config");
    let mut setup = Setup::new(&host, &folder)?;
    let large = setup.file("large.yaml", &declared(LARGE))?;
    let small = folder.join("small");
    std::fs::create_dir(&small)?;
    for (number, document) in declared(SMALL).split("---\n").enumerate() {
        std::fs::write(small.join(format!("{number}.yaml")), document)?;
    }
    let meshd = programs()?.join("meshd");
    analyze(&setup, &meshd, &large, report)?;
    explain(&meshd, &small, report)?;
    edit(&mut setup, &meshd, &large, report)
}

fn analyze(setup: &Setup, meshd: &Path, large: &Path, report: &mut Report) -> anyhow::Result<()> {
    let spec = Spec::new("analyze", meshd).args(["analyze", "-f"]).args([large.display()]);
    let began = Instant::now();
    let mut process = spec.cpu(Some(PROXY_CPU)).quiet().start(&setup.host, &setup.folder)?;
    let mut peak = 0;
    // It shows its peak for as long as it runs, and the peak never falls.
    while process.is_running() {
        peak = process.peak_kib().unwrap_or(peak).max(peak);
        ensure!(began.elapsed() < PATIENCE, "analyze does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = began.elapsed();
    ensure!(process.stderr().is_empty(), "analyze: {}", process.stderr());
    report.claim("analyze takes under 2 s on one core", took < Duration::from_secs(2), format!("{took:.2?}"));
    let figure = format!("{:.0} MB at its peak", peak as f64 * 1024.0 / 1e6);
    report.claim("analyze stays under 300 MB", peak > 0 && peak * 1024 < 300_000_000, figure);
    Ok(())
}

fn explain(meshd: &Path, small: &Path, report: &mut Report) -> anyhow::Result<()> {
    let mut times = Vec::new();
    for _ in 0..TIMES {
        let began = Instant::now();
        let output = std::process::Command::new(meshd)
            .args(["explain", "--from", "n1/s1", "--to", "http://s2.n2:8080/api/v2/items", "-f"])
            .arg(small)
            .output()?;
        times.push(began.elapsed());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let sent = said.contains("90 %: s2.n2.svc.cluster.local v1");
        ensure!(sent, "{said}{}", String::from_utf8_lossy(&output.stderr));
    }
    let (middle, worst) = spread(&mut times).context("nothing was explained")?;
    report.claim(
        format!("explain answers from a folder of {SMALL} files in under 50 ms"),
        middle < Duration::from_millis(50),
        format!("{middle:.1?} in the median, {worst:.1?} at worst, with the start of the process"),
    );
    Ok(())
}

/// One resource at a time is changed in a serving meshd, which says itself how long it compiled.
fn edit(setup: &mut Setup, meshd: &Path, large: &Path, report: &mut Report) -> anyhow::Result<()> {
    let data = setup.folder.join("meshd").display().to_string();
    let spec = Spec::new("meshd", meshd).args(["serve", "--data-dir", &data]);
    let spec = spec.args(["--grpc-addr", "127.0.0.1:15012", "--http-addr", "127.0.0.1:15014"]);
    setup.other(spec)?.wait_for_line("ready ", READY)?;
    let apply = |file: &Path| -> anyhow::Result<()> {
        let output = std::process::Command::new(meshd)
            .args(["apply", "-f"])
            .arg(file)
            .env("MESHD_SERVER", format!("unix:{data}/admin.sock"))
            .output()?;
        ensure!(output.status.success(), "apply: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    let began = Instant::now();
    apply(large)?;
    report.say(&format!("  all of it is applied in {:.2?}", began.elapsed()));
    let mut edits = BTreeMap::<&str, Vec<Duration>>::new();
    for turn in 0..TIMES {
        for (kind, text) in edits_of(turn) {
            let file = setup.file("edit.yaml", &text)?;
            let before = compiled(&setup.host)?;
            apply(&file)?;
            let after = compiled(&setup.host)?;
            ensure!(after.0 == before.0 + 1, "one edit compiled {} times", after.0 - before.0);
            edits.entry(kind).or_default().push(Duration::from_secs_f64((after.1 - before.1).max(0.0)));
        }
    }
    for (kind, mut times) in edits {
        let (middle, worst) = spread(&mut times).context("nothing was edited")?;
        report.claim(
            format!("a change of one {kind} recompiles in under 5 ms"),
            middle < Duration::from_millis(5),
            format!("{middle:.2?} in the median, {worst:.2?} at worst"),
        );
    }
    Ok(())
}

/// How often meshd has compiled, and the seconds that it took.
fn compiled(host: &Namespace) -> anyhow::Result<(u64, f64)> {
    let text = Ask::get(format!("http://{LOCAL}:15014/metrics")).send(host, None)?.text();
    let of = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
    let count = of("meshd_compile_seconds_count ").context("no meshd_compile_seconds_count")?;
    let sum = of("meshd_compile_seconds_sum ").context("no meshd_compile_seconds_sum")?;
    Ok((count as u64, sum))
}

/// The middle and the longest.
fn spread(times: &mut [Duration]) -> Option<(Duration, Duration)> {
    times.sort_unstable();
    Some((*times.get(times.len() / 2)?, *times.last()?))
}

fn namespace(service: usize) -> usize {
    service % 50
}

/// This many documents: services with their workloads, subsets, routes and policies, and hosts outside the mesh.
fn declared(documents: usize) -> String {
    let mut text = String::new();
    for service in 0..documents.div_ceil(PER_SERVICE) {
        let meta = format!("metadata: {{name: s{service}, namespace: n{}}}", namespace(service));
        let _infallible = write!(
            text,
            "apiVersion: v1\nkind: Service\n{meta}\n\
             spec: {{selector: {{app: s{service}}}, ports: [{{name: http, port: 8080}}, {{name: tcp, port: 9000}}]}}\n---\n"
        );
        for version in 1..=2 {
            let address = Ipv4Addr::new(10, (service >> 8) as u8, (service & 255) as u8, version);
            let _infallible = write!(
                text,
                "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n\
                 metadata: {{name: s{service}-v{version}, namespace: n{}}}\n\
                 spec: {{address: {address}, serviceAccount: s{service}, labels: {{app: s{service}, version: v{version}}}}}\n---\n",
                namespace(service)
            );
        }
        text.push_str(&destination_rule(service, "ROUND_ROBIN"));
        text.push_str(&virtual_service(service, 90));
        text.push_str(&authorization_policy(service, "GET"));
        let _infallible = write!(
            text,
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n{meta}\n\
             spec: {{selector: {{matchLabels: {{app: s{service}}}}}, mtls: {{mode: STRICT}}}}\n---\n\
             apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n{meta}\n\
             spec:\n  hosts: [s{service}.example.com]\n  location: MESH_EXTERNAL\n  resolution: STATIC\n  \
             ports: [{{number: 443, name: tls, protocol: TLS}}]\n  endpoints: [{{address: 192.0.2.1}}]\n---\n"
        );
    }
    text.truncate(text.trim_end_matches("---\n").len());
    text
}

fn destination_rule(service: usize, balancer: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
         metadata: {{name: s{service}, namespace: n{}}}\n\
         spec:\n  host: s{service}\n  trafficPolicy: {{loadBalancer: {{simple: {balancer}}}}}\n  \
         subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]\n---\n",
        namespace(service)
    )
}

fn virtual_service(service: usize, weight: usize) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
         metadata: {{name: s{service}, namespace: n{}}}\n\
         spec:\n  hosts: [s{service}]\n  http:\n  \
         - match: [{{uri: {{prefix: /api/v1}}, headers: {{end-user: {{exact: jason}}}}}}]\n    \
         route: [{{destination: {{host: s{service}, subset: v2, port: {{number: 8080}}}}}}]\n    \
         retries: {{attempts: 3, perTryTimeout: 2s}}\n  \
         - route:\n    \
         - {{destination: {{host: s{service}, subset: v1, port: {{number: 8080}}}}, weight: {weight}}}\n    \
         - {{destination: {{host: s{service}, subset: v2, port: {{number: 8080}}}}, weight: {}}}\n---\n",
        namespace(service),
        100 - weight
    )
}

fn authorization_policy(service: usize, method: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: s{service}, namespace: n{namespace}}}\n\
         spec:\n  selector: {{matchLabels: {{app: s{service}}}}}\n  rules:\n  \
         - from: [{{source: {{namespaces: [n{namespace}, n1]}}}}]\n    \
         to: [{{operation: {{methods: [{method}], paths: [/api/*]}}}}]\n---\n",
        namespace = namespace(service)
    )
}

/// One change of each kind; every turn changes another service.
fn edits_of(turn: usize) -> [(&'static str, String); 3] {
    let service = 7 + turn * 3;
    [
        ("VirtualService", virtual_service(service, 50)),
        ("DestinationRule", destination_rule(service, "LEAST_REQUEST")),
        ("AuthorizationPolicy", authorization_policy(service, "POST")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_documents_as_asked() {
        for wanted in [SMALL, LARGE] {
            let found = declared(wanted).matches("\nkind: ").count();
            assert!((wanted..wanted + PER_SERVICE).contains(&found), "{found} of {wanted}");
        }
    }
}
