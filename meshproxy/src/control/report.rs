//! Announces this host's workloads to meshd, keeps the lease alive and tells how the workloads fare.

use std::net::IpAddr;
use std::time::Duration;

use mesh_core::vocab::health::Health;
use mesh_proto::generated as wire;
use mesh_proto::generated::registry_client::RegistryClient;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use crate::config::LocalService;
use crate::live::ejection::Ejected;
use crate::workload::check::Reports;
use crate::workload::local::Documents;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Until meshd has said how long its lease is.
const FIRST_LEASE: Duration = Duration::from_secs(15);

/// What is announced, living longer than the streams it is announced on.
pub struct Report {
    /// Where peers reach this host.
    pub address: IpAddr,
    /// The port of the mesh listener there.
    pub mesh_port: u16,
    /// Files of `--workload`.
    pub documents: Documents,
    /// Workloads in the short form.
    pub services: Vec<LocalService>,
    /// How the workloads fare.
    pub health: watch::Receiver<Reports>,
    /// The workloads that callers of this host leave alone.
    pub ejected: watch::Receiver<Ejected>,
    /// Set when the proxy is about to end: then nothing here shall get traffic any more.
    pub draining: watch::Receiver<bool>,
    /// Told when meshd has taken in the registration of the present stream.
    pub registered: watch::Sender<bool>,
    /// Told when meshd says that callers have left this host alone.
    pub withdrawn: watch::Sender<bool>,
}

/// The state of one stream.
struct Stream {
    outbound: mpsc::Sender<wire::Announcement>,
    sequence: u64,
    sent: Reports,
    ejected: Ejected,
    withdrawal: Option<u64>,
    problems: Vec<String>,
}

impl Report {
    /// Announces for as long as the channel lasts.
    pub async fn run(&mut self, channel: Channel) -> Status {
        match self.announce(channel).await {
            Ok(()) => Status::unavailable("meshd closed the registry stream"),
            Err(status) => status,
        }
    }

    async fn announce(&mut self, channel: Channel) -> Result<(), Status> {
        self.registered.send_replace(false);
        let (outbound, receiver) = mpsc::channel(8);
        let mut stream = Stream {
            outbound,
            sequence: 0,
            sent: Reports::new(),
            ejected: Ejected::new(),
            withdrawal: None,
            problems: Vec::new(),
        };
        self.documents.refresh();
        self.register(&mut stream).await?;
        let mut client = RegistryClient::new(channel);
        let mut inbound = client.announce(ReceiverStream::new(receiver)).await?.into_inner();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heartbeat = heartbeat_every(FIRST_LEASE);
        loop {
            tokio::select! {
                answer = inbound.message() => {
                    let Some(answer) = answer? else { return Ok(()) };
                    let lease = Duration::from_secs(u64::from(answer.lease_seconds.max(1)));
                    if heartbeat.period() != period(lease) {
                        heartbeat = heartbeat_every(lease);
                    }
                    self.answered(&mut stream, answer);
                }
                _ = look.tick() => {
                    if self.documents.refresh() {
                        tracing::info!(files = self.documents.current().len(), "workload files changed");
                        self.register(&mut stream).await?;
                    }
                }
                _ = heartbeat.tick() => stream.send(None).await?,
                Ok(()) = self.health.changed() => self.report_health(&mut stream).await?,
                Ok(()) = self.ejected.changed() => self.report_health(&mut stream).await?,
                Ok(()) = self.draining.changed() => self.depart(&mut stream).await?,
            }
        }
    }

    async fn register(&mut self, stream: &mut Stream) -> Result<(), Status> {
        let health = self.health.borrow_and_update().clone();
        let ejected = self.ejected.borrow_and_update().clone();
        let documents = self.documents.current().iter();
        let registration = wire::Registration {
            address: self.address.to_string(),
            mesh_port: u32::from(self.mesh_port),
            documents: documents
                .map(|document| wire::Document {
                    file: document.file.clone(),
                    content: document.content.clone().into(),
                })
                .collect(),
            services: self.services.iter().map(local_service).collect(),
            health: Some(health_report(health.iter(), &ejected)),
            leaving: *self.draining.borrow(),
        };
        (stream.sent, stream.ejected) = (health, ejected);
        stream.send(Some(wire::announcement::News::Registration(registration))).await?;
        self.depart(stream).await
    }

    /// Says farewell, once a stream, if the proxy is about to end. The answer comes when callers have left.
    async fn depart(&mut self, stream: &mut Stream) -> Result<(), Status> {
        if !*self.draining.borrow_and_update() || stream.withdrawal.is_some() {
            return Ok(());
        }
        let departure = wire::announcement::News::Departure(wire::Departure {});
        stream.send(Some(departure)).await?;
        stream.withdrawal = Some(stream.sequence);
        Ok(())
    }

    async fn report_health(&mut self, stream: &mut Stream) -> Result<(), Status> {
        let health = self.health.borrow_and_update().clone();
        let changed = health.iter().filter(|(key, report)| stream.sent.get(*key) != Some(*report));
        let ejected = self.ejected.borrow_and_update().clone();
        let report = health_report(changed, &ejected);
        stream.sent = health;
        if !report.workloads.is_empty() || ejected != stream.ejected {
            stream.ejected = ejected;
            stream.send(Some(wire::announcement::News::Health(report))).await?;
        }
        Ok(())
    }

