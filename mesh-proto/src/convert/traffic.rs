//! Destinations, retries and faults.

use std::time::Duration;

use mesh_core::balancing::balancer::LoadBalancer;
use mesh_core::policy::mtls::ClientTls;
use mesh_core::resilience::fault::{AbortStatus, FaultPolicy};
use mesh_core::resilience::retry::{RetryCondition, RetryPolicy};
use mesh_core::snapshot::destination::Destination;
use mesh_core::vocab::name::Text;
use mesh_core::vocab::ratio::Ratio;

use super::error::{At as _, ConvertError, Fault};
use super::vocab::wire_enum;
use super::{Wire, field, list, optional, required, to_wires};
use crate::generated as wire;

wire_enum!(LoadBalancer, wire::LoadBalancer, RoundRobin, LeastRequest, Random);
wire_enum!(ClientTls, wire::ClientTls, Auto, Disable, IstioMutual);
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

impl Wire for Destination {
    type Message = wire::Destination;

    fn to_wire(&self) -> wire::Destination {
        wire::Destination {
            key: Some(self.key.to_wire()),
            origin: self.origin.as_ref().map(Wire::to_wire),
            protocol: self.protocol.to_wire(),
            labels: self.labels.to_wire(),
            load_balancer: self.load_balancer.to_wire(),
            tls: self.tls.to_wire(),
            connect_timeout: Some(self.connect_timeout.to_wire()),
        }
    }

    fn from_wire(message: wire::Destination) -> Result<Destination, ConvertError> {
        Ok(Destination {
            key: required(message.key, "key")?,
            origin: message.origin.map(Text::from),
            protocol: field(message.protocol, "protocol")?,
            labels: field(message.labels, "labels")?,
            load_balancer: field(message.load_balancer, "load_balancer")?,
            tls: field(message.tls, "tls")?,
            connect_timeout: required(message.connect_timeout, "connect_timeout")?,
        })
    }
}

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
        })
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
