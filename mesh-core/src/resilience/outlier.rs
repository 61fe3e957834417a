//! When an endpoint that fails is left alone for a while (DestinationRule `outlierDetection`).

use std::time::Duration;

/// The settings, with Istio's defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OutlierDetection {
    /// `consecutive5xxErrors`; default 5, 0 for never.
    pub consecutive_5xx: u32,
    /// `consecutiveGatewayErrors`; default 0, never.
    pub consecutive_gateway: u32,
    /// `splitExternalLocalOriginErrors`; default false.
    pub split_local_origin: bool,
    /// `consecutiveLocalOriginFailures`; default 5, only if split.
    pub consecutive_local_origin: u32,
    /// `interval` of the sweep; default 10 s.
    pub interval: Duration,
    /// `baseEjectionTime`; default 30 s.
    pub base_ejection_time: Duration,
    /// `maxEjectionPercent`; default 10.
    pub max_ejection_percent: u32,
    /// `minHealthPercent`; default 0, no panic.
    pub min_health_percent: u32,
    /// `outlierDetectionHttpErrorCodes`: what counts as an error; none for Envoy's own.
    pub http_error_codes: Vec<u16>,
}

impl Default for OutlierDetection {
    fn default() -> OutlierDetection {
        OutlierDetection {
            consecutive_5xx: 5,
            consecutive_gateway: 0,
            split_local_origin: false,
            consecutive_local_origin: 5,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_percent: 10,
            min_health_percent: 0,
            http_error_codes: Vec::new(),
        }
    }
}
