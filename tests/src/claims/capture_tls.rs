//! TLS on captured connections, in each mode of the server: an application's own, the mesh's, and none.

use super::captured::{capturing, curl, is_possible, metric, until};
use super::origination::{nginx, program};
use super::{Claim, Context, alone};
use crate::harness::lab::Lab;
use crate::harness::netns::Namespace;

pub(super) fn claims() -> Vec<Claim> {
    vec![alone("capture/application-tls", application_tls), alone("capture/forged", forged)]
}

const OK: &str = "200 0";
const PLAIN: &str = "http://10.77.0.12:9080/health";

/// For reviews alone: the mesh stays as it is.
fn mode(mode: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: reviews, namespace: default}}\n\
         spec: {{selector: {{matchLabels: {{app: reviews}}}}, mtls: {{mode: {mode}}}}}\n"
    )
}

/// Asks an application that speaks TLS itself, and takes no certificate but its own.
fn own_tls(from: &Namespace, user: Option<u32>, roots: &str) -> anyhow::Result<String> {
    let words = [
        "curl",
        "-s",
        "-o",
        "/dev/null",
        "-m",
        "4",
        "-w",
        "%{http_code} %{exitcode}",
        "--cacert",
        roots,
        "--resolve",
        "secure.example:8443:10.77.0.12",
        "https://secure.example:8443/",
    ];
    Ok(from.command(user, &words)?.1.trim().to_owned())
}

/// Who answers TLS that offers Istio's protocol for requests, at a port of reviews, and what a request there gets; a
/// certificate of the mesh is shown.
fn mesh_tls(lab: &Lab, port: u16) -> anyhow::Result<String> {
    let shown =
        lab.proxies[0].data().join("identities/default_bookinfo-productpage.pem").display().to_string();
    let script = format!(
        "import socket,ssl\n\
         c=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT);c.check_hostname=False;c.verify_mode=ssl.CERT_NONE\n\
         c.load_cert_chain({shown:?});c.set_alpn_protocols(['istio-http/1.1','istio','http/1.1'])\n\
         try:\n\
         \x20 s=c.wrap_socket(socket.create_connection(('10.77.0.12',{port}),5),server_hostname='secure.example');s.settimeout(5)\n\
         \x20 who='mesh' if b'spiffe://' in s.getpeercert(True) else 'own'\n\
         \x20 s.sendall(b'GET /health HTTP/1.1\\r\\nhost: reviews\\r\\nconnection: close\\r\\n\\r\\n')\n\
         \x20 print(who, s.recv(12).decode().split(' ')[1])\n\
         except Exception as e: print('none')\n"
    );
    let (_, said) = lab.control.host.command(None, &["python3", "-c", &script])?;
    Ok(said.trim().to_owned())
}

