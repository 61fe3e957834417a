//! Faults of an HTTP rule, and percentages.

use std::time::Duration;

use mesh_core::resilience::fault::{AbortStatus, FaultPolicy};
use mesh_core::vocab::ratio::Ratio;

use super::redirect::status;
use crate::dialect::field::{Field, Message, Note};
use crate::dialect::scalar;

pub(crate) static FAULT: Message =
    Message { name: "a fault", fields: &["abort", "delay"], later: &[], skipped: &[] };

static DELAY: Message = Message {
    name: "a delay",
    fields: &["exponentialDelay", "fixedDelay", "percent", "percentage"],
    later: &[],
    skipped: &[],
};

static ABORT: Message = Message {
    name: "an abort",
    fields: &["grpcStatus", "http2Error", "httpStatus", "percentage"],
    later: &[],
    skipped: &[],
};

pub(crate) static PERCENTAGE: Message =
    Message { name: "a percentage", fields: &["value"], later: &[], skipped: &[] };

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&FAULT, "delay", &DELAY),
    Note::Holds(&FAULT, "abort", &ABORT),
    Note::Holds(&DELAY, "percentage", &PERCENTAGE),
    Note::Holds(&ABORT, "percentage", &PERCENTAGE),
    Note::Refused(&DELAY, "exponentialDelay", "Istio's admission refuses it; use fixedDelay"),
    Note::Refused(&ABORT, "http2Error", "Istio's admission refuses it; use httpStatus or grpcStatus"),
];

/// gRPC's status codes by name, from 0.
const GRPC_STATUS: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Something that Istio is going to drop (the code of `istioctl analyze`).
const DEPRECATED: &str = "IST0002";
/// Smallest percentage of a fault that is not 0: one part per million.
const SMALLEST_PERCENT: f64 = 0.0001;

/// Reads `fault`.
pub(super) fn fault(field: &Field<'_>) -> Option<FaultPolicy> {
    let entry = field.object(&FAULT)?;
    if !entry.has("delay") && !entry.has("abort") {
        field.fault("a fault needs delay or abort");
    }
    let delay = entry.get("delay").and_then(|field| delay(&field));
    let abort = entry.get("abort").and_then(|field| abort(&field));
    Some(FaultPolicy { delay, abort })
}

fn delay(field: &Field<'_>) -> Option<(Ratio, Duration)> {
    let entry = field.object(&DELAY)?;
    let share = match (entry.get("percentage"), entry.get("percent")) {
        (Some(percentage), _) => share_of_fault(&percentage),
        (None, Some(percent)) => {
            let value = percent.integer(0..=100);
            if value != Some(0) {
                percent.warn_as(DEPRECATED, "percent is deprecated, use percentage");
            }
            value.and_then(|percent| Ratio::from_percent(percent as f64))
        }
        (None, None) if entry.has("percent") => {
            entry.field().fault("percent is null, which is not allowed; leave the field out");
            None
        }
        (None, None) => none(field),
    };
    if let Some(other) = entry.get("exponentialDelay") {
        other.fault("exponentialDelay is not supported, by Istio neither; use fixedDelay");
        return None;
    }
    let Some(fixed) = entry.get("fixedDelay") else {
        if !entry.is_misspelt("fixedDelay") {
            field.advise("without fixedDelay nothing is delayed");
        }
        return None;
    };
    let wait = scalar::duration(&fixed);
    Some((share?, wait?))
}

fn abort(field: &Field<'_>) -> Option<(Ratio, AbortStatus)> {
    let entry = field.object(&ABORT)?;
    let share = entry.get("percentage").map_or_else(|| none(field), |field| share_of_fault(&field));
    let kinds: Vec<&str> =
        ["grpcStatus", "httpStatus", "http2Error"].into_iter().filter(|key| entry.has(key)).collect();
    if kinds.len() > 1 {
        field.fault(format!(
            "only one of httpStatus and grpcStatus can be set, found {}",
            kinds.join(" and ")
        ));
        return None;
    }
    if let Some(other) = entry.get("http2Error") {
        other.fault("http2Error is not supported, by Istio neither; use httpStatus or grpcStatus");
        return None;
    }
    let status = match (entry.get("httpStatus"), entry.get("grpcStatus")) {
        (Some(field), _) => AbortStatus::Http(status(&field)?),
        (None, Some(field)) => {
            let name = field.choice(&GRPC_STATUS)?;
            let code = GRPC_STATUS.iter().position(|other| *other == name)?;
            AbortStatus::Grpc(u16::try_from(code).ok()?)
        }
        (None, None) => {
            if kinds.is_empty() && !entry.is_misspelt("httpStatus") && !entry.is_misspelt("grpcStatus") {
                field.warn("without httpStatus or grpcStatus nothing is aborted");
            }
            return None;
        }
    };
    Some((share?, status))
}

/// A fault without a percentage concerns no request, which hardly anybody means.
fn none(field: &Field<'_>) -> Option<Ratio> {
    field.advise("percentage is missing, which means 0%: no request is concerned");
    Some(Ratio::ZERO)
}

/// The percentage of a fault: 0, or at least one part per million.
fn share_of_fault(field: &Field<'_>) -> Option<Ratio> {
    let entry = field.object(&PERCENTAGE)?;
    let Some(value) = entry.get("value") else { return Some(Ratio::ZERO) };
    let percent = value.number()?;
    if percent != 0.0 && !(SMALLEST_PERCENT..=100.0).contains(&percent) {
        value.fault(format!("{percent} is out of range: 0, or {SMALLEST_PERCENT} to 100"));
        return None;
    }
    Ratio::from_percent(percent)
}

/// Any percentage, 0 to 100; nothing written is 0.
pub(super) fn percentage(field: &Field<'_>) -> Option<Ratio> {
    let entry = field.object(&PERCENTAGE)?;
    let Some(value) = entry.get("value") else { return Some(Ratio::ZERO) };
    let percent = value.number()?;
    let share = Ratio::from_percent(percent);
    if share.is_none() {
        value.fault(format!("{percent} is out of range: 0 to 100"));
    }
    share
}
