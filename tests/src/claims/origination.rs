//! What connections to servers outside the mesh begin with: TLS of every mode, PROXY headers, HTTP/2. The server is nginx.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::protocols::find;
use super::{Claim, Context, shared};
use crate::harness::client::{Answer, Ask};
use crate::harness::lab::{Lab, host_address};
use crate::harness::process::{Process, Spec};

pub(super) fn claims() -> Vec<Claim> {
    vec![shared("origination/tls", tls), shared("origination/plain", plain)]
}

/// Authority, server and client, as files in a folder.
pub(super) fn certificates(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text);
    for authority in ["ours", "others"] {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, authority);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        write(&format!("{authority}.pem"), issuer.pem())?;
        if authority == "others" {
            continue;
        }
        for (name, host) in
            [("server", "secure.example"), ("client", "shop.example"), ("other", "other.example")]
        {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::new(vec![host.to_owned()])?;
            params.distinguished_name.push(DnType::CommonName, name);
            write(&format!("{name}.crt"), params.signed_by(&key, &issuer)?.pem())?;
            write(&format!("{name}.key"), key.serialize_pem())?;
        }
    }
    Ok(())
}

/// nginx on h2: TLS at 8443, with certificates of clients at 8444, PROXY headers at 8445, HTTP/2 only at 8446, PROXY
/// headers before TLS at 8447.
pub(super) fn nginx(lab: &Lab, program: &Path, folder: &Path) -> anyhow::Result<Process> {
    certificates(folder)?;
    let (at, folder) = (host_address(1), folder.display());
    let tls = format!("ssl_certificate {folder}/server.crt; ssl_certificate_key {folder}/server.key;");
    let config = format!(
        "daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr;\nevents {{}}\nhttp {{\n\
         access_log off; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c; \
         uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;\n\
         server {{ listen {at}:8443 ssl http2; {tls} location / {{ return 200 '$ssl_server_name $server_protocol'; }} }}\n\
         server {{ listen {at}:8444 ssl; {tls} ssl_client_certificate {folder}/ours.pem; ssl_verify_client on; \
         location / {{ return 200 '$ssl_client_verify $ssl_client_s_dn'; }} }}\n\
         server {{ listen {at}:8445 proxy_protocol; location / {{ return 200 '$proxy_protocol_addr'; }} }}\n\
         server {{ listen {at}:8446 http2; location / {{ return 200 '$server_protocol'; }} }}\n\
         server {{ listen {at}:8447 ssl http2 proxy_protocol; {tls} location / {{ return 200 '$proxy_protocol_addr $server_protocol'; }} }}\n}}\n"
    );
    let file = folder.to_string() + "/nginx.conf";
    std::fs::write(&file, config)?;
    let process = Spec::new("nginx", program)
        .args(["-c", &file, "-e", "stderr"])
        .start(&lab.proxies[1].host, &lab.logs())?;
    std::thread::sleep(Duration::from_millis(500));
    Ok(process)
}

/// The server as an entry, and a rule for it.
pub(super) fn entry(policy: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: secure, namespace: default}}\n\
         spec:\n  hosts: [secure.example]\n  location: MESH_EXTERNAL\n  resolution: STATIC\n  ports:\n\
         \x20 - {{number: 80, name: http, protocol: HTTP, targetPort: 8443}}\n  - {{number: 81, name: http-mutual, protocol: HTTP, targetPort: 8444}}\n\
         \x20 - {{number: 82, name: http-proxy, protocol: HTTP, targetPort: 8445}}\n  - {{number: 83, name: http-two, protocol: HTTP, targetPort: 8446}}\n\
         \x20 - {{number: 84, name: http-both, protocol: HTTP, targetPort: 8447}}\n  - {{number: 85, name: tcp, protocol: TCP, targetPort: 8443}}\n\
         \x20 endpoints: [{{address: {}}}]\n---\n\
         apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: secure, namespace: default}}\n\
         spec: {{host: secure.example, trafficPolicy: {policy}}}\n",
        host_address(1)
    )
}

pub(super) fn ask(lab: &Lab, port: u16) -> anyhow::Result<Answer> {
    lab.as_productpage(&Ask::get(format!("http://secure.example:{port}/")))
}

pub(super) fn shown(answer: &Answer) -> String {
    format!("{} {}", answer.status, answer.text().lines().next().unwrap_or_default())
}