    fn answered(&self, stream: &mut Stream, answer: wire::Announced) {
        let is_registration = !answer.workloads.is_empty() || !answer.problems.is_empty();
        if is_registration && answer.problems != stream.problems {
            for problem in &answer.problems {
                tracing::error!(problem, "meshd refused a workload of this host");
            }
            stream.problems = answer.problems;
        }
        for workload in &answer.workloads {
            tracing::debug!(
                namespace = workload.namespace,
                name = workload.name,
                identity = workload.identity,
                "registered"
            );
        }
        self.registered.send_if_modified(|registered| !std::mem::replace(registered, true));
        if stream.withdrawal == Some(answer.sequence) {
            self.withdrawn.send_replace(true);
        }
    }
}

impl Stream {
    async fn send(&mut self, news: Option<wire::announcement::News>) -> Result<(), Status> {
        self.sequence += 1;
        let announcement = wire::Announcement { sequence: self.sequence, news };
        self.outbound
            .send(announcement)
            .await
            .map_err(|_| Status::unavailable("the registry stream was closed"))
    }
}

/// At least three words a lease, so that two may get lost.
fn period(lease: Duration) -> Duration {
    (lease / 3).max(Duration::from_millis(300))
}

fn heartbeat_every(lease: Duration) -> tokio::time::Interval {
    let period = period(lease);
    let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

fn local_service(service: &LocalService) -> wire::LocalService {
    wire::LocalService {
        name: service.name.clone(),
        namespace: service.namespace.clone(),
        port: u32::from(service.port),
        protocol: service.protocol.clone(),
        labels: service.labels.iter().cloned().collect(),
        service_account: service.account.clone().unwrap_or_default(),
    }
}

fn health_report<'r>(
    reports: impl Iterator<Item = (&'r mesh_core::vocab::name::WorkloadKey, &'r crate::workload::check::Report)>,
    ejected: &Ejected,
) -> wire::HealthReport {
    let workload =
        |(key, report): (&mesh_core::vocab::name::WorkloadKey, &crate::workload::check::Report)| {
            wire::WorkloadHealth {
                namespace: key.namespace.to_string(),
                name: key.name.to_string(),
                health: match report.health {
                    Health::Unknown => wire::Health::Unknown,
                    Health::Healthy => wire::Health::Healthy,
                    Health::Unhealthy => wire::Health::Unhealthy,
                }
                .into(),
                check: report.check.clone(),
                reason: report.reason.clone(),
            }
        };
    let ejected = ejected.iter().map(|key| wire::EjectedWorkload {
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
    });
    wire::HealthReport { workloads: reports.map(workload).collect(), ejected: ejected.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was said so far, in words.
    fn said(receiver: &mut mpsc::Receiver<wire::Announcement>) -> Vec<String> {
        let mut words = Vec::new();
        while let Ok(announcement) = receiver.try_recv() {
            let word = match announcement.news {
                Some(wire::announcement::News::Registration(one)) => {
                    format!("register leaving={}", one.leaving)
                }
                Some(wire::announcement::News::Health(_)) => "health".to_owned(),
                Some(wire::announcement::News::Departure(_)) => "depart".to_owned(),
                None => "alive".to_owned(),
            };
            words.push(format!("{} {word}", announcement.sequence));
        }
        words
    }

    #[tokio::test]
    async fn a_farewell_is_said_once_and_its_own_answer_counts() {
        let (draining, is_draining) = watch::channel(false);
        let (withdrawn, has_withdrawn) = watch::channel(false);
        let mut report = Report {
            address: [10, 0, 0, 1].into(),
            mesh_port: 15008,
            documents: Documents::new(Vec::new()),
            services: Vec::new(),
            health: watch::channel(Reports::new()).1,
            ejected: watch::channel(Ejected::new()).1,
            draining: is_draining,
            registered: watch::channel(false).0,
            withdrawn,
        };
        let (outbound, mut receiver) = mpsc::channel(8);
        let mut stream = Stream {
            outbound,
            sequence: 0,
            sent: Reports::new(),
            ejected: Ejected::new(),
            withdrawal: None,
            problems: Vec::new(),
        };
        report.register(&mut stream).await.unwrap();
        draining.send_replace(true);
        report.depart(&mut stream).await.unwrap();
        stream.send(None).await.unwrap();
        report.register(&mut stream).await.unwrap();
        let expected = ["1 register leaving=false", "2 depart", "3 alive", "4 register leaving=true"];
        assert_eq!(said(&mut receiver), expected);
        for sequence in [1, 3, 4] {
            report.answered(&mut stream, wire::Announced { sequence, ..Default::default() });
            assert!(!*has_withdrawn.borrow(), "{sequence}");
        }
        report.answered(&mut stream, wire::Announced { sequence: 2, ..Default::default() });
        assert!(*has_withdrawn.borrow());
    }

    #[test]
    fn three_words_a_lease() {
        assert_eq!(period(Duration::from_secs(15)), Duration::from_secs(5));
        assert!(period(Duration::ZERO) > Duration::ZERO);
    }
}
