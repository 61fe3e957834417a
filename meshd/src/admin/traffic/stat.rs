//! How services, their subsets, workloads or rules fare.

use std::collections::{BTreeMap, BTreeSet};

use mesh_core::telemetry::worse::worse;
use mesh_core::vocab::name::Text;

use super::Facts;
use super::select::By;
use super::view::{RuleView, StatView, TcpView, a_second, part, quantile};
use crate::clock;
use crate::traffic::ledger::{Key, Shared, history, total};
use crate::traffic::window::{Moment, TEN};

/// What a line is for. In the order of lines: the whole before its parts, the called side's word first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    service: Text,
    subset: Option<Text>,
    workload: Option<(Text, Text)>,
    route: Option<(Text, Option<u32>)>,
    source_reports: bool,
}

pub(super) fn stat(facts: &Facts) -> Vec<StatView> {
    let selection = &facts.selection;
    let mut lines: BTreeMap<Line, Vec<Shared>> = BTreeMap::new();
    for (key, series) in selection.series(facts.mesh(), &facts.ledger) {
        for line in lines_of(&key, selection.by) {
            lines.entry(line).or_default().push(series.clone());
        }
    }
    let mut views: Vec<StatView> =
        lines.into_iter().filter_map(|(line, series)| view(facts, line, &series)).collect();
    let seen: BTreeSet<&str> = views.iter().map(|view| view.service.as_str()).collect();
    let idle: Vec<StatView> = facts
        .mesh()
        .services()
        .filter(|service| !seen.contains(&*service.host) && selection.wants(facts.mesh(), &service.host))
        .map(|service| nothing(&service.host, selection.destination_reports != Some(false)))
        .collect();
    views.extend(idle);
    // Services in the order of their names, their lines as they are.
    views.sort_by(|a, b| a.service.cmp(&b.service));
    views
}

fn lines_of(key: &Key, by: By) -> Vec<Line> {
    let whole = Line {
        service: key.service.clone(),
        subset: None,
        workload: None,
        route: None,
        source_reports: !key.destination_reports,
    };
    let subset = Some(key.subset()).filter(|subset| !subset.is_empty()).map(Text::from);
    match by {
        By::Service => {
            let mut lines = vec![whole.clone()];
            lines.extend(subset.map(|subset| Line { subset: Some(subset), ..whole }));
            lines
        }
        By::Version => vec![Line { subset, ..whole }],
        By::Workload => {
            let called = &key.destination;
            let workload =
                (!called.workload.is_empty()).then(|| (called.namespace.clone(), called.workload.clone()));
            vec![Line { workload, ..whole }]
        }
        By::Route => {
            let route = (!key.resource.is_empty()).then(|| (key.resource.clone(), key.rule));
            vec![Line { route, ..whole }]
        }
    }
}

fn reporter(source_reports: bool) -> String {
    if source_reports { "source" } else { "destination" }.to_owned()
}

fn view(facts: &Facts, line: Line, series: &[Shared]) -> Option<StatView> {
    let selection = &facts.selection;
    let total = total(series, selection.now, selection.window);
    let numbers = &total.numbers;
    if *numbers == Default::default() && total.open == 0 {
        return None;
    }
    let (minutes, steps) = history(series, selection.now);
    let worse = worse(&minutes, &steps);
    let (namespace, workload) = line.workload.map(|(a, b)| (a.to_string(), b.to_string())).unzip();
    Some(StatView {
        service: line.service.to_string(),
        subset: line.subset.map(|subset| subset.to_string()),
        workload,
        namespace,
        route: line.route.map(|(resource, rule)| RuleView { resource: resource.to_string(), rule }),
        reporter: reporter(line.source_reports),
        requests: numbers.requests,
        success_rate: part(numbers.successes, numbers.requests),
        rps: a_second(numbers.requests, selection.covered()),
        p50_ms: quantile(&total, 500),
        p95_ms: quantile(&total, 950),
        p99_ms: quantile(&total, 990),
        connections: total.open,
        tcp: TcpView::of(numbers),
        worse_since: worse.map(|worse| since(selection.now, worse.steps)),
        worse: worse.map(|worse| worse.symptom.name().to_owned()),
    })
}

/// The beginning of the step that is so many steps back from the running one.
fn since(now: Moment, steps: usize) -> String {
    let ago = now % TEN + steps as u64 * TEN;
    clock::text(clock::now_seconds() - i64::try_from(ago / 1000).unwrap_or(0))
}

fn nothing(host: &str, destination: bool) -> StatView {
    StatView {
        service: host.to_owned(),
        subset: None,
        workload: None,
        namespace: None,
        route: None,
        reporter: reporter(!destination),
        requests: 0,
        success_rate: None,
        rps: 0.0,
        p50_ms: None,
        p95_ms: None,
        p99_ms: None,
        connections: 0,
        tcp: None,
        worse_since: None,
        worse: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::ledger::Party;

    #[test]
    fn a_service_is_told_whole_and_by_subset() {
        let key = Key {
            service: "a".into(),
            cluster: "outbound|80|v1|a".into(),
            resource: "virtualservice/n/a".into(),
            rule: Some(1),
            destination: Party { workload: "a-v1".into(), namespace: "n".into(), ..Party::default() },
            ..Key::default()
        };
        let subsets = |by| lines_of(&key, by).into_iter().map(|l| l.subset.as_deref().map(str::to_owned));
        let v1 = || Some("v1".to_owned());
        assert_eq!(subsets(By::Service).collect::<Vec<_>>(), [None, v1()]);
        assert_eq!(subsets(By::Version).collect::<Vec<_>>(), [v1()]);
        assert_eq!(lines_of(&key, By::Route)[0].route, Some(("virtualservice/n/a".into(), Some(1))));
        assert_eq!(lines_of(&key, By::Workload)[0].workload, Some(("n".into(), "a-v1".into())));
        assert!(reporter(lines_of(&key, By::Service)[0].source_reports) == "source");
    }
}
