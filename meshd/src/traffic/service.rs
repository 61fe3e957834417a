//! Where proxies report their traffic.

use std::sync::Arc;
use std::time::Duration;

use mesh_core::vocab::identity::TrustDomain;
use mesh_core::vocab::name::Text;
use mesh_proto::generated::traffic_reports_server::TrafficReports;
use mesh_proto::generated::{TrafficReport, TrafficReported};
use tonic::{Request, Response, Status};

use super::ingest::{self, Owners};
use super::ledger::Ledger;
use crate::identity::attest::caller;
use crate::identity::members::Members;
use crate::telemetry;

/// Takes reports in.
pub struct TelemetryService {
    /// The trust domain.
    pub domain: TrustDomain,
    /// Who has joined.
    pub members: Arc<Members>,
    /// Whose workloads are whose.
    pub owners: Arc<dyn Owners>,
    /// Where it goes.
    pub ledger: Arc<Ledger>,
}

#[tonic::async_trait]
impl TrafficReports for TelemetryService {
    async fn report(&self, request: Request<TrafficReport>) -> Result<Response<TrafficReported>, Status> {
        let caller = caller(&request, &self.domain, &self.members)?;
        let node = Text::from(caller.node.name.as_str());
        let report = request.into_inner();
        let age = Duration::from_millis(u64::from(report.age_milliseconds));
        let (incarnation, sequence) = (report.incarnation, report.sequence);
        let read = ingest::read(&node, report, &*self.owners)?;
        if !self.ledger.is_new(&node, incarnation, sequence) {
            return Ok(Response::new(TrafficReported { ignored: 0 }));
        }
        let taken = self.ledger.take(age, read.cells.into_iter());
        telemetry::reported(taken.series, taken.swallowed, read.ignored);
        Ok(Response::new(TrafficReported { ignored: read.ignored }))
    }
}
