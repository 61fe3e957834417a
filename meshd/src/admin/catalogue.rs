//! What the mesh is made of, over the admin API: services, workloads, what a proxy runs, and `explain`.

use std::net::Ipv4Addr;

use axum::Json;
use axum::extract::{Path, Query, State};
use mesh_core::routing::rule::{Backend, HttpRule, RuleAction, TcpRule};
use mesh_core::snapshot::Snapshot;
use mesh_core::snapshot::section::Section;
use mesh_core::snapshot::view::Outbound;
use mesh_core::state::MeshState;
use mesh_core::state::index::KnownService;
use mesh_core::vocab::health::{Health, HostStanding};
use serde::Deserialize;
use serde_json::{Value, json};

use super::configuration::Scope;
use super::server::{Refusal, Shared, blocking};
use super::view::{ExplainRequest, HealthView, PortView, ServiceView, WorkloadView};
use crate::clock;

/// Base of meshproxy's default `--loopback-net`.
const LOOPBACK_NET: u32 = u32::from_be_bytes([127, 64, 0, 0]);

pub(super) async fn services(State(state): Shared, Query(scope): Query<Scope>) -> Json<Vec<ServiceView>> {
    let published = state.controller.published();
    let mesh = &published.state;
    let wanted = mesh.services().filter(|service| scope.holds(&service.namespace));
    Json(wanted.map(|service| service_view(mesh, service)).collect())
}

fn service_view(mesh: &MeshState, service: &KnownService) -> ServiceView {
    let members = mesh.members(service);
    let address =
        mesh.offset(&service.host).map(|offset| Ipv4Addr::from_bits(LOOPBACK_NET + offset).to_string());
    ServiceView {
        name: service_name(service),
        namespace: service.namespace.to_string(),
        host: service.host.to_string(),
        ports: service
            .ports
            .iter()
            .map(|port| PortView {
                name: port.name.to_string(),
                port: port.number,
                protocol: port.protocol.name().to_owned(),
            })
            .collect(),
        address: address.unwrap_or_default(),
        workloads: members.len(),
        healthy: members.iter().filter(|member| member.workload.health == Health::Healthy).count(),
    }
}

fn service_name(service: &KnownService) -> String {
    service.short_name().unwrap_or(&service.host).to_string()
}

pub(super) async fn workloads(State(state): Shared, Query(scope): Query<Scope>) -> Json<Vec<WorkloadView>> {
    let published = state.controller.published();
    let mesh = &published.state;
    let wanted = mesh.workloads().filter(|workload| scope.holds(&workload.key.namespace));
    let view = wanted.map(|workload| WorkloadView {
        name: workload.key.name.to_string(),
        namespace: workload.key.namespace.to_string(),
        node: workload.node.as_deref().unwrap_or("").to_owned(),
        address: workload.entry.address.to_string(),
        service_account: workload.entry.service_account.as_deref().unwrap_or("").to_owned(),
        identity: workload.identity.as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default(),
        labels: workload
            .entry
            .labels
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect(),
        services: mesh.services_of(workload).iter().map(|service| service_name(service)).collect(),
        health: workload.health_name().to_owned(),
        reason: workload.reason.to_string(),
    });
    Json(view.collect())
}

pub(super) async fn health(State(state): Shared, Query(scope): Query<Scope>) -> Json<Vec<HealthView>> {
    let published = state.controller.published();
    let fares = state.controller.fares();
    let wanted = published.state.workloads().filter(|workload| scope.holds(&workload.key.namespace));
    let view = wanted.map(|workload| {
        let fare = workload.node.as_deref().and_then(|node| fares.of(node, &workload.key));
        HealthView {
            workload: workload.key.name.to_string(),
            namespace: workload.key.namespace.to_string(),
            check: fare.map(|fare| fare.check.to_string()).unwrap_or_default(),
            health: workload.health_name().to_owned(),
            since: fare.map(|fare| clock::text(fare.since)).unwrap_or_default(),
            reason: workload.reason.to_string(),
            // A host whose lease has run out has no callers any more that would say so.
            ejected_by: fares.ejected_by(&workload.key, |node| {
                let registration = published.state.registration(node);
                registration.is_some_and(|here| here.standing != HostStanding::Away)
            }),
        }
    });
    Json(view.collect())
}

