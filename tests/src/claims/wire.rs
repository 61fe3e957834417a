//! What passes between hosts, and with whom the proxies speak at all.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::{Claim, Context, alone, shared};
use crate::harness::client::Ask;
use crate::harness::lab::{BOOKSHOP, Lab, host_address};
use crate::harness::peer::{
    FalseProxy, Shape, Signer, Validity, ask_over_mesh, greet, identity, server_name, throw,
};
use crate::harness::wire::{Capture, shows};

pub(super) fn claims() -> Vec<Claim> {
    vec![
        shared("wire/no-clear-text", no_clear_text),
        shared("wire/callers", callers),
        shared("wire/no-handshakes", no_handshakes),
        alone("wire/servers", servers),
    ]
}

fn no_clear_text(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let marker = "an-open-secret-7c1d";
    // First that the capture would see it: past the mesh, straight to the application.
    let ratings = BOOKSHOP[5];
    let capture = Capture::start()?;
    let past = format!("http://{}:{}/headers", host_address(ratings.host), ratings.port);
    Ask::get(past).header("cookie", marker).send(lab.h1(), None)?;
    let open = shows(&capture.stop()?, marker.as_bytes());
    let capture = Capture::start()?;
    let tally = lab.pages(lab.page().header("cookie", marker), 100);
    let seen = capture.stop()?;
    let mesh: usize = seen.iter().filter(|s| s.to.port() == 15008).map(|s| s.payload.len()).sum();
    let ports = [9080, 9081];
    let plain =
        seen.iter().filter(|s| ports.contains(&s.to.port()) || ports.contains(&s.from.port())).count();
    let clear = shows(&seen, marker.as_bytes()) + shows(&seen, b"HTTP/1.1") + shows(&seen, b"slapstick");
    context.report.claim(
        "the capture sees plain text where there is some",
        open > 0,
        format!("{open} segments"),
    );
    context.report.claim(
        "100 pages through the mesh show none of it between hosts",
        tally.failed() == 0 && mesh > 0 && clear == 0 && plain == 0,
        format!("{clear} segments with clear text, {plain} to applications, {mesh} bytes to 15008"),
    );
    Ok(())
}

/// Callers of the mesh port with certificates that are not right.
fn callers(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let (mesh, foreign) = (Signer::of_mesh(&lab.control.data())?, Signer::foreign()?);
    let caller = identity("bookinfo-productpage");
    let node = "spiffe://cluster.local/mesh/node/h1";
    let cases = [
        (
            "a certificate of the mesh is taken (so that the rest means something)",
            Some(mesh.sign(&caller, Validity::Now)?),
            None,
        ),
        ("another authority", Some(foreign.sign(&caller, Validity::Now)?), Some("unknown_authority")),
        ("expired", Some(mesh.sign(&caller, Validity::Over)?), Some("expired")),
        ("expired, once more", Some(mesh.sign(&caller, Validity::Over)?), Some("expired")),
        (
            "a node's identity instead of a workload's",
            Some(mesh.sign(node, Validity::Now)?),
            Some("not_workload"),
        ),
        (
            "another trust domain",
            Some(mesh.sign("spiffe://elsewhere/ns/default/sa/bookinfo-productpage", Validity::Now)?),
            Some("trust_domain"),
        ),
        ("not valid yet", Some(mesh.sign(&caller, Validity::Later)?), Some("not_valid_yet")),
        ("no URI", Some(mesh.sign_as(Shape::of(&[]))?), Some("not_one_uri")),
        ("two URIs", Some(mesh.sign_as(Shape::of(&[&caller, &caller]))?), Some("not_one_uri")),
        (
            "CA:TRUE",
            Some(mesh.sign_as(Shape { authority: true, ..Shape::of(&[&caller]) })?),
            Some("authority_as_peer"),
        ),
        (
            "a megabyte large",
            Some(mesh.sign_as(Shape { padding: 1 << 20, ..Shape::of(&[&caller]) })?),
            Some("too_large"),
        ),
        ("no certificate", None, Some("no_certificate")),
    ];
    let reasons: Vec<&str> = cases.iter().filter_map(|(_, _, reason)| *reason).collect();
    let ratings = BOOKSHOP[5];
    let to = SocketAddr::new(host_address(ratings.host).into(), 15008);
    let mut found = Vec::new();
    for (name, credentials, reason) in cases {
        let taken = reason.is_none();
        let headers = vec![(
            "x-mesh-hop",
            format!(
                "{}:{} http/1.1 1 default/productpage-v1;app=productpage;version=v1",
                host_address(ratings.host),
                ratings.port
            ),
        )];
        let got =
            ask_over_mesh(lab.h1(), to, server_name(&identity("bookinfo-ratings")), credentials, headers);
        let holds = if taken {
            got.as_ref().is_ok_and(|s| *s == 200)
        } else {
            got.as_ref().map_or(true, |s| *s >= 400)
        };
        let name = if taken { name.to_owned() } else { format!("a caller is refused: {name}") };
        found.push((name, holds, got.map_or_else(|e| format!("{e:#}"), |s| s.to_string())));
    }
    let address = host_address(ratings.host);
    let missing = not_counted(lab, address, &reasons)?;
    let proxy = lab.proxies.iter_mut().find(|proxy| proxy.host.address() == address);
    let proxy = proxy.context("no proxy before ratings")?;
    let told = proxy.running()?.stderr();
    let told = told.lines().filter(|l| l.contains("a TLS handshake failed") && l.contains("expired")).count();
    found.push((
        "each refusal is counted by its reason, and told of once".to_owned(),
        missing.is_empty() && told == 1,
        format!("not counted: {missing:?}; {told} lines for one reason"),
    ));
    for (name, holds, figure) in found {
        context.report.claim(name, holds, figure);
    }
    Ok(())
}

