//! DestinationRule.

use std::collections::HashSet;

use mesh_core::balancing::balancer::LoadBalancer;
use mesh_core::balancing::policy::{Algorithm, LoadBalancerPolicy};
use mesh_core::resource::destination_rule::{
    DestinationRule, Subset, TlsMode, TlsSettings, TrafficBlocks, TrafficPolicy,
};
use mesh_core::vocab::name::Text;

use crate::dialect::field::{Field, Message, Note, Object};
use crate::dialect::node::quoted;
use crate::dialect::scalar;

pub(crate) static SPEC: Message = Message {
    name: "spec of a DestinationRule",
    fields: &["exportTo", "host", "subsets", "trafficPolicy"],
    later: &["workloadSelector"],
    skipped: &[],
};

static SUBSET: Message =
    Message { name: "a subset", fields: &["labels", "name", "trafficPolicy"], later: &[], skipped: &[] };

static POLICY: Message = Message {
    name: "a trafficPolicy",
    fields: &["loadBalancer", "portLevelSettings", "tls"],
    later: &["connectionPool", "outlierDetection", "proxyProtocol", "retryBudget", "tunnel"],
    skipped: &[],
};

static PORT_POLICY: Message = Message {
    name: "an entry of portLevelSettings",
    fields: &["loadBalancer", "port", "tls"],
    later: &["connectionPool", "outlierDetection"],
    skipped: &[],
};

static PORT: Message = Message { name: "a port", fields: &["number"], later: &[], skipped: &[] };

static LOAD_BALANCER: Message = Message {
    name: "a loadBalancer",
    fields: &["simple"],
    later: &[
        "backendUtilization",
        "consistentHash",
        "localityLbSetting",
        "warmup",
        "warmupDurationSecs",
        "zoneAwareLbSetting",
    ],
    skipped: &[],
};

static TLS: Message = Message {
    name: "tls of a trafficPolicy",
    fields: &["mode"],
    later: &[
        "caCertificates",
        "caCrl",
        "clientCertificate",
        "credentialName",
        "insecureSkipVerify",
        "privateKey",
        "sni",
        "subjectAltNames",
    ],
    skipped: &[],
};

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&SPEC, "subsets[]", &SUBSET),
    Note::Holds(&SPEC, "trafficPolicy", &POLICY),
    Note::Holds(&SUBSET, "trafficPolicy", &POLICY),
    Note::Holds(&POLICY, "portLevelSettings[]", &PORT_POLICY),
    Note::Holds(&PORT_POLICY, "port", &PORT),
    Note::Holds(&POLICY, "loadBalancer", &LOAD_BALANCER),
    Note::Holds(&PORT_POLICY, "loadBalancer", &LOAD_BALANCER),
    Note::Holds(&POLICY, "tls", &TLS),
    Note::Holds(&PORT_POLICY, "tls", &TLS),
    Note::Later(&SPEC, "exportTo", "other than [\"*\"]"),
    Note::Later(&LOAD_BALANCER, "simple", "PASSTHROUGH"),
    Note::Later(&TLS, "mode", "SIMPLE, MUTUAL"),
];

const MOST_PORT_POLICIES: usize = 4096;

/// Reads the spec of a DestinationRule.
pub(crate) fn rule(field: &Field<'_>) -> Option<DestinationRule> {
    let spec = field.object(&SPEC)?;
    if let Some(field) = spec.get("exportTo") {
        scalar::export_to(&field);
    }
    let host = spec.require("host").and_then(|field| scalar::host(&field));
    let policy = spec.get("trafficPolicy").and_then(|field| policy(&field));
    let mut subsets: Vec<Subset> = Vec::new();
    let mut names: HashSet<Text> = HashSet::new();
    for item in spec.items("subsets") {
        let Some(subset) = subset(&item) else { continue };
        if !names.insert(subset.name.clone()) {
            item.fault(format!("the subset {} is there twice", quoted(&subset.name)));
        }
        subsets.push(subset);
    }
    Some(DestinationRule { host: host?, policy, subsets, ..DestinationRule::default() })
}

