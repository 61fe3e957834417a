//! Sidecar.

use std::collections::{HashMap, HashSet};

use mesh_core::resource::sidecar::{
    CaptureMode, Egress, EgressHost, EgressNamespace, Ingress, OutboundMode, OutboundPolicy, Sidecar,
    SidecarPort,
};
use mesh_core::vocab::name::Text;
use mesh_core::vocab::protocol::Protocol;

use super::connection_pool::{CONNECTION_POOL, connection_pool};
use super::selector::{BY_LABELS, by_labels};
use super::server_tls::{SERVER_TLS, server_tls};
use super::{port, scoped_host, unix_socket};
use crate::dialect::field::{Field, Message, Note, Object};
use crate::dialect::node::quoted;
use crate::dialect::scalar;

pub(crate) static SPEC: Message = Message {
    name: "spec of a Sidecar",
    fields: &[],
    later: &["egress", "inboundConnectionPool", "ingress", "outboundTrafficPolicy", "workloadSelector"],
    skipped: &[],
};

static INGRESS: Message = Message {
    name: "an entry of ingress",
    fields: &["bind", "captureMode", "connectionPool", "defaultEndpoint", "port", "tls"],
    later: &[],
    skipped: &[],
};

static EGRESS: Message = Message {
    name: "an entry of egress",
    fields: &["bind", "captureMode", "hosts", "port"],
    later: &[],
    skipped: &[],
};

static PORT: Message = Message {
    name: "a port",
    fields: &["name", "number", "protocol", "targetPort"],
    later: &[],
    skipped: &[],
};

static OUTBOUND: Message =
    Message { name: "an outboundTrafficPolicy", fields: &["egressProxy", "mode"], later: &[], skipped: &[] };

static EGRESS_PROXY: Message =
    Message { name: "an egressProxy", fields: &["host", "port", "subset"], later: &[], skipped: &[] };

static EGRESS_PROXY_PORT: Message = Message { name: "a port", fields: &["number"], later: &[], skipped: &[] };

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&SPEC, "egress[]", &EGRESS),
    Note::Holds(&SPEC, "inboundConnectionPool", &CONNECTION_POOL),
    Note::Holds(&SPEC, "ingress[]", &INGRESS),
    Note::Holds(&SPEC, "outboundTrafficPolicy", &OUTBOUND),
    Note::Holds(&SPEC, "workloadSelector", &BY_LABELS),
    Note::Holds(&INGRESS, "connectionPool", &CONNECTION_POOL),
    Note::Holds(&INGRESS, "port", &PORT),
    Note::Holds(&INGRESS, "tls", &SERVER_TLS),
    Note::Holds(&EGRESS, "port", &PORT),
    Note::Holds(&OUTBOUND, "egressProxy", &EGRESS_PROXY),
    Note::Holds(&EGRESS_PROXY, "port", &EGRESS_PROXY_PORT),
    Note::Refused(&PORT, "targetPort", "it has no meaning in a Sidecar"),
];

/// Where a listener can send requests to: the host of a `defaultEndpoint`.
const ENDPOINT_HOSTS: [&str; 5] = ["", "127.0.0.1", "0.0.0.0", "::1", "::"];

/// Reads the spec of a Sidecar in the namespace `own`.
pub(crate) fn sidecar(field: &Field<'_>, own: &str) -> Option<Sidecar> {
    let spec = field.object(&SPEC)?;
    let has_items = |key| spec.get(key).is_some_and(|field| !field.is_blank());
    let says_something = has_items("egress")
        || has_items("ingress")
        || ["outboundTrafficPolicy", "inboundConnectionPool"].iter().any(|key| spec.has(key));
    let misspelt = ["egress", "ingress", "outboundTrafficPolicy", "inboundConnectionPool"];
    if !says_something && !misspelt.iter().any(|key| spec.is_misspelt(key)) {
        field.fault("a Sidecar needs at least one of egress, ingress, outboundTrafficPolicy and inboundConnectionPool");
    }
    let selector = spec.get("workloadSelector").and_then(|field| by_labels(&field));
    let ingress = ingress_list(&spec);
    let egress = egress_list(&spec, own);
    Some(Sidecar {
        selector,
        ingress,
        egress: has_items("egress").then_some(egress),
        outbound: spec.get("outboundTrafficPolicy").and_then(|field| outbound(&field)),
        inbound_connection_pool: spec.get("inboundConnectionPool").and_then(|field| connection_pool(&field)),
    })
}

fn ingress_list(spec: &Object<'_>) -> Vec<Ingress> {
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
    let port = entry.require("port").and_then(|field| port(&field));
    if let Some(port) = &port
        && port.number == 0
        && let Some(field) = entry.get("port")
    {
        let at = field.below("number").unwrap_or(field);
        at.fault("a listener of ingress needs a port, 1 to 65535");
    }
    let bind = entry.get("bind").filter(|field| !field.is_blank()).and_then(|field| scalar::ip(&field));
    let capture = capture(&entry);
    let default_endpoint = entry.get("defaultEndpoint").filter(|field| !field.is_blank());
    if let Some(field) = &default_endpoint {
        check_endpoint(field);
    }
    let tls_field = entry.get("tls");
    let tls = tls_field.as_ref().and_then(server_tls);
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
        default_endpoint: default_endpoint.and_then(|field| field.text().map(Text::from)),
        tls,
        connection_pool: pool,
    })
}

