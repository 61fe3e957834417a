//! What a Sidecar lets out, by which listeners.

use std::collections::{HashMap, HashSet};

use mesh_core::resource::sidecar::{CaptureMode, Egress, EgressHost, EgressNamespace, SidecarPort};
use mesh_core::vocab::name::Text;

use super::listener::{capture, listener_port};
use crate::dialect::field::{Field, Message, Object};
use crate::dialect::istio::{scoped_host, unix_socket};
use crate::dialect::node::quoted;
use crate::dialect::scalar;

pub(super) static EGRESS: Message = Message {
    name: "an entry of egress",
    fields: &["bind", "captureMode", "hosts", "port"],
    later: &[],
    skipped: &[],
};

/// All entries for what goes out of the namespace `own`.
pub(super) fn list(spec: &Object<'_>, own: &str) -> Vec<Egress> {
    let items = spec.items("egress");
    let mut numbers: HashSet<u16> = HashSet::new();
    let mut sockets: HashSet<Text> = HashSet::new();
    let mut all = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let Some(entry) = item.object(&EGRESS) else { continue };
        let bind = entry.get("bind").filter(|field| !field.is_empty_text());
        let capture = capture(&entry);
        let hosts = egress_hosts(&entry, own);
        let port_field = entry.get("port");
        if port_field.is_none() && index + 1 < items.len() && !entry.has("port") && !entry.is_misspelt("port")
        {
            item.fault("an entry without a port takes what the others leave: there can be one, at the end");
        }
        let (port, is_proxy) = match port_field.as_ref().and_then(listener_port) {
            Some((port, is_proxy)) => (Some(port), is_proxy),
            None => (None, false),
        };
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
        all.push(Egress { port, bind, is_proxy, capture, hosts });
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
