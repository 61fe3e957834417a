//! What is said of a destination.

use std::sync::Arc;
use std::time::Duration;

use super::{DestinationFound, EndpointFound, Question};
use crate::balancing::locality::Preference;
use crate::balancing::policy::{Algorithm, HashKey};
use crate::balancing::priority::{Place, Standing};
use crate::balancing::zones::Zones;
use crate::decide::witness::{Remembering, Witness};
use crate::policy::mtls::{ClientTls, CredentialKey, ServerNames, TlsOrigination};
use crate::resilience::connection_fault::ConnectionFault;
use crate::resilience::pool::PoolLimits;
use crate::routing::rule::Backend;
use crate::snapshot::destination::Destination as Policy;
use crate::snapshot::workload::Workload;
use crate::tables::Tables;
use crate::tables::destinations::{Destination, Endpoint, Transport};
use crate::vocab::health::Health;
use crate::vocab::label::Labels;
use crate::vocab::locality::Locality;
use crate::vocab::protocol::UpstreamProtocol;
use crate::vocab::resolution::Resolution;

fn share(backend: &Backend, of: usize) -> u32 {
    if of == 1 { 100 } else { backend.weight }
}

/// A backend without a destination.
pub(super) fn missing(backend: &Backend, of: usize) -> DestinationFound {
    DestinationFound {
        host: backend.host.to_string(),
        subset: backend.subset.as_ref().map(ToString::to_string),
        port: backend.port,
        weight: share(backend, of),
        cluster: backend.cluster(),
        tls: "none",
        load_balancer: None,
        fault: None,
        endpoints: Vec::new(),
    }
}

/// Where the caller is: the workload of that identity, on the host meant if one is, with the labels given if one
/// has them. Nothing is known of any other caller but its labels.
fn place<'a>(tables: &'a Tables, question: &Question<'a>) -> (Option<&'a Locality>, Place<'a>) {
    static NOWHERE: Locality = Locality { region: None, zone: None, subzone: None };
    let labels = question.caller.labels;
    match caller(tables, question) {
        Some(workload) => (
            Some(&workload.locality),
            Place {
                locality: &workload.locality,
                labels,
                network: workload.network.as_deref(),
                node: Some(&workload.node),
            },
        ),
        None => (None, Place { locality: &NOWHERE, labels, network: None, node: question.node }),
    }
}

/// The workload that the caller is.
fn caller<'a>(tables: &'a Tables, question: &Question<'a>) -> Option<&'a Workload> {
    let same = tables.workloads.values().map(|workload| &workload.section).filter(|workload| {
        question.identity.is_some()
            && workload.identity.as_ref() == question.identity
            && *workload.key.namespace == *question.caller.namespace
            && question.node.is_none_or(|node| *workload.node == *node)
    });
    let candidates: Vec<_> = same.collect();
    let labelled = |labels: &Labels| labels == question.caller.labels;
    candidates.iter().find(|workload| labelled(&workload.labels)).or(candidates.first()).copied()
}

/// A backend with its destination.
pub(super) fn found(
    tables: &Tables,
    question: &Question<'_>,
    backend: &Backend,
    of: usize,
    destination: &Destination,
) -> DestinationFound {
    let (_, caller) = place(tables, question);
    let standings = destination.standings(&caller);
    let endpoints = destination.endpoints.iter().zip(standings).map(|(endpoint, standing)| EndpointFound {
        endpoint: endpoint.clone(),
        priority: standing.priority,
        weight: standing.weight,
    });
    DestinationFound {
        tls: tls(destination, question.gateway),
        load_balancer: Some(destination.policy.load_balancer.name()),
        fault: fault(&destination.policy, question.now),
        endpoints: endpoints.collect(),
        ..missing(backend, of)
    }
}

/// The endpoints that get traffic of the caller.
pub(super) fn receiving<'d>(
    tables: &Tables,
    question: &Question<'_>,
    destination: &'d Destination,
) -> Vec<&'d Arc<Endpoint>> {
    let (_, caller) = place(tables, question);
    let standings = destination.standings(&caller);
    let endpoints = destination.endpoints.iter().zip(standings);
    let healthy = endpoints.filter(|(endpoint, _)| endpoint.health == Health::Healthy);
    healthy.filter(|(_, standing)| standing.weight > 0).map(|(endpoint, _)| endpoint).collect()
}

/// The fault of a destination, if it is not over.
fn fault(policy: &Policy, now: u64) -> Option<ConnectionFault> {
    policy.fault.filter(|fault| fault.left(Duration::from_secs(now)).is_some())
}

