//! What callers see of the mesh: exportTo and what a Sidecar imports; and workloads that belong to a group.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::egress::{entry, shown};
use super::{Claim, Context, alone, shared};
use crate::harness::client::Ask;
use crate::harness::dns::{self, RESOLVER};
use crate::harness::lab::{Lab, host_address};
use crate::harness::process::Spec;

const EXPLICIT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15080);

pub(super) fn claims() -> Vec<Claim> {
    vec![
        shared("views/exports", exports),
        shared("views/imports", imports),
        shared("views/sockets", sockets),
        alone("views/group", group),
    ]
}

/// The response code to a question on h1.
fn code(lab: &Lab, name: &'static str) -> anyhow::Result<u8> {
    Ok(lab.h1().block_on(None, move || dns::query(RESOLVER, name, 1))?.code)
}

fn exports(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let service = |export: &str| {
        let spec = format!(
            "  hosts: [shown.example]\n  resolution: STATIC\n  ports: [{{number: 80, name: http, protocol: HTTP}}]\n  exportTo: [{export}]\n\
             \x20 endpoints: [{{address: {}, ports: {{http: 9081}}}}]\n",
            host_address(1)
        );
        entry("shown", &spec).replace("namespace: default", "namespace: elsewhere")
    };
    let mut found = Vec::new();
    for (export, wanted) in [("'*'", "200 v1"), (".", "503 "), ("default", "200 v1")] {
        lab.control.apply_text(&service(export))?;
        let got = shown(&lab.as_productpage(&Ask::get("http://shown.example/health").through(EXPLICIT))?);
        found.push((format!("a ServiceEntry of another namespace, exportTo {export}"), got == wanted, got));
    }
    lab.control.must(["delete", "serviceentry", "shown", "-n", "elsewhere"])?;
    let rules = |export: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: theirs, namespace: elsewhere}}\n\
             spec:\n  hosts: [ratings.default.svc.cluster.local]\n  exportTo: [{export}]\n  http: [{{directResponse: {{status: 418}}}}]\n"
        )
    };
    for (export, wanted) in [("'*'", 418), (".", 200), ("default", 418)] {
        lab.control.apply_text(&rules(export))?;
        let got = lab.as_productpage(&Ask::get("http://ratings:9080/ratings/1"))?.status;
        let claim = format!("a VirtualService of another namespace, exportTo {export}");
        found.push((claim, got == wanted, got.to_string()));
    }
    lab.control.must(["delete", "virtualservice", "theirs", "-n", "elsewhere"])?;
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}

fn imports(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    lab.control.apply_text(
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: few, namespace: default}\n\
         spec:\n  egress: [{hosts: [./ratings.default.svc.cluster.local]}]\n  outboundTrafficPolicy: {mode: REGISTRY_ONLY}\n",
    )?;
    let imported = lab.as_productpage(&Ask::get("http://ratings:9080/ratings/1"))?.status;
    let left = lab.as_productpage(&Ask::get("http://reviews:9080/reviews/1").through(EXPLICIT))?.status;
    let codes = (code(lab, "ratings.default")?, code(lab, "reviews.default.svc.cluster.local")?);
    lab.control.must(["delete", "sidecar", "few", "-n", "default"])?;
    lab.control.must(["wait", "--synced"])?;
    let back = lab.as_productpage(&Ask::get("http://reviews:9080/reviews/1"))?.status;
    context.report.claim("what a Sidecar imports answers", imported == 200, imported.to_string());
    context.report.claim("what it leaves out is unknown", left == 502, left.to_string());
    context.report.claim("its name has no address here", codes == (0, 3), format!("{codes:?}"));
    context.report.claim("without the Sidecar all is back", back == 200, back.to_string());
    Ok(())
}

