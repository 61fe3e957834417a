//! Timeouts, retries and faults of an HTTP rule.

use std::time::Duration;

use mesh_core::resilience::fault::{AbortStatus, FaultPolicy};
use mesh_core::resilience::retry::{RetryCondition, RetryPolicy};
use mesh_core::vocab::ratio::Ratio;

use crate::dialect::field::{Field, Message, Note, not_one_of};
use crate::dialect::scalar;

pub(crate) static RETRIES: Message = Message {
    name: "retries",
    fields: &[
        "attempts",
        "backoff",
        "perTryTimeout",
        "retryIgnorePreviousHosts",
        "retryOn",
        "retryRemoteLocalities",
    ],
    later: &[],
    skipped: &[],
};

pub(crate) static FAULT: Message =
    Message { name: "a fault", fields: &["abort", "delay"], later: &[], skipped: &[] };

static DELAY: Message = Message {
    name: "a delay",
    fields: &["fixedDelay", "percent", "percentage"],
    later: &["exponentialDelay"],
    skipped: &[],
};

static ABORT: Message = Message {
    name: "an abort",
    fields: &["grpcStatus", "httpStatus", "percentage"],
    later: &["http2Error"],
    skipped: &[],
};

static PERCENTAGE: Message = Message { name: "a percentage", fields: &["value"], later: &[], skipped: &[] };

/// What stands in the fields, for docs/compatibility.md.
pub(crate) static NOTES: &[Note] = &[
    Note::Holds(&FAULT, "delay", &DELAY),
    Note::Holds(&FAULT, "abort", &ABORT),
    Note::Holds(&DELAY, "percentage", &PERCENTAGE),
    Note::Holds(&ABORT, "percentage", &PERCENTAGE),
    Note::Later(&RETRIES, "retryRemoteLocalities", "true"),
    Note::Later(&RETRIES, "retryOn", "envoy-ratelimited, http3-post-connect-failure, retriable-headers"),
];

/// Conditions that Istio knows and this mesh does not carry out.
const RETRY_LATER: [&str; 3] = ["envoy-ratelimited", "http3-post-connect-failure", "retriable-headers"];

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

/// Smallest percentage that is not 0: one part per million.
const SMALLEST_PERCENT: f64 = 0.0001;

/// Reads `timeout`; 0 is no limit.
pub(super) fn timeout(field: &Field<'_>) -> Option<Duration> {
    scalar::duration_or_zero(field).filter(|timeout| !timeout.is_zero())
}

/// Reads `retries`, which replaces the default as a whole.
pub(super) fn retries(field: &Field<'_>) -> Option<RetryPolicy> {
    let entry = field.object(&RETRIES)?;
    let attempts = entry.get("attempts").map_or(Some(0), |field| field.integer(0..=i64::from(i32::MAX)));
    if attempts == Some(0) && RETRIES.fields.iter().any(|key| *key != "attempts" && entry.has(key)) {
        field.fault("attempts is 0 or missing, which turns retries off; nothing else can be set then");
    }
    let per_try_timeout = entry.get("perTryTimeout").and_then(|field| scalar::duration(&field));
    let backoff = entry.get("backoff").and_then(|field| scalar::duration(&field));
    let avoid_tried = entry.get("retryIgnorePreviousHosts").and_then(|field| field.boolean()).unwrap_or(true);
    if let Some(remote) = entry.get("retryRemoteLocalities")
        && remote.boolean() == Some(true)
    {
        remote.later("retryRemoteLocalities: true");
    }
    let (on, codes) = match entry.get("retryOn").filter(|field| field.text() != Some("")) {
        Some(field) => conditions(&field),
        None => (RetryPolicy::DEFAULT_CONDITIONS.to_vec(), Vec::new()),
    };
    let default = RetryPolicy::default();
    Some(RetryPolicy {
        remote_localities: false,
        attempts: u32::try_from(attempts?).ok()?,
        per_try_timeout,
        on,
        codes,
        backoff: backoff.unwrap_or(default.backoff),
        avoid_tried,
    })
}

fn conditions(field: &Field<'_>) -> (Vec<RetryCondition>, Vec<u16>) {
    let (mut on, mut codes) = (Vec::new(), Vec::new());
    for word in field.text().unwrap_or("").split(',').map(str::trim) {
        if let Some(condition) = RetryCondition::from_name(word) {
            if !on.contains(&condition) {
                on.push(condition);
            }
        } else if RETRY_LATER.contains(&word) {
            field.later(format!("retryOn {word}"));
        } else if let Some(code) = status_code(word) {
            codes.push(code);
        } else {
            let names: Vec<&str> =
                RetryCondition::ALL.into_iter().map(RetryCondition::name).chain(RETRY_LATER).collect();
            field.fault(format!("{}, HTTP status codes", not_one_of(word, &names)));
        }
    }
    if !codes.is_empty() && !on.contains(&RetryCondition::RetriableStatusCodes) {
        on.push(RetryCondition::RetriableStatusCodes);
    }
    (on, codes)
}

fn status_code(word: &str) -> Option<u16> {
    let code = word.parse().ok().filter(|_| word.len() == 3)?;
    http::StatusCode::from_u16(code).ok()?.canonical_reason().map(|_| code)
}

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
        (Some(percentage), _) => self::percentage(&percentage),
        (None, Some(percent)) => {
            percent.warn("percent is deprecated, use percentage");
            percent.integer(0..=100).and_then(|percent| Ratio::from_percent(percent as f64))
        }
        (None, None) => none(field),
    };
    if !entry.has("fixedDelay") && !entry.has("exponentialDelay") {
        field.fault("the field fixedDelay is missing");
    }
    let wait = scalar::duration(&entry.get("fixedDelay")?);
    Some((share?, wait?))
}

fn abort(field: &Field<'_>) -> Option<(Ratio, AbortStatus)> {
    let entry = field.object(&ABORT)?;
    let share = entry.get("percentage").map_or_else(|| none(field), |field| percentage(&field));
    let kinds = ["grpcStatus", "httpStatus", "http2Error"].into_iter().filter(|key| entry.has(key)).count();
    if kinds != 1 {
        field.fault(format!("an abort needs exactly one of httpStatus and grpcStatus, found {kinds}"));
    }
    let status = match (entry.get("httpStatus"), entry.get("grpcStatus")) {
        (Some(field), _) => {
            let status = field.integer(200..=599)?;
            AbortStatus::Http(u16::try_from(status).ok()?)
        }
        (None, Some(field)) => {
            let name = field.choice(&GRPC_STATUS)?;
            let code = GRPC_STATUS.iter().position(|other| *other == name)?;
            AbortStatus::Grpc(u16::try_from(code).ok()?)
        }
        (None, None) => return None,
    };
    Some((share?, status))
}

/// A fault without a percentage concerns no request, which hardly anybody means.
fn none(field: &Field<'_>) -> Option<Ratio> {
    field.warn("percentage is missing, which means 0%: no request is concerned");
    Some(Ratio::ZERO)
}

fn percentage(field: &Field<'_>) -> Option<Ratio> {
    let entry = field.object(&PERCENTAGE)?;
    let Some(value) = entry.get("value") else { return Some(Ratio::ZERO) };
    let percent = value.number()?;
    if percent != 0.0 && !(SMALLEST_PERCENT..=100.0).contains(&percent) {
        value.fault(format!("{percent} is out of range: 0, or {SMALLEST_PERCENT} to 100"));
        return None;
    }
    Ratio::from_percent(percent)
}