pub(super) fn program(context: &mut Context<'_>) -> Option<PathBuf> {
    let found = find(&["nginx"]).or_else(|| Some(PathBuf::from("/usr/sbin/nginx")).filter(|p| p.is_file()));
    if found.is_none() {
        context.report.skip("nginx", "nginx is not installed");
    }
    found
}

fn tls(context: &mut Context<'_>) -> anyhow::Result<()> {
    let Some(program) = program(context) else { return Ok(()) };
    let lab = context.lab()?;
    let folder = lab.scratch.join("tls");
    let server = nginx(lab, &program, &folder)?;
    let file = |name: &str| folder.join(name).display().to_string();
    let (ours, others) = (file("ours.pem"), file("others.pem"));
    let simple = |more: &str| format!("{{tls: {{mode: SIMPLE, {more}}}}}");
    let mut found: Vec<(&str, bool, String)> = Vec::new();
    let mut check = |claim, policy: &str, port: u16, expected: &str| -> anyhow::Result<()> {
        lab.control.apply_text(&entry(policy))?;
        let said = shown(&ask(lab, port)?);
        found.push((claim, said.starts_with(expected), said));
        Ok(())
    };
    check("in the clear nothing comes", "{tls: {mode: DISABLE}}", 80, "400")?;
    let good = simple(&format!("caCertificates: {ours}"));
    check("SIMPLE asks for the host of the request", &good, 80, "200 secure.example HTTP/1.1")?;
    let failed = "503 upstream connect error";
    check("another authority is not trusted", &simple(&format!("caCertificates: {others}")), 80, failed)?;
    check("nor is this host's system", &simple("sni: secure.example"), 80, failed)?;
    let named =
        |name: &str| simple(&format!("caCertificates: {ours}, sni: x.example, subjectAltNames: [{name}]"));
    check("sni and subjectAltNames", &named("secure.example"), 80, "200 x.example")?;
    check("another name is refused", &named("other.example"), 80, failed)?;
    // A ServiceEntry names who may answer, where the rule does not.
    let entry_names = |name: &str| {
        entry(&simple(&format!("caCertificates: {ours}, sni: x.example"))).replacen(
            "resolution: STATIC",
            &format!("resolution: STATIC\n  subjectAltNames: [{name}]"),
            1,
        )
    };
    let mut of_entry = Vec::new();
    for (claim, name, expected) in [
        ("subjectAltNames of a ServiceEntry", "secure.example", "200 x.example"),
        ("another name there is refused", "other.example", failed),
    ] {
        lab.control.apply_text(&entry_names(name))?;
        let said = shown(&ask(lab, 80)?);
        of_entry.push((claim, said.starts_with(expected), said));
    }
    check("insecureSkipVerify", &simple("insecureSkipVerify: true"), 80, "200 secure.example")?;
    let mutual = format!(
        "{{tls: {{mode: MUTUAL, caCertificates: {ours}, clientCertificate: {}, privateKey: {}}}}}",
        file("client.crt"),
        file("client.key")
    );
    check("MUTUAL shows a certificate", &mutual, 81, "200 SUCCESS CN=client")?;
    check("without one the server refuses", &good, 81, "400")?;
    let by_port = format!(
        "{{portLevelSettings: [{{port: {{number: 81}}, tls: {{mode: MUTUAL, caCertificates: {ours}, \
         clientCertificate: {}, privateKey: {}}}}}], tls: {{mode: SIMPLE, caCertificates: {ours}}}}}",
        file("client.crt"),
        file("client.key")
    );
    check("one port has settings of its own", &by_port, 81, "200 SUCCESS")?;
    check("and others those of all", &by_port, 80, "200 secure.example")?;
    let upgraded = format!(
        "{{tls: {{mode: SIMPLE, caCertificates: {ours}}}, connectionPool: {{http: {{h2UpgradePolicy: UPGRADE}}}}}}"
    );
    check("HTTP/2 inside TLS", &upgraded, 80, "200 secure.example HTTP/2.0")?;
    // Bytes have no host to ask for, so that the rule must name one.
    let named =
        simple(&format!("caCertificates: {ours}, sni: secure.example, subjectAltNames: [secure.example]"));
    check("byte streams begin TLS too", &named, 85, "200 secure.example HTTP/1.1")?;
    // A file that is not there yet.
    let later = file("later.pem");
    check(
        "a missing file is an error and nothing goes in the clear",
        &simple(&format!("caCertificates: {later}")),
        80,
        failed,
    )?;
    let is_told = |lab: &Lab, told: bool| {
        let end = Instant::now() + Duration::from_secs(8);
        while Instant::now() < end {
            let rows = lab.control.status().unwrap_or_default();
            if rows.iter().any(|row| row.to_string().contains("later.pem")) == told {
                return true;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        false
    };
    found.extend(of_entry);
    found.push(("meshd's status tells of it", is_told(lab, true), String::new()));
    std::fs::copy(&ours, &later).context("putting the file there")?;
    let end = Instant::now() + Duration::from_secs(10);
    let mut said = shown(&ask(lab, 80)?);
    while !said.starts_with("200") && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(200));
        said = shown(&ask(lab, 80)?);
    }
    let log = lab.proxies[0].access_log();
    let told = log.iter().filter_map(|line| line["response_code_details"].as_str());
    let details = told.rev().find(|details| details.contains("later.pem")).unwrap_or("nothing").to_owned();
    found.push(("and no more when it is there", is_told(lab, false), String::new()));
    found.push(("it is read when it comes", said.starts_with("200"), said));
    found.push(("the access log says which file", details.contains("cannot_read"), details));
    // Kubernetes puts a new certificate in place of the old one like this.
    let (chain, key) = (file("shown.crt"), file("shown.key"));
    let show = |name: &str| -> anyhow::Result<()> {
        for (from, to) in [("crt", &chain), ("key", &key)] {
            std::fs::copy(folder.join(format!("{name}.{from}")), format!("{to}.new"))?;
            std::fs::rename(format!("{to}.new"), to)?;
        }
        Ok(())
    };
    show("client")?;
    lab.control.apply_text(&entry(&format!(
        "{{tls: {{mode: MUTUAL, caCertificates: {ours}, clientCertificate: {chain}, privateKey: {key}}}}}"
    )))?;
    let before = shown(&ask(lab, 81)?);
    show("other")?;
    let end = Instant::now() + Duration::from_secs(10);
    let mut after = shown(&ask(lab, 81)?);
    while !after.ends_with("CN=other") && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(200));
        after = shown(&ask(lab, 81)?);
    }
    let holds = before.ends_with("CN=client") && after.ends_with("CN=other");
    found.push(("a certificate that is renewed on disk is shown from then on", holds, after));
    drop(server);
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}

