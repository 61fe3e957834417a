//! Gateway.

use std::collections::HashSet;

use mesh_core::resource::gateway::{Gateway, HostNamespace, Server, ServerHost, ServerTls};
use mesh_core::vocab::label::Labels;
use mesh_core::vocab::name::Text;
use mesh_core::vocab::protocol::Protocol;

use super::server_tls::{SERVER_TLS, TlsPlace, server_tls};
use super::{port, scoped_host, unix_socket};
use crate::dialect::field::{Field, Message, Note, Object};
use crate::dialect::node::quoted;
use crate::dialect::scalar;

pub(crate) static SPEC: Message =
    Message { name: "spec of a Gateway", fields: &[], later: &["selector", "servers"], skipped: &[] };

static SERVER: Message = Message {
    name: "a server",
    fields: &["bind", "defaultEndpoint", "hosts", "name", "port", "tls"],
    later: &[],
    skipped: &[],
};

static PORT: Message = Message {
    name: "a port",
    fields: &["name", "number", "protocol", "targetPort"],
    later: &[],
    skipped: &[],
};

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&SPEC, "servers[]", &SERVER),
    Note::Holds(&SERVER, "port", &PORT),
    Note::Holds(&SERVER, "tls", &SERVER_TLS),
    Note::Refused(&PORT, "targetPort", "it has no meaning at a gateway: number is what is listened on"),
];

/// Reads the spec of a Gateway. `meta` is its metadata, `name` its name.
pub(crate) fn gateway(field: &Field<'_>, meta: Option<&Field<'_>>, name: &str) -> Option<Gateway> {
    let spec = field.object(&SPEC)?;
    if !scalar::is_label(name)
        && let Some(field) = meta.and_then(|meta| meta.below("name"))
    {
        field.fault(format!(
            "{} is no name of a Gateway: wanted at most 63 letters, digits and '-', no dot",
            quoted(name)
        ));
    }
    let selector = spec.get("selector").map(|field| selector(&field)).unwrap_or_default();
    let items = spec.items("servers");
    if items.is_empty() {
        match spec.get("servers") {
            Some(field) => field.fault("a Gateway needs at least one server"),
            None => spec.missing("servers", "the field servers is missing"),
        }
    }
    let mut names: HashSet<&str> = HashSet::new();
    let mut servers = Vec::new();
    for item in &items {
        if let Some(field) = item.below("port").and_then(|port| port.below("name"))
            && let Some(name) = plain_text(&field)
            && !names.insert(name)
        {
            field.fault(format!(
                "the port name {} is there twice: it must be unique in the Gateway",
                quoted(name)
            ));
        }
        servers.extend(server(item));
    }
    Some(Gateway { selector, servers })
}

