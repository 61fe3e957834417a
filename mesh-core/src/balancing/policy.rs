//! `loadBalancer` of a DestinationRule.

use std::fmt;
use std::time::Duration;

use super::balancer::LoadBalancer;
use super::locality::LocalityPolicy;
use super::utilization::Utilization;
use crate::vocab::name::Text;
use crate::vocab::ratio::Ratio;

/// What a request is hashed by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HashKey {
    /// `httpHeaderName`, lower case.
    Header(Text),
    /// `httpCookie`.
    Cookie {
        /// Name.
        name: Text,
        /// Path of a generated cookie.
        path: Option<Text>,
        /// Lifetime of a generated cookie, zero for the session; `None` generates none.
        ttl: Option<Duration>,
        /// Attributes of a generated cookie.
        attributes: Vec<(Text, Text)>,
    },
    /// `useSourceIp`.
    SourceIp,
    /// `httpQueryParameterName`.
    QueryParameter(Text),
}

impl fmt::Display for HashKey {
    /// In words: `header x-user`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HashKey::Header(name) => write!(f, "header {name}"),
            HashKey::Cookie { name, ttl: None, .. } => write!(f, "cookie {name}"),
            HashKey::Cookie { name, ttl: Some(_), .. } => {
                write!(f, "cookie {name}, which is set where it is missing")
            }
            HashKey::SourceIp => f.write_str("the caller's address"),
            HashKey::QueryParameter(name) => write!(f, "query parameter {name}"),
        }
    }
}

/// How hashes are laid out over endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HashTable {
    /// A ring of at least so many points; default 1024.
    Ring(u64),
    /// Maglev of that size, a prime below 5,000,011; default 65537.
    Maglev(u64),
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// One of the plain ones.
    Simple(LoadBalancer),
    /// `PASSTHROUGH`: where the caller sent it.
    Passthrough,
    /// `consistentHash`.
    ConsistentHash {
        /// By what.
        key: HashKey,
        /// Over which layout.
        table: HashTable,
    },
    /// `backendUtilization`: in turn, by what endpoints report.
    Utilization(Utilization),
}

impl Default for Algorithm {
    fn default() -> Algorithm {
        Algorithm::Simple(LoadBalancer::default())
    }
}

impl Algorithm {
    /// What chooses among endpoints where there is no hash to go by: of a consistent hash whose key is missing, at
    /// random.
    pub fn simple(&self) -> LoadBalancer {
        match self {
            Algorithm::Simple(simple) => *simple,
            Algorithm::Passthrough => LoadBalancer::default(),
            Algorithm::ConsistentHash { .. } => LoadBalancer::Random,
            Algorithm::Utilization(_) => LoadBalancer::RoundRobin,
        }
    }

    /// The word shown to people.
    pub fn name(&self) -> &'static str {
        match self {
            Algorithm::Simple(simple) => simple.name(),
            Algorithm::Passthrough => "PASSTHROUGH",
            Algorithm::ConsistentHash { table: HashTable::Ring(_), .. } => "RING_HASH",
            Algorithm::ConsistentHash { table: HashTable::Maglev(_), .. } => "MAGLEV",
            Algorithm::Utilization(_) => "BACKEND_UTILIZATION",
        }
    }

    /// How reports of endpoints become weights, where they do.
    pub fn utilization(&self) -> Option<&Utilization> {
        match self {
            Algorithm::Utilization(utilization) => Some(utilization),
            Algorithm::Simple(_) | Algorithm::Passthrough | Algorithm::ConsistentHash { .. } => None,
        }
    }
}

/// `warmup`: a new endpoint gets its share step by step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Warmup {
    /// How long.
    pub duration: Duration,
    /// Share at the start; default 10 %.
    pub minimum: Ratio,
    /// Exponent of the curve in thousandths; default 1000.
    pub aggression_thousandths: u32,
}

impl Warmup {
    /// The part of its full weight that an endpoint has so long after it came: on a curve from the minimum to all.
    pub fn share(&self, elapsed: Duration) -> Ratio {
        if elapsed >= self.duration {
            return Ratio::ONE;
        }
        let exponent = 1_000.0 / f64::from(self.aggression_thousandths.max(1));
        let grown = (elapsed.as_secs_f64() / self.duration.as_secs_f64()).powf(exponent);
        Ratio::from_percent(grown * 100.0).unwrap_or(Ratio::ONE).max(self.minimum)
    }
}

/// The block as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct LoadBalancerPolicy {
    /// Algorithm.
    pub algorithm: Algorithm,
    /// Localities; `None` as the mesh says.
    pub locality: Option<LocalityPolicy>,
    /// Warm-up.
    pub warmup: Option<Warmup>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_warms_up_from_its_minimum_on_a_curve() {
        let check = |aggression: u32, elapsed: u64, percent: f64| {
            let minimum = Ratio::from_percent(10.0).unwrap();
            let warmup =
                Warmup { duration: Duration::from_secs(100), minimum, aggression_thousandths: aggression };
            let found = warmup.share(Duration::from_secs(elapsed)).percent();
            assert!((found - percent).abs() < 0.01, "{aggression} {elapsed}: {found}");
        };
        check(1_000, 0, 10.0);
        check(1_000, 5, 10.0);
        check(1_000, 50, 50.0);
        check(1_000, 100, 100.0);
        check(1_000, 500, 100.0);
        check(2_000, 25, 50.0);
        check(500, 50, 25.0);
    }
}
