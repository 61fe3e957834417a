//! Rules of a VirtualService for byte streams: `tcp` and `tls`.

use ipnet::IpNet;
use mesh_core::resource::virtual_service::{TcpMatch, TcpRoute, TlsMatch, TlsRoute};
use mesh_core::vocab::name::Text;

use super::destination::{STREAM_ROUTE, destinations};
use super::gateway_ref::Binding;
use super::http::{Caller, Namespace, port};
use super::virtual_service::is_generated_host;
use crate::dialect::field::{Field, Message, Note, Object};
use crate::dialect::node::quoted;
use crate::dialect::scalar::{is_host, parse_network};

pub(crate) static TCP: Message =
    Message { name: "a TCP rule", fields: &["match", "route"], later: &[], skipped: &[] };

static TCP_MATCH: Message = Message {
    name: "a match",
    fields: &["destinationSubnets", "gateways", "port", "sourceLabels", "sourceNamespace"],
    later: &[],
    // Nothing in Istio reads it.
    skipped: &["sourceSubnet"],
};

pub(crate) static TLS: Message =
    Message { name: "a TLS rule", fields: &["match", "route"], later: &[], skipped: &[] };

static TLS_MATCH: Message = Message {
    name: "a match",
    fields: &["destinationSubnets", "gateways", "port", "sniHosts", "sourceLabels", "sourceNamespace"],
    later: &[],
    skipped: &[],
};

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&TCP, "match[]", &TCP_MATCH),
    Note::Holds(&TCP, "route[]", &STREAM_ROUTE),
    Note::Holds(&TLS, "match[]", &TLS_MATCH),
    Note::Holds(&TLS, "route[]", &STREAM_ROUTE),
];

/// Reads one entry of `tcp`.
pub(super) fn tcp(field: &Field<'_>, binding: &Binding<'_>) -> Option<TcpRoute> {
    let rule = field.object(&TCP)?;
    let matches = rule.items("match").iter().filter_map(|field| tcp_match(field, binding)).collect();
    let destinations = destinations(&rule.require("route")?, &STREAM_ROUTE)?;
    Some(TcpRoute { matches, destinations })
}

fn tcp_match(field: &Field<'_>, binding: &Binding<'_>) -> Option<TcpMatch> {
    let entry = field.object(&TCP_MATCH)?;
    if let Some(subnet) = field.below("sourceSubnet")
        && subnet.text().is_some()
    {
        subnet.advise("sourceSubnet has no effect, in Istio neither; use sourceLabels or sourceNamespace");
    }
    let caller = Caller::read(&entry, binding, Namespace::Free);
    Some(TcpMatch {
        destination_subnets: subnets(&entry),
        port: port(&entry),
        caller_labels: caller.labels,
        caller_namespace: caller.namespace,
        gateways: caller.gateways,
    })
}

/// Reads one entry of `tls`. `hosts` are those of the VirtualService; `None` if they are not all valid.
pub(super) fn tls(field: &Field<'_>, hosts: Option<&[Text]>, binding: &Binding<'_>) -> Option<TlsRoute> {
    let rule = field.object(&TLS)?;
    let matches = rule.require("match").map(|field| {
        let items = field.items();
        if field.is_empty_list() {
            field.fault("a TLS rule needs at least one match");
        }
        items.iter().filter_map(|field| tls_match(field, hosts, binding)).collect()
    });
    let destinations = destinations(&rule.require("route")?, &STREAM_ROUTE);
    Some(TlsRoute { matches: matches?, destinations: destinations? })
}

fn tls_match(field: &Field<'_>, hosts: Option<&[Text]>, binding: &Binding<'_>) -> Option<TlsMatch> {
    let entry = field.object(&TLS_MATCH)?;
    let names = entry.require("sniHosts").map(|field| {
        let items = field.items();
        if field.is_empty_list() {
            field.fault("needs at least one server name");
        }
        items.iter().filter_map(|item| server_name(item, hosts, binding)).collect()
    });
    let caller = Caller::read(&entry, binding, Namespace::Free);
    Some(TlsMatch {
        destination_subnets: subnets(&entry),
        port: port(&entry),
        caller_labels: caller.labels,
        caller_namespace: caller.namespace,
        gateways: caller.gateways,
        sni_hosts: names?,
    })
}

fn server_name(field: &Field<'_>, hosts: Option<&[Text]>, binding: &Binding<'_>) -> Option<Text> {
    let text = field.some_text()?;
    if text.parse::<std::net::IpAddr>().is_ok() {
        field.warn(format!("{text} is an IP address, which clients do not send as server name (RFC 6066)"));
        return Some(text.into());
    }
    if !is_host(text) && (binding.names_mesh || !is_generated_host(text)) {
        field.fault(format!(
            "{} is no host: wanted a DNS name, or one whose first label is '*'",
            quoted(text)
        ));
        return None;
    }
    let name: Text = text.to_ascii_lowercase().into();
    if let Some(hosts) = hosts
        && !hosts.iter().any(|host| is_subset(&name, host))
    {
        field.fault(format!(
            "{} is none of the hosts of the VirtualService, nor a part of one: {}",
            quoted(text),
            hosts.iter().take(8).map(|host| &**host).collect::<Vec<_>>().join(", ")
        ));
        return None;
    }
    Some(name)
}

/// Whether a host or wildcard holds nothing that another does not hold.
fn is_subset(name: &str, host: &str) -> bool {
    match (name.strip_prefix('*'), host.strip_prefix('*')) {
        (Some(name), Some(host)) => name.ends_with(host),
        (Some(_), None) => false,
        (None, Some(host)) => name.ends_with(host),
        (None, None) => name == host,
    }
}

fn subnets(entry: &Object<'_>) -> Vec<IpNet> {
    entry.items("destinationSubnets").iter().filter_map(subnet).collect()
}

fn subnet(field: &Field<'_>) -> Option<IpNet> {
    let text = field.some_text()?;
    let address = || text.parse::<std::net::IpAddr>().ok().map(IpNet::from);
    let network = parse_network(text).or_else(address);
    if network.is_none() {
        field.fault(format!("{} is no address and no network such as 10.0.0.0/8", quoted(text)));
    }
    network.map(|network| network.trunc())
}
