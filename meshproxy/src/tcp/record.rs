//! The record of one byte stream, and its copying: metrics and the line of the access log.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::decide::refusal::{Reason, Refusal};
use mesh_core::telemetry::{Side, Telemetry};
use mesh_core::vocab::name::Text;
use mesh_core::vocab::origin::Origin;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::IDLE;
use crate::live::local::LocalWorkload;
use crate::live::root::Root;
use crate::net::copy::{Carried, Ended, copy};
use crate::net::downstream::Facts;
use crate::telemetry::entry::{Entry, Remarked};
use crate::telemetry::flags::Flags;
use crate::telemetry::labels::ServiceLabels;
use crate::telemetry::line::addresses;
use crate::telemetry::metrics::{Reporter, StreamSeries, interval};
use crate::upstream::thread::DataThread;

/// The record of one byte stream: written to metrics and access log when it is dropped.
#[derive(Debug)]
pub struct StreamRecord {
    pub(super) thread: Rc<DataThread>,
    pub(super) facts: Facts,
    reporter: Reporter,
    mutual_tls: bool,
    version: u64,
    /// The workload of this host that it is told for, and what is told where there is none: a stream may last longer than
    /// the root.
    own: Option<Arc<LocalWorkload>>,
    telemetry: Arc<Telemetry>,
    started: Instant,
    carried: Carried,
    flushed: (u64, u64),
    /// Where it is counted, once it has begun; `None` in it where nothing is.
    series: Option<Option<Rc<StreamSeries>>>,
    /// Numbers of the caller, the called, and the service.
    pub source: u32,
    /// See `source`.
    pub destination: u32,
    /// See `source`.
    pub service: u32,
    /// Where the rule was declared that decided.
    pub origin: Option<Origin>,
    /// The cluster.
    pub cluster: Text,
    /// The endpoint.
    pub upstream: Option<SocketAddr>,
    /// It is closed after so long without a byte, and after so long in any case; `None` for never.
    pub idle: Option<Duration>,
    /// See `idle`.
    pub most: Option<Duration>,
    pub(super) flags: Flags,
    pub(super) termination: String,
    pub(super) transport_failure: String,
    /// The server name that the client's TLS asks for.
    pub server_name: Option<Text>,
    /// What policies have written down of it.
    pub remarked: Option<Box<Remarked>>,
}

impl StreamRecord {
    /// A stream begins.
    pub fn new(
        thread: &Rc<DataThread>,
        facts: Facts,
        reporter: Reporter,
        mutual_tls: bool,
        root: &Root,
    ) -> StreamRecord {
        StreamRecord {
            thread: Rc::clone(thread),
            facts,
            reporter,
            mutual_tls,
            version: root.tables.version.number,
            own: None,
            telemetry: Arc::clone(&root.tables.telemetry),
            started: Instant::now(),
            carried: Carried::default(),
            flushed: (0, 0),
            series: None,
            source: 0,
            destination: 0,
            service: 0,
            origin: None,
            cluster: "".into(),
            upstream: None,
            idle: Some(IDLE),
            most: None,
            flags: Flags::NONE,
            termination: String::new(),
            transport_failure: String::new(),
            server_name: None,
            remarked: None,
        }
    }

    /// The workload of this host that it is told for.
    pub fn tell_for(&mut self, local: &Arc<LocalWorkload>) {
        self.own = Some(Arc::clone(local));
    }

    /// The workload of this host that opened it.
    pub fn called_by(&mut self, local: Option<&Arc<LocalWorkload>>) {
        let Some(local) = local else { return };
        self.source = local.party.number;
        self.tell_for(local);
    }

    /// What is told of it.
    fn side(&self) -> &Side {
        let telemetry = self.own.as_ref().map_or(&*self.telemetry, |own| &own.hosted.section.telemetry);
        match self.reporter {
            Reporter::Source => &telemetry.client,
            Reporter::Destination => &telemetry.server,
        }
    }

    /// It goes where the client asked for.
    pub(super) fn pass_through(&mut self) {
        self.cluster = "PassthroughCluster".into();
        self.count_as("PassthroughCluster");
    }

    fn count_as(&mut self, name: &str) {
        self.service = self.thread.observers.series.service_number(ServiceLabels::outside(name));
    }

