//! Tells meshd of the traffic, once a second. Where it does not answer, reports are kept for a few seconds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::vocab::name::Text;
use mesh_proto::generated as wire;
use mesh_proto::generated::traffic_reports_client::TrafficReportsClient;
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::telemetry::labels::Party;
use crate::telemetry::metrics::{Metrics, Reporter};
use crate::telemetry::report::{Gathered, KEPT, OTHER, Portion};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Until it is tried again.
const AGAIN: Duration = Duration::from_millis(500);
/// Most cells of one message; meshd takes no more.
const MOST_CELLS: usize = 5000;

/// What is told, living longer than the channels it is told on.
#[derive(Debug)]
pub struct Reporting {
    /// What data threads have counted; `None` where nothing is told.
    gathered: Option<mpsc::Receiver<Gathered>>,
    metrics: Arc<Metrics>,
    incarnation: u64,
    sequence: u64,
    /// What is on its way.
    pending: Option<(Gathered, u64)>,
}

impl Reporting {
    /// Tells what comes.
    pub fn new(gathered: Option<mpsc::Receiver<Gathered>>, metrics: Arc<Metrics>) -> Reporting {
        Reporting { gathered, metrics, incarnation: rand::random(), sequence: 0, pending: None }
    }

    /// Tells for as long as the channel lasts.
    pub async fn run(&mut self, channel: Channel) -> Status {
        let mut client = TrafficReportsClient::new(channel);
        loop {
            let Some((gathered, first)) = self.next().await else { return std::future::pending().await };
            if gathered.at.elapsed() > KEPT {
                self.metrics.proxy.reports_dropped.increment(1);
                self.pending = None;
                continue;
            }
            match self.send(&mut client, first).await {
                Ok(()) => self.pending = None,
                // A meshd from before there were any: nothing is told, and what comes is dropped in time.
                Err(status) if status.code() == Code::Unimplemented => return std::future::pending().await,
                // The other streams tell whether meshd has gone.
                Err(status) => {
                    tracing::debug!(%status, "meshd did not take a report of traffic");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// What is to be told, and the number of its first message.
    async fn next(&mut self) -> Option<(&Gathered, u64)> {
        if self.pending.is_none() {
            let gathered = self.gathered.as_mut()?.recv().await?;
            let first = self.sequence + 1;
            self.sequence += gathered.cells.len().div_ceil(MOST_CELLS) as u64;
            self.pending = Some((gathered, first));
        }
        self.pending.as_ref().map(|(gathered, first)| (gathered, *first))
    }

    async fn send(&self, client: &mut TrafficReportsClient<Channel>, first: u64) -> Result<(), Status> {
        let Some((gathered, _)) = &self.pending else { return Ok(()) };
        for (part, cells) in gathered.cells.chunks(MOST_CELLS).enumerate() {
            let age = u32::try_from(gathered.at.elapsed().as_millis()).unwrap_or(u32::MAX);
            let message = wire::TrafficReport {
                incarnation: self.incarnation,
                sequence: first + part as u64,
                age_milliseconds: age,
                ..report(cells, &self.metrics)
            };
            let mut request = tonic::Request::new(message);
            request.set_timeout(PATIENCE);
            let answer = client.report(request).await?.into_inner();
            if answer.ignored > 0 {
                tracing::debug!(
                    cells = answer.ignored,
                    "meshd ignored what it was told of others' workloads"
                );
            }
        }
        Ok(())
    }
}

/// Cells with their texts and parties, each once.
fn report(cells: &[Portion], metrics: &Metrics) -> wire::TrafficReport {
    let mut names = Names::default();
    names.text("");
    let cells = cells.iter().map(|cell| names.cell(cell, metrics)).collect();
    wire::TrafficReport { texts: names.list, parties: names.parties, cells, ..Default::default() }
}

#[derive(Default)]
struct Names {
    list: Vec<String>,
    known: HashMap<Text, u32>,
    parties: Vec<wire::TrafficParty>,
    numbers: HashMap<u32, u32>,
}

impl Names {
    fn text(&mut self, text: &str) -> u32 {
        if let Some(number) = self.known.get(text) {
            return *number;
        }
        let number = self.list.len() as u32;
        self.list.push(text.to_owned());
        self.known.insert(text.into(), number);
        number
    }

    fn party(&mut self, number: u32, metrics: &Metrics) -> u32 {
        if let Some(known) = self.numbers.get(&number) {
            return *known;
        }
        let party: Arc<Party> = metrics.party_of(number);
        let said = |text: &Text| if &**text == "unknown" { "" } else { &**text }.to_owned();
        let wire = wire::TrafficParty {
            workload: self.text(&said(&party.workload)),
            namespace: self.text(&said(&party.namespace)),
            identity: self.text(&said(&party.principal)),
            version: self.text(&said(&party.version)),
        };
        let index = self.parties.len() as u32;
        self.parties.push(wire);
        self.numbers.insert(number, index);
        index
    }

    fn cell(&mut self, cell: &Portion, metrics: &Metrics) -> wire::TrafficCell {
        let service = match cell.key.service {
            OTHER => "other".into(),
            number => {
                let labels = metrics.service_of(number);
                // What is no service of the mesh has a name, and no host.
                if &*labels.host == "unknown" { labels.name.clone() } else { labels.host.clone() }
            }
        };
        let mut durations = Vec::new();
        let mut last = 0;
        for (bucket, count) in cell.counts.durations.buckets() {
            durations.extend([bucket - last, count]);
            last = bucket;
        }
        let counts = &cell.counts;
        wire::TrafficCell {
            destination_reports: cell.key.reporter == Reporter::Destination,
            source: self.party(cell.key.source, metrics),
            destination: self.party(cell.key.destination, metrics),
            service: self.text(&service),
            cluster: self.text(&cell.cluster),
            resource: self.text(cell.rule.as_ref().map_or("", |rule| &rule.resource)),
            rule: cell.rule.as_ref().and_then(|rule| rule.rule),
            mutual_tls: cell.key.mutual_tls,
            requests: counts.requests,
            successes: counts.successes,
            attempts: counts.attempts,
            retries: counts.retries,
            shortest: counts.shortest,
            longest: counts.longest,
            last: counts.last,
            durations,
            streams: counts.streams,
            streams_failed: counts.streams_failed,
            streams_open: cell.streams,
            received: counts.received,
            sent: counts.sent,
            connections: cell.connections,
        }
    }
}
