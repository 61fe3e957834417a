//! The question of `explain` asked of a mesh state, and its answer as the contract's object. Serves the live mesh and
//! files alone.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_core::compile::{Compiled, compile};
use mesh_core::decide::explain::{DestinationFound, Explanation, Question, explain};
use mesh_core::matching::authority::Authority;
use mesh_core::matching::request::{Caller, Request};
use mesh_core::resilience::fault::AbortStatus;
use mesh_core::resource::Resource;
use mesh_core::snapshot::Version;
use mesh_core::state::{Change, MeshState, Registration, Settings};
use mesh_core::tables::build::build;
use mesh_core::vocab::health::Health;
use mesh_core::vocab::identity::{Account, SpiffeId};
use mesh_core::vocab::label::Labels;
use mesh_core::vocab::name::{Text, WorkloadKey};
use serde_json::{Map, Value, json};

use super::view::ExplainRequest;

/// Answers a question; the error says what is wrong with the question.
pub fn answer(
    state: &MeshState,
    compiled: &Compiled,
    version: Version,
    request: &ExplainRequest,
) -> Result<Value, String> {
    let asker = asker(state, &request.from, &request.labels)?;
    let target = target(&request.to)?;
    let mut headers = headers(&request.headers)?;
    // As with curl: the URL says where to connect, a Host field says which authority the request names.
    let host = headers.remove(http::header::HOST);
    let authority = host.as_ref().and_then(|value| value.to_str().ok()).unwrap_or(target.authority);
    let tables = build(&compiled.whole(version), None).map_err(|rejections| {
        let reasons: Vec<_> =
            rejections.iter().map(|rejection| format!("{}: {}", rejection.key, rejection.reason)).collect();
        format!("the data plane would refuse this configuration: {}", reasons.join("; "))
    })?;
    let question = Question {
        identity: asker.identity.as_ref(),
        caller: Caller { namespace: &asker.namespace, labels: &asker.labels },
        request: Request {
            method: if request.method.is_empty() { "GET" } else { &request.method },
            scheme: target.scheme,
            authority,
            path: target.path,
            query: target.query,
            headers: &headers,
        },
        host: target.host,
        port: target.port,
        stream: target.scheme == "tcp",
    };
    Ok(shape(&explain(&tables, &question)))
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
            drained: false,
        };
        (node, Some(registration))
    });
    let change = Change { registrations: registrations.collect(), ..Change::default() };
    let (state, _) = declared.apply(change);
    let compiled = compile(&state);
    (state, compiled)
}

struct Asker {
    namespace: String,
    labels: Labels,
    identity: Option<SpiffeId>,
}

/// `NS/SERVICEACCOUNT[@NODE]`, with the labels of a workload that is it.
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
            && node.is_none_or(|node| workload.node.as_deref() == Some(node))
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
    Ok(Asker { namespace: account.namespace.to_string(), labels, identity: Some(identity) })
}

struct Target<'a> {
    scheme: &'a str,
    authority: &'a str,
    host: &'a str,
    port: u16,
    path: &'a str,
    query: Option<&'a str>,
}

/// A URL, its path untouched: normalising it is part of the decision.
fn target(url: &str) -> Result<Target<'_>, String> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let scheme = match scheme {
        "http" | "grpc" => "http",
        "https" => "https",
        "tcp" => "tcp",
        other => return Err(format!("--to {url:?}: unknown scheme {other:?} (http, https, tcp)")),
    };
    let rest = rest.split('#').next().unwrap_or("");
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let parsed = Authority::parse(authority).map_err(|error| format!("--to {url:?}: {error}"))?;
    let port = match (parsed.port, scheme) {
        (Some(port), _) => port,
        (None, "http") => 80,
        (None, "https") => 443,
        (None, _) => return Err(format!("--to {url:?}: names no port")),
    };
    let (path, query) = match tail.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (tail, None),
    };
    let host = parsed.host;
    Ok(Target { scheme, authority, host, port, path: if path.is_empty() { "/" } else { path }, query })
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

