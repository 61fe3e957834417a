//! Transparent capture: applications know nothing of the mesh, and what they open is led through it by the kernel.

use super::captured::{capturing, curl, is_possible, metric, restart, until};
use super::{Claim, Context, alone};
use crate::harness::lab::Lab;
use crate::harness::netns::Namespace;

pub(super) fn claims() -> Vec<Claim> {
    vec![
        alone("capture/transparent", transparent),
        alone("capture/transparent-modes", modes),
        alone("capture/transparent-six", six),
        alone("capture/transparent-exclusions", exclusions),
    ]
}

/// Counts what comes to a port of a host over its cable.
fn watch(host: &Namespace, port: u16) -> anyhow::Result<()> {
    let rules = format!(
        "table inet watch {{ chain in {{ type filter hook prerouting priority -400; iif eth0 tcp dport {port} counter; }}; }}"
    );
    host.must(&["nft", &rules]).map(drop)
}

fn watched(host: &Namespace) -> anyhow::Result<String> {
    let said = host.must(&["nft", "list", "table", "inet", "watch"])?;
    let line = said.lines().find(|line| line.contains("counter packets")).unwrap_or_default();
    Ok(line.trim().to_owned())
}

const OK: &str = "200 0";

fn transparent(context: &mut Context<'_>) -> anyhow::Result<()> {
    if !is_possible(context, "transparent capture") {
        return Ok(());
    }
    let lab = capturing(context)?;
    let (h1, h2) = (lab.h1().clone(), lab.proxies[1].host.clone());
    let user = lab.user("productpage-v1");
    h1.must(&["ip", "route", "add", "default", "via", "10.77.0.254"])?;
    lab.control.apply_text(
        "apiVersion: v1\nkind: Service\nmetadata: {name: fixed, namespace: default}\n\
         spec: {clusterIP: 10.96.0.10, selector: {app: reviews, version: v2}, ports: [{name: http, port: 80, targetPort: 9080}]}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {name: bytes, namespace: default}\n\
         spec: {clusterIP: 10.96.0.11, selector: {app: reviews, version: v2}, ports: [{name: tcp, port: 81, targetPort: 9080}]}\n",
    )?;
    watch(&h2, 9080)?;
    let mutual = ["reporter=\"destination\"", "mutual_tls"];
    let before = metric(lab, 1, "istio_requests_total", &mutual)?;
    let mut found = Vec::new();
    for (claim, url) in [
        ("a plain name is enough", "http://reviews:9080/reviews/0"),
        ("so is the address of a service", "http://10.96.0.10/reviews/0"),
        ("so is the address of a service that carries bytes", "http://10.96.0.11:81/reviews/0"),
        ("so is the address of a workload", "http://10.77.0.12:9080/reviews/0"),
        ("a workload of the same host is reached too", "http://10.77.0.11:9081/details/0"),
    ] {
        let got = until(OK, || curl(&h1, user, url))?;
        found.push((claim, got == OK, format!("{url}: {got}")));
    }
    let to = "http://10.77.0.12:9080/reviews/0";
    let asked =
        ["explain", "--captured", "--from", "default/bookinfo-productpage@h1", "--to", to, "-o", "json"];
    let told = lab.control.must(asked)?.json()?;
    let endpoint = &told["destinations"][0]["endpoints"];
    found.push((
        "explain says what the address of a workload means",
        told["action"] == "route" && endpoint.as_array().is_some_and(|all| all.len() == 1),
        format!("{} {endpoint}", told["action"]),
    ));
    let after = metric(lab, 1, "istio_requests_total", &mutual)?;
    let bytes = metric(lab, 1, "istio_tcp_connections_opened_total", &mutual)?;
    found.push((
        "all of it was mutual TLS where it arrived",
        after > before && bytes > 0.0,
        format!("{} requests, {bytes} streams", after - before),
    ));
    let seen = watched(&h2)?;
    found.push(("nothing of it was on the wire in the clear", seen.contains("counter packets 0 "), seen));
    // Nobody of the mesh: it goes where it was sent.
    let url = format!("http://{}:15014/healthz", lab.control.host.address());
    let got = curl(&h1, user, &url)?;
    found.push(("what is not the mesh's goes where it was sent", got != "000 7", format!("{url}: {got}")));
    lab.control.apply_text(
        "apiVersion: v1\nkind: MeshConfig\nmetadata: {name: mesh, namespace: istio-system}\nspec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}\n",
    )?;
    let blocked = until("000 52", || curl(&h1, user, "http://10.77.0.1:15099/"))?;
    found.push((
        "and is closed where only the registry counts",
        blocked.starts_with("000 5"),
        format!("curl ends with {blocked}"),
    ));
    let got = curl(&h1, user, "http://10.77.0.12:9080/reviews/0")?;
    found.push(("which a workload's address belongs to", got == OK, got));
    let own = ["http://127.0.0.1:15001/", "http://10.77.0.11:15001/"].map(|url| curl(&h1, user, url));
    let counted = metric(lab, 0, "mesh_proxy_loops_refused_total", &[])?;
    let shown = own.into_iter().collect::<anyhow::Result<Vec<_>>>()?.join(", ");
    found.push((
        "who calls the proxy's own sockets is refused, and it is counted",
        counted >= 1.0 && !shown.contains("200"),
        format!("{shown}; {counted} loops"),
    ));
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}

