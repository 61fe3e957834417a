//! How the endpoints of a ServiceEntry are found, and what that asks of the rest.

use mesh_core::resource::service::{Port, Resolution};
use mesh_core::vocab::name::Text;
use mesh_core::vocab::protocol::Protocol;

use crate::dialect::field::{Field, Object};
use crate::dialect::istio::port;
use crate::dialect::node::Value;
use crate::dialect::scalar;

const RESOLUTIONS: [Resolution; 5] = [
    Resolution::None,
    Resolution::Static,
    Resolution::Dns,
    Resolution::DnsRoundRobin,
    Resolution::DynamicDns,
];

/// The protocols whose requests and greetings say which host is meant, and that DYNAMIC_DNS knows.
const NAME_HOST: [&str; 4] = ["HTTP", "HTTP2", "GRPC", "TLS"];

/// The resolution, which is NONE where nothing is said.
pub(super) fn read(spec: &Object<'_>) -> Option<Resolution> {
    let Some(field) = spec.get("resolution") else {
        if spec.has("resolution") || spec.is_misspelt("resolution") {
            return None;
        }
        return Some(Resolution::None);
    };
    let word = field.choice(&RESOLUTIONS.map(Resolution::name))?;
    RESOLUTIONS.into_iter().find(|resolution| resolution.name() == word)
}

/// What a resolution asks of hosts, addresses and ports.
pub(super) fn check(
    spec: &Object<'_>,
    resolution: Resolution,
    hosts: &[(Field<'_>, Text)],
    ports: &[(Field<'_>, Port)],
) {
    let word = resolution.name();
    let addresses = spec.get("addresses").filter(|field| !field.is_blank());
    match resolution {
        Resolution::None => {
            if let Some(field) = spec.get("workloadSelector") {
                field.warn("no effect with resolution NONE, which goes by what callers ask for");
            }
        }
        Resolution::Static => {}
        Resolution::Dns | Resolution::DnsRoundRobin => {
            let unresolved = spec.get("endpoints").is_none_or(|field| field.is_blank());
            for (field, host) in hosts.iter().filter(|(_, host)| unresolved && !scalar::is_dns_name(host)) {
                field.fault(format!(
                    "{host} cannot be resolved: with {word} and without endpoints a host must be a DNS name"
                ));
            }
            let is_stream =
                |port: &Port| matches!(port.protocol, Protocol::Tcp | Protocol::Tls | Protocol::Https);
            if hosts.len() > 1
                && ports.iter().any(|(_, port)| is_stream(port))
                && let Some(field) = &addresses
            {
                field.warn("the addresses are shared by several hosts, whose streams they cannot tell apart");
            }
        }
        Resolution::DynamicDns => {
            if let Some(field) = &addresses {
                field.fault(
                    "resolution DYNAMIC_DNS takes no addresses: it goes by the name that is asked for",
                );
            }
            for (field, host) in hosts.iter().filter(|(_, host)| !host.starts_with('*')) {
                field.fault(format!(
                    "{host} is one host; DYNAMIC_DNS is for hosts with a wildcard, wanted DNS"
                ));
            }
            for (field, _) in ports.iter().filter(|(field, _)| !names_host(field)) {
                field.fault(format!(
                    "with DYNAMIC_DNS a port must say which host is meant, wanted a protocol of {}",
                    NAME_HOST.join(", ")
                ));
            }
        }
    }
    if matches!(resolution, Resolution::Dns | Resolution::DnsRoundRobin)
        && let Some(field) = &addresses
    {
        for item in field.items() {
            if item.text().is_some_and(|text| text.contains('/')) {
                item.fault(format!("a network is for resolution NONE and STATIC only, found {word}"));
            }
        }
    }
    // Requests and TLS name their host, plain bytes do not.
    let tells_hosts = |port: &Port| port.protocol.is_http() || port::is_tls(port.protocol);
    if resolution != Resolution::None && hosts.len() > 1 {
        for (field, port) in ports.iter().filter(|(_, port)| !tells_hosts(port)) {
            field.fault(format!(
                "several hosts cannot share the port {}: only HTTP and TLS tell them apart, plain TCP does not",
                port.number
            ));
        }
    }
}

fn names_host(port: &Field<'_>) -> bool {
    let protocol = port.below("protocol");
    let written = protocol.as_ref().map(Field::value);
    matches!(written, Some(Value::Text(word)) if NAME_HOST.iter().any(|known| known.eq_ignore_ascii_case(word)))
}