/// Asks until the answer is the one wanted, or for long enough: sockets open a moment after a version is in force.
fn patiently(ask: impl Fn() -> String, wanted: &str) -> String {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let got = ask();
        if got == wanted || Instant::now() > end {
            return got;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn sockets(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let path = lab.scratch.join("out.sock");
    let shown_path = path.display();
    lab.control.apply_text(&format!(
        "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: sockets, namespace: default}}\nspec:\n\
         \x20 workloadSelector: {{labels: {{app: productpage}}}}\n  outboundTrafficPolicy: {{mode: REGISTRY_ONLY}}\n  egress:\n\
         \x20 - {{port: {{number: 9080, name: http, protocol: HTTP}}, captureMode: NONE, bind: 127.0.0.77, hosts: [./ratings.default.svc.cluster.local]}}\n\
         \x20 - {{port: {{number: 0, name: socket, protocol: HTTP}}, bind: 'unix://{shown_path}', hosts: [./details.default.svc.cluster.local]}}\n\
         \x20 - {{port: {{number: 3128, name: proxy, protocol: HTTP_PROXY}}, captureMode: NONE, hosts: [./ratings.default.svc.cluster.local]}}\n\
         \x20 - {{hosts: [./*]}}\n"
    ))?;
    let status = |ask: &Ask| match lab.as_productpage(ask) {
        Ok(answer) => answer.status.to_string(),
        Err(_) => "none".to_owned(),
    };
    let named = |host: &str| Ask::get("http://127.0.0.77:9080/health").header("host", host);
    let proxy = SocketAddr::from((Ipv4Addr::LOCALHOST, 3128));
    let at_proxy = |url: &str| Ask::get(url).through(proxy);
    let user = lab.user("productpage-v1");
    let socket = |host: &'static str| {
        let path = path.clone();
        let asked = lab.h1().run(user, move || -> std::io::Result<String> {
            use std::io::{Read as _, Write as _};
            let mut stream = std::os::unix::net::UnixStream::connect(path)?;
            write!(stream, "GET /health HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer.split_whitespace().nth(1).unwrap_or_default().to_owned())
        });
        match asked {
            Ok(Ok(status)) => status,
            _ => "none".to_owned(),
        }
    };
    let mut found = Vec::new();
    let cases: [(&str, &dyn Fn() -> String, &str); 6] = [
        ("a socket at an address serves what is imported there", &|| status(&named("ratings")), "200"),
        ("and nothing else", &|| status(&named("reviews")), "502"),
        ("so does one with a path", &|| socket("details:9080"), "200"),
        ("whose hosts are its own", &|| socket("ratings:9080"), "502"),
        ("and one that is an HTTP proxy", &|| status(&at_proxy("http://ratings:9080/health")), "200"),
        ("for its own hosts", &|| status(&at_proxy("http://reviews:9080/health")), "502"),
    ];
    for (claim, ask, wanted) in cases {
        let got = patiently(ask, wanted);
        found.push((claim, got == wanted, got));
    }
    lab.control.must(["delete", "sidecar", "sockets", "-n", "default"])?;
    let got = patiently(|| status(&named("ratings")), "none");
    found.push(("they go with the Sidecar", got == "none" && !path.exists(), got));
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}

fn group(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let address = Ipv4Addr::new(10, 77, 0, 14);
    let host = lab.add_host("h4", address)?;
    let file = lab.control.file(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadGroup\nmetadata: {name: ratings-more, namespace: default}\n\
         spec:\n  metadata: {labels: {app: ratings, version: v9}}\n  template: {ports: {http: 9080}, serviceAccount: bookinfo-ratings}\n\
         \x20 probe: {periodSeconds: 1, httpGet: {path: /health, port: 9080}}\n",
    )?;
    lab.control.apply(&file)?;
    let mut app = Spec::new("ratings-v9", &lab.scratch.join("bookshop"))
        .args(["--role", "ratings", "--version", "v9", "--instance", "ratings-v9"])
        .args(["--listen", &format!("{address}:9080")])
        .start(&host, &lab.logs())?;
    let mut proxy = lab.proxy_on(&host);
    proxy.with(["--workload", &file.display().to_string()]);
    proxy.invite(&lab.control, &["default/bookinfo-ratings"])?;
    proxy.launch()?;
    proxy.wait_ready()?;
    let health = |wanted: Option<&str>| -> anyhow::Result<(bool, String)> {
        // A registration lives for half a minute after its proxy was last heard of.
        let end = Instant::now() + Duration::from_secs(if wanted.is_some() { 10 } else { 45 });
        loop {
            let rows = lab.control.must(["workloads", "-A", "-o", "json"])?.json()?;
            let rows = rows.as_array().cloned().unwrap_or_default();
            let row = rows.iter().find(|row| row["name"] == "ratings-more-10.77.0.14");
            let health = row.map(|row| row["health"].as_str().unwrap_or_default().to_owned());
            if health.as_deref() == wanted || Instant::now() > end {
                return Ok((health.as_deref() == wanted, health.unwrap_or_else(|| "none".to_owned())));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let mut found = Vec::new();
    let (holds, figure) = health(Some("healthy"))?;
    found.push(("a proxy with a group has a workload of it, checked as its probe says", holds, figure));
    let shown_entry =
        lab.control.must(["get", "workloadentry", "ratings-more-10.77.0.14", "-o", "json"])?.json()?;
    let label = shown_entry["spec"]["labels"]["version"].as_str().unwrap_or_default().to_owned();
    found.push(("it is shown as the WorkloadEntry that it is", label == "v9", label));
    let mut reached = false;
    for _ in 0..100 {
        let answer = lab.as_productpage(&Ask::get("http://ratings:9080/health"))?;
        reached = reached || shown(&answer).ends_with("v9");
    }
    found.push(("callers reach it by the labels of the group", reached, String::new()));
    app.kill()?;
    let (holds, figure) = health(Some("unhealthy"))?;
    found.push(("one failed probe is enough, as the group says", holds, figure));
    proxy.running()?.terminate(Duration::from_secs(35))?;
    let (holds, figure) = health(None)?;
    found.push(("it goes with its proxy", holds, figure));
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}