pub(super) async fn explain(
    State(state): Shared,
    Json(request): Json<ExplainRequest>,
) -> Result<Json<Value>, Refusal> {
    let published = state.controller.published();
    let answer = blocking(move || {
        super::explain::answer(&published.state, &published.compiled, published.version, &request)
    });
    answer.await?.map(Json).map_err(Refusal::bad)
}

#[derive(Debug, Deserialize)]
pub(super) struct PartQuery {
    part: Option<String>,
}

pub(super) async fn proxy(
    State(state): Shared,
    Path(node): Path<String>,
    Query(query): Query<PartQuery>,
) -> Result<Json<Value>, Refusal> {
    if state.members.find(&node).is_none_or(|member| member.revoked) {
        return Err(Refusal::missing(format!("no node {node:?} has joined; see `meshd node list`")));
    }
    let standing = state.roster.standing(&node);
    let running = standing.as_ref().and_then(|standing| standing.running.clone()).ok_or_else(|| {
        Refusal::missing(format!("the proxy of {node} has not taken in any version since meshd started"))
    })?;
    let faults = standing.map(|standing| standing.sync.listener_faults).unwrap_or_default();
    let mut parts = parts(&running);
    parts["listeners"]["faults"] =
        faults.iter().map(|fault| json!({"address": &*fault.address, "reason": &*fault.reason})).collect();
    let picked = match query.part {
        Some(part) => parts.get(&part).cloned().ok_or_else(|| Refusal::bad(format!("no part {part:?}")))?,
        None => {
            parts["version"] = json!(running.version.number);
            parts["revision"] = json!(running.version.revision);
            parts
        }
    };
    Ok(Json(picked))
}

