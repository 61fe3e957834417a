//! What became of the requests of each rule, as the callers' proxies saw it.

use std::collections::BTreeMap;

use mesh_core::routing::rule::{HttpRule, RuleAction};
use mesh_core::snapshot::routes::Routes;
use mesh_core::vocab::name::Text;

use super::Facts;
use super::view::{RouteView, RuleView, ShareView, a_second, part, quantile};
use crate::traffic::ledger::{Key, Shared, total};
use crate::traffic::window::Total;

type Rule = (Text, Option<u32>);
/// Host and subset.
type Place = (Text, Text);

/// A rule as it is declared now: for which hosts, and where to.
#[derive(Debug, Default)]
struct Declared {
    hosts: Vec<Text>,
    weights: BTreeMap<Place, u32>,
}

pub(super) fn routes(facts: &Facts) -> Vec<RouteView> {
    let selection = &facts.selection;
    let declared = declared(facts);
    let mut lines: BTreeMap<(Text, Rule), BTreeMap<Place, Vec<Shared>>> = BTreeMap::new();
    for (rule, found) in &declared {
        for host in found.hosts.iter().filter(|host| selection.wants(facts.mesh(), host)) {
            lines.entry((host.clone(), rule.clone())).or_default();
        }
    }
    for (key, series) in facts.ledger.all() {
        if key.destination_reports || key.resource.is_empty() || !selection.holds(&key) {
            continue;
        }
        let rule = (key.resource.clone(), key.rule);
        let service = service(&key, declared.get(&rule));
        if selection.wants(facts.mesh(), &service) || selection.wants(facts.mesh(), &key.service) {
            lines.entry((service, rule)).or_default().entry(place(&key)).or_default().push(series);
        }
    }
    let views = lines.into_iter().map(|((service, rule), places)| {
        let totals: Vec<(Place, Total)> = places
            .into_iter()
            .map(|(place, series)| (place, total(&series, selection.now, selection.window)))
            .collect();
        let empty = Declared::default();
        view(facts, &service, &rule, declared.get(&rule).unwrap_or(&empty), &totals)
    });
    views.collect()
}

/// Where a request went; empty where it went nowhere.
fn place(key: &Key) -> Place {
    match key.cluster.split('|').collect::<Vec<_>>()[..] {
        ["outbound", _, subset, host] => (host.into(), subset.into()),
        _ => Place::default(),
    }
}

/// The host that the rule was found for: what was asked for may be another than what was sent to.
fn service(key: &Key, declared: Option<&Declared>) -> Text {
    let hosts = declared.map(|declared| declared.hosts.as_slice()).unwrap_or_default();
    match hosts.first() {
        Some(first) if !hosts.contains(&key.service) => first.clone(),
        _ => key.service.clone(),
    }
}

fn declared(facts: &Facts) -> BTreeMap<Rule, Declared> {
    let mut all: BTreeMap<Rule, Declared> = BTreeMap::new();
    for routes in facts.published.compiled.routes() {
        for rule in &routes.http {
            note(&mut all, routes, rule);
        }
    }
    all
}

fn note(all: &mut BTreeMap<Rule, Declared>, routes: &Routes, rule: &HttpRule) {
    let found = all.entry((rule.origin.resource.clone(), rule.origin.rule)).or_default();
    if !found.hosts.contains(&routes.at.host) {
        found.hosts.push(routes.at.host.clone());
    }
    if let RuleAction::Route { backends, .. } = &rule.action {
        let mut weights: BTreeMap<Place, u32> = BTreeMap::new();
        for backend in backends {
            let subset = backend.subset.clone().unwrap_or_default();
            // One alone gets everything, whatever it weighs.
            let weight = if backends.len() == 1 { 100 } else { backend.weight };
            let held = weights.entry((backend.host.clone(), subset)).or_default();
            *held = held.saturating_add(weight);
        }
        // The same rule for another host or port sends to the same places.
        found.weights.append(&mut weights);
    }
}

fn view(
    facts: &Facts,
    service: &Text,
    (resource, rule): &Rule,
    declared: &Declared,
    totals: &[(Place, Total)],
) -> RouteView {
    let mut all = Total::default();
    for (_, total) in totals {
        all.merge(total);
    }
    let mut sent: BTreeMap<Place, u64> = declared.weights.keys().map(|place| (place.clone(), 0)).collect();
    for (place, total) in
        totals.iter().filter(|(place, total)| !place.0.is_empty() && total.numbers.requests > 0)
    {
        *sent.entry(place.clone()).or_default() += total.numbers.requests;
    }
    let whole: u64 = sent.values().sum();
    let destinations = sent
        .into_iter()
        .map(|(place, count)| ShareView {
            weight: declared.weights.get(&place).copied(),
            host: (place.0 != *service).then(|| place.0.to_string()),
            subset: (!place.1.is_empty()).then(|| place.1.to_string()),
            share: part(count, whole).unwrap_or(0.0),
        })
        .collect();
    let numbers = &all.numbers;
    RouteView {
        service: service.to_string(),
        route: RuleView { resource: resource.to_string(), rule: *rule },
        destinations,
        requests: numbers.requests,
        success_rate: part(numbers.successes, numbers.attempts),
        effective_success_rate: part(numbers.successes, numbers.requests),
        rps: a_second(numbers.requests, facts.selection.covered()),
        retries: numbers.retries,
        p50_ms: quantile(&all, 500),
        p95_ms: quantile(&all, 950),
        p99_ms: quantile(&all, 990),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_services() {
        let key =
            |cluster: &str| Key { service: "ratings".into(), cluster: cluster.into(), ..Key::default() };
        assert_eq!(place(&key("outbound|80|v1|ratings")), ("ratings".into(), "v1".into()));
        assert_eq!(place(&key("outbound|80||ratings")), ("ratings".into(), "".into()));
        assert_eq!(place(&key("BlackHoleCluster")), Place::default());
        let declared = |hosts: &[&str]| Declared {
            hosts: hosts.iter().map(|h| (*h).into()).collect(),
            ..Declared::default()
        };
        // A rule for reviews may send to ratings.
        assert_eq!(&*service(&key(""), Some(&declared(&["reviews"]))), "reviews");
        assert_eq!(&*service(&key(""), Some(&declared(&["reviews", "ratings"]))), "ratings");
        assert_eq!(&*service(&key(""), None), "ratings");
    }
}
