//! Certificates that come from Secrets (`credentialName`), and Envoy as the server that asks for them.

use std::path::Path;

use super::origination::{ask, certificates, entry, nginx, program, shown};
use super::streams::envoy_program;
use super::{Claim, Context, shared};
use crate::harness::client::Ask;
use crate::harness::lab::host_address;
use crate::harness::process::Spec;

pub(super) fn claims() -> Vec<Claim> {
    vec![shared("origination/credential", credential), shared("origination/envoy", envoy)]
}

/// A Secret of the namespace of the rule, with files of a folder.
fn secret(name: &str, folder: &Path, entries: &[(&str, &str)]) -> anyhow::Result<String> {
    let mut text = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: default}}\ntype: Opaque\nstringData:\n"
    );
    for (key, file) in entries {
        let pem = std::fs::read_to_string(folder.join(file))?;
        text.push_str(&format!("  {key}: |\n"));
        pem.lines().for_each(|line| text.push_str(&format!("    {line}\n")));
    }
    Ok(text)
}

fn credential(context: &mut Context<'_>) -> anyhow::Result<()> {
    let Some(program) = program(context) else { return Ok(()) };
    let lab = context.lab()?;
    let folder = lab.scratch.join("credential");
    let server = nginx(lab, &program, &folder)?;
    let of = |mode: &str, selector: &str| {
        entry(&format!("{{tls: {{mode: {mode}, credentialName: shop}}}}"))
            .replace("host: secure.example,", &format!("host: secure.example,{selector}"))
    };
    let selector = " workloadSelector: {matchLabels: {app: productpage}},";
    let pair = |name: &str| [("tls.crt", format!("{name}.crt")), ("tls.key", format!("{name}.key"))];
    let give = |name: &str| -> anyhow::Result<String> {
        let pair = pair(name);
        secret("shop", &folder, &[(pair[0].0, &pair[0].1), (pair[1].0, &pair[1].1), ("ca.crt", "ours.pem")])
    };
    let mut found: Vec<(&str, bool, String)> = Vec::new();
    let mut check = |claim, text: &str, port: u16, expected: &str| -> anyhow::Result<()> {
        lab.control.apply_text(text)?;
        let said = shown(&ask(lab, port)?);
        found.push((claim, said.starts_with(expected), said));
        Ok(())
    };
    let failed = "503 upstream connect error";
    check("without the Secret nothing is sent", &of("MUTUAL", selector), 81, failed)?;
    check("its certificate is shown", &give("client")?, 81, "200 SUCCESS CN=client")?;
    check("applied anew it is another one", &give("other")?, 81, "200 SUCCESS CN=other")?;
    let apart = secret("shop-cacert", &folder, &[("cacert", "others.pem")])?;
    check("a Secret of its own holds the authority", &apart, 81, failed)?;
    let apart = secret("shop-cacert", &folder, &[("cacert", "ours.pem")])?;
    check("and is the one that counts", &apart, 81, "200 SUCCESS CN=other")?;
    let given = |node: &str| -> anyhow::Result<String> {
        let part = lab.control.must(["proxy", "config", node, "secrets", "-o", "json"])?.json()?;
        Ok(part["credentials"].to_string())
    };
    let both = given(lab.proxies[0].node())?;
    check("SIMPLE takes the authority only", &of("SIMPLE", selector), 80, "200 secure.example")?;
    let half = given(lab.proxies[0].node())?;
    let others = given(lab.proxies[1].node())?;
    check("without a selector it is for gateways, and hosts go in the clear", &of("SIMPLE", ""), 80, "400")?;
    check("with it, it is back", &of("MUTUAL", selector), 81, "200 SUCCESS CN=other")?;
    lab.control.must(["delete", "secret", "shop", "-n", "default", "--wait=20s"])?;
    let said = shown(&ask(lab, 81)?);
    found.push(("a Secret that is deleted is not used again", said.starts_with(failed), said));
    let key = std::fs::read_to_string(folder.join("other.key"))?;
    let line = key.lines().nth(1).unwrap_or("-").to_owned();
    let dump = lab.proxies[0].local(15000, "/config")?.text();
    let logs: Vec<String> = std::fs::read_dir(lab.logs())?
        .flatten()
        .filter_map(|file| std::fs::read_to_string(file.path()).ok())
        .chain([dump])
        .collect();
    let leaks = logs.iter().filter(|text| text.contains(&line)).count();
    drop(server);
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    let holds = both == r#"["default/shop","default/shop-cacert"]"# && half == r#"["default/shop-cacert"]"#;
    context.report.claim("a host is given what its workloads need", holds, format!("{both}, then {half}"));
    context.report.claim("others are given nothing", others == "[]", others);
    context.report.claim(
        "no log and no dump shows a key",
        leaks == 0,
        format!("in {leaks} of {}", logs.len()),
    );
    Ok(())
}

