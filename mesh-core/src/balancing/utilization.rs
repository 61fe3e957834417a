//! `backendUtilization` of a DestinationRule: turns by what endpoints report of their load (ORCA).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::vocab::name::Text;

/// Weights are never looked at more often.
const SHORTEST_PERIOD: Duration = Duration::from_millis(100);
/// Nor less often, so that times can be added.
const LONGEST_PERIOD: Duration = Duration::from_secs(365 * 86_400);
/// The share of the endpoint with the largest weight; those of others are rounded to parts of it.
const LARGEST_SHARE: f64 = 1_000.0;

/// How reports become weights.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Utilization {
    /// How much of the share of requests that fail counts as utilization, in percent.
    pub error_penalty_percent: u32,
    /// Metrics of which the largest is the utilization of an endpoint that does not report its application's:
    /// `mem_utilization`, `named_metrics.queue`, `utilization.*`.
    pub metrics: Vec<Text>,
    /// How long an endpoint must have reported before its weight counts.
    pub stabilization: Duration,
    /// How long a weight counts after the last report.
    pub expiration: Duration,
    /// How often weights come into force.
    pub update: Duration,
}

impl Default for Utilization {
    fn default() -> Utilization {
        Utilization {
            error_penalty_percent: 0,
            metrics: Vec::new(),
            stabilization: Duration::from_secs(10),
            expiration: Duration::from_secs(180),
            update: Duration::from_secs(1),
        }
    }
}

/// What an endpoint says of its load; zero is what it does not say.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LoadReport {
    /// `application_utilization`.
    pub application: f64,
    /// `cpu_utilization`.
    pub cpu: f64,
    /// `mem_utilization`.
    pub memory: f64,
    /// Requests a second, `rps_fractional`.
    pub requests: f64,
    /// Errors a second, `eps`.
    pub errors: f64,
    /// `named_metrics`.
    pub named: BTreeMap<String, f64>,
    /// `utilization`.
    pub resources: BTreeMap<String, f64>,
    /// `request_cost`.
    pub costs: BTreeMap<String, f64>,
}

impl LoadReport {
    /// Where the metric of a name is kept; `None` for a name that no report has.
    pub fn metric_mut(&mut self, name: &str) -> Option<&mut f64> {
        Some(match name {
            "application_utilization" => &mut self.application,
            "cpu_utilization" => &mut self.cpu,
            "mem_utilization" => &mut self.memory,
            "rps_fractional" => &mut self.requests,
            "eps" => &mut self.errors,
            _ => {
                let (map, key) = name.split_once('.').filter(|(_, key)| !key.is_empty())?;
                let map = match map {
                    "named_metrics" => &mut self.named,
                    "utilization" => &mut self.resources,
                    "request_cost" => &mut self.costs,
                    _ => return None,
                };
                map.entry(key.to_owned()).or_default()
            }
        })
    }

    /// The metric of a name, the largest where it ends with `.*`; zero if there is none.
    fn metric(&self, name: &str) -> f64 {
        match name {
            "application_utilization" => self.application,
            "cpu_utilization" => self.cpu,
            "mem_utilization" => self.memory,
            "rps_fractional" => self.requests,
            "eps" => self.errors,
            _ => {
                let (map, key) = match name.split_once('.') {
                    Some(("named_metrics", key)) => (&self.named, key),
                    Some(("utilization", key)) => (&self.resources, key),
                    Some(("request_cost", key)) => (&self.costs, key),
                    Some(_) | None => return 0.0,
                };
                match key {
                    "*" => largest(map.values().copied()),
                    key => map.get(key).copied().unwrap_or(0.0),
                }
            }
        }
    }
}

/// The largest that is a number above zero; else zero.
fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.filter(|value| value.is_finite()).fold(0.0, f64::max)
}

/// What is remembered of an endpoint's reports. Times are since any moment that stays the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reported {
    /// Weight by the last report.
    pub weight: f64,
    /// When it began to report.
    pub since: Duration,
    /// When it did last.
    pub last: Duration,
}

/// Whether a weight counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Standing {
    /// It does.
    Counts(f64),
    /// The endpoint has not reported for long enough.
    NotYet,
    /// Nothing has been heard for too long: the next report is like a first one.
    NoMore,
}

impl Utilization {
    /// The weight of an endpoint by its report: requests a second for each part of it that is used. `None` if the report
    /// does not say enough.
    pub fn weight(&self, report: &LoadReport) -> Option<f64> {
        let positive = |value: f64| Some(value).filter(|value| value.is_finite() && *value > 0.0);
        let requests = positive(report.requests)?;
        let used = positive(report.application)
            .or_else(|| positive(largest(self.metrics.iter().map(|name| report.metric(name)))))
            .unwrap_or(report.cpu);
        let errors = f64::from(self.error_penalty_percent) / 100.0 * report.errors / requests;
        positive(requests / positive(used + errors)?)
    }

    /// Whether the weight that is remembered of an endpoint counts.
    pub fn standing(&self, reported: &Reported, now: Duration) -> Standing {
        if now.saturating_sub(reported.since) < self.stabilization {
            Standing::NotYet
        } else if now.saturating_sub(reported.last) > self.expiration {
            Standing::NoMore
        } else {
            Standing::Counts(reported.weight)
        }
    }

    /// How often weights come into force.
    pub fn period(&self) -> Duration {
        self.update.clamp(SHORTEST_PERIOD, LONGEST_PERIOD)
    }
}