/// Text of a field that is checked elsewhere.
fn plain_text<'a>(field: &Field<'a>) -> Option<&'a str> {
    match field.value() {
        crate::dialect::node::Value::Text(text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

fn selector(field: &Field<'_>) -> Labels {
    field.map().into_iter().filter_map(|(key, value)| Some((key, value.text()?))).collect()
}

fn server(field: &Field<'_>) -> Option<Server> {
    let server = field.object(&SERVER)?;
    let hosts = hosts(&server);
    let bind = server.get("bind").filter(|field| !field.is_empty_text());
    let on_socket =
        bind.as_ref().and_then(|field| field.text()).is_some_and(|text| unix_socket::path_of(text).is_some());
    let port_field = server.require("port");
    let port = port_field.as_ref().and_then(|field| port(field, on_socket));
    if let Some(field) = &bind {
        check_bind(field);
    }
    if let Some(field) = server.get("defaultEndpoint") {
        field.text();
    }
    let name = server.text("name").map(Text::from);
    let tls_field = server.get("tls");
    let tls = tls_field.as_ref().and_then(|field| server_tls(field, TlsPlace::Gateway));
    let (number, port_name, protocol) = port?;
    if let Some(field) = &tls_field {
        check_tls(field, tls.as_ref(), protocol);
    } else if port::is_tls(protocol) && !server.is_misspelt("tls") {
        field.fault(format!("a server of the protocol {} needs tls", protocol.name().to_ascii_uppercase()));
    }
    // With faults in tls nothing is made of the server; they are said already.
    if tls_field.is_some() && tls.is_none() {
        return None;
    }
    Some(Server {
        name,
        port: number,
        port_name,
        protocol,
        bind: bind.and_then(|field| field.text().map(Text::from)),
        hosts,
        tls,
    })
}

/// Number, name and protocol. On a Unix socket there is no number.
fn port(field: &Field<'_>, on_socket: bool) -> Option<(u16, Text, Protocol)> {
    let object = field.object(&PORT)?;
    let number = object.require("number").and_then(|field| {
        let number = field.integer(0..=i64::from(u32::MAX))?;
        match (u16::try_from(number), on_socket) {
            (Ok(0), true) => Some(0),
            (_, true) => {
                field.fault(format!("found {number}, but a Unix socket has no port: wanted 0"));
                None
            }
            (Ok(number), false) if number > 0 => Some(number),
            (_, false) => {
                field.fault(format!("{number} is out of range: 1 to 65535"));
                None
            }
        }
    });
    let protocol = object.require("protocol").and_then(|field| {
        field.some_text()?;
        port::protocol(&field)
    });
    let name = object.require("name").and_then(|field| field.some_text());
    if let Some(field) = object.get("targetPort")
        && field.integer(0..=i64::from(u32::MAX)).is_some_and(|target| target > 0)
    {
        field.fault("targetPort has no meaning at a gateway: number is what is listened on");
    }
    Some((number?, name?.into(), protocol?))
}

/// An IP address or a Unix socket.
fn check_bind(field: &Field<'_>) {
    let Some(text) = field.text() else { return };
    match unix_socket::path_of(text) {
        Some(path) => {
            unix_socket::check(field, path);
        }
        None => {
            scalar::ip(field);
        }
    }
}

fn check_tls(field: &Field<'_>, tls: Option<&ServerTls>, protocol: Protocol) {
    if port::is_tls(protocol) {
        if tls.is_some_and(|tls| tls.https_redirect) {
            field.warn("httpsRedirect has no effect here: it is for servers of plain HTTP");
        }
        return;
    }
    if !protocol.is_http() {
        field.fault(format!(
            "a server of the protocol {} cannot have tls: wanted HTTPS or TLS",
            protocol.name().to_ascii_uppercase()
        ));
        return;
    }
    // A redirect is all that plain HTTP can have.
    let Some(tls) = tls else { return };
    let is_set = |key: &&str| field.below(key).is_some_and(|field| !field.is_blank());
    if tls.mode.terminates() || ["caCertificates", "privateKey", "serverCertificate"].iter().any(is_set) {
        field.fault(
            "a server of plain HTTP cannot have tls, but for httpsRedirect: wanted the protocol HTTPS",
        );
    }
}

fn hosts(server: &Object<'_>) -> Vec<ServerHost> {
    let Some(field) = server.require("hosts") else { return Vec::new() };
    let items = field.items();
    if items.is_empty() {
        field.fault("a server needs at least one host");
    }
    items.iter().filter_map(host).collect()
}

/// `[NAMESPACE/]HOST`.
fn host(field: &Field<'_>) -> Option<ServerHost> {
    let text = field.some_text()?;
    let (namespace, host) = match text.split_once('/') {
        Some((namespace, host)) => (Some(namespace), host),
        None => (None, text),
    };
    let namespace = match namespace {
        None | Some("*") => Some(HostNamespace::All),
        Some(".") => Some(HostNamespace::Own),
        Some(namespace) if scalar::is_label(namespace) => Some(HostNamespace::Named(namespace.into())),
        Some(namespace) => {
            field.fault(format!(
                "{} is no namespace: wanted '*', '.' or a name before the '/'",
                quoted(namespace)
            ));
            None
        }
    };
    let is_valid = scoped_host::check(field, host, true);
    Some(ServerHost { namespace: namespace?, host: is_valid.then(|| host.to_ascii_lowercase().into())? })
}
