//! The question of `explain` asked of a mesh state, and its answer as the contract's object. Serves the live mesh and
//! files alone.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_core::compile::telemetry::of_workload;
use mesh_core::compile::{Compiled, compile, for_caller};
use mesh_core::decide::explain::gateway::{self, GatewayQuestion};
use mesh_core::decide::explain::{Question, explain};
use mesh_core::matching::request::{Caller, Request};
use mesh_core::message::authority::Authority;
use mesh_core::resource::Resource;
use mesh_core::snapshot::{Snapshot, Version};
use mesh_core::state::{Change, MeshState, Registration, Settings};
use mesh_core::tables::Tables;
use mesh_core::tables::build::build;
use mesh_core::telemetry::Side;
use mesh_core::vocab::health::{Health, HostStanding};
use mesh_core::vocab::identity::{Account, SpiffeId};
use mesh_core::vocab::label::Labels;
use mesh_core::vocab::name::{Text, WorkloadKey};
use serde_json::Value;

use super::telemetry;
use super::view::ExplainRequest;
use shape::shape;

mod shape;

/// Answers a question; the error says what is wrong with the question.
pub fn answer(
    state: &MeshState,
    compiled: &Compiled,
    version: Version,
    request: &ExplainRequest,
) -> Result<Value, String> {
    let target = target(&request.to)?;
    let mut headers = headers(&request.headers)?;
    // As with curl: the URL says where to connect, a Host field says which authority the request names.
    let host = headers.remove(http::header::HOST);
    let authority = host.as_ref().and_then(|value| value.to_str().ok()).unwrap_or(target.authority);
    let asked = Request {
        method: if request.method.is_empty() { "GET" } else { &request.method },
        scheme: target.scheme,
        authority,
        path: target.path,
        query: target.query,
        headers: &headers,
        claims: None,
    };
    let now = u64::try_from(crate::clock::now_seconds()).unwrap_or(0);
    let whole = compiled.whole(version);
    if !request.gateway.is_empty() {
        let (namespace, name) = request
            .gateway
            .split_once('/')
            .ok_or_else(|| format!("--gateway {:?}: expected NAMESPACE/NAME", request.gateway))?;
        let question = GatewayQuestion {
            namespace,
            name,
            request: asked,
            host: target.host,
            port: target.port,
            stream: target.stream,
            source: None,
            now,
        };
        let found = gateway::explain(&tables(&whole)?, &question);
        return found
            .map(|found| shape(&found))
            .ok_or_else(|| format!("there is no gateway {namespace}/{name}"));
    }
    let asker = asker(state, &request.from, &request.labels)?;
    let (view, sections) = for_caller(state, compiled, &asker.namespace, &asker.labels);
    let mut seen = whole;
    seen.sections.extend(sections);
    let question = Question {
        identity: asker.identity.as_ref(),
        caller: Caller { namespace: &asker.namespace, labels: &asker.labels, view: Some(&view) },
        node: asker.node.as_deref(),
        gateway: false,
        captured: request.captured,
        request: asked,
        host: target.host,
        port: target.port,
        stream: target.stream,
        source: None,
        now,
    };
    let mut answer = shape(&explain(&tables(&seen)?, &question));
    tell(&mut answer, &of_workload(state, &asker.namespace, &asker.labels).client);
    Ok(answer)
}

/// Says what the caller's proxy will tell of the call, where that is not what it tells of every call.
fn tell(answer: &mut Value, side: &Side) {
    let found = telemetry::side(side);
    if found.as_object().is_none_or(|parts| parts.is_empty()) {
        return;
    }
    if let Some(steps) = answer["why"].as_array_mut() {
        steps.extend(telemetry::sentences(side).into_iter().map(Value::from));
    }
    answer["telemetry"] = found;
}

/// What the data plane would decide with.
fn tables(snapshot: &Snapshot) -> Result<Tables, String> {
    build(snapshot, None).map_err(|rejections| {
        let reasons: Vec<_> =
            rejections.iter().map(|rejection| format!("{}: {}", rejection.key, rejection.reason)).collect();
        format!("the data plane would refuse this configuration: {}", reasons.join("; "))
    })
}