    /// A decision went against it.
    pub fn refused(mut self, refusal: &Refusal) {
        self.flags.push(refusal.flag());
        if let Reason::NoDestination { cluster } = &refusal.reason {
            self.cluster = cluster.as_str().into();
        }
        if matches!(refusal.reason, Reason::BlackHole) {
            self.cluster = "BlackHoleCluster".into();
            self.count_as("BlackHoleCluster");
        }
        match refusal.reason {
            Reason::Denied(_) => self.termination = refusal.details(),
            Reason::NotShown => self.transport_failure = refusal.details(),
            _ => {}
        }
    }

    /// There is nothing to carry it to.
    pub fn failed(mut self, flag: &str, why: &str) {
        self.flags.push(flag);
        self.transport_failure = why.to_owned();
    }

    /// Copies until the stream ends, stalls, or is refused.
    pub async fn carry<A, B>(mut self, client: A, server: B, refused: impl Future<Output = Refusal>)
    where
        A: AsyncRead + AsyncWrite,
        B: AsyncRead + AsyncWrite,
    {
        self.open();
        let carried = std::mem::take(&mut self.carried);
        let ended = {
            let copying = copy(client, server, &carried, self.idle);
            let over = over(self.most);
            tokio::pin!(copying, over, refused);
            let every = interval(self.side().metrics.reporting_interval);
            let mut tick = tokio::time::interval(every);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    ended = &mut copying => break Ok(ended),
                    () = &mut over => break Ok(Ended::Over),
                    _ = tick.tick() => self.flush(&carried),
                    refusal = &mut refused => break Err(refusal),
                }
            }
        };
        self.flush(&carried);
        self.carried = carried;
        match ended {
            Err(refusal) => {
                self.termination = match refusal.reason {
                    Reason::Denied(_) => refusal.details(),
                    _ => "refused_by_newer_configuration".to_owned(),
                };
                if self.reporter == Reporter::Destination {
                    self.thread.metrics().proxy.streams_cut_off.increment(1);
                }
            }
            Ok(Ended::ServerFailed(_)) => self.flags.push("UR"),
            Ok(Ended::ClientFailed(_)) => self.flags.push("DC"),
            Ok(Ended::Over) => self.flags.push("DT"),
            Ok(Ended::Closed | Ended::Idle) => {}
        }
    }

    fn flush(&mut self, carried: &Carried) {
        let now = (carried.received.get(), carried.sent.get());
        if let Some(Some(series)) = &self.series {
            series.carried(now.0 - self.flushed.0, now.1 - self.flushed.1);
        }
        self.flushed = now;
    }

    /// It is counted from now on, under what is known of it now.
    fn open(&mut self) {
        let declared = &self.side().metrics;
        let series = self.with_entry(|entry| self.thread.observers.series.stream(entry, declared));
        series.iter().for_each(|series| series.opened());
        self.series = Some(series);
    }

    fn with_entry<R>(&self, tell: impl FnOnce(&Entry<'_>) -> R) -> R {
        let entry = Entry {
            reporter: self.reporter,
            mutual_tls: self.mutual_tls,
            source: self.source,
            destination: self.destination,
            service: self.service,
            grpc: false,
            grpc_status: None,
            started: self.started,
            duration: self.started.elapsed(),
            method: "",
            path: "",
            protocol: "",
            code: 0,
            flags: self.flags,
            details: "",
            termination: &self.termination,
            transport_failure: &self.transport_failure,
            server_name: self.server_name.as_deref().unwrap_or(""),
            request_bytes: self.flushed.0,
            response_bytes: self.flushed.1,
            attempts: u32::from(self.upstream.is_some()),
            origin: self.origin.as_ref(),
            received: self.flushed.0,
            sent: self.flushed.1,
            service_time: None,
            forwarded_for: None,
            user_agent: None,
            request_id: None,
            authority: "",
            upstream_host: self.upstream,
            cluster: &self.cluster,
            local: self.facts.local,
            remote: self.facts.peer,
            addresses: &addresses(self.facts.local, self.facts.peer),
            route: "",
            remarked: self.remarked.as_deref(),
            kept: None,
            version: self.version,
            trace_id: None,
        };
        tell(&entry)
    }
}

/// Resolves when a stream has lasted as long as it may.
async fn over(most: Option<Duration>) {
    match most {
        Some(most) => tokio::time::sleep(most).await,
        None => std::future::pending().await,
    }
}

impl Drop for StreamRecord {
    fn drop(&mut self) {
        // A stream that was never carried is opened and closed at once, under the flags that say why.
        if self.series.is_none() {
            self.open();
        }
        self.series.take().flatten().iter().for_each(|series| series.closed());
        self.with_entry(|entry| self.thread.observers.stream(entry, self.side()));
    }
}
