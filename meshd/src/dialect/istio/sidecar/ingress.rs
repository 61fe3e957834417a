//! The listeners of a Sidecar for what comes in.

use std::collections::HashSet;

use mesh_core::resource::sidecar::{Ingress, SidecarPort};
use mesh_core::vocab::name::Text;
use mesh_core::vocab::protocol::Protocol;

use super::listener::{capture, listener_port};
use crate::dialect::field::{Field, Message, Object};
use crate::dialect::istio::connection_pool::connection_pool;
use crate::dialect::istio::server_tls::{TlsPlace, server_tls};
use crate::dialect::istio::{port, unix_socket};
use crate::dialect::node::{Value, quoted};
use crate::dialect::scalar;

pub(super) static INGRESS: Message = Message {
    name: "an entry of ingress",
    fields: &["bind", "captureMode", "connectionPool", "defaultEndpoint", "port", "tls"],
    later: &[],
    skipped: &[],
};

/// Where a listener can send requests to: the host of a `defaultEndpoint`.
const ENDPOINT_HOSTS: [&str; 5] = ["", "127.0.0.1", "0.0.0.0", "::1", "::"];

/// All listeners for what comes in.
pub(super) fn list(spec: &Object<'_>) -> Vec<Ingress> {
    let mut numbers: HashSet<u16> = HashSet::new();
    let mut all = Vec::new();
    for item in spec.items("ingress") {
        let Some(ingress) = ingress(&item) else { continue };
        if !numbers.insert(ingress.port.number) {
            item.fault(format!("the port {} is there twice", ingress.port.number));
        }
        all.push(ingress);
    }
    all
}

fn ingress(field: &Field<'_>) -> Option<Ingress> {
    let entry = field.object(&INGRESS)?;
    let port = entry.require("port").and_then(|field| listener_port(&field)).map(|(port, _)| port);
    if let Some(port) = &port
        && port.number == 0
        && let Some(field) = entry.get("port")
    {
        let at = field.below("number").unwrap_or(field);
        at.fault("a listener of ingress needs a port, 1 to 65535");
    }
    let bind = entry.get("bind").filter(|field| !field.is_empty_text()).and_then(|field| scalar::ip(&field));
    let capture = capture(&entry);
    let default_endpoint = entry.get("defaultEndpoint").filter(|field| !field.is_empty_text());
    let default_endpoint = default_endpoint.and_then(|field| check_endpoint(&field));
    let tls_field = entry.get("tls");
    let tls = tls_field.as_ref().and_then(|field| server_tls(field, TlsPlace::Sidecar));
    if let Some(field) = &tls_field {
        check_tls(field, port.as_ref());
    }
    let pool_field = entry.get("connectionPool");
    let pool = pool_field.as_ref().and_then(connection_pool);
    if let (Some(field), Some(port)) = (pool_field.as_ref().and_then(|field| field.below("http")), &port)
        && !port.protocol.is_http()
    {
        field.warn(format!("no effect: the port {} does not speak HTTP", port.number));
    }
    Some(Ingress {
        port: port?,
        bind: bind.map(|address| address.to_string().into()),
        capture,
        default_endpoint,
        tls,
        connection_pool: pool,
    })
}

/// `127.0.0.1:PORT`, `[::1]:PORT`, `0.0.0.0:PORT`, `[::]:PORT`, `:PORT` or a Unix socket.
fn check_endpoint(field: &Field<'_>) -> Option<Text> {
    let text = field.text()?;
    if let Some(path) = unix_socket::path_of(text) {
        unix_socket::check(field, path);
        return Some(text.into());
    }
    let parts = match text.strip_prefix('[') {
        Some(rest) => rest.split_once("]:"),
        None => text.rsplit_once(':').filter(|(host, _)| !host.contains(':')),
    };
    let port = parts.and_then(|(_, port)| port.parse::<u16>().ok().filter(|port| *port > 0));
    let known = parts.is_some_and(|(host, _)| ENDPOINT_HOSTS.contains(&host));
    if !known || port.is_none() {
        field.fault(format!(
            "found {}, wanted 127.0.0.1:PORT, 0.0.0.0:PORT, [::1]:PORT, [::]:PORT or unix:///PATH",
            quoted(text)
        ));
    }
    Some(text.into())
}

/// What a Sidecar's TLS cannot have beside what no server's can.
fn check_tls(field: &Field<'_>, port: Option<&SidecarPort>) {
    for key in ["subjectAltNames", "credentialName", "credentialNames", "tlsCertificates"] {
        if let Some(field) = field.below(key).filter(|field| !field.is_blank()) {
            field.fault(format!("{key} cannot be set in a Sidecar"));
        }
    }
    if let Some(field) = field.below("httpsRedirect")
        && *field.value() == Value::Bool(true)
    {
        field.fault("httpsRedirect cannot be set in a Sidecar");
    }
    if let Some(field) = field.below("mode")
        && let Value::Text(mode) = field.value()
        && ["ISTIO_MUTUAL", "AUTO_PASSTHROUGH"].contains(&&**mode)
    {
        field.fault(format!("the mode {mode} is not for a Sidecar: wanted SIMPLE or MUTUAL"));
    }
    if let Some(port) = port
        && !port::is_tls(port.protocol)
    {
        let what = match port.protocol {
            Protocol::Auto => "without a protocol".to_owned(),
            protocol => format!("of the protocol {}", protocol.name().to_ascii_uppercase()),
        };
        field.fault(format!("a port {what} cannot have tls: wanted HTTPS or TLS"));
    }
}
