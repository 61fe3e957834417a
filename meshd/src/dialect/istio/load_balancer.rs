//! `loadBalancer`: how an endpoint is chosen.

use std::time::Duration;

use mesh_core::balancing::balancer::LoadBalancer;
use mesh_core::balancing::policy::{Algorithm, LoadBalancerPolicy, Warmup};
use mesh_core::balancing::utilization::Utilization;
use mesh_core::vocab::name::Text;
use mesh_core::vocab::ratio::Ratio;

use super::consistent_hash::{CONSISTENT_HASH, consistent_hash};
use super::exclusive::at_most_one;
use super::locality::{self, LOCALITY, ZONE_AWARE};
use crate::dialect::field::{Field, Message, Note, Object};
use crate::dialect::scalar;

pub(crate) static LOAD_BALANCER: Message = Message {
    name: "a loadBalancer",
    fields: &[
        "backendUtilization",
        "consistentHash",
        "localityLbSetting",
        "simple",
        "warmup",
        "warmupDurationSecs",
        "zoneAwareLbSetting",
    ],
    later: &[],
    skipped: &[],
};

static WARMUP: Message = Message {
    name: "a warmup",
    fields: &["aggression", "duration", "minimumPercent"],
    later: &[],
    skipped: &[],
};

static BACKEND_UTILIZATION: Message = Message {
    name: "a backendUtilization",
    fields: &[
        "errorUtilizationPenaltyPercent",
        "metricNamesForComputingUtilization",
        "weightExpirationPeriod",
        "weightStabilizationPeriod",
        "weightUpdatePeriod",
    ],
    later: &[],
    skipped: &[],
};

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&LOAD_BALANCER, "backendUtilization", &BACKEND_UTILIZATION),
    Note::Holds(&LOAD_BALANCER, "consistentHash", &CONSISTENT_HASH),
    Note::Holds(&LOAD_BALANCER, "localityLbSetting", &LOCALITY),
    Note::Holds(&LOAD_BALANCER, "warmup", &WARMUP),
    Note::Holds(&LOAD_BALANCER, "zoneAwareLbSetting", &ZONE_AWARE),
];

/// Share of a new endpoint at the start of its warm-up, in percent, where none is written.
const WARMUP_PERCENT: f64 = 10.0;

/// Reads `loadBalancer`. `detects_outliers` is whether failing endpoints are noticed at all.
pub(super) fn load_balancer(field: &Field<'_>, detects_outliers: bool) -> Option<LoadBalancerPolicy> {
    let object = field.object(&LOAD_BALANCER)?;
    at_most_one(&object, &["simple", "consistentHash", "backendUtilization"]);
    at_most_one(&object, &["localityLbSetting", "zoneAwareLbSetting"]);
    at_most_one(&object, &["warmup", "warmupDurationSecs"]);
    let zone_aware =
        object.get("zoneAwareLbSetting").and_then(|field| locality::zone_aware(&field, detects_outliers));
    let locality =
        object.get("localityLbSetting").and_then(|field| locality::locality(&field, detects_outliers));
    let warmup = warmup(&object);
    let algorithm = match (object.get("simple"), object.get("consistentHash")) {
        (Some(field), _) => simple(&field)?,
        (None, Some(field)) => consistent_hash(&field)?,
        (None, None) => backend_utilization(&object),
    };
    Some(LoadBalancerPolicy { algorithm, locality: zone_aware.or(locality), warmup })
}

fn simple(field: &Field<'_>) -> Option<Algorithm> {
    let words = ["UNSPECIFIED", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST"];
    Some(match field.choice(&words)? {
        "ROUND_ROBIN" => Algorithm::Simple(LoadBalancer::RoundRobin),
        "RANDOM" => Algorithm::Simple(LoadBalancer::Random),
        "PASSTHROUGH" => Algorithm::Passthrough,
        _ => Algorithm::Simple(LoadBalancer::LeastRequest),
    })
}

/// Endpoints weighted by what they report of their load. While none reports, their turns are equal.
fn backend_utilization(object: &Object<'_>) -> Algorithm {
    let read = object.get("backendUtilization").and_then(|field| field.object(&BACKEND_UTILIZATION));
    let Some(block) = read else { return Algorithm::default() };
    let default = Utilization::default();
    let period = |key, default| block.get(key).and_then(|f| scalar::duration_or_zero(&f)).unwrap_or(default);
    let penalty = block.get("errorUtilizationPenaltyPercent");
    let penalty = penalty.and_then(|field| field.integer(0..=i64::from(u32::MAX)));
    let names = block.items("metricNamesForComputingUtilization");
    Algorithm::Utilization(Utilization {
        error_penalty_percent: penalty.and_then(|p| u32::try_from(p).ok()).unwrap_or_default(),
        metrics: names.iter().filter_map(|item| item.text()).map(Text::from).collect(),
        stabilization: period("weightStabilizationPeriod", default.stabilization),
        expiration: period("weightExpirationPeriod", default.expiration),
        update: period("weightUpdatePeriod", default.update),
    })
}

fn warmup(object: &Object<'_>) -> Option<Warmup> {
    let of = |duration: Duration, percent: f64, aggression: f64| {
        // Aggression beyond four million is as good as none: the cast only saturates.
        let aggression_thousandths = ((aggression * 1000.0) as u32).max(1);
        Some(Warmup { duration, minimum: Ratio::from_percent(percent)?, aggression_thousandths })
    };
    if let Some(field) = object.get("warmupDurationSecs") {
        field.warn("warmupDurationSecs is deprecated, use warmup: {duration: ...}");
        return of(scalar::duration(&field)?, WARMUP_PERCENT, 1.0);
    }
    let warmup = object.get("warmup")?.object(&WARMUP)?;
    let number = |key, default: f64, is_allowed: fn(f64) -> bool, range: &str| {
        let Some(field) = warmup.get(key) else { return Some(default) };
        let number = field.number()?;
        if !is_allowed(number) {
            field.fault(format!("{number} is out of range: {range}"));
            return None;
        }
        Some(number)
    };
    let percent =
        number("minimumPercent", WARMUP_PERCENT, |number| (0.0..=100.0).contains(&number), "0 to 100");
    let aggression = number("aggression", 1.0, |number| number > 0.0, "more than 0");
    let duration = warmup.require("duration").and_then(|field| scalar::duration(&field));
    of(duration?, percent?, aggression?)
}
