//! Retries, hedges and faults.

use std::time::Duration;

use mesh_core::resilience::connection_fault::{ConnectionFault, ConnectionFaultKind};
use mesh_core::resilience::fault::{AbortStatus, FaultPolicy};
use mesh_core::resilience::hedge::Hedge;
use mesh_core::resilience::retry::{RetryCondition, RetryPolicy};
use mesh_core::vocab::ratio::Ratio;

use super::error::{At as _, ConvertError, Fault};
use super::vocab::wire_enum;
use super::{Wire, field, list, optional, required, to_wires};
use crate::generated as wire;

wire_enum!(
    RetryCondition,
    wire::RetryCondition,
    ConnectFailure,
    RefusedStream,
    Reset,
    ResetBeforeRequest,
    FiveXx,
    GatewayError,
    Retriable4xx,
    RetriableStatusCodes,
    Cancelled,
    DeadlineExceeded,
    Internal,
    ResourceExhausted,
    Unavailable,
    RetriableHeaders,
    EnvoyRatelimited,
    Http3PostConnectFailure,
);

impl Wire for RetryPolicy {
    type Message = wire::RetryPolicy;

    fn to_wire(&self) -> wire::RetryPolicy {
        wire::RetryPolicy {
            attempts: self.attempts,
            per_try_timeout: self.per_try_timeout.as_ref().map(Wire::to_wire),
            on: to_wires(&self.on),
            codes: to_wires(&self.codes),
            backoff: Some(self.backoff.to_wire()),
            avoid_tried: self.avoid_tried,
            remote_localities: self.remote_localities,
            hedge: self.hedge.as_ref().map(Wire::to_wire),
        }
    }

    fn from_wire(message: wire::RetryPolicy) -> Result<RetryPolicy, ConvertError> {
        Ok(RetryPolicy {
            attempts: message.attempts,
            per_try_timeout: optional(message.per_try_timeout, "per_try_timeout")?,
            on: list(message.on, "on")?,
            codes: list(message.codes, "codes")?,
            backoff: required(message.backoff, "backoff")?,
            avoid_tried: message.avoid_tried,
            remote_localities: message.remote_localities,
            hedge: optional(message.hedge, "hedge")?,
        })
    }
}

impl Wire for Hedge {
    type Message = wire::Hedge;

    fn to_wire(&self) -> wire::Hedge {
        wire::Hedge { after: Some(self.after.to_wire()), most: self.most, any_method: self.any_method }
    }

    fn from_wire(message: wire::Hedge) -> Result<Hedge, ConvertError> {
        let most = message.most.clamp(1, Hedge::MOST);
        Ok(Hedge { after: required(message.after, "after")?, most, any_method: message.any_method })
    }
}

impl Wire for ConnectionFault {
    type Message = wire::ConnectionFault;

    fn to_wire(&self) -> wire::ConnectionFault {
        use wire::connection_fault::Kind;
        let kind = match &self.kind {
            ConnectionFaultKind::Reset { after } => Kind::Reset(*after),
            ConnectionFaultKind::Blackhole => Kind::Blackhole(true),
            ConnectionFaultKind::Bandwidth(rate) => Kind::Bandwidth(*rate),
            ConnectionFaultKind::Latency(time) => Kind::Latency(time.to_wire()),
        };
        wire::ConnectionFault { ppm: self.share.to_wire(), until: self.until, kind: Some(kind) }
    }

    fn from_wire(message: wire::ConnectionFault) -> Result<ConnectionFault, ConvertError> {
        use wire::connection_fault::Kind;
        let kind = match message.kind.ok_or(Fault::Missing).at("kind")? {
            Kind::Reset(after) => ConnectionFaultKind::Reset { after },
            Kind::Blackhole(_) => ConnectionFaultKind::Blackhole,
            Kind::Bandwidth(rate) => ConnectionFaultKind::Bandwidth(rate),
            Kind::Latency(time) => ConnectionFaultKind::Latency(field(time, "latency")?),
        };
        Ok(ConnectionFault { kind, share: field(message.ppm, "ppm")?, until: message.until })
    }
}

impl Wire for FaultPolicy {
    type Message = wire::FaultPolicy;

    fn to_wire(&self) -> wire::FaultPolicy {
        wire::FaultPolicy {
            delay: self.delay.as_ref().map(Wire::to_wire),
            abort: self.abort.as_ref().map(Wire::to_wire),
        }
    }

    fn from_wire(message: wire::FaultPolicy) -> Result<FaultPolicy, ConvertError> {
        Ok(FaultPolicy { delay: optional(message.delay, "delay")?, abort: optional(message.abort, "abort")? })
    }
}

impl Wire for (Ratio, Duration) {
    type Message = wire::FaultDelay;

    fn to_wire(&self) -> wire::FaultDelay {
        wire::FaultDelay { ppm: self.0.to_wire(), duration: Some(self.1.to_wire()) }
    }

    fn from_wire(message: wire::FaultDelay) -> Result<(Ratio, Duration), ConvertError> {
        Ok((field(message.ppm, "ppm")?, required(message.duration, "duration")?))
    }
}

impl Wire for (Ratio, AbortStatus) {
    type Message = wire::FaultAbort;

    fn to_wire(&self) -> wire::FaultAbort {
        use wire::fault_abort::Status;
        let status = match &self.1 {
            AbortStatus::Http(code) => Status::Http(code.to_wire()),
            AbortStatus::Grpc(code) => Status::Grpc(code.to_wire()),
        };
        wire::FaultAbort { ppm: self.0.to_wire(), status: Some(status) }
    }

    fn from_wire(message: wire::FaultAbort) -> Result<(Ratio, AbortStatus), ConvertError> {
        use wire::fault_abort::Status;
        let status = match message.status.ok_or(Fault::Missing).at("status")? {
            Status::Http(code) => AbortStatus::Http(field(code, "http")?),
            Status::Grpc(code) => AbortStatus::Grpc(field(code, "grpc")?),
        };
        Ok((field(message.ppm, "ppm")?, status))
    }
}
