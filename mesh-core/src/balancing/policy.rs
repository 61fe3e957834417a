//! `loadBalancer` of a DestinationRule.

use std::time::Duration;

use super::balancer::LoadBalancer;
use super::locality::LocalityPolicy;
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
}

impl Default for Algorithm {
    fn default() -> Algorithm {
        Algorithm::Simple(LoadBalancer::default())
    }
}

impl Algorithm {
    /// The word shown to people.
    pub fn name(&self) -> &'static str {
        match self {
            Algorithm::Simple(simple) => simple.name(),
            Algorithm::Passthrough => "PASSTHROUGH",
            Algorithm::ConsistentHash { table: HashTable::Ring(_), .. } => "RING_HASH",
            Algorithm::ConsistentHash { table: HashTable::Maglev(_), .. } => "MAGLEV",
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