/// Tells what happens to connections on purpose.
fn note_fault(policy: &Policy, now: u64, witness: &mut Remembering) {
    let Some(declared) = &policy.fault else { return };
    match declared.left(Duration::from_secs(now)) {
        Some(left) => witness.note(|| {
            let (share, kind) = (declared.share, declared.kind);
            let left = brief(Duration::from_secs(left.as_secs()));
            format!("{share} of the connections or requests to it {kind}, for another {left}")
        }),
        None => witness.note(|| "its fault (mesh.io/fault) is over".to_owned()),
    }
}

/// What connections are secured by: `mutual`, `simple` or `none`.
fn tls(destination: &Destination, gateway: bool) -> &'static str {
    match destination.tls_of(gateway) {
        ClientTls::Disable => "none",
        ClientTls::IstioMutual { .. } | ClientTls::Originate(TlsOrigination { certificate: Some(_), .. }) => {
            "mutual"
        }
        ClientTls::Originate(TlsOrigination { certificate: None, .. }) => "simple",
        ClientTls::Auto => {
            let mesh = |transport: &Transport| matches!(transport, Transport::Mesh { .. });
            let mutual = destination.endpoints.iter().any(|endpoint| mesh(&endpoint.transport));
            if mutual { "mutual" } else { "none" }
        }
    }
}

/// Tells where a share of the traffic goes, and how.
pub(super) fn note_destination(
    tables: &Tables,
    question: &Question<'_>,
    destination: &Destination,
    backend: &Backend,
    of: usize,
    witness: &mut Remembering,
) {
    let policy = &destination.policy;
    let rule = policy.origin.as_deref().map(|rule| format!(" shaped by {rule}")).unwrap_or_default();
    witness.note(|| {
        format!(
            "weight {} goes to {}{rule}: {}",
            share(backend, of),
            destination.cluster,
            choice(destination)
        )
    });
    note_localities(tables, question, destination, witness);
    note_tls(tables, policy, question.gateway, witness);
    note_fault(policy, question.now, witness);
    if let Some(outliers) = &policy.outlier_detection {
        witness.note(|| {
            let errors = match (outliers.consecutive_5xx, outliers.consecutive_gateway) {
                (0, 0) => "no consecutive errors".to_owned(),
                (errors, 0) => format!("{errors} consecutive errors"),
                (0, errors) => format!("{errors} consecutive gateway errors"),
                (errors, gateway) => format!("{errors} consecutive errors or {gateway} gateway errors"),
            };
            format!(
                "after {errors} an endpoint is left alone for {} or longer, at most {} % of all at once{}",
                brief(outliers.base_ejection_time),
                outliers.max_ejection_percent,
                never_ejected(destination, outliers.max_ejection_percent),
            )
        });
    }
    let limits = limits(policy);
    if !limits.is_empty() {
        witness.note(|| format!("limits of this caller's proxy: {}", limits.join(", ")));
    }
    if let Some(warmup) = policy.warmup {
        let (duration, minimum) = (brief(warmup.duration), warmup.minimum);
        witness.note(|| format!("a new endpoint gets its share over {duration}, from {minimum} on"));
    }
    if let Some(tunnel) = &policy.tunnel {
        witness.note(|| {
            let method = if tunnel.post { "POST" } else { "CONNECT" };
            format!("byte streams ask the endpoint by {method} for {}:{}", tunnel.host, tunnel.port)
        });
    }
    if let Some(version) = policy.proxy_protocol {
        witness.note(|| format!("connections begin with a PROXY header of version {version}"));
    }
    if policy.upstream != policy.protocol.upstream() && policy.upstream != UpstreamProtocol::Opaque {
        witness.note(|| format!("endpoints are spoken to in {}", policy.upstream.name()));
    }
}

/// How an endpoint is chosen, in words.
fn choice(destination: &Destination) -> String {
    let policy = &destination.policy;
    match (policy.resolution, &policy.load_balancer) {
        (Resolution::DynamicDns, _) => return "the name that the request asks for is resolved".to_owned(),
        (_, Algorithm::Passthrough) => {
            let port = policy.target_port.map(|port| format!(" on port {port}")).unwrap_or_default();
            return format!("it goes to the address that it was sent to{port}");
        }
        (_, Algorithm::Simple(_) | Algorithm::ConsistentHash { .. } | Algorithm::Utilization(_)) => {}
    }
    let healthy = destination.endpoints.iter().filter(|endpoint| endpoint.health == Health::Healthy).count();
    let how = match &policy.load_balancer {
        // Byte streams have neither header nor cookie.
        Algorithm::ConsistentHash { key, .. }
            if policy.upstream == UpstreamProtocol::Opaque && *key != HashKey::SourceIp =>
        {
            format!("at random, as byte streams have no {key}")
        }
        Algorithm::ConsistentHash { key, .. } => {
            let always = matches!(key, HashKey::SourceIp | HashKey::Cookie { ttl: Some(_), .. });
            let otherwise = if always { "" } else { ", at random without it" };
            format!("{} of {key}{otherwise}", policy.load_balancer.name())
        }
        Algorithm::Utilization(_) if policy.upstream == UpstreamProtocol::Opaque => {
            "round robin, as byte streams carry no reports".to_owned()
        }
        Algorithm::Utilization(utilization) => format!(
            "round robin by what endpoints report of their load: each from {} after its first report until {} after its last",
            brief(utilization.stabilization),
            brief(utilization.expiration),
        ),
        Algorithm::Simple(_) | Algorithm::Passthrough => policy.load_balancer.name().to_owned(),
    };
    let names = match policy.resolution {
        Resolution::Dns => ", names are resolved to all their addresses",
        Resolution::DnsRoundRobin => ", the name is resolved for each new connection",
        Resolution::Static | Resolution::None | Resolution::DynamicDns => "",
    };
    format!("{healthy} of {} endpoints healthy, {how}{names}", destination.endpoints.len())
}

