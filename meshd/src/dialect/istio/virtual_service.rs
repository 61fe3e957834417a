//! VirtualService.

use std::collections::HashSet;
use std::net::IpAddr;

use mesh_core::resource::reach::GatewayRef;
use mesh_core::resource::virtual_service::VirtualService;
use mesh_core::vocab::name::Text;

use super::gateway_ref::{Binding, gateways};
use super::http_rule::{self, HTTP};
use super::reach;
use super::stream_rule::{self, TCP, TLS};
use crate::dialect::export::export_to;
use crate::dialect::field::{Field, Message, Note, Object};
use crate::dialect::node::{Node, Value};
use crate::dialect::scalar;

pub(crate) static SPEC: Message = Message {
    name: "spec of a VirtualService",
    fields: &["exportTo", "gateways", "hosts", "http", "tcp", "tls"],
    later: &[],
    skipped: &[],
};

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&SPEC, "http[]", &HTTP),
    Note::Holds(&SPEC, "tls[]", &TLS),
    Note::Holds(&SPEC, "tcp[]", &TCP),
    Note::Later(&SPEC, "gateways", "without mesh"),
];

/// Reads the spec of a VirtualService in `namespace`.
pub(crate) fn virtual_service(field: &Field<'_>, namespace: &str) -> Option<VirtualService> {
    let spec = field.object(&SPEC)?;
    let export_to = spec.get("exportTo").map(|field| export_to(&field, namespace, false)).unwrap_or_default();
    let gateways = spec.get("gateways").map(|field| gateways(&field, namespace)).unwrap_or_default();
    let bound = spec.get("gateways").map_or(&[][..], |field| field.elements());
    let is_mesh = |node: &Node| node.value == Value::Text("mesh".into());
    let delegate = spec.get("hosts").is_none_or(|field| field.elements().is_empty());
    let names_mesh = bound.iter().any(is_mesh);
    let binding = Binding {
        namespace,
        gateways_only: !bound.is_empty() && !names_mesh,
        names_mesh,
        delegate: delegate && !spec.is_misspelt("hosts"),
    };
    if binding.delegate {
        check_delegate(&spec);
    }
    if let (true, Some(field)) = (binding.gateways_only, spec.get("gateways")) {
        field.later("a VirtualService that is bound to gateways and not to mesh");
    }
    let tls_fields = spec.items("tls");
    let hosts = hosts(&spec, &binding, has_server_names(&tls_fields));
    let http_fields = spec.items("http");
    let http = http_fields.iter().map(|field| http_rule::rule(field, &binding));
    let http: Vec<_> = http.collect();
    let tls: Vec<_> = tls_fields
        .iter()
        .map(|field| stream_rule::tls(field, hosts.as_deref().filter(|_| !binding.delegate), &binding))
        .collect();
    let tcp_fields = spec.items("tcp");
    let tcp: Vec<_> = tcp_fields.iter().map(|field| stream_rule::tcp(field, &binding)).collect();
    if http.iter().all(Option::is_some) {
        reach::warn_of_http(&http_fields);
    }
    reach::warn_of_streams(&tcp_fields);
    reach::warn_of_streams(&tls_fields);
    let rules = |key| spec.get(key).is_some_and(|field| !field.elements().is_empty());
    let misspelt = || ["http", "tcp", "tls"].iter().any(|key| spec.is_misspelt(key));
    let written_wrongly = ["http", "tcp", "tls"].iter().any(|key| {
        spec.has(key) && !matches!(spec.get(key).map(|field| field.value()), Some(Value::List(_)))
    });
    if !rules("http") && !rules("tcp") && !rules("tls") && !misspelt() && !written_wrongly {
        field.fault("a VirtualService needs at least one rule in http, tcp or tls");
    }
    Some(VirtualService {
        hosts: hosts.unwrap_or_default(),
        gateways: if gateways == [GatewayRef::Mesh] { Vec::new() } else { gateways },
        export_to,
        http: http.into_iter().flatten().collect(),
        tls: tls.into_iter().flatten().collect(),
        tcp: tcp.into_iter().flatten().collect(),
    })
}

/// A VirtualService without hosts is only there for others to delegate to.
fn check_delegate(spec: &Object<'_>) {
    for key in ["gateways", "tls", "tcp"] {
        if let Some(field) = spec.get(key).filter(|field| !field.elements().is_empty()) {
            field.fault(format!("a VirtualService without hosts is a delegate, which cannot have {key}"));
        }
    }
}

/// Whether any TLS rule names servers, which lets hosts have the form of [`is_generated_host`].
fn has_server_names(rules: &[Field<'_>]) -> bool {
    rules.iter().filter_map(|rule| rule.below("match")).any(|list| {
        list.elements().iter().any(|entry| {
            let names = entry.entry("sniHosts").map(|entry| &entry.value.value);
            matches!(names, Some(Value::List(names)) if !names.is_empty())
        })
    })
}

/// Whether this is a name that Istio makes for passing TLS through gateways: `outbound_.80_._.HOST`.
pub(super) fn is_generated_host(text: &str) -> bool {
    let mut parts = text.split('_');
    let (direction, port, _, host) = (parts.next(), parts.next(), parts.next(), parts.next());
    text.len() <= 255
        && direction == Some("outbound")
        && port.is_some_and(|port| port.bytes().any(|b| b.is_ascii_digit()))
        && host.is_some_and(|host| host.bytes().any(|b| b.is_ascii_alphabetic()))
}

/// The hosts, in lower case; `None` if one is not valid.
fn hosts(spec: &Object<'_>, binding: &Binding<'_>, generated: bool) -> Option<Vec<Text>> {
    let items = spec.items("hosts");
    let mut hosts: Vec<(Text, &Field<'_>)> = Vec::new();
    for item in &items {
        let Some(text) = item.some_text() else { continue };
        let host = match text.parse::<IpAddr>() {
            Ok(address) => Some(address.to_string().into()),
            Err(_) if generated && binding.gateways_only && is_generated_host(text) => {
                Some(text.to_ascii_lowercase().into())
            }
            Err(_) => scalar::host(item),
        };
        let Some(host) = host else { continue };
        if &*host == "*" && !binding.gateways_only {
            item.fault("the host '*' is not allowed in the mesh, only at gateways without mesh");
        } else {
            hosts.push((host, item));
        }
    }
    if hosts.len() < items.len() {
        return None;
    }
    refuse_overlaps(&hosts);
    Some(hosts.into_iter().map(|(host, _)| host).collect())
}

/// Refuses hosts that are there twice or that a wildcard of the same list covers.
fn refuse_overlaps(hosts: &[(Text, &Field<'_>)]) {
    let all: HashSet<&str> = hosts.iter().map(|(host, _)| &**host).collect();
    let mut seen: HashSet<&str> = HashSet::new();
    for (host, field) in hosts {
        if !seen.insert(host) {
            field.fault(format!("the host {host} is there twice"));
            continue;
        }
        let name = host.strip_prefix('*').unwrap_or(host);
        // Host names are ASCII; each end of one, the empty one too, is what a wildcard could cover.
        let mut ends =
            (0..=name.len()).filter(|at| name.is_char_boundary(*at)).map(|at| format!("*{}", &name[at..]));
        if let Some(wildcard) = ends.find(|end| *end != **host && all.contains(end.as_str())) {
            field.fault(format!("the hosts {host} and {wildcard} overlap"));
        }
    }
}