/// A mesh made of files alone. Every address of a workload stands for a joined host whose workloads are healthy.
pub fn offline(settings: Settings, resources: Vec<Arc<Resource>>) -> (MeshState, Compiled) {
    let (declared, _) = MeshState::new(settings).apply(Change { upserts: resources, ..Change::default() });
    let mut hosts: BTreeMap<IpAddr, BTreeMap<WorkloadKey, (Health, Text)>> = BTreeMap::new();
    for workload in declared.workloads() {
        let Some(address) = workload.entry.address.ip() else { continue };
        let health = hosts.entry(address).or_default();
        health.insert(workload.key.clone(), (Health::Healthy, "".into()));
    }
    let registrations = hosts.into_iter().map(|(address, health)| {
        let node = Text::from(address.to_string());
        let registration = Registration {
            node: node.clone(),
            address,
            inbound: SocketAddr::new(address, crate::registry::announcement::MESH_PORT),
            workloads: Vec::new(),
            services: Vec::new(),
            health,
            standing: HostStanding::Serves,
        };
        (node, Some(registration))
    });
    let change = Change { registrations: registrations.collect(), ..Change::default() };
    let (state, _) = declared.apply(change);
    let compiled = compile(&state);
    (state, compiled)
}

struct Asker {
    namespace: Text,
    labels: Labels,
    node: Option<Text>,
    identity: Option<SpiffeId>,
}

/// `NS/SERVICEACCOUNT[@NODE]`, with the labels of a workload that is it. As files tell of no nodes, the name or address
/// of the workload will do for one.
fn asker(state: &MeshState, from: &str, given: &[String]) -> Result<Asker, String> {
    let (account, node) = match from.split_once('@') {
        Some((account, node)) => (account, Some(node)),
        None => (from, None),
    };
    let account = Account::parse(account)
        .map_err(|_| format!("--from {from:?}: expected NAMESPACE/SERVICEACCOUNT, perhaps @NODE"))?;
    let identity = SpiffeId::workload(&state.settings().trust_domain, &account.namespace, &account.name)
        .map_err(|error| format!("--from {from:?}: {error}"))?;
    let own = state.workloads().find(|workload| {
        workload.identity.as_ref() == Some(&identity)
            && node.is_none_or(|node| {
                workload.node.as_deref() == Some(node)
                    || *workload.key.name == *node
                    || workload.entry.address.ip().is_some_and(|address| address.to_string() == node)
            })
    });
    if let (Some(node), None) = (node, own) {
        return Err(format!("--from {from:?}: no workload of {account} on node {node}"));
    }
    let mut labels = own.map(|workload| workload.entry.labels.clone()).unwrap_or_default();
    for label in given {
        let (key, value) =
            label.split_once('=').ok_or_else(|| format!("--label {label:?}: expected KEY=VALUE"))?;
        labels.set(key, value);
    }
    let node = node.and(own).and_then(|workload| workload.node.clone());
    Ok(Asker { namespace: account.namespace, labels, node, identity: Some(identity) })
}

struct Target<'a> {
    scheme: &'a str,
    /// Whether bytes are meant, in TLS or not.
    stream: bool,
    authority: &'a str,
    host: &'a str,
    port: u16,
    path: &'a str,
    query: Option<&'a str>,
}

/// A URL, its path untouched: normalising it is part of the decision.
fn target(url: &str) -> Result<Target<'_>, String> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let (scheme, stream) = match scheme {
        "http" | "grpc" => ("http", false),
        "https" => ("https", false),
        "tls" => ("https", true),
        "tcp" => ("tcp", true),
        other => return Err(format!("--to {url:?}: unknown scheme {other:?} (http, https, grpc, tcp, tls)")),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let parsed = Authority::parse(authority).map_err(|error| format!("--to {url:?}: {error}"))?;
    let port = match (parsed.port, scheme) {
        (Some(port), _) => port,
        (None, "http") => 80,
        (None, "https") => 443,
        (None, _) => return Err(format!("--to {url:?}: names no port")),
    };
    // A fragment that follows the path is part of the question: dropping it is part of the decision.
    let fragment = tail.find('#').unwrap_or(tail.len());
    let (path, query) = match tail[..fragment].split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (tail, None),
    };
    let host = parsed.host;
    let path = if path.is_empty() { "/" } else { path };
    Ok(Target { scheme, stream, authority, host, port, path, query })
}

fn headers(given: &[String]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for header in given {
        let bad = || format!("-H {header:?}: expected 'Name: value'");
        let (name, value) = header.split_once(':').ok_or_else(bad)?;
        let name = HeaderName::try_from(name.trim()).map_err(|_| bad())?;
        let value = HeaderValue::try_from(value.trim()).map_err(|_| bad())?;
        headers.append(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_keep_their_path() {
        let found = target("http://reviews:9080/a/../b?x=1#y").unwrap();
        assert_eq!(
            (found.authority, found.port, found.path, found.query),
            ("reviews:9080", 9080, "/a/../b", Some("x=1"))
        );
        let found = target("http://reviews/a#b?c").unwrap();
        assert_eq!((found.path, found.query), ("/a#b?c", None));
        assert_eq!(target("https://reviews").unwrap().port, 443);
        assert_eq!(target("reviews:9080").unwrap().path, "/");
        for bad in ["ftp://x", "http://", "tcp://db", "http://a b/"] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }
}