fn mode(mode: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: default, namespace: istio-system}}\nspec: {{mtls: {{mode: {mode}}}}}\n"
    )
}

/// Who is not of the mesh, before each mode.
fn modes(context: &mut Context<'_>) -> anyhow::Result<()> {
    if !is_possible(context, "modes") {
        return Ok(());
    }
    let lab = capturing(context)?;
    let outside = lab.control.host.clone();
    let url = "http://10.77.0.12:9080/health";
    let mut found = Vec::new();
    let strict = curl(&outside, None, url)?;
    let counted = metric(lab, 1, "mesh_proxy_entrances_refused_total", &["plaintext"])?;
    found.push((
        "STRICT: plaintext from outside the mesh is closed, and counted",
        strict.starts_with("000") && counted >= 1.0,
        format!("curl ends with {strict}, {counted} refused"),
    ));
    let shown =
        lab.proxies[0].data().join("identities/default_bookinfo-productpage.pem").display().to_string();
    let secured = |extra: &[&str]| -> anyhow::Result<String> {
        let mut words =
            vec!["curl", "-s", "-k", "-o", "/dev/null", "-m", "4", "-w", "%{http_code} %{exitcode}"];
        words.extend(extra);
        words.push("https://10.77.0.12:9080/health");
        Ok(outside.command(None, &words)?.1.trim().to_owned())
    };
    let (with, without) = (secured(&["--cert", &shown, "--key", &shown])?, secured(&[])?);
    let labels = ["reporter=\"destination\"", "mutual_tls", "sa/bookinfo-productpage"];
    let mutual = metric(lab, 1, "istio_requests_total", &labels)?;
    found.push((
        "STRICT: who shows a certificate of the mesh to the port itself is let in, and no other TLS",
        with == OK && without.starts_with("000") && mutual >= 1.0,
        format!("with {with}, without {without}, {mutual} requests of that identity"),
    ));
    lab.control.apply_text(&mode("PERMISSIVE"))?;
    let permissive = until(OK, || curl(&outside, None, url))?;
    let clear = metric(lab, 1, "istio_requests_total", &["reporter=\"destination\"", "policy=\"none\""])?;
    found.push((
        "PERMISSIVE: it is let in, and recorded as such",
        permissive == OK && clear >= 1.0,
        format!("{permissive}, {clear} requests in the clear"),
    ));
    lab.control.apply_text(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: only-mesh, namespace: default}\n\
         spec:\n  selector: {matchLabels: {app: reviews}}\n  rules: [{from: [{source: {principals: ['*']}}]}]\n",
    )?;
    let denied = until("403 0", || curl(&outside, None, url))?;
    let inside = curl(lab.h1(), lab.user("productpage-v1"), "http://10.77.0.12:9080/reviews/0")?;
    found.push((
        "policies judge it: nobody has no principal",
        denied == "403 0" && inside == OK,
        format!("outside {denied}, inside {inside}"),
    ));
    lab.control.must(["delete", "authorizationpolicy", "only-mesh"])?;
    let tls = secured(&[])?;
    found.push((
        "TLS to a plaintext port is closed",
        tls.starts_with("000"),
        format!("curl ends with {tls}"),
    ));
    // Half a greeting of TLS, and silence.
    let half = "import socket,sys\ns=socket.create_connection(('10.77.0.12',9080),5)\ns.sendall(bytes([22,3,1,2,0,1]))\ns.settimeout(12)\nsys.exit(0 if s.recv(1)==b'' else 1)";
    let (closed, said) = outside.command(None, &["python3", "-c", half])?;
    found.push((
        "half a greeting is not waited for for ever",
        closed,
        said.lines().last().unwrap_or("").to_owned(),
    ));
    lab.control.apply_text(&mode("STRICT"))?;
    let again = until("000 52", || curl(&outside, None, url))?;
    found.push((
        "STRICT again: it is closed again",
        again.starts_with("000"),
        format!("curl ends with {again}"),
    ));
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}