/// Envoy at 8450 of h2, which takes HTTP/1.1 and HTTP/2 from clients that show a certificate.
fn envoy(context: &mut Context<'_>) -> anyhow::Result<()> {
    let Some(program) = envoy_program() else {
        context.report.skip("Envoy", "Envoy is not installed");
        return Ok(());
    };
    let lab = context.lab()?;
    let folder = lab.scratch.join("envoy-tls");
    certificates(&folder)?;
    let (at, place) = (host_address(1), folder.display());
    let config = folder.join("envoy.yaml");
    std::fs::write(
        &config,
        format!(
            "static_resources:\n  listeners:\n  - name: tls\n    address: {{socket_address: {{address: {at}, port_value: 8450}}}}\n    filter_chains:\n\
             \x20   - transport_socket:\n        name: tls\n        typed_config:\n\
             \x20         '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext\n\
             \x20         require_client_certificate: true\n          common_tls_context:\n            alpn_protocols: [h2, http/1.1]\n\
             \x20           tls_certificates: [{{certificate_chain: {{filename: {place}/server.crt}}, private_key: {{filename: {place}/server.key}}}}]\n\
             \x20           validation_context: {{trusted_ca: {{filename: {place}/ours.pem}}}}\n\
             \x20     filters:\n      - name: http\n        typed_config:\n\
             \x20         '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n\
             \x20         stat_prefix: tls\n\
             \x20         route_config: {{virtual_hosts: [{{name: all, domains: ['*'], routes: [{{match: {{prefix: /}}, direct_response: {{status: 200}}, response_headers_to_add: [{{header: {{key: x-said, value: '%PROTOCOL% %DOWNSTREAM_PEER_SUBJECT%'}}}}]}}]}}]}}\n\
             \x20         http_filters: [{{name: router, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]\n"
        ),
    )?;
    let server = Spec::new("envoy-tls", &program)
        .args(["-c", &config.display().to_string(), "--use-dynamic-base-id", "--concurrency", "1"])
        .start(&lab.proxies[1].host, &lab.logs())?;
    let file = |name: &str| folder.join(name).display().to_string();
    let shown = format!("clientCertificate: {}, privateKey: {}", file("client.crt"), file("client.key"));
    let mut found = Vec::new();
    for (mode, pool, expected) in [
        (format!("MUTUAL, {shown}"), "DO_NOT_UPGRADE", "200 HTTP/1.1 CN=client"),
        (format!("MUTUAL, {shown}"), "UPGRADE", "200 HTTP/2 CN=client"),
        ("SIMPLE".to_owned(), "DO_NOT_UPGRADE", "503 "),
        ("SIMPLE".to_owned(), "UPGRADE", "503 "),
    ] {
        let policy = format!(
            "{{tls: {{mode: {mode}, caCertificates: {}}}, connectionPool: {{http: {{h2UpgradePolicy: {pool}}}}}}}",
            file("ours.pem")
        );
        lab.control.apply_text(&entry(&policy).replace("targetPort: 8444", "targetPort: 8450"))?;
        let ask = Ask::get("http://secure.example:81/");
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let said = loop {
            let answer = lab.as_productpage(&ask)?;
            let said = format!("{} {}", answer.status, answer.header("x-said"));
            // It may not listen yet.
            if said == expected || std::time::Instant::now() > end {
                break said;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        };
        let word = mode.split(',').next().unwrap_or_default();
        found.push((format!("Envoy, {word}, {pool}"), said == expected, said));
    }
    drop(server);
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}