/// The shares of endpoints by the weights that count: others have the median of these, and all are alike where none does.
pub fn shares(weights: &[Option<f64>]) -> Vec<u32> {
    let mut sorted: Vec<f64> = weights.iter().flatten().copied().collect();
    sorted.sort_by(f64::total_cmp);
    let (Some(largest), Some(median)) = (sorted.last(), sorted.get(sorted.len() / 2)) else {
        return vec![1; weights.len()];
    };
    let share = |weight: &Option<f64>| {
        let part = weight.unwrap_or(*median) / largest;
        (part * LARGEST_SHARE).round().max(1.0) as u32
    };
    weights.iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(metrics: &[(&str, f64)]) -> LoadReport {
        let mut report = LoadReport::default();
        for (name, value) in metrics {
            *report.metric_mut(name).unwrap() = *value;
        }
        report
    }

    #[test]
    fn a_weight_is_requests_by_utilization() {
        let check = |metrics: &[(&str, f64)], names: &[&str], penalty: u32, expected: Option<f64>| {
            let policy = Utilization {
                error_penalty_percent: penalty,
                metrics: names.iter().map(|name| Text::from(*name)).collect(),
                ..Utilization::default()
            };
            assert_eq!(policy.weight(&report(metrics)), expected, "{metrics:?} {names:?} {penalty}");
        };
        let rps = ("rps_fractional", 100.0);
        check(&[rps, ("cpu_utilization", 0.5)], &[], 0, Some(200.0));
        check(&[rps, ("cpu_utilization", 0.5), ("application_utilization", 0.25)], &[], 0, Some(400.0));
        check(&[rps, ("application_utilization", 2.0)], &[], 0, Some(50.0));
        // The names count where the application says nothing, the processor where they do not either.
        let named = [rps, ("cpu_utilization", 0.5), ("named_metrics.queue", 0.8), ("mem_utilization", 0.4)];
        check(&named, &["named_metrics.queue", "mem_utilization"], 0, Some(125.0));
        check(&named, &["mem_utilization", "named_metrics.other"], 0, Some(250.0));
        check(&named, &["other", "named_metrics.other"], 0, Some(200.0));
        check(&[rps, ("utilization.a", 0.1), ("utilization.b", 0.2)], &["utilization.*"], 0, Some(500.0));
        check(&[rps, ("request_cost.a", 4.0)], &["request_cost.a"], 0, Some(25.0));
        // A tenth of all fails.
        check(&[rps, ("eps", 10.0), ("cpu_utilization", 0.4)], &[], 0, Some(250.0));
        check(&[rps, ("eps", 10.0), ("cpu_utilization", 0.4)], &[], 100, Some(200.0));
        check(&[rps, ("eps", 10.0), ("cpu_utilization", 0.25)], &[], 250, Some(200.0));
        check(&[rps, ("eps", 10.0)], &[], 100, Some(1000.0));
        // Not enough is said.
        check(&[rps], &[], 100, None);
        check(&[("cpu_utilization", 0.5)], &[], 0, None);
        check(&[rps, ("cpu_utilization", -0.5)], &[], 0, None);
        check(&[rps, ("cpu_utilization", f64::NAN)], &[], 0, None);
        check(&[("rps_fractional", f64::INFINITY), ("cpu_utilization", 0.5)], &[], 0, None);
        check(&[rps, ("utilization.a", f64::INFINITY)], &["utilization.*"], 0, None);
        for unknown in ["", "rps", "named_metrics", "named_metrics.", "other.a"] {
            assert_eq!(LoadReport::default().metric_mut(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_weight_counts_from_its_stabilization_to_its_expiration() {
        let check = |since: u64, last: u64, now: u64, expected: Standing| {
            let seconds = Duration::from_secs;
            let reported = Reported { weight: 7.0, since: seconds(since), last: seconds(last) };
            let found = Utilization::default().standing(&reported, seconds(now));
            assert_eq!(found, expected, "{since} {last} {now}");
        };
        check(100, 100, 100, Standing::NotYet);
        check(100, 109, 109, Standing::NotYet);
        check(100, 109, 110, Standing::Counts(7.0));
        check(100, 100, 280, Standing::Counts(7.0));
        check(100, 100, 281, Standing::NoMore);
        check(100, 280, 281, Standing::Counts(7.0));
        // A clock that was read before the report was written.
        check(100, 100, 99, Standing::NotYet);
        let period = |update| Utilization { update, ..Utilization::default() }.period();
        assert_eq!(period(Duration::ZERO), SHORTEST_PERIOD);
        assert_eq!(period(Duration::MAX), LONGEST_PERIOD);
    }

    #[test]
    fn shares_are_relative_and_the_unknown_have_the_median() {
        let check = |weights: &[Option<f64>], expected: &[u32]| {
            assert_eq!(shares(weights), expected, "{weights:?}");
        };
        check(&[], &[]);
        check(&[None, None], &[1, 1]);
        check(&[Some(500.0), Some(125.0)], &[1000, 250]);
        check(&[Some(0.5), None], &[1000, 1000]);
        check(&[Some(1.0), None, Some(3.0), Some(4.0)], &[250, 750, 750, 1000]);
        check(&[Some(1.0), None, Some(4.0)], &[250, 1000, 1000]);
        check(&[Some(f64::MAX), Some(1.0)], &[1000, 1]);
    }
}