/// Number, which may be 0 for a Unix socket, name and protocol.
fn port(field: &Field<'_>) -> Option<SidecarPort> {
    let object = field.object(&PORT)?;
    let number = match object.get("number") {
        Some(field) => field.integer(0..=65535).and_then(|number| u16::try_from(number).ok()),
        None if object.is_misspelt("number") => None,
        None => Some(0),
    };
    let name = match object.get("name").filter(|field| !field.is_blank()) {
        Some(field) => port::name(&field),
        None => Some("".into()),
    };
    let protocol = object.get("protocol").map_or(Some(Protocol::Auto), |field| port::protocol(&field));
    if let Some(field) = object.get("targetPort")
        && field.integer(0..=i64::from(u32::MAX)).is_some_and(|target| target > 0)
    {
        field.fault("targetPort has no meaning in a Sidecar");
    }
    Some(SidecarPort { number: number?, name: name?, protocol: protocol? })
}

fn capture(entry: &Object<'_>) -> CaptureMode {
    match entry.get("captureMode").and_then(|field| field.choice(&["DEFAULT", "IPTABLES", "NONE"])) {
        Some("IPTABLES") => CaptureMode::Iptables,
        Some("NONE") => CaptureMode::None,
        _ => CaptureMode::Default,
    }
}

/// `127.0.0.1:PORT`, `[::1]:PORT`, `0.0.0.0:PORT`, `[::]:PORT`, `:PORT` or a Unix socket.
fn check_endpoint(field: &Field<'_>) {
    let Some(text) = field.text() else { return };
    if let Some(path) = unix_socket::path_of(text) {
        unix_socket::check(field, path);
        return;
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
}

/// What a Sidecar's TLS cannot have beside what no server's can.
fn check_tls(field: &Field<'_>, port: Option<&SidecarPort>) {
    for key in ["subjectAltNames", "credentialName", "credentialNames", "tlsCertificates"] {
        if let Some(field) = field.below(key).filter(|field| !field.is_blank()) {
            field.fault(format!("{key} cannot be set in a Sidecar"));
        }
    }
    if let Some(field) = field.below("httpsRedirect")
        && *field.value() == crate::dialect::node::Value::Bool(true)
    {
        field.fault("httpsRedirect cannot be set in a Sidecar");
    }
    if let Some(field) = field.below("mode")
        && let crate::dialect::node::Value::Text(mode) = field.value()
        && ["ISTIO_MUTUAL", "AUTO_PASSTHROUGH"].contains(&&**mode)
    {
        field.fault(format!("the mode {mode} is not for a Sidecar: wanted SIMPLE or MUTUAL"));
    }
    if let Some(port) = port
        && !port::is_tls(port.protocol)
    {
        field.fault(format!(
            "a port of the protocol {} cannot have tls: wanted HTTPS or TLS",
            port.protocol.name().to_ascii_uppercase()
        ));
    }
}

fn egress_list(spec: &Object<'_>, own: &str) -> Vec<Egress> {
    let items = spec.items("egress");
    let mut numbers: HashSet<u16> = HashSet::new();
    let mut sockets: HashSet<Text> = HashSet::new();
    let mut all = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let Some(entry) = item.object(&EGRESS) else { continue };
        let bind = entry.get("bind").filter(|field| !field.is_blank());
        let capture = capture(&entry);
        let hosts = egress_hosts(&entry, own);
        let port_field = entry.get("port");
        if port_field.is_none() && index + 1 < items.len() && !entry.has("port") && !entry.is_misspelt("port")
        {
            item.fault("an entry without a port takes what the others leave: there can be one, at the end");
        }
        let port = port_field.as_ref().and_then(port);
        if let (Some(field), Some(port)) = (&port_field, &port) {
            check_listener(field, port, bind.as_ref(), &entry);
            let bind = bind.as_ref().and_then(|field| field.text()).unwrap_or("");
            if port.number == 0 && !bind.is_empty() && !sockets.insert(bind.into()) {
                item.fault(format!("the socket {} is there twice", quoted(bind)));
            } else if port.number > 0 && !numbers.insert(port.number) {
                item.fault(format!("the port {} is there twice", port.number));
            }
        }
        if port_field.is_some() && port.is_none() {
            continue;
        }
        let bind = bind.and_then(|field| field.text().map(Text::from));
        all.push(Egress { port, bind, capture, hosts });
    }
    all
}

