//! Who calls whom: `edges`, and `top` with the rules that decided.

use std::collections::{BTreeMap, BTreeSet};

use mesh_core::vocab::name::Text;

use super::Facts;
use super::view::{EdgeView, EndView, RuleView, TcpView, TopView, a_second, milliseconds, part, quantile};
use crate::traffic::ledger::{Key, Party, Shared, total};
use crate::traffic::window::Total;

/// A caller, a service, and the workload of it that is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    source: (Text, Text),
    service: Text,
    destination: (Text, Text),
}

impl Edge {
    fn of(key: &Key) -> Edge {
        let name = |party: &Party| (party.namespace.clone(), party.workload.clone());
        Edge { source: name(&key.source), service: key.service.clone(), destination: name(&key.destination) }
    }
}

/// What is known of the ends of an edge.
#[derive(Debug, Default)]
struct Ends {
    source: Party,
    destination: Party,
}

impl Ends {
    fn hear(&mut self, key: &Key) {
        let hear = |held: &mut Party, said: &Party| {
            if held.identity.is_empty() {
                held.clone_from(said);
            }
        };
        hear(&mut self.source, &key.source);
        hear(&mut self.destination, &key.destination);
    }
}

/// Series of an edge, by whether the preferred side speaks and whether it is mutual TLS.
#[derive(Debug, Default)]
struct Found {
    ends: Ends,
    series: BTreeMap<(bool, bool), Vec<Shared>>,
}

pub(super) fn edges(facts: &Facts) -> Vec<EdgeView> {
    let selection = &facts.selection;
    let mut edges: BTreeMap<Edge, Found> = BTreeMap::new();
    for (key, series) in selection.series(facts.mesh(), &facts.ledger) {
        let found = edges.entry(Edge::of(&key)).or_default();
        found.ends.hear(&key);
        found.series.entry((key.destination_reports, key.mutual_tls)).or_default().push(series);
    }
    let sum = |found: &Found, side: (bool, bool)| {
        let series = found.series.get(&side).map(Vec::as_slice).unwrap_or_default();
        total(series, selection.now, selection.window)
    };
    let views = edges.iter().filter_map(|(edge, found)| {
        // The called side has seen who called; where it says nothing the caller's word counts.
        [true, false].into_iter().find_map(|destination| {
            let (mutual, plain) = (sum(found, (destination, true)), sum(found, (destination, false)));
            let mtls = is_any(&mutual) && !is_any(&plain);
            let mut all = mutual;
            all.merge(&plain);
            is_any(&all).then(|| edge_view(facts, edge, &found.ends, mtls, &all))
        })
    });
    views.collect()
}

fn is_any(total: &Total) -> bool {
    total.numbers != Default::default() || total.open > 0
}

fn edge_view(facts: &Facts, edge: &Edge, ends: &Ends, mtls: bool, total: &Total) -> EdgeView {
    let numbers = &total.numbers;
    EdgeView {
        source: EndView::of(None, &ends.source),
        destination: EndView::of(Some(&edge.service), &ends.destination),
        mtls,
        requests: numbers.requests,
        rps: a_second(numbers.requests, facts.selection.covered()),
        success_rate: part(numbers.successes, numbers.requests),
        p99_ms: quantile(total, 990),
        tcp: TcpView::of(numbers),
    }
}

pub(super) fn top(facts: &Facts) -> Vec<TopView> {
    let selection = &facts.selection;
    let all = selection.series(facts.mesh(), &facts.ledger);
    // The caller's proxy knows the rule; the called side is heard where there is no such proxy.
    let told: BTreeSet<Edge> =
        all.iter().filter(|(key, _)| !key.destination_reports).map(|(key, _)| Edge::of(key)).collect();
    type Line = (Edge, Text, Option<u32>);
    let mut lines: BTreeMap<Line, (Ends, Vec<Shared>)> = BTreeMap::new();
    for (key, series) in all {
        let edge = Edge::of(&key);
        if key.destination_reports && told.contains(&edge) {
            continue;
        }
        let found = lines.entry((edge, key.resource.clone(), key.rule)).or_default();
        found.0.hear(&key);
        found.1.push(series);
    }
    let mut views: Vec<TopView> = lines
        .into_iter()
        .filter_map(|((edge, resource, rule), (ends, series))| {
            let total = total(&series, selection.now, selection.window);
            let numbers = &total.numbers;
            (numbers.requests > 0).then(|| TopView {
                source: EndView::of(None, &ends.source),
                destination: EndView::of(Some(&edge.service), &ends.destination),
                route: (!resource.is_empty()).then(|| RuleView { resource: resource.to_string(), rule }),
                requests: numbers.requests,
                rps: a_second(numbers.requests, selection.covered()),
                best_ms: milliseconds(numbers.shortest),
                worst_ms: milliseconds(numbers.longest),
                last_ms: milliseconds(total.last.1),
                success_rate: part(numbers.successes, numbers.requests),
            })
        })
        .collect();
    views.sort_by(|a, b| b.rps.total_cmp(&a.rps));
    views
}
