//! `trafficPolicy` of a DestinationRule and of its subsets.

use mesh_core::resilience::pool::RetryBudget;
use mesh_core::resource::destination_rule::{TrafficBlocks, TrafficPolicy, Tunnel};
use mesh_core::vocab::ratio::Ratio;

use super::client_tls::{CLIENT_TLS, client_tls};
use super::connection_pool::{CONNECTION_POOL, connection_pool};
use super::load_balancer::{LOAD_BALANCER, load_balancer};
use super::outlier_detection::{OUTLIER_DETECTION, outlier_detection};
use crate::dialect::field::{Field, Message, Note, Object};
use crate::dialect::node::quoted;
use crate::dialect::scalar;

pub(crate) static POLICY: Message = Message {
    name: "a trafficPolicy",
    fields: &[
        "connectionPool",
        "loadBalancer",
        "outlierDetection",
        "portLevelSettings",
        "proxyProtocol",
        "retryBudget",
        "tls",
        "tunnel",
    ],
    later: &[],
    skipped: &[],
};

static PORT_POLICY: Message = Message {
    name: "an entry of portLevelSettings",
    fields: &["connectionPool", "loadBalancer", "outlierDetection", "port", "tls"],
    later: &[],
    skipped: &[],
};

static PORT: Message = Message { name: "a port", fields: &["number"], later: &[], skipped: &[] };

static TUNNEL: Message =
    Message { name: "a tunnel", fields: &["protocol", "targetHost", "targetPort"], later: &[], skipped: &[] };

static PROXY_PROTOCOL: Message =
    Message { name: "a proxyProtocol", fields: &["version"], later: &[], skipped: &[] };

static RETRY_BUDGET: Message = Message {
    name: "a retryBudget",
    fields: &["budgetInterval", "minRetryConcurrency", "percent"],
    later: &[],
    skipped: &[],
};

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&POLICY, "portLevelSettings[]", &PORT_POLICY),
    Note::Holds(&PORT_POLICY, "port", &PORT),
    Note::Holds(&POLICY, "loadBalancer", &LOAD_BALANCER),
    Note::Holds(&PORT_POLICY, "loadBalancer", &LOAD_BALANCER),
    Note::Holds(&POLICY, "connectionPool", &CONNECTION_POOL),
    Note::Holds(&PORT_POLICY, "connectionPool", &CONNECTION_POOL),
    Note::Holds(&POLICY, "outlierDetection", &OUTLIER_DETECTION),
    Note::Holds(&PORT_POLICY, "outlierDetection", &OUTLIER_DETECTION),
    Note::Holds(&POLICY, "tls", &CLIENT_TLS),
    Note::Holds(&PORT_POLICY, "tls", &CLIENT_TLS),
    Note::Holds(&POLICY, "tunnel", &TUNNEL),
    Note::Holds(&POLICY, "proxyProtocol", &PROXY_PROTOCOL),
    Note::Holds(&POLICY, "retryBudget", &RETRY_BUDGET),
    Note::Later(&RETRY_BUDGET, "budgetInterval", "other than 0s"),
];

const MOST_PORT_POLICIES: usize = 4096;
/// The blocks that a policy and a port's policy share.
const BLOCKS: [&str; 4] = ["connectionPool", "loadBalancer", "outlierDetection", "tls"];
/// The blocks that only the policy has.
const WHOLE: [&str; 3] = ["proxyProtocol", "retryBudget", "tunnel"];
/// Retries at once, in percent of the requests, where a budget names none.
const BUDGET_PERCENT: f64 = 20.0;
/// Retries that a budget always allows, where it names none.
const BUDGET_MINIMUM: u32 = 3;

/// Reads `trafficPolicy` of a resource in the namespace `own`.
pub(super) fn traffic_policy(field: &Field<'_>, own: &str) -> Option<TrafficPolicy> {
    let policy = field.object(&POLICY)?;
    // An empty list is not told from none.
    let no_ports = policy.get("portLevelSettings").is_some_and(|field| field.is_blank());
    let says_more = |key: &&str| policy.has(key) || policy.is_misspelt(key);
    if policy.is_empty() || (no_ports && !BLOCKS.iter().chain(&WHOLE).any(says_more)) {
        field.fault("trafficPolicy must have at least one field");
    }
    if policy.has("tunnel") && policy.has("proxyProtocol") {
        field.fault("tunnel and proxyProtocol cannot both be set");
    }
    Some(TrafficPolicy {
        blocks: blocks(&policy, own),
        ports: ports(&policy, own),
        tunnel: policy.get("tunnel").and_then(|field| tunnel(&field)),
        proxy_protocol: policy.get("proxyProtocol").and_then(|field| proxy_protocol(&field)),
        retry_budget: policy.get("retryBudget").and_then(|field| retry_budget(&field)),
    })
}

