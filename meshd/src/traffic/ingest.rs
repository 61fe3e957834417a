//! Reports as they come over the wire, read strictly: a node speaks of its own workloads only.

use mesh_core::telemetry::sketch::Sketch;
use mesh_core::vocab::name::Text;
use mesh_proto::generated::{TrafficCell, TrafficParty, TrafficReport};
use tonic::Status;

use super::ledger::{Key, Party};
use super::window::{News, Numbers};

/// Most cells of a report.
const MOST_CELLS: usize = 5000;
/// Most texts, and the longest of them: a few names of Kubernetes' length.
const MOST_TEXTS: usize = 50_000;
const LONGEST_TEXT: usize = 2048;

/// Whose a workload is.
pub trait Owners: Send + Sync {
    /// Whether a workload belongs to a node.
    fn owns(&self, node: &str, namespace: &str, workload: &str) -> bool;
}

/// A report that was read.
#[derive(Debug)]
pub struct Read {
    /// Cell by cell.
    pub cells: Vec<(Key, News)>,
    /// How many were left out, because they speak of others' workloads.
    pub ignored: u32,
}

/// Reads a report of a node.
pub fn read(node: &Text, report: TrafficReport, owners: &dyn Owners) -> Result<Read, Status> {
    let bad = |text: &str| Status::invalid_argument(text.to_owned());
    if report.cells.len() > MOST_CELLS || report.texts.len() > MOST_TEXTS {
        return Err(bad("too much for one report"));
    }
    if report.texts.iter().any(|text| text.len() > LONGEST_TEXT) {
        return Err(bad("a text is too long"));
    }
    let texts: Vec<Text> = report.texts.into_iter().map(Text::from).collect();
    let parties: Option<Vec<Party>> = report.parties.iter().map(|one| party(one, &texts)).collect();
    let parties = parties.ok_or_else(|| bad("an index of a text that is not there"))?;
    // Whether it is a party that the node may speak for: its own, or one that it does not name.
    let own: Vec<bool> = parties
        .iter()
        .map(|party| party.workload.is_empty() || owners.owns(node, &party.namespace, &party.workload))
        .collect();
    let mut cells = Vec::with_capacity(report.cells.len());
    let mut ignored = 0;
    for cell in report.cells {
        let speaker = if cell.destination_reports { cell.destination } else { cell.source };
        let key = key(node, &cell, &texts, &parties).ok_or_else(|| bad("an index of nothing"))?;
        if own.get(speaker as usize).copied().unwrap_or(false) {
            cells.push((key, news(&cell)));
        } else {
            ignored += 1;
        }
    }
    Ok(Read { cells, ignored })
}

fn party(party: &TrafficParty, texts: &[Text]) -> Option<Party> {
    let text = |index: u32| texts.get(index as usize).cloned();
    Some(Party {
        workload: text(party.workload)?,
        namespace: text(party.namespace)?,
        identity: text(party.identity)?,
        version: text(party.version)?,
    })
}

fn key(node: &Text, cell: &TrafficCell, texts: &[Text], parties: &[Party]) -> Option<Key> {
    let text = |index: u32| texts.get(index as usize).cloned();
    let party = |index: u32| parties.get(index as usize).cloned();
    Some(Key {
        node: node.clone(),
        destination_reports: cell.destination_reports,
        source: party(cell.source)?,
        destination: party(cell.destination)?,
        service: text(cell.service)?,
        cluster: text(cell.cluster)?,
        resource: text(cell.resource)?,
        rule: cell.rule,
        mutual_tls: cell.mutual_tls,
    })
}

fn news(cell: &TrafficCell) -> News {
    let mut durations = Sketch::default();
    let mut bucket = 0u32;
    for pair in cell.durations.chunks_exact(2) {
        bucket = bucket.saturating_add(pair[0]);
        durations.add(bucket, pair[1]);
    }
    News {
        numbers: Numbers {
            requests: cell.requests,
            successes: cell.successes.min(cell.requests),
            attempts: cell.attempts.max(cell.requests),
            retries: cell.retries,
            shortest: cell.shortest,
            longest: cell.longest,
            streams: cell.streams,
            streams_failed: cell.streams_failed,
            received: cell.received,
            sent: cell.sent,
        },
        durations,
        last: cell.last,
        connections: u64::from(cell.connections),
        streams: u64::from(cell.streams_open),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct H1;

    impl Owners for H1 {
        fn owns(&self, node: &str, namespace: &str, workload: &str) -> bool {
            (node, namespace, workload) == ("h1", "default", "a-v1")
        }
    }

    fn report(cells: Vec<TrafficCell>) -> TrafficReport {
        let texts = ["", "a-v1", "b-v1", "default", "svc"].map(str::to_owned).to_vec();
        let party = |workload| TrafficParty { workload, namespace: 3, ..TrafficParty::default() };
        TrafficReport { texts, parties: vec![party(1), party(2), party(0)], cells, ..Default::default() }
    }

    #[test]
    fn a_node_speaks_of_its_own_workloads() {
        let cell = |source, destination, destination_reports| TrafficCell {
            source,
            destination,
            destination_reports,
            service: 4,
            requests: 1,
            durations: vec![100, 1, 28, 2, u32::MAX, 7],
            ..TrafficCell::default()
        };
        // Its own calls and those to it; others' calls, and calls to others as if they were to it.
        let cells =
            vec![cell(0, 1, false), cell(1, 0, true), cell(2, 1, false), cell(1, 0, false), cell(0, 1, true)];
        let read = read(&"h1".into(), report(cells), &H1).unwrap();
        assert_eq!((read.cells.len(), read.ignored), (3, 2));
        let (key, news) = &read.cells[0];
        assert_eq!(
            (&*key.source.workload, &*key.destination.workload, &*key.service),
            ("a-v1", "b-v1", "svc")
        );
        let buckets: Vec<_> = news.durations.buckets().collect();
        assert_eq!(buckets, [(100, 1), (128, 2)]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let cell = TrafficCell { service: 99, ..TrafficCell::default() };
        assert!(read(&"h1".into(), report(vec![cell]), &H1).is_err());
        let cell = TrafficCell { source: 9, ..TrafficCell::default() };
        assert!(read(&"h1".into(), report(vec![cell]), &H1).is_err());
        assert!(read(&"h1".into(), report(vec![TrafficCell::default(); MOST_CELLS + 1]), &H1).is_err());
        let mut long = report(Vec::new());
        long.texts.push("x".repeat(LONGEST_TEXT + 1));
        assert!(read(&"h1".into(), long, &H1).is_err());
    }
}