fn plain(context: &mut Context<'_>) -> anyhow::Result<()> {
    let Some(program) = program(context) else { return Ok(()) };
    let lab = context.lab()?;
    let folder = lab.scratch.join("plain");
    let server = nginx(lab, &program, &folder)?;
    let ours = folder.join("ours.pem").display().to_string();
    let mut found: Vec<(String, bool, String)> = Vec::new();
    for version in ["V1", "V2"] {
        lab.control.apply_text(&entry(&format!("{{proxyProtocol: {{version: {version}}}}}")))?;
        let said = shown(&ask(lab, 82)?);
        let expected = format!("200 {}", host_address(0));
        found.push((format!("a PROXY header of version {version} names the caller"), said == expected, said));
        let tls = format!(
            "tls: {{mode: SIMPLE, caCertificates: {ours}}}, connectionPool: {{http: {{h2UpgradePolicy: UPGRADE}}}}"
        );
        lab.control.apply_text(&entry(&format!("{{proxyProtocol: {{version: {version}}}, {tls}}}")))?;
        let said = shown(&ask(lab, 84)?);
        let expected = format!("200 {} HTTP/2.0", host_address(0));
        found.push((format!("and stands before TLS, in version {version}"), said == expected, said));
    }
    for (policy, expected) in [("UPGRADE", "200 HTTP/2.0"), ("DO_NOT_UPGRADE", "")] {
        let pool = format!("{{connectionPool: {{http: {{h2UpgradePolicy: {policy}}}}}}}");
        lab.control.apply_text(&entry(&pool))?;
        let said = shown(&ask(lab, 83)?);
        let holds = if expected.is_empty() { !said.starts_with("200") } else { said == expected };
        found.push((format!("h2UpgradePolicy {policy}"), holds, said));
    }
    drop(server);
    for (claim, holds, figure) in found {
        context.report.claim(claim, holds, figure);
    }
    Ok(())
}