fn blocks(policy: &Object<'_>, own: &str) -> TrafficBlocks {
    let detects_outliers = policy.has("outlierDetection");
    TrafficBlocks {
        load_balancer: policy.get("loadBalancer").and_then(|field| load_balancer(&field, detects_outliers)),
        connection_pool: policy.get("connectionPool").and_then(|field| connection_pool(&field)),
        outlier_detection: policy.get("outlierDetection").and_then(|field| outlier_detection(&field)),
        tls: policy.get("tls").and_then(|field| client_tls(&field, own)),
    }
}

fn ports(policy: &Object<'_>, own: &str) -> Vec<(u16, TrafficBlocks)> {
    let Some(field) = policy.get("portLevelSettings") else { return Vec::new() };
    let items = field.items();
    if items.len() > MOST_PORT_POLICIES {
        field.fault(format!("found {} entries, at most {MOST_PORT_POLICIES} are allowed", items.len()));
        return Vec::new();
    }
    let mut ports: Vec<(u16, TrafficBlocks)> = Vec::new();
    for item in items {
        let Some((port, blocks)) = port_policy(&item, own) else { continue };
        if ports.iter().any(|(other, _)| *other == port) {
            item.warn(format!("port {port} has an earlier entry, which wins"));
            continue;
        }
        ports.push((port, blocks));
    }
    ports
}

fn port_policy(field: &Field<'_>, own: &str) -> Option<(u16, TrafficBlocks)> {
    let policy = field.object(&PORT_POLICY)?;
    let blocks = blocks(&policy, own);
    let misspelt = |key: &&str| policy.has(key) || policy.is_misspelt(key);
    if !BLOCKS.iter().any(misspelt) {
        field.fault("an entry of portLevelSettings must have at least one field beside port");
    }
    let port_field = policy.require("port")?;
    let port = port_field.object(&PORT)?;
    let number = match port.get("number") {
        Some(field) => field.integer(0..=i64::from(u32::MAX))?,
        None if port.is_empty() => 0,
        None => return None,
    };
    match u16::try_from(number) {
        Ok(number) if number > 0 => Some((number, blocks)),
        _ => {
            port_field.warn(format!("no port has the number {number}, so this entry has no effect"));
            None
        }
    }
}

fn tunnel(field: &Field<'_>) -> Option<Tunnel> {
    let tunnel = field.object(&TUNNEL)?;
    let protocol = match tunnel.get("protocol").filter(|field| !field.is_empty_text()) {
        Some(field) => field.choice(&["CONNECT", "POST"]),
        None => Some("CONNECT"),
    };
    let host = tunnel.require("targetHost").and_then(|field| {
        let text = field.some_text()?;
        if text.parse::<std::net::IpAddr>().is_err() && !scalar::is_dns_name(text) {
            field.fault(format!("{} is neither a DNS name nor an IP address", quoted(text)));
            return None;
        }
        Some(text.to_ascii_lowercase().into())
    });
    let port = tunnel.require("targetPort").and_then(|field| field.port());
    Some(Tunnel { post: protocol? == "POST", host: host?, port: port? })
}

fn proxy_protocol(field: &Field<'_>) -> Option<u8> {
    let object = field.object(&PROXY_PROTOCOL)?;
    let Some(version) = object.get("version") else { return Some(1) };
    Some(if version.choice(&["V1", "V2"])? == "V2" { 2 } else { 1 })
}

fn retry_budget(field: &Field<'_>) -> Option<RetryBudget> {
    let budget = field.object(&RETRY_BUDGET)?;
    let percent = match budget.get("percent") {
        Some(field) => {
            let percent = field.number();
            let share = percent.and_then(Ratio::from_percent);
            if let (Some(percent), None) = (percent, share) {
                field.fault(format!("{percent} is out of range: 0 to 100"));
            }
            share
        }
        None => Ratio::from_percent(BUDGET_PERCENT),
    };
    let minimum = match budget.get("minRetryConcurrency") {
        Some(field) => u32::try_from(field.integer(0..=i64::from(u32::MAX))?).ok(),
        None => Some(0),
    };
    if let Some(field) = budget.get("budgetInterval")
        && scalar::duration_or_zero(&field).is_some_and(|interval| !interval.is_zero())
    {
        field.later("a budgetInterval other than 0s");
    }
    // 0 is not told from absent.
    let min_concurrency = minimum.map(|minimum| if minimum == 0 { BUDGET_MINIMUM } else { minimum });
    Some(RetryBudget { share: percent?, min_concurrency: min_concurrency? })
}
