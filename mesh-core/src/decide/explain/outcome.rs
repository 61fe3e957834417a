//! How it ends: action, status and flags.

use super::Explanation;
use super::judgement::Judged;
use crate::decide::refusal::{Reason, Refusal};
use crate::decide::witness::{Remembering, Witness};
use crate::matching::request::Request;
use crate::resilience::fault::{AbortStatus, FaultPolicy};
use crate::routing::rule::Backend;
use crate::vocab::ratio::Ratio;

/// What a request or stream gets that no rule is for.
pub(super) fn refuse(answer: &mut Explanation, refusal: &Refusal, witness: &mut Remembering) {
    answer.service = refusal.service.as_ref().map(|service| service.host.to_string());
    match refusal.reason {
        Reason::UnknownHost => {
            witness.note(|| {
                "what the mesh does not know is passed on as it is, to PassthroughCluster (ALLOW_ANY)"
                    .to_owned()
            });
            answer.action = "passthrough";
            return;
        }
        Reason::BlackHole => {
            witness.note(|| {
                "what the mesh does not know is closed, in BlackHoleCluster (REGISTRY_ONLY)".to_owned()
            });
            answer.action = "blocked";
        }
        Reason::Blocked => answer.action = "blocked",
        _ => answer.action = "not_found",
    }
    answer.status = Some(refusal.status());
    answer.flags = refusal.flag();
}

/// Tells how the choice among several backends falls.
pub(super) fn note_split(backends: &[Backend], what: &str, witness: &mut Remembering) {
    if backends.len() < 2 {
        return;
    }
    let total: u64 = backends.iter().map(|backend| u64::from(backend.weight)).sum();
    let share = |backend: &Backend| {
        let tenths = u64::from(backend.weight) * 1000 / total.max(1);
        let fraction = if tenths.is_multiple_of(10) { String::new() } else { format!(".{}", tenths % 10) };
        let subset = backend.subset.as_deref().map(|subset| format!(" {subset}")).unwrap_or_default();
        format!("{}{fraction} % {}{subset} port {}", tenths / 10, backend.host, backend.port)
    };
    witness.note(|| {
        let shares: Vec<_> = backends.iter().map(share).collect();
        format!("for each {what} one is chosen at random: {}", shares.join(", "))
    });
}

/// Tells what faults are injected, and how likely.
pub(super) fn note_fault(fault: &FaultPolicy, witness: &mut Remembering) {
    if let Some((share, duration)) = fault.delay {
        witness.note(|| format!("{share} of the requests wait {duration:?} first"));
    }
    if let Some((share, status)) = fault.abort {
        witness.note(|| match status {
            AbortStatus::Http(status) => {
                format!("{share} of the requests are answered with {status} at once")
            }
            AbortStatus::Grpc(status) => {
                format!("{share} of the requests are answered with gRPC status {status} at once")
            }
        });
    }
}

/// What is sure to happen after a rule has sent it on: faults come first, then the destinations.
pub(super) fn conclude(answer: &mut Explanation, judged: &Judged, request: Option<&Request<'_>>) {
    answer.authentication = judged.authentication.clone();
    answer.authorization = judged.authorization().cloned();
    answer.limits.extend(judged.limits.iter().cloned());
    let exists = answer.destinations.iter().any(|destination| destination.load_balancer.is_some());
    if fault(answer, request) {
        return;
    }
    let (status, flags) = match judged.refused() {
        _ if !exists => (Some(503), "NC"),
        _ if judged.reachable == 0 => (Some(503), if judged.unreachable { "UF" } else { "UH" }),
        Some((status, flag)) => (Some(status), flag),
        None => (None, answer.flags),
    };
    answer.status = status;
    answer.flags = flags;
}

/// Faults that hit every request. Whether nothing follows after them.
pub(super) fn fault(answer: &mut Explanation, request: Option<&Request<'_>>) -> bool {
    let delayed = matches!(answer.fault.delay, Some((Ratio::ONE, _)));
    let Some((Ratio::ONE, status)) = answer.fault.abort else {
        if delayed {
            answer.flags = "DI";
        }
        return false;
    };
    answer.status = Some(match status {
        AbortStatus::Http(status) => status,
        AbortStatus::Grpc(_) if request.is_some_and(is_grpc) => 200,
        AbortStatus::Grpc(status) => http_status(status),
    });
    answer.flags = if delayed { "DI,FI" } else { "FI" };
    true
}

/// Whether a request is gRPC.
pub(super) fn is_grpc(request: &Request<'_>) -> bool {
    let kind = request.headers.get(http::header::CONTENT_TYPE).map(|value| value.as_bytes());
    kind.and_then(|kind| kind.strip_prefix(b"application/grpc"))
        .is_some_and(|rest| rest.is_empty() || matches!(rest[0], b'+' | b';'))
}

/// The HTTP status that a gRPC status means (google.rpc.Code).
fn http_status(grpc: u16) -> u16 {
    match grpc {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}