/// The same over IPv6.
fn six(context: &mut Context<'_>) -> anyhow::Result<()> {
    if !is_possible(context, "IPv6") {
        return Ok(());
    }
    let lab = context.lab()?;
    let host = lab.add_host("h4", std::net::Ipv4Addr::new(10, 77, 0, 14))?;
    let (h1, outside) = (lab.h1().clone(), lab.control.host.clone());
    for (host, address) in [(&host, "fd77::14/64"), (&h1, "fd77::11/64"), (&outside, "fd77::1/64")] {
        host.must(&["ip", "-6", "addr", "add", address, "dev", "eth0", "nodad"])?;
    }
    h1.must(&["ip", "-6", "route", "add", "default", "via", "fd77::1"])?;
    let file = lab.scratch.join("h4-workloads.yaml");
    std::fs::write(
        &file,
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: six-v1, namespace: default}\n\
         spec: {address: 'fd77::14', ports: {http: 9080}, serviceAccount: bookinfo-ratings, labels: {app: six, version: v1}}\n",
    )?;
    lab.control.apply_text(
        "apiVersion: v1\nkind: Service\nmetadata: {name: six, namespace: default}\n\
         spec: {clusterIP: 'fd96::10', selector: {app: six}, ports: [{name: http, port: 9080}]}\n",
    )?;
    let app = crate::harness::process::Spec::new("six-v1", &lab.scratch.join("bookshop"))
        .args(["--role", "ratings", "--version", "v1", "--instance", "six-v1", "--listen", "[fd77::14]:9080"])
        .start(&host, &lab.logs())?;
    let mut proxy = lab.proxy_on(&host);
    proxy.capturing("transparent").reached_at("fd77::14".parse()?);
    proxy.with(["--workload", &file.display().to_string(), "--inbound-addr", "[::]:15008"]);
    proxy.invite(&lab.control, &["default/bookinfo-ratings"])?;
    proxy.launch()?;
    proxy.wait_ready()?;
    lab.proxies.push(proxy);
    restart(lab, 0, "transparent", &[])?;
    let user = lab.user("productpage-v1");
    let mut found = Vec::new();
    for (claim, url) in [
        ("the address of a workload over IPv6", "http://[fd77::14]:9080/ratings/0"),
        ("the address of a service over IPv6", "http://[fd96::10]:9080/ratings/0"),
    ] {
        let got = until(OK, || curl(&h1, user, url))?;
        found.push((claim, got == OK, format!("{url}: {got}")));
    }
    let mutual = metric(lab, 3, "istio_requests_total", &["reporter=\"destination\"", "mutual_tls"])?;
    found.push(("as mutual TLS", mutual >= 2.0, format!("{mutual} requests")));
    let refused = curl(&outside, None, "http://[fd77::14]:9080/health")?;
    found.push((
        "STRICT closes plaintext over IPv6",
        refused.starts_with("000"),
        format!("curl ends with {refused}"),
    ));
    lab.control.apply_text(&mode("PERMISSIVE"))?;
    let allowed = until(OK, || curl(&outside, None, "http://[fd77::14]:9080/health"))?;
    found.push(("PERMISSIVE lets it in", allowed == OK, allowed));
    drop(app);
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}

/// What is excluded goes in the clear, which STRICT servers show by refusing it.
fn exclusions(context: &mut Context<'_>) -> anyhow::Result<()> {
    if !is_possible(context, "exclusions") {
        return Ok(());
    }
    let lab = capturing(context)?;
    let h1 = lab.h1().clone();
    let user = lab.user("productpage-v1");
    let reviews = "http://10.77.0.12:9080/health";
    let ratings = "http://10.77.0.13:9081/health";
    let mut found = Vec::new();
    let mut try_with = |lab: &mut Lab, flags: &[&str], who: Option<u32>, url: &str, claim: &'static str| {
        restart(lab, 0, "transparent", flags)?;
        let (out, other) = match who {
            Some(_) => (curl(&h1, who, url)?, until(OK, || curl(&h1, user, url))?),
            None => (curl(&h1, user, url)?, until(OK, || curl(&h1, user, reviews))?),
        };
        found.push((claim, out.starts_with("000") && other == OK, format!("excluded {out}, others {other}")));
        anyhow::Ok(())
    };
    try_with(lab, &["--exclude-uids", "7000-7100"], Some(7001), reviews, "a range of users")?;
    try_with(lab, &["--exclude-outbound-ports", "25,9081-9090"], None, ratings, "a range of ports")?;
    try_with(lab, &["--exclude-outbound-cidrs", "10.77.0.13"], None, ratings, "an address")?;
    restart(lab, 0, "transparent", &[])?;
    restart(lab, 1, "transparent", &["--exclude-inbound-ports", "22,9080"])?;
    let outside = lab.control.host.clone();
    let let_in = curl(&outside, None, reviews)?;
    found.push(("a port on the way in", let_in == OK, format!("from outside {let_in}, though STRICT")));
    restart(lab, 1, "transparent", &["--exclude-inbound-cidrs", "10.77.0.1/32"])?;
    let let_in = curl(&outside, None, reviews)?;
    found.push(("a network on the way in", let_in == OK, format!("from outside {let_in}, though STRICT")));
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}