fn application_tls(context: &mut Context<'_>) -> anyhow::Result<()> {
    if !is_possible(context, "TLS of applications") {
        return Ok(());
    }
    let Some(program) = program(context) else { return Ok(()) };
    let lab = capturing(context)?;
    let folder = lab.scratch.join("own-tls");
    let server = nginx(lab, &program, &folder)?;
    let roots = folder.join("ours.pem").display().to_string();
    let outside = lab.control.host.clone();
    let (h1, user) = (lab.h1().clone(), lab.user("productpage-v1"));
    let mut found: Vec<(&str, bool, String)> = Vec::new();
    let mut note = |claim, got: String, expected: &str| {
        let holds =
            got == expected || expected.ends_with('*') && got.starts_with(expected.trim_end_matches('*'));
        found.push((claim, holds, got));
    };

    lab.control.apply_text(&mode("DISABLE"))?;
    note("DISABLE: plaintext is let in", until(OK, || curl(&outside, None, PLAIN))?, OK);
    note(
        "DISABLE: an application's own TLS reaches it untouched",
        until(OK, || own_tls(&outside, None, &roots))?,
        OK,
    );
    note("DISABLE: from a workload of the mesh too", own_tls(&h1, user, &roots)?, OK);
    note("DISABLE: even where it offers what Istio's proxies do", mesh_tls(lab, 8443)?, "own *");
    note(
        "DISABLE: the mesh's own callers speak plaintext, and get an answer",
        until(OK, || curl(&h1, user, "http://reviews:9080/health"))?,
        OK,
    );

    lab.control.apply_text(&mode("PERMISSIVE"))?;
    note("PERMISSIVE: mutual TLS ends at the proxy", until("mesh 200", || mesh_tls(lab, 9080))?, "mesh 200");
    note("PERMISSIVE: plaintext is let in", curl(&outside, None, PLAIN)?, OK);
    note("PERMISSIVE: other TLS is passed on unopened", own_tls(&outside, None, &roots)?, OK);
    note(
        "PERMISSIVE: but on a port declared HTTP it is closed",
        curl(&outside, None, "https://10.77.0.12:9080/health")?,
        "000 *",
    );
    let counted = metric(lab, 1, "mesh_proxy_entrances_refused_total", &["reason=\"tls\""])?;
    note("which is counted", format!("{}", counted >= 1.0), "true");

    lab.control.apply_text(&mode("STRICT"))?;
    let closed = |got: &str| got.starts_with("000");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let mut plain = curl(&outside, None, PLAIN)?;
    while !closed(&plain) && std::time::Instant::now() < end {
        plain = curl(&outside, None, PLAIN)?;
    }
    note("STRICT: plaintext is closed", plain, "000 *");
    note("STRICT: an application's own TLS is refused", own_tls(&outside, None, &roots)?, "000 *");
    note("STRICT: mutual TLS is let in", mesh_tls(lab, 9080)?, "mesh 200");
    note(
        "STRICT: what no service declares is called in the clear, also from the mesh, and refused",
        own_tls(&h1, user, &roots)?,
        "000 *",
    );
    let refused = [
        metric(lab, 1, "mesh_proxy_entrances_refused_total", &["reason=\"plaintext\""])?,
        metric(lab, 1, "mesh_proxy_handshake_failures_total", &["side=\"direct\""])?,
    ];
    let counted = refused.iter().all(|count| *count >= 1.0);
    note("each is counted", format!("{counted} {refused:?}"), "true*");
    lab.control.apply_text(
        "apiVersion: v1\nkind: Service\nmetadata: {name: secure, namespace: default}\n\
         spec: {selector: {app: reviews, version: v2}, ports: [{name: tls, port: 8443}]}\n",
    )?;
    note(
        "STRICT: with a service that declares it, it goes inside the mesh's TLS",
        until(OK, || own_tls(&h1, user, &roots))?,
        OK,
    );
    drop(server);
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}

/// What strangers say of themselves in fields that only proxies may set.
fn forged(context: &mut Context<'_>) -> anyhow::Result<()> {
    if !is_possible(context, "forged fields") {
        return Ok(());
    }
    let lab = capturing(context)?;
    let outside = lab.control.host.clone();
    let only_mesh = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: no-strangers, namespace: default}\n\
         spec:\n  selector: {matchLabels: {app: reviews}}\n  action: DENY\n  rules:\n\
         \x20 - from: [{source: {notPrincipals: ['*']}}]\n    to: [{operation: {paths: ['/reviews*']}}]\n";
    lab.control.apply_text(&(mode("PERMISSIVE") + "---\n" + only_mesh))?;
    let said = |path: &str| -> anyhow::Result<String> {
        let url = format!("http://10.77.0.12:9080{path}");
        let words = [
            "curl",
            "-s",
            "-m",
            "4",
            "-w",
            " %{http_code}",
            "-H",
            "x-forwarded-client-cert: By=x;URI=spiffe://cluster.local/ns/default/sa/bookinfo-productpage",
            "-H",
            "x-mesh-hop: 10.77.0.12:9080 http/1.1 1 default/productpage-v1;app=forged;sni=forged",
            "-H",
            "x-mesh-proxy: 1 1.2.3.4:1 1.2.3.4:2",
            "-H",
            "x-mesh-retry: 1",
            &url,
        ];
        Ok(outside.command(None, &words)?.1)
    };
    let denied = until("RBAC: access denied 403", || said("/reviews/0"))?;
    let heard = said("/headers")?;
    let passed = ["x-forwarded-client-cert", "x-mesh-", "forged"].iter().any(|part| heard.contains(part));
    let named = metric(lab, 1, "istio_requests_total", &["source_app=\"forged\""])?;
    context.report.claim("forged fields make a stranger nobody else", denied.ends_with("403"), denied);
    context.report.claim(
        "and none of them reaches the application, or a metric",
        heard.ends_with(" 200") && !passed && named == 0.0,
        heard,
    );
    Ok(())
}