/// The order of localities, or their shares, as the caller finds them.
fn note_localities(
    tables: &Tables,
    question: &Question<'_>,
    destination: &Destination,
    witness: &mut Remembering,
) {
    let by = match &destination.policy.preference {
        Preference::None => return,
        Preference::Shares(_) => "by the shares of localities",
        Preference::Order { labels, regions: None } if labels.is_empty() => return,
        Preference::Order { labels, .. } if labels.is_empty() => "the nearest locality first",
        Preference::Order { regions: None, .. } => "by the labels that agree",
        Preference::Order { .. } => "by the labels that agree, then the nearest locality first",
        Preference::Zones { min_cluster_size, .. } => {
            note_zones(tables, question, destination, *min_cluster_size, witness);
            "the own region first"
        }
    };
    let (known, caller) = place(tables, question);
    let standings = destination.standings(&caller);
    let Some((first, rest)) = destination.endpoints.split_first() else { return };
    if rest.iter().all(|endpoint| endpoint.locality == first.locality)
        && standings.iter().all(|s| s.priority == 0)
    {
        return;
    }
    witness.note(|| {
        let from = match known {
            Some(locality) if !locality.is_unknown() => format!("from {locality}"),
            Some(_) | None => "from a caller whose locality is not known".to_owned(),
        };
        format!("{by}, {from}: {}", groups(destination, &standings))
    });
}

/// How much of the traffic stays in the caller's zone.
fn note_zones(
    tables: &Tables,
    question: &Question<'_>,
    destination: &Destination,
    least: u32,
    witness: &mut Remembering,
) {
    let Some(workload) = caller(tables, question) else { return };
    let standings = destination.standings(&place(tables, question).1);
    let first = destination.endpoints.iter().zip(&standings).filter(|(_, standing)| standing.priority == 0);
    let mut zones: Vec<(&Locality, u64)> = Vec::new();
    for (endpoint, _) in first.filter(|(endpoint, _)| endpoint.health == Health::Healthy) {
        match zones.iter_mut().find(|(locality, _)| **locality == endpoint.locality) {
            Some((_, count)) => *count += 1,
            None => zones.push((&endpoint.locality, 1)),
        }
    }
    let number = |locality: &Locality| zones.iter().position(|(known, _)| *known == locality);
    let mut callers = vec![0; zones.len()];
    for (locality, count) in tables.siblings(workload) {
        match number(&locality) {
            Some(zone) => callers[zone] += count,
            None => callers.push(count),
        }
    }
    let usable: Vec<u64> = zones.iter().map(|(_, count)| *count).collect();
    let own = number(&workload.locality);
    let shares = own.and_then(|own| Zones { own, callers: &callers, least }.shares(&usable));
    witness.note(|| match (own, shares) {
        (Some(own), Some(shares)) => {
            let sum: u64 = shares.iter().sum();
            let share = shares[own].saturating_mul(100) / sum.max(1);
            format!("{share} % stay in the caller's zone {}", workload.locality)
        }
        (Some(_) | None, _) => "zones make no difference: that needs endpoints in the caller's zone and in others, and its own service"
            .to_owned(),
    });
}

