//! Export to collectors of OpenTelemetry (OTLP over gRPC, or HTTP with protobuf).
//!
//! Data threads hand parcels over (`telemetry/export`) and never wait: a full queue costs records, which are counted. For
//! each collector and signal one lane joins parcels to batches, sends them, and tries again what may be tried again.
//! Nothing that goes out here is an exchange of the mesh: it is neither traced nor logged by this proxy, and a collector
//! behind another proxy is reached through a tunnel, so that its proxy sees a byte stream.

mod lane;
mod reach;
pub mod router;
mod verdict;
mod wire;

#[cfg(test)]
mod tests;
