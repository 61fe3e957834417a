//! `outlierDetection`: when an endpoint that fails is left alone for a while.

use mesh_core::resilience::outlier::OutlierDetection;

use crate::dialect::field::{Field, Message, Object};
use crate::dialect::scalar;

pub(crate) static OUTLIER_DETECTION: Message = Message {
    name: "an outlierDetection",
    fields: &[
        "baseEjectionTime",
        "consecutive5xxErrors",
        "consecutiveErrors",
        "consecutiveGatewayErrors",
        "consecutiveLocalOriginFailures",
        "interval",
        "maxEjectionPercent",
        "minHealthPercent",
        "outlierDetectionHttpErrorCodes",
        "splitExternalLocalOriginErrors",
    ],
    later: &[],
    skipped: &[],
};

/// Reads `outlierDetection`. The block itself turns detection on; what it leaves out takes the defaults.
pub(crate) fn outlier_detection(field: &Field<'_>) -> Option<OutlierDetection> {
    let object = field.object(&OUTLIER_DETECTION)?;
    let default = OutlierDetection::default();
    let split =
        object.get("splitExternalLocalOriginErrors").and_then(|field| field.boolean()).unwrap_or(false);
    if let Some(field) = object.get("consecutiveErrors")
        && field.integer(i64::from(i32::MIN)..=i64::from(i32::MAX)).is_some_and(|errors| errors != 0)
    {
        field.warn("consecutiveErrors is deprecated and has no effect, use consecutiveGatewayErrors or consecutive5xxErrors");
    }
    let local_origin = count(&object, "consecutiveLocalOriginFailures");
    if !split
        && local_origin.is_some_and(|failures| failures > 0)
        && let Some(field) = object.get("consecutiveLocalOriginFailures")
    {
        field.fault("failures of our own are only counted apart with splitExternalLocalOriginErrors: true");
    }
    let codes = object.items("outlierDetectionHttpErrorCodes");
    let codes = codes.iter().filter_map(|item| u16::try_from(item.integer(100..=599)?).ok());
    let percent = |key| object.get(key).and_then(|field| u32::try_from(field.integer(0..=100)?).ok());
    let duration = |key| object.get(key).and_then(|field| scalar::duration(&field));
    Some(OutlierDetection {
        consecutive_5xx: count(&object, "consecutive5xxErrors").unwrap_or(default.consecutive_5xx),
        consecutive_gateway: count(&object, "consecutiveGatewayErrors")
            .unwrap_or(default.consecutive_gateway),
        split_local_origin: split,
        consecutive_local_origin: local_origin.unwrap_or(default.consecutive_local_origin),
        interval: duration("interval").unwrap_or(default.interval),
        base_ejection_time: duration("baseEjectionTime").unwrap_or(default.base_ejection_time),
        // 0 is not told from absent.
        max_ejection_percent: percent("maxEjectionPercent")
            .filter(|percent| *percent > 0)
            .unwrap_or(default.max_ejection_percent),
        min_health_percent: percent("minHealthPercent").unwrap_or(default.min_health_percent),
        http_error_codes: codes.collect(),
    })
}

fn count(object: &Object<'_>, key: &'static str) -> Option<u32> {
    u32::try_from(object.get(key)?.integer(0..=i64::from(u32::MAX))?).ok()
}