fn subset(field: &Field<'_>) -> Option<Subset> {
    let subset = field.object(&SUBSET)?;
    let labels = subset.get("labels").map(|field| scalar::labels(&field)).unwrap_or_default();
    let policy = subset.get("trafficPolicy").and_then(|field| policy(&field));
    let name = subset.require("name").and_then(|field| scalar::subset_name(&field))?;
    Some(Subset { name, labels, policy })
}

fn policy(field: &Field<'_>) -> Option<TrafficPolicy> {
    let policy = field.object(&POLICY)?;
    if policy.is_empty() {
        field.fault("trafficPolicy must have at least one field");
    }
    let mut ports: Vec<(u16, TrafficBlocks)> = Vec::new();
    let items = policy.items("portLevelSettings");
    if items.len() > MOST_PORT_POLICIES {
        field.fault(format!(
            "found {} portLevelSettings, at most {MOST_PORT_POLICIES} are allowed",
            items.len()
        ));
        return None;
    }
    for item in items {
        let Some(entry) = port_policy(&item) else { continue };
        if ports.iter().any(|(port, _)| *port == entry.0) {
            item.warn(format!("port {} has an earlier entry, which wins", entry.0));
            continue;
        }
        ports.push(entry);
    }
    Some(TrafficPolicy { blocks: blocks(&policy), ports, ..TrafficPolicy::default() })
}

fn port_policy(field: &Field<'_>) -> Option<(u16, TrafficBlocks)> {
    let policy = field.object(&PORT_POLICY)?;
    let blocks = blocks(&policy);
    let has_block =
        PORT_POLICY.fields.iter().chain(PORT_POLICY.later).any(|key| *key != "port" && policy.has(key));
    if !has_block {
        field.fault("an entry of portLevelSettings must have at least one field beside port");
    }
    let port = policy.require("port")?.object(&PORT)?;
    Some((port.require("number")?.port()?, blocks))
}

fn blocks(policy: &Object<'_>) -> TrafficBlocks {
    TrafficBlocks {
        load_balancer: policy.get("loadBalancer").and_then(|field| load_balancer(&field)).map(|simple| {
            LoadBalancerPolicy { algorithm: Algorithm::Simple(simple), ..LoadBalancerPolicy::default() }
        }),
        connection_pool: None,
        outlier_detection: None,
        tls: policy
            .get("tls")
            .and_then(|field| tls(&field))
            .map(|mode| TlsSettings { mode, ..TlsSettings::default() }),
    }
}

fn load_balancer(field: &Field<'_>) -> Option<LoadBalancer> {
    let balancer = field.object(&LOAD_BALANCER)?;
    let Some(simple) = balancer.get("simple") else { return Some(LoadBalancer::default()) };
    let words = ["UNSPECIFIED", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST"];
    match simple.choice(&words)? {
        "ROUND_ROBIN" => Some(LoadBalancer::RoundRobin),
        "RANDOM" => Some(LoadBalancer::Random),
        "PASSTHROUGH" => {
            simple.later("PASSTHROUGH");
            None
        }
        _ => Some(LoadBalancer::LeastRequest),
    }
}

fn tls(field: &Field<'_>) -> Option<TlsMode> {
    let tls = field.object(&TLS)?;
    // The enum's zero: a block without a mode turns automatic mutual TLS off.
    let Some(mode) = tls.get("mode") else { return Some(TlsMode::Disable) };
    let word = mode.choice(&["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"])?;
    if word == "ISTIO_MUTUAL" {
        let own = ["clientCertificate", "privateKey", "caCertificates", "credentialName"];
        for key in own.into_iter().filter(|key| tls.has(key)) {
            field.fault(format!(
                "{key} cannot be set with ISTIO_MUTUAL, which uses the mesh's own certificates"
            ));
        }
    }
    match word {
        "DISABLE" => Some(TlsMode::Disable),
        "ISTIO_MUTUAL" => Some(TlsMode::IstioMutual),
        other => {
            mode.later(format!("tls mode {other}"));
            None
        }
    }
}