fn parts(snapshot: &Snapshot) -> Value {
    let mut workloads = Vec::new();
    let mut services = Vec::new();
    let mut routes = Vec::new();
    let mut destinations = Vec::new();
    let mut endpoints = Vec::new();
    let mut policies = Vec::new();
    let mut views = Vec::new();
    let mut gateways = Vec::new();
    let mut secrets = json!({});
    let mut credentials = Vec::new();
    let mut telemetry = json!({});
    for entry in snapshot.sections.values() {
        match &*entry.section {
            Section::Trust(trust) => {
                secrets["trust_domain"] = json!(trust.domain.as_str());
                secrets["roots"] = json!(trust.roots.len());
            }
            Section::Service(service) => services.push(json!({
                "host": &*service.host,
                "namespace": &*service.namespace,
                "names": texts(&service.names),
                "ports": service.ports.iter().map(|port| json!({"name": &*port.name, "port": port.number, "protocol": port.protocol.name()})).collect::<Vec<_>>(),
                "offset": service.offset,
                "external": service.external,
                "declared_by": &*service.origin.resource,
            })),
            Section::Routes(found) => routes.push(json!({
                "host": &*found.at.host,
                "port": found.at.port,
                "declared_by": found.origin.as_deref(),
                "http": found.http.iter().map(http_rule).collect::<Vec<_>>(),
                "tcp": found.tcp.iter().map(tcp_rule).collect::<Vec<_>>(),
            })),
            Section::Destination(found) => destinations.push(json!({
                "cluster": found.key.cluster(),
                "for_namespace": found.key.scope.as_deref(),
                "load_balancer": found.load_balancer.name(),
                "tls": found.tls.name(),
                "declared_by": found.origin.as_deref(),
            })),
            Section::Endpoints(slice) => {
                endpoints.extend(slice.endpoints.iter().map(|endpoint| json!({
                    "host": &*slice.host,
                    "slice": slice.slice,
                    "workload": endpoint.workload.to_string(),
                    "node": endpoint.node.as_deref(),
                    "address": endpoint.address.to_string(),
                    "ports": endpoint.ports.iter().map(|(service, target)| json!({"service": service, "workload": target})).collect::<Vec<_>>(),
                    "identity": endpoint.identity.as_ref().map(|id| id.as_str()),
                    "tunnel": endpoint.tunnel,
                    "weight": endpoint.weight,
                    "health": endpoint.health.name(),
                })));
            }
            Section::Authorization(policy) => policies.push(json!({
                "resource": format!("authorizationpolicy/{}/{}", policy.namespace, policy.name),
                "action": policy.action.name(),
                "rules": policy.rules.iter().map(ToString::to_string).collect::<Vec<_>>(),
            })),
            Section::Tokens(policy) => policies.push(json!({
                "resource": policy.resource(),
                "issuers": policy.rules.iter().map(|rule| rule.issuer.as_deref()).collect::<Vec<_>>(),
            })),
            Section::View(view) => views.push(json!({
                "view": &*view.key,
                "namespace": &*view.namespace,
                "declared_by": view.origin.as_deref(),
                "outbound": match &view.outbound {
                    Outbound::Allow(_) => "ALLOW_ANY",
                    Outbound::Refuse => "REGISTRY_ONLY",
                },
            })),
            Section::Gateway(gateway) => gateways.push(json!({
                "gateway": format!("{}/{}", gateway.namespace, gateway.name),
                "ports": gateway.listeners.iter().map(|listener| listener.port).collect::<Vec<_>>(),
            })),
            Section::Telemetry(found) => telemetry = super::telemetry::shape(found),
            // Their names only.
            Section::Credential(credential) => credentials.push(credential.key.to_string()),
            Section::Workload(workload) => workloads.push(json!({
                "workload": workload.key.to_string(),
                "address": workload.address,
                "identity": workload.identity.as_ref().map(|id| id.as_str()),
                "ports": workload.ports.iter().map(|port| json!({"port": port.number, "protocol": port.protocol.name(), "service": &*port.service})).collect::<Vec<_>>(),
                "mtls": {
                    "default": workload.mtls.default.name(),
                    "declared_by": workload.mtls.origin.as_deref(),
                    "ports": workload.mtls.ports.iter().map(|(port, mode)| json!({"port": port, "mode": mode.name()})).collect::<Vec<_>>(),
                },
                "policies": workload.policies.iter().map(|(namespace, name)| format!("authorizationpolicy/{namespace}/{name}")).collect::<Vec<_>>(),
                "telemetry": super::telemetry::shape(&workload.telemetry),
                "rate_limits": workload.limits.iter().map(|limit| &*limit.origin).collect::<Vec<_>>(),
            })),
        }
    }
    secrets["credentials"] = json!(credentials);
    secrets["identities"] =
        workloads.iter().filter_map(|workload| workload.get("identity")).cloned().collect();
    json!({
        "listeners": {"workloads": workloads, "gateways": gateways, "faults": []},
        "services": services,
        "views": views,
        "routes": {"routes": routes, "destinations": destinations},
        "endpoints": endpoints,
        "policies": policies,
        "telemetry": telemetry,
        "secrets": secrets,
    })
}

fn texts(list: &[mesh_core::vocab::name::Text]) -> Vec<&str> {
    list.iter().map(|text| &**text).collect()
}

fn http_rule(rule: &HttpRule) -> Value {
    let mut shown = json!({
        "declared_by": &*rule.origin.resource,
        "rule": rule.origin.rule,
        "matches": rule.matches.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    match &rule.action {
        RuleAction::Route { backends, .. } => shown["destinations"] = backends.iter().map(backend).collect(),
        RuleAction::Redirect(redirect) => shown["redirect"] = json!(redirect.to_string()),
        RuleAction::DirectResponse(response) => shown["direct_response"] = json!(response.status),
    }
    if !rule.limits.is_empty() {
        shown["rate_limits"] = rule.limits.iter().map(|limit| &*limit.origin).collect();
    }
    shown
}

fn tcp_rule(rule: &TcpRule) -> Value {
    json!({
        "declared_by": &*rule.origin.resource,
        "rule": rule.origin.rule,
        "matches": rule.matches.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "destinations": rule.backends.iter().map(backend).collect::<Vec<_>>(),
    })
}

fn backend(backend: &Backend) -> Value {
    json!({"cluster": backend.cluster(), "weight": backend.weight})
}
