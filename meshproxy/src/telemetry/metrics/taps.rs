//! What is counted of taps and of the flight recorder.

use metrics::{Counter, Gauge, Key, Label, Recorder as _};

use super::{METADATA, Metrics};

/// Handles of what is counted.
#[derive(Clone)]
pub struct TapMetrics {
    /// Taps that want to see exchanges now.
    pub taps: Gauge,
    /// Exchanges that were told.
    pub sent: Counter,
    /// Exchanges that matched and were left out: beyond a tap's limit.
    pub over_limit: Counter,
    /// Exchanges that matched and were left out: nobody took them in time.
    pub lost: Counter,
    /// Files that were saved because success fell.
    pub saves: Counter,
}

impl std::fmt::Debug for TapMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TapMetrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// What is counted of taps.
    pub fn taps(&self) -> TapMetrics {
        let events = |result: &'static str| {
            let labels = vec![Label::new("result", result)];
            let key = Key::from_parts("mesh_proxy_tap_events_total", labels);
            self.recorder.register_counter(&key, &METADATA)
        };
        TapMetrics {
            taps: self.recorder.register_gauge(&Key::from_name("mesh_proxy_taps"), &METADATA),
            sent: events("sent"),
            over_limit: events("over_limit"),
            lost: events("lost"),
            saves: self
                .recorder
                .register_counter(&Key::from_name("mesh_proxy_flight_saves_total"), &METADATA),
        }
    }
}
