//! How workloads fare, for people: what is checked, since when it has been so, and whose callers leave a workload alone.
//! Kept in memory; nodes tell it again when they come back.

use std::collections::{BTreeMap, BTreeSet};

use mesh_core::vocab::health::Health;
use mesh_core::vocab::name::{Text, WorkloadKey};

/// So many workloads are remembered of what one node says.
const MOST: usize = 16_384;

/// What one node says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// Workloads of its own: their health, and what was checked.
    pub own: Vec<(WorkloadKey, Health, Text)>,
    /// Workloads that its callers leave alone now.
    pub ejected: BTreeSet<WorkloadKey>,
}

/// How one workload fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fare {
    /// What was checked; empty for nothing.
    pub check: Text,
    /// Since when its health has been what it is, in seconds since 1970.
    pub since: i64,
    health: Health,
}

/// How all of them fare.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fares {
    own: BTreeMap<String, BTreeMap<WorkloadKey, Fare>>,
    ejected: BTreeMap<String, BTreeSet<WorkloadKey>>,
}

impl Fares {
    /// Takes in what a node says. `whole` says that these are all of its own.
    pub fn hear(&mut self, node: &str, told: Told, whole: bool, now: i64) {
        let own = self.own.entry(node.to_owned()).or_default();
        let before = if whole { std::mem::take(own) } else { own.clone() };
        for (key, health, check) in told.own.into_iter().take(MOST) {
            let same = before.get(&key).filter(|known| known.health == health);
            let since = same.map_or(now, |known| known.since);
            if own.len() < MOST || own.contains_key(&key) {
                own.insert(key, Fare { check, since, health });
            }
        }
        let ejected: BTreeSet<_> = told.ejected.into_iter().take(MOST).collect();
        if ejected.is_empty() {
            self.ejected.remove(node);
        } else {
            self.ejected.insert(node.to_owned(), ejected);
        }
    }

    /// How a workload of a node fares.
    pub fn of(&self, node: &str, workload: &WorkloadKey) -> Option<&Fare> {
        self.own.get(node)?.get(workload)
    }

    /// The nodes whose callers leave a workload alone, of those that are there.
    pub fn ejected_by(&self, workload: &WorkloadKey, is_there: impl Fn(&str) -> bool) -> Vec<String> {
        let nodes =
            self.ejected.iter().filter(|(node, ejected)| ejected.contains(workload) && is_there(node));
        nodes.map(|(node, _)| node.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_has_a_beginning_and_ejections_are_replaced() {
        let key = |name: &str| WorkloadKey { namespace: "default".into(), name: name.into() };
        let told = |health, ejected: &[&str]| Told {
            own: vec![(key("a"), health, "tcp:80".into())],
            ejected: ejected.iter().map(|name| key(name)).collect(),
        };
        let mut fares = Fares::default();
        fares.hear("h1", told(Health::Healthy, &["b"]), true, 10);
        fares.hear("h1", told(Health::Healthy, &["b"]), false, 20);
        fares.hear("h2", told(Health::Healthy, &["b"]), false, 20);
        assert_eq!(fares.of("h1", &key("a")).map(|fare| (&*fare.check, fare.since)), Some(("tcp:80", 10)));
        assert!(fares.of("h1", &key("b")).is_none());
        assert_eq!(fares.ejected_by(&key("b"), |_| true), ["h1", "h2"]);
        assert_eq!(fares.ejected_by(&key("b"), |node| node == "h2"), ["h2"]);
        fares.hear("h1", told(Health::Unhealthy, &[]), false, 30);
        assert_eq!(fares.of("h1", &key("a")).unwrap().since, 30);
        assert_eq!(fares.ejected_by(&key("b"), |_| true), ["h2"]);
        fares.hear("h1", Told::default(), true, 40);
        assert!(fares.of("h1", &key("a")).is_none());
    }
}
