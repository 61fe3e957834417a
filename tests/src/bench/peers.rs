//! The peers: pairs of HAProxy and nginx with mutual TLS 1.3 between them, as one would set them up for this.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::setup::{Inner, LOCAL, Setup};
use crate::harness::process::Spec;

/// A program by name, also where only administrators look.
pub(crate) fn program(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    match folders.map(|f: PathBuf| f.join(name)).find(|p| p.is_file()) {
        Some(found) => Ok(found),
        None => bail!("{name} is not installed"),
    }
}

/// How an nginx is started that serves this from a folder of its own.
pub(super) fn nginx(setup: &Setup, label: &str, server: &str) -> anyhow::Result<Spec> {
    let folder = setup.folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {folder}/{label}-{kind}; "))
        .collect();
    let text = format!(
        "daemon off; worker_processes 1; pid {folder}/{label}.pid; error_log {folder}/{label}.log warn;\n\
         events {{ worker_connections 8000; }}\n\
         http {{ access_log off; tcp_nodelay on; server_tokens off; keepalive_requests 1000000000;\n\
         keepalive_timeout 600s; {temporary}\n{server} }}\n"
    );
    let file = setup.file(&format!("{label}.conf"), &text)?;
    let arguments = [
        "-e",
        &format!("{folder}/{label}.first.log"),
        "-p",
        &folder.to_string(),
        "-c",
        &file.display().to_string(),
    ]
    .map(str::to_owned);
    Ok(Spec::new(label, &program("nginx")?).args(arguments))
}

/// nginx twice, HTTP/1.1 over TLS between.
pub(super) fn nginx_pair(setup: &mut Setup, certificates: &Path) -> anyhow::Result<()> {
    let backend = setup.backend(LOCAL)?;
    let (inner, outer) = (setup.port(), setup.port());
    let place = certificates.display();
    let forward = |scheme: &str| {
        format!(
            "location / {{ proxy_pass {scheme}://up; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
             proxy_set_header Host $host; "
        )
    };
    let upstream =
        |to: &str| format!("upstream up {{ server {to}; keepalive 256; keepalive_requests 1000000000; }}\n");
    let server = format!(
        "{}server {{ listen {LOCAL}:{inner} ssl backlog=4096; ssl_certificate {place}/server.crt;\n\
         ssl_certificate_key {place}/server.key; ssl_client_certificate {place}/ca.crt; ssl_verify_client on;\n\
         ssl_protocols TLSv1.3; {} }} }}",
        upstream(&backend.to_string()),
        forward("http")
    );
    let spec = nginx(setup, "in", &server)?;
    setup.proxy(spec)?;
    let client = format!(
        "{}server {{ listen {LOCAL}:{outer} backlog=4096; {} proxy_ssl_certificate {place}/client.crt;\n\
         proxy_ssl_certificate_key {place}/client.key; proxy_ssl_trusted_certificate {place}/ca.crt;\n\
         proxy_ssl_verify on; proxy_ssl_name server.mesh; proxy_ssl_server_name on; proxy_ssl_protocols TLSv1.3; }} }}",
        upstream(&format!("{LOCAL}:{inner}")),
        forward("https")
    );
    let spec = nginx(setup, "out", &client)?;
    setup.proxy(spec)?;
    setup.entry.set_port(outer);
    Ok(())
}

/// HAProxy twice, HTTP/2 over TLS between.
pub(super) fn haproxy_pair(setup: &mut Setup, certificates: &Path) -> anyhow::Result<()> {
    let backend = setup.backend(LOCAL)?;
    let (inner, outer) = (setup.port(), setup.port());
    let place = certificates.display();
    let ours = format!("ca-file {place}/ca.crt verify required");
    let bind = format!("ssl crt {place}/server.pem {ours} alpn h2,http/1.1");
    let server =
        format!("ssl crt {place}/client.pem {ours} sni str(server.mesh) verifyhost server.mesh alpn h2");
    haproxy(setup, "in", inner, &bind, &backend.to_string(), "")?;
    setup.inner = Some(Inner { number: 0, at: SocketAddr::from((LOCAL, inner)), headers: Vec::new() });
    haproxy(setup, "out", outer, "", &format!("{LOCAL}:{inner}"), &server)?;
    setup.entry.set_port(outer);
    Ok(())
}

fn haproxy(
    setup: &mut Setup,
    label: &str,
    listen: u16,
    bind: &str,
    to: &str,
    server: &str,
) -> anyhow::Result<()> {
    let text = format!(
        "global\n nbthread 1\n maxconn 9000\n ssl-default-bind-options ssl-min-ver TLSv1.3\n\
         \x20ssl-default-server-options ssl-min-ver TLSv1.3\n\
         defaults\n mode http\n timeout connect 5s\n timeout client 600s\n timeout server 600s\n\
         \x20timeout http-keep-alive 600s\n http-reuse always\n\
         frontend f\n bind {LOCAL}:{listen} backlog 4096 {bind}\n default_backend b\n\
         backend b\n server s {to} {server}\n"
    );
    let file = setup.file(&format!("{label}.cfg"), &text)?.display().to_string();
    let spec = Spec::new(label, &program("haproxy")?).args(["-db", "-f", &file]);
    setup.proxy(spec)?;
    Ok(())
}

/// An authority and two certificates, as the peers read them.
pub(super) fn certificates(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "bench authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = params.self_signed(&key)?;
    std::fs::write(folder.join("ca.crt"), authority.pem())?;
    let issuer = Issuer::new(params, key);
    for name in ["client", "server"] {
        let key = KeyPair::generate()?;
        let mut params =
            CertificateParams::new(vec![format!("{name}.mesh")]).context("naming a certificate")?;
        params.distinguished_name.push(DnType::CommonName, format!("{name}.mesh"));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &issuer)?.pem();
        std::fs::write(folder.join(format!("{name}.crt")), &certificate)?;
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
        std::fs::write(folder.join(format!("{name}.pem")), certificate + &key.serialize_pem())?;
    }
    Ok(())
}
