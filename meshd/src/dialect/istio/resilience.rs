//! Timeouts and retries of an HTTP rule.

use std::time::Duration;

use mesh_core::resilience::retry::{RetryCondition, RetryPolicy};

use crate::dialect::field::{Field, Message, not_one_of};
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

/// Conditions of which there is no case: HTTP/3 is not spoken, and the names of header fields would come from a field
/// of the request that is not believed.
const INERT: [RetryCondition; 2] =
    [RetryCondition::Http3PostConnectFailure, RetryCondition::RetriableHeaders];

/// Reads `timeout`.
pub(super) fn timeout(field: &Field<'_>) -> Option<Duration> {
    scalar::duration(field)
}

/// Reads `retries`, which replaces the default as a whole.
pub(crate) fn retries(field: &Field<'_>) -> Option<RetryPolicy> {
    let entry = field.object(&RETRIES)?;
    let attempts = entry.get("attempts").map_or(Some(0), |field| field.integer(0..=i64::from(i32::MAX)));
    let retry_on = entry.get("retryOn").filter(|field| !field.is_empty_text());
    if attempts == Some(0) && !entry.is_misspelt("attempts") {
        let off = "attempts is 0 or missing, which turns retries off";
        let set = |key| entry.get(key).is_some();
        if retry_on.is_some() || set("perTryTimeout") || set("retryRemoteLocalities") {
            field
                .fault(format!("{off}; retryOn, perTryTimeout and retryRemoteLocalities cannot be set then"));
        } else if set("backoff") || set("retryIgnorePreviousHosts") {
            field.advise(format!("{off}; the other fields have no effect"));
        }
    }
    let per_try_timeout = entry.get("perTryTimeout").and_then(|field| scalar::duration(&field));
    let backoff = entry.get("backoff").and_then(|field| scalar::duration(&field));
    let avoid_tried = entry.get("retryIgnorePreviousHosts").and_then(|field| field.boolean()).unwrap_or(true);
    let remote = entry.get("retryRemoteLocalities").and_then(|field| field.boolean());
    let (on, codes) = match retry_on {
        Some(field) => conditions(&field),
        None => (RetryPolicy::DEFAULT_CONDITIONS.to_vec(), Vec::new()),
    };
    let default = RetryPolicy::default();
    Some(RetryPolicy {
        remote_localities: remote.unwrap_or(false),
        attempts: u32::try_from(attempts?).ok()?,
        per_try_timeout,
        on,
        codes,
        backoff: backoff.unwrap_or(default.backoff),
        avoid_tried,
        hedge: None,
    })
}

fn conditions(field: &Field<'_>) -> (Vec<RetryCondition>, Vec<u16>) {
    let (mut on, mut codes) = (Vec::new(), Vec::new());
    for word in field.text().into_iter().flat_map(|text| text.split(',')) {
        if let Some(condition) = RetryCondition::from_name(word) {
            if INERT.contains(&condition) {
                field.advise(format!("{word} never holds here, nor in Istio's sidecars"));
            }
            if !on.contains(&condition) {
                on.push(condition);
            }
        } else if let Some(code) = status_code(word) {
            codes.push(code);
        } else if word.trim() != word && (status_code(word.trim()).is_some() || known(word.trim())) {
            field.fault(format!("found {word:?}: no space may stand around the commas"));
        } else {
            let names = RetryCondition::ALL.map(RetryCondition::name);
            field.fault(format!("{}, HTTP status codes", not_one_of(word, &names)));
        }
    }
    if !codes.is_empty() && !on.contains(&RetryCondition::RetriableStatusCodes) {
        on.push(RetryCondition::RetriableStatusCodes);
    }
    (on, codes)
}

fn known(word: &str) -> bool {
    RetryCondition::from_name(word).is_some()
}

/// A status code that has a name.
fn status_code(word: &str) -> Option<u16> {
    let digits = word.strip_prefix('+').unwrap_or(word);
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let code = digits.parse().ok().filter(|_| plain)?;
    let named = matches!(
        code,
        100..=103 | 200..=208 | 226 | 300..=305 | 307 | 308 | 400..=418 | 421..=426 | 428 | 429 | 431 | 451 | 500..=508 | 510
            | 511
    );
    named.then_some(code)
}
