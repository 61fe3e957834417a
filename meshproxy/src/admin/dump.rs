//! What is in force, as JSON for people. No keys: only whose certificates are here and how long they hold.

use mesh_core::policy::mtls::CredentialKey;
use mesh_core::routing::rule::{Backend, HttpRule, RuleAction};
use mesh_core::tables::destinations::Transport;
use serde_json::{Value, json};

use crate::live::destination::LiveDestination;
use crate::live::root::{Root, SocketReport};

/// A certificate of this host.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// Whose.
    pub identity: String,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
}

/// The whole of it, or one part by its name.
pub fn dump(
    node: &str,
    root: &Root,
    sockets: &SocketReport,
    certificates: &[Certificate],
    part: Option<&str>,
) -> Option<Value> {
    let one = |name: &str| -> Option<Value> {
        Some(match name {
            "listeners" => listeners(sockets),
            "services" => services(root),
            "routes" => routes(root),
            "endpoints" => endpoints(root),
            "policies" => policies(root),
            "secrets" => secrets(root, certificates),
            _ => return None,
        })
    };
    if let Some(part) = part {
        return one(part);
    }
    let version = root.tables.version;
    let mut whole = json!({ "node": node, "version": version.number, "revision": version.revision });
    for part in ["listeners", "services", "routes", "endpoints", "policies", "secrets"] {
        whole[part] = one(part)?;
    }
    Some(whole)
}

fn listeners(sockets: &SocketReport) -> Value {
    let fault = |fault: &crate::live::root::ListenerFault| {
        json!({ "address": fault.address.to_string(), "purpose": &*fault.purpose, "reason": fault.reason,
            "holder": fault.holder })
    };
    let open: Vec<String> = sockets.open.iter().map(ToString::to_string).collect();
    json!({ "open": open, "faults": sockets.faults.iter().map(fault).collect::<Vec<_>>() })
}

fn services(root: &Root) -> Value {
    let service = |table: &mesh_core::tables::routes::ServiceTable| {
        let service = &table.service;
        let ports: Vec<Value> = service
            .ports
            .iter()
            .map(|port| json!({ "number": port.number, "name": &*port.name, "protocol": port.protocol.name() }))
            .collect();
        let names: Vec<&str> = service.names.iter().map(|name| &**name).collect();
        json!({ "host": &*service.host, "namespace": &*service.namespace, "origin": &*service.origin.resource,
            "names": names, "ports": ports, "offset": service.offset, "external": service.external })
    };
    root.tables.services.iter().map(service).collect()
}

fn routes(root: &Root) -> Value {
    let mut found = Vec::new();
    for table in &root.tables.services {
        for port in &table.service.ports {
            let Some(routes) = table.routes(port.number) else { continue };
            let section = &routes.section;
            found.push(json!({
                "host": &*section.at.host,
                "port": section.at.port,
                "origin": section.origin.as_deref(),
                "http": section.http.iter().map(rule).collect::<Vec<_>>(),
                "tcp": section.tcp.iter().map(|rule| json!({
                    "origin": &*rule.origin.resource,
                    "rule": rule.origin.rule,
                    "destinations": rule.backends.iter().map(backend).collect::<Vec<_>>(),
                })).collect::<Vec<_>>(),
            }));
        }
    }
    Value::Array(found)
}

fn rule(rule: &HttpRule) -> Value {
    let mut shown = json!({
        "origin": &*rule.origin.resource,
        "rule": rule.origin.rule,
        "name": rule.name.as_deref(),
        "matches": rule.matches.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "timeout_ms": rule.timeout.map(|timeout| timeout.as_millis() as u64),
        "attempts": rule.retry.attempts,
    });
    match &rule.action {
        RuleAction::Route { backends, .. } => {
            shown["action"] = "route".into();
            shown["destinations"] = backends.iter().map(backend).collect();
        }
        RuleAction::Redirect(redirect) => {
            shown["action"] = "redirect".into();
            shown["redirect"] = redirect.to_string().into();
        }
        RuleAction::DirectResponse(response) => {
            shown["action"] = "direct_response".into();
            shown["status"] = response.status.into();
        }
    }
    shown
}

fn backend(backend: &Backend) -> Value {
    json!({ "cluster": backend.cluster(), "weight": backend.weight })
}

fn endpoints(root: &Root) -> Value {
    let destination = |live: &std::sync::Arc<LiveDestination>| {
        let endpoints: Vec<Value> = live
            .endpoints
            .iter()
            .enumerate()
            .map(|(index, one)| {
                let endpoint = &one.endpoint;
                let (transport, hop, peer) = match &endpoint.transport {
                    Transport::Plaintext => ("plaintext", None, None),
                    Transport::Mesh { hop, peer } => {
                        ("mesh", Some(hop.to_string()), Some(peer.as_str().to_owned()))
                    }
                    Transport::Tls => ("tls", None, None),
                    Transport::Unreachable => ("unreachable", None, None),
                };
                json!({ "workload": endpoint.workload.to_string(), "address": endpoint.address.to_string(),
                    "node": endpoint.node.as_deref(), "transport": transport, "hop": hop, "peer": peer,
                    "weight": endpoint.weight, "health": endpoint.health.name(),
                    "in_flight": one.state.in_flight(), "slowness": one.state.slowness(), "reported_share": live.reported_share(index),
                    "priority": live.priority(index), "weight_now": live.weight(index) })
            })
            .collect();
        let policy = &live.destination.policy;
        json!({ "cluster": &*live.destination.cluster, "scope": policy.key.scope.as_deref(),
            "origin": policy.origin.as_deref(), "protocol": policy.protocol.name(),
            "connect_timeout_ms": policy.connect_timeout.as_millis() as u64,
            "priority_percent": live.loads(), "endpoints": endpoints })
    };
    root.destinations.iter().map(destination).collect()
}

fn policies(root: &Root) -> Value {
    let workload = |hosted: &std::sync::Arc<mesh_core::tables::workloads::HostedWorkload>| {
        let section = &hosted.section;
        let ports: Vec<Value> = section
            .ports
            .iter()
            .map(|port| {
                json!({ "number": port.number, "protocol": port.protocol.name(), "service": &*port.service,
                    "mtls": section.mtls.mode(port.number).name() })
            })
            .collect();
        let authorization: Vec<Value> = hosted
            .policies()
            .iter()
            .map(|policy| {
                json!({ "resource": policy.resource(), "action": policy.action.name(),
                    "rules": policy.rules.iter().map(ToString::to_string).collect::<Vec<_>>() })
            })
            .collect();
        json!({ "workload": section.key.to_string(), "address": section.address.to_string(),
            "identity": section.identity.as_ref().map(|id| id.as_str()), "ports": ports,
            "mtls": section.mtls.default.name(), "mtls_origin": section.mtls.origin.as_deref(),
            "authorization": authorization, "complete": hosted.governance.complete })
    };
    root.tables.workloads.values().map(workload).collect()
}

/// Of credentials that were given only their names.
fn secrets(root: &Root, certificates: &[Certificate]) -> Value {
    let certificate = |one: &Certificate| json!({ "identity": one.identity, "not_before": one.not_before, "not_after": one.not_after });
    let credential = |key: &CredentialKey| json!({ "credential": key.to_string() });
    let credentials = root.tables.credentials.keys().map(credential);
    certificates.iter().map(certificate).chain(credentials).collect()
}