/// Those of the reasons by which the proxy of a host has counted no failed handshake of its mesh port.
fn not_counted<'r>(lab: &Lab, address: Ipv4Addr, reasons: &[&'r str]) -> anyhow::Result<Vec<&'r str>> {
    let proxy = lab.proxies.iter().find(|proxy| proxy.host.address() == address);
    let proxy = proxy.context("no proxy at that address")?;
    let metrics = proxy.local(15090, "/stats/prometheus")?.text();
    let counted = |reason: &str| {
        metrics.lines().any(|line| {
            line.starts_with("mesh_proxy_handshake_failures_total{")
                && line.contains("side=\"inbound\"")
                && line.contains(&format!("reason=\"{reason}\""))
        })
    };
    Ok(reasons.iter().copied().filter(|reason| !counted(reason)).collect())
}

/// What is no handshake of the mesh, or half of one.
fn no_handshakes(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let address = host_address(BOOKSHOP[5].host);
    let to = SocketAddr::new(address.into(), 15008);
    let (from, patience) = (lab.control.host.clone(), Duration::from_secs(15));
    // A hello of TLS 1.0, which knows no extensions, and the beginning of one that never goes on.
    let body = [&[3, 1][..], &[7; 32], &[0, 0, 2, 0, 0x2f, 1, 0]].concat();
    let hello = [&[22, 3, 1, 0, 45, 1, 0, 0, 41][..], &body].concat();
    let mut found = Vec::new();
    for (name, bytes) in [
        ("plaintext of HTTP/1", b"GET / HTTP/1.1\r\nhost: ratings\r\n\r\n".to_vec()),
        ("plaintext of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("TLS 1.0", hello),
        ("half a hello", vec![22, 3, 1, 2, 0, 1, 0, 1]),
    ] {
        let (heard, closed) = throw(&from, to, bytes, patience)?;
        let holds = closed && !heard.starts_with(b"HTTP");
        found.push((format!("closed: {name}"), holds, format!("closed {closed}, {} bytes", heard.len())));
    }
    let name = server_name(&identity("bookinfo-ratings"));
    let nonsense = greet(&from, to, name, &["nonsense", "http/0.7"])?;
    found.push(("closed: protocols that nobody speaks".to_owned(), !nonsense, format!("greeted {nonsense}")));
    let missing = not_counted(lab, address, &["no_tls", "tls_version", "timeout", "alpn"])?;
    found.push((
        "each of them is counted by its reason".to_owned(),
        missing.is_empty(),
        format!("not counted: {missing:?}"),
    ));
    let page = lab.page().send(lab.h1(), None)?.status;
    found.push(("and the mesh goes on".to_owned(), page == 200, page.to_string()));
    for (name, holds, figure) in found {
        context.report.claim(name, holds, figure);
    }
    Ok(())
}

/// A host that joins as an endpoint of ratings and whose mesh port is then taken by another program.
fn servers(context: &mut Context<'_>) -> anyhow::Result<()> {
    let lab = context.lab()?;
    let address = Ipv4Addr::new(10, 77, 0, 14);
    let host = lab.add_host("h4", address)?;
    let mut proxy = lab.proxy_on(&host);
    let workload = lab.scratch.join("h4-workloads.yaml");
    std::fs::write(&workload, ratings_v9(address))?;
    proxy.with(["--workload", &workload.display().to_string()]);
    let app = crate::harness::process::Spec::new("ratings-v9", &lab.scratch.join("bookshop"))
        .args(["--role", "ratings", "--version", "v9", "--listen", &format!("{address}:9080")])
        .start(&host, &lab.logs())?;
    proxy.invite(&lab.control, &["default/bookinfo-ratings"])?;
    proxy.launch()?;
    proxy.wait_ready()?;
    lab.control.apply_text(&only_v9())?;
    let ask = Ask::get("http://ratings:9080/ratings/0").patience(Duration::from_secs(8));
    let mut found = Vec::new();
    let first = until_200(lab, &ask)?;
    found.push(("the new host serves before its place is taken".to_owned(), first == 200, first.to_string()));
    proxy.running()?.kill()?;
    let (mesh, foreign) = (Signer::of_mesh(&lab.control.data())?, Signer::foreign()?);
    let own = identity("bookinfo-ratings");
    let cases = [
        ("another authority", foreign.sign(&own, Validity::Now)?, false),
        ("another identity of the mesh", mesh.sign(&identity("bookinfo-details"), Validity::Now)?, false),
        ("expired", mesh.sign(&own, Validity::Over)?, false),
        ("not valid yet", mesh.sign(&own, Validity::Later)?, false),
        (
            "another trust domain",
            mesh.sign(&own.replace("cluster.local", "elsewhere"), Validity::Now)?,
            false,
        ),
        ("no URI", mesh.sign_as(Shape::of(&[]))?, false),
        ("two URIs", mesh.sign_as(Shape::of(&[&own, &own]))?, false),
        ("CA:TRUE", mesh.sign_as(Shape { authority: true, ..Shape::of(&[&own]) })?, false),
        ("a megabyte large", mesh.sign_as(Shape { padding: 1 << 20, ..Shape::of(&[&own]) })?, false),
        ("all right (so that the rest means something)", mesh.sign(&own, Validity::Now)?, true),
    ];
    for (name, credentials, taken) in cases {
        let at = SocketAddr::V4(SocketAddrV4::new(address, 15008));
        let server = FalseProxy::start(&host, at, credentials, &mesh)?;
        let status = if taken { until_200(lab, &ask)? } else { lab.as_productpage(&ask)?.status };
        let (claim, holds) = if taken {
            (format!("a server is taken whose certificate is {name}"), server.requests() > 0 && status == 200)
        } else {
            (format!("a server is refused: {name}"), server.requests() == 0 && status == 503)
        };
        found.push((claim, holds, format!("status {status}, {} requests got through", server.requests())));
    }
    let metrics = lab.proxies[0].local(15090, "/stats/prometheus")?.text();
    let counted = |reason: &str| {
        metrics.lines().any(|line| {
            line.starts_with("mesh_proxy_handshake_failures_total{")
                && line.contains("side=\"outbound\"")
                && line.contains(&format!("reason=\"{reason}\""))
        })
    };
    let reasons = ["unknown_authority", "other_identity", "expired", "not_valid_yet", "not_one_uri"];
    let reasons = reasons.into_iter().chain(["authority_as_peer", "too_large", "trust_domain"]);
    let missing: Vec<&str> = reasons.filter(|reason| !counted(reason)).collect();
    found.push((
        "each refusal is counted by its reason".to_owned(),
        missing.is_empty(),
        format!("not counted: {missing:?}"),
    ));
    drop(app);
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}

fn until_200(lab: &Lab, ask: &Ask) -> anyhow::Result<u16> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let status = lab.as_productpage(ask).context("asking as productpage")?.status;
        if status == 200 || Instant::now() > end {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn ratings_v9(address: Ipv4Addr) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: ratings-v9, namespace: default}}\n\
         spec: {{address: {address}, serviceAccount: bookinfo-ratings, labels: {{app: ratings, version: v9}}}}\n"
    )
}

fn only_v9() -> String {
    "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: ratings, namespace: default}\n\
     spec: {host: ratings, subsets: [{name: v1, labels: {version: v1}}, {name: v9, labels: {version: v9}}]}\n---\n\
     apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: ratings, namespace: default}\n\
     spec: {hosts: [ratings], http: [{route: [{destination: {host: ratings, subset: v9}}]}]}\n"
        .to_owned()
}