/// A listener is bound to an IP address and a port, or to a Unix socket.
fn check_listener(field: &Field<'_>, port: &SidecarPort, bind: Option<&Field<'_>>, entry: &Object<'_>) {
    if port.number > 0 {
        if let Some(bind) = bind {
            scalar::ip(bind);
        }
        return;
    }
    match bind.and_then(|bind| Some((bind, unix_socket::path_of(bind.text()?)?))) {
        Some((bind, path)) => {
            unix_socket::check(bind, path);
        }
        None => match bind {
            Some(bind) => {
                bind.fault("a listener without a port number is bound to a Unix socket: wanted unix:///PATH")
            }
            None => field.fault("a listener needs a port number, or a bind to a Unix socket"),
        },
    }
    if let Some(field) = entry.get("captureMode")
        && capture(entry) == CaptureMode::Iptables
    {
        field.fault("nothing is redirected to a Unix socket: wanted DEFAULT or NONE");
    }
}

fn egress_hosts(entry: &Object<'_>, own: &str) -> Vec<EgressHost> {
    let Some(field) = entry.require("hosts") else { return Vec::new() };
    let items = field.items();
    if items.is_empty() {
        field.fault("needs at least one host");
    }
    let mut hosts = Vec::new();
    // What was imported from each namespace so far.
    let mut imported: HashMap<&str, HashSet<&str>> = HashMap::new();
    for item in &items {
        let Some(text) = item.some_text() else { continue };
        let Some((namespace, host)) = text.split_once('/') else {
            item.fault(format!(
                "found {}, wanted NAMESPACE/HOST such as ./* or prod/a.example.com",
                quoted(text)
            ));
            continue;
        };
        if !namespace.starts_with('~') {
            let namespace = if namespace == "." { own } else { namespace };
            let seen = imported.entry(namespace).or_default();
            if seen.contains("*") || seen.contains(host) || (host == "*" && !seen.is_empty()) {
                item.warn(format!("{} is covered or repeated by another entry", quoted(text)));
            }
            seen.insert(host);
        }
        hosts.extend(egress_host(item, namespace, host));
    }
    if imported.len() > 1 && imported.get("*").is_some_and(|hosts| hosts.contains("*")) {
        field.warn("'*/*' imports everything, so the other hosts add nothing");
    }
    hosts
}

/// `NAMESPACE/HOST`, or `~[NAMESPACE]/HOST` to leave it out.
fn egress_host(field: &Field<'_>, namespace: &str, host: &str) -> Option<EgressHost> {
    let is_valid = scoped_host::check(field, host, false);
    let (excluded, name) = match namespace.strip_prefix('~') {
        Some(name) => (true, name),
        None => (false, namespace),
    };
    let namespace = match name {
        // Nothing at all is imported, which is older than leaving out and is kept apart from it.
        "" if excluded && host == "*" => {
            return is_valid.then(|| EgressHost {
                excluded: false,
                namespace: EgressNamespace::Nobody,
                host: "*".into(),
            });
        }
        "" if excluded => EgressNamespace::All,
        "*" => EgressNamespace::All,
        "." => EgressNamespace::Own,
        name if scalar::is_label(name) => EgressNamespace::Named(name.into()),
        name => {
            field.fault(format!(
                "{} is no namespace: wanted '*', '.', '~' or a name before the '/'",
                quoted(name)
            ));
            return None;
        }
    };
    is_valid.then(|| EgressHost { excluded, namespace, host: host.to_ascii_lowercase().into() })
}

fn outbound(field: &Field<'_>) -> Option<OutboundPolicy> {
    let object = field.object(&OUTBOUND)?;
    // The enum's zero: an empty block refuses what the mesh does not know.
    let mode = match object.get("mode") {
        Some(field) => match field.choice(&["REGISTRY_ONLY", "ALLOW_ANY"]) {
            Some("ALLOW_ANY") => Some(OutboundMode::AllowAny),
            Some(_) => Some(OutboundMode::RegistryOnly),
            None => None,
        },
        None => Some(OutboundMode::RegistryOnly),
    };
    let proxy = object.get("egressProxy");
    if let (Some(field), Some(OutboundMode::RegistryOnly)) = (&proxy, mode) {
        field.fault("egressProxy takes what the mesh does not know, which only ALLOW_ANY lets out");
    }
    let egress_proxy = match proxy {
        Some(field) => Some(egress_proxy(&field)?),
        None => None,
    };
    Some(OutboundPolicy { mode: mode?, egress_proxy })
}

fn egress_proxy(field: &Field<'_>) -> Option<(Text, Option<Text>, u16)> {
    let object = field.object(&EGRESS_PROXY)?;
    let host = object.require("host").and_then(|field| {
        let text = field.some_text()?;
        if !scalar::is_dns_name(text) {
            field.fault(format!("{} is no DNS name", quoted(text)));
            return None;
        }
        Some(Text::from(text.to_ascii_lowercase()))
    });
    let subset = match object.get("subset").filter(|field| !field.is_blank()) {
        Some(field) => scalar::subset_name(&field).map(Some),
        None => Some(None),
    };
    let port = object.require("port").and_then(|field| {
        let port = field.object(&EGRESS_PROXY_PORT)?;
        port.require("number")?.port()
    });
    Some((host?, subset?, port?))
}