/// Priorities with their localities: `1. r1/z1 and r1/z2, 2. r2/z1`; shares where there is one priority.
fn groups(destination: &Destination, standings: &[Standing]) -> String {
    let mut groups: Vec<(u32, Vec<(String, u64)>)> = Vec::new();
    let mut order: Vec<usize> = (0..standings.len()).collect();
    order.sort_by_key(|index| standings[*index].priority);
    for index in order {
        let (standing, endpoint) = (standings[index], &destination.endpoints[index]);
        let locality = match endpoint.locality.is_unknown() && endpoint.locality.zone.is_none() {
            true => "no locality".to_owned(),
            false => endpoint.locality.to_string(),
        };
        if groups.last().is_none_or(|(priority, _)| *priority != standing.priority) {
            groups.push((standing.priority, Vec::new()));
        }
        let Some((_, members)) = groups.last_mut() else { continue };
        match members.iter_mut().find(|(name, _)| *name == locality) {
            Some((_, weight)) => *weight += u64::from(standing.weight),
            None => members.push((locality, u64::from(standing.weight))),
        }
    }
    if let [(_, members)] = groups.as_slice() {
        let total: u64 = members.iter().map(|(_, weight)| weight).sum();
        let share = |(name, weight): &(String, u64)| format!("{} % to {name}", weight * 100 / total.max(1));
        return members.iter().map(share).collect::<Vec<_>>().join(", ");
    }
    let group = |(priority, members): &(u32, Vec<(String, u64)>)| {
        let names: Vec<_> = members.iter().map(|(name, _)| name.as_str()).collect();
        format!("priority {priority} {}", names.join(" and "))
    };
    groups.iter().map(group).collect::<Vec<_>>().join(", then ")
}

fn note_tls(tables: &Tables, policy: &Policy, gateway: bool, witness: &mut Remembering) {
    match &policy.tls {
        ClientTls::Auto => {}
        ClientTls::Disable => witness.note(|| "mutual TLS is turned off, so it goes in the clear".to_owned()),
        ClientTls::IstioMutual { subject_alt_names, .. } => {
            if !subject_alt_names.is_empty() {
                witness.note(|| format!("the endpoint must be {}", subject_alt_names.join(" or ")));
            }
        }
        ClientTls::Originate(origination) if origination.gateways_only && !gateway => witness.note(|| {
            "its credential is for gateways and for proxies that the rule selects, so it goes in the clear"
                .to_owned()
        }),
        ClientTls::Originate(origination) => witness.note(|| {
            let sni = origination.sni.as_deref().unwrap_or("the host of the request");
            let names = match &origination.names {
                ServerNames::Requested => "a certificate for that name".to_owned(),
                ServerNames::OneOf(names) => format!("a certificate for {}", names.join(" or ")),
                ServerNames::Any => "any certificate".to_owned(),
            };
            format!("the proxy begins {} TLS, asks for {sni} and takes {names}", policy.tls.name())
        }),
    }
    for key in policy.tls.credentials(gateway) {
        if !tables.credentials.contains_key(&key) {
            witness.note(|| match &key {
                CredentialKey::Shown(name) => {
                    format!("no Secret {name} holds a certificate and its key, so no connection is made")
                }
                CredentialKey::Authority(name) => {
                    format!("neither {key} nor {name} holds an authority, so no connection is made")
                }
            });
        }
    }
}

/// A duration in the largest unit that shows it exactly.
fn brief(duration: Duration) -> String {
    match (duration.as_secs(), duration.subsec_nanos()) {
        (seconds, 0) if seconds > 0 && seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        (seconds, 0) if seconds > 0 && seconds % 60 == 0 => format!("{}m", seconds / 60),
        _ => format!("{duration:?}"),
    }
}

/// With few endpoints the share that may be ejected at once is less than one.
fn never_ejected(destination: &Destination, percent: u32) -> String {
    let hosts = destination.endpoints.len() as u64;
    let first = hosts > 0 && 100 <= u64::from(percent) * hosts;
    if hosts == 0 || first {
        return String::new();
    }
    format!(", which of {hosts} is none")
}

/// Limits that differ from what every destination has.
fn limits(policy: &Policy) -> Vec<String> {
    let (own, usual) = (&policy.pool, PoolLimits::default());
    let mut limits = Vec::new();
    let mut count = |name: &str, value: u32, usual: u32| {
        if value != usual {
            limits.push(format!("{value} {name}"));
        }
    };
    count("connections", own.max_connections, usual.max_connections);
    count("waiting requests", own.max_pending_requests, usual.max_pending_requests);
    count("requests at once", own.max_requests, usual.max_requests);
    if policy.retry_budget.is_none() {
        count("retries at once", own.max_retries, usual.max_retries);
    }
    count("streams a connection", own.max_concurrent_streams, usual.max_concurrent_streams);
    if let Some(budget) = &policy.retry_budget {
        limits.push(format!("retries up to {} of requests, {} always", budget.share, budget.min_concurrency));
    }
    if let Some(requests) = own.max_requests_per_connection {
        limits.push(format!("{requests} requests a connection"));
    }
    if policy.connect_timeout != Duration::from_secs(10) {
        limits.push(format!("{} to connect", brief(policy.connect_timeout)));
    }
    limits
}

#[cfg(test)]
mod tests;