fn shape(found: &Explanation) -> Value {
    let mut object = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            object.insert(name.to_owned(), value);
        }
    };
    put("version", Some(json!(found.version.number)));
    put("service", found.service.as_deref().map(Value::from));
    put("port", Some(json!(found.port)));
    put("protocol", Some(json!(found.protocol)));
    put(
        "path",
        found
            .path
            .as_ref()
            .map(|(received, normalized)| json!({"received": received, "normalized": normalized})),
    );
    put(
        "route",
        found.route.as_ref().map(|route| {
            let mut shaped = json!({"resource": route.resource, "rule": route.rule});
            if let Some(matched) = route.matched {
                shaped["match"] = json!(matched);
            }
            if let Some(name) = &route.name {
                shaped["name"] = json!(name);
            }
            shaped
        }),
    );
    put("action", Some(json!(found.action)));
    put("status", found.status.map(Value::from));
    put("location", found.location.as_deref().map(Value::from));
    let mut rewrite = Map::new();
    if let Some(path) = &found.rewrite_path {
        rewrite.insert("path".to_owned(), json!(path));
    }
    if let Some(authority) = &found.rewrite_authority {
        rewrite.insert("authority".to_owned(), json!(authority));
    }
    put("rewrite", (!rewrite.is_empty()).then_some(Value::Object(rewrite)));
    let destinations: Vec<_> = found.destinations.iter().map(destination).collect();
    put("destinations", (!destinations.is_empty()).then_some(Value::Array(destinations)));
    put("timeout", found.timeout.map(duration));
    put(
        "retries",
        found.retries.as_ref().map(|retries| {
            let mut shaped = json!({"attempts": retries.attempts});
            if let Some(limit) = retries.per_try_timeout {
                shaped["per_try_timeout"] = duration(limit);
            }
            shaped["on"] = retries.on.iter().map(|condition| condition.name()).collect();
            shaped
        }),
    );
    let mut fault = Map::new();
    if let Some((share, wait)) = found.fault.delay {
        fault.insert(
            "delay".to_owned(),
            json!({"percent": number(share.percent()), "duration": duration(wait)}),
        );
    }
    if let Some((share, status)) = found.fault.abort {
        let mut abort = json!({"percent": number(share.percent())});
        match status {
            AbortStatus::Http(status) => abort["status"] = json!(status),
            AbortStatus::Grpc(status) => abort["grpc_status"] = json!(status),
        }
        fault.insert("abort".to_owned(), abort);
    }
    put("fault", (!fault.is_empty()).then_some(Value::Object(fault)));
    put(
        "authorization",
        found.authorization.as_ref().map(|verdict| {
            let mut shaped = json!({"verdict": if verdict.allowed { "allow" } else { "deny" }});
            for (name, value) in [
                ("decided_by", verdict.decided_by.as_deref().map(Value::from)),
                ("rule", verdict.rule.map(Value::from)),
                ("nearest_miss", verdict.nearest_miss.as_deref().map(Value::from)),
            ] {
                if let Some(value) = value {
                    shaped[name] = value;
                }
            }
            shaped
        }),
    );
    put(
        "authentication",
        found.authentication.as_ref().map(|accepted| {
            let mut shaped = json!({"mtls": accepted.mtls});
            if let Some(policy) = &accepted.decided_by {
                shaped["decided_by"] = json!(policy);
            }
            shaped["jwt"] = json!("none");
            shaped
        }),
    );
    put("flags", Some(json!(found.flags)));
    put("why", Some(json!(found.why)));
    Value::Object(object)
}

fn destination(found: &DestinationFound) -> Value {
    let mut shaped = json!({"host": found.host});
    if let Some(subset) = &found.subset {
        shaped["subset"] = json!(subset);
    }
    shaped["port"] = json!(found.port);
    shaped["weight"] = json!(found.weight);
    shaped["cluster"] = json!(found.cluster);
    shaped["tls"] = json!(found.tls);
    if let Some(name) = found.load_balancer {
        shaped["load_balancer"] = json!(name);
    }
    let endpoints = found.endpoints.iter().map(|endpoint| {
        let mut shaped = json!({"address": endpoint.address.to_string()});
        if let Some(node) = &endpoint.node {
            shaped["node"] = json!(&**node);
        }
        shaped["weight"] = json!(endpoint.weight);
        if !endpoint.locality.is_unknown() {
            shaped["locality"] = json!(endpoint.locality.to_string());
        }
        shaped["priority"] = json!(0);
        shaped["health"] = json!(endpoint.health.name());
        shaped
    });
    shaped["endpoints"] = endpoints.collect();
    shaped
}

fn duration(duration: std::time::Duration) -> Value {
    Value::from(humantime::format_duration(duration).to_string())
}

/// A percentage without a needless fraction.
fn number(percent: f64) -> Value {
    if percent.fract() == 0.0 { json!(percent as u64) } else { json!(percent) }
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
        assert_eq!(target("https://reviews").unwrap().port, 443);
        assert_eq!(target("reviews:9080").unwrap().path, "/");
        for bad in ["ftp://x", "http://", "tcp://db", "http://a b/"] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }
}
