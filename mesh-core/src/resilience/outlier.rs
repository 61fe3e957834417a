//! When an endpoint that fails is left alone for a while (DestinationRule `outlierDetection`): what its attempts say of it,
//! and how many bad ones in a row are too many. What follows is in [`ejection`](super::ejection).

use std::time::Duration;

use crate::vocab::outcome::Outcome;

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

/// What one attempt says of its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// It answered well.
    Well,
    /// It answered with an error.
    Failed {
        /// Whether the error is a gateway's: 502, 503, 504.
        gateway: bool,
    },
    /// It was not reached, broke off, or took too long.
    Unreached,
    /// Nothing.
    Nothing,
}

/// Which bad signals were too many in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// `consecutive5xxErrors`.
    FiveXx,
    /// `consecutiveGatewayErrors`.
    Gateway,
    /// `consecutiveLocalOriginFailures`.
    LocalOrigin,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Cause; 3] = [Cause::FiveXx, Cause::Gateway, Cause::LocalOrigin];

    /// The word in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Cause::FiveXx => "consecutive_5xx",
            Cause::Gateway => "consecutive_gateway_errors",
            Cause::LocalOrigin => "consecutive_local_origin_failures",
        }
    }
}

impl OutlierDetection {
    /// What an outcome says of the endpoint. A gRPC status in the head of an answer counts as the HTTP status that it
    /// corresponds to. Where codes are listed, these are the errors and no others.
    pub fn signal(&self, outcome: Outcome) -> Signal {
        match outcome {
            Outcome::Response { status, .. } if !self.http_error_codes.is_empty() => {
                answer(status, self.http_error_codes.contains(&status))
            }
            Outcome::Response { status, grpc_status, .. } => {
                let status = grpc_status.map_or(status, http_status);
                answer(status, status >= 500)
            }
            Outcome::ConnectFailure
            | Outcome::ConnectTimeout
            | Outcome::RefusedStream
            | Outcome::Reset { .. }
            | Outcome::RemoteReset
            | Outcome::AttemptTimeout
            | Outcome::RequestTimeout
            | Outcome::ProtocolError => Signal::Unreached,
            Outcome::Overflow => Signal::Nothing,
        }
    }
}

fn answer(status: u16, is_error: bool) -> Signal {
    if is_error { Signal::Failed { gateway: matches!(status, 502..=504) } } else { Signal::Well }
}

/// The HTTP status of a gRPC status, as far as it matters here.
fn http_status(grpc: u16) -> u16 {
    match grpc {
        2 | 13 | 15 => 500,
        4 => 504,
        12 => 501,
        14 => 503,
        _ => 200,
    }
}

/// Bits of one count: more in a row are not told apart.
const BITS: u32 = 21;
const MOST: u32 = (1 << BITS) - 1;

/// How many bad signals there were in a row, of each kind. As one number, so that it may be kept in an atomic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Streaks {
    five_xx: u32,
    gateway: u32,
    local_origin: u32,
}

/// What has become too many; both of an error that counts twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reached {
    causes: [Option<Cause>; 2],
}

impl Reached {
    /// Whether it is nothing.
    pub fn is_nothing(self) -> bool {
        self.causes == [None; 2]
    }

    /// Each of them.
    pub fn causes(self) -> impl Iterator<Item = Cause> {
        self.causes.into_iter().flatten()
    }
}

impl Streaks {
    /// As a number; 0 if nothing bad was last.
    pub fn to_bits(self) -> u64 {
        u64::from(self.five_xx) | u64::from(self.gateway) << BITS | u64::from(self.local_origin) << (2 * BITS)
    }

    /// From such a number.
    pub fn from_bits(bits: u64) -> Streaks {
        let part = |index: u32| (bits >> (index * BITS)) as u32 & MOST;
        Streaks { five_xx: part(0), gateway: part(1), local_origin: part(2) }
    }

    /// After one more signal, and what it makes too many. A count that has got so far begins anew, whatever comes of it.
    pub fn after(mut self, signal: Signal, settings: &OutlierDetection) -> (Streaks, Reached) {
        let mut reached = Reached::default();
        match signal {
            Signal::Nothing => {}
            Signal::Well => self = Streaks::default(),
            Signal::Unreached if settings.split_local_origin => {
                if count(&mut self.local_origin, settings.consecutive_local_origin) {
                    reached.causes[0] = Some(Cause::LocalOrigin);
                }
            }
            Signal::Failed { .. } | Signal::Unreached => {
                // An answer says that it was reached; without the split what is not reached counts as 503 or 504.
                self.local_origin = 0;
                let gateway = matches!(signal, Signal::Unreached | Signal::Failed { gateway: true });
                if !gateway {
                    self.gateway = 0;
                } else if count(&mut self.gateway, settings.consecutive_gateway) {
                    reached.causes[0] = Some(Cause::Gateway);
                }
                if count(&mut self.five_xx, settings.consecutive_5xx) {
                    reached.causes[1] = Some(Cause::FiveXx);
                }
            }
        }
        (self, reached)
    }
}

/// One more; whether that is as many as may be. A limit of zero is none.
fn count(streak: &mut u32, limit: u32) -> bool {
    *streak = (*streak + 1).min(MOST);
    let reached = limit > 0 && *streak >= limit;
    if reached {
        *streak = 0;
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16) -> Outcome {
        Outcome::Response { status, grpc_status: None, rate_limited: false }
    }

    #[test]
    fn outcomes_are_classified() {
        let usual = OutlierDetection::default();
        let grpc = |status| Outcome::Response { status: 200, grpc_status: Some(status), rate_limited: false };
        let check = |outcome, expected| assert_eq!(usual.signal(outcome), expected, "{outcome:?}");
        check(answered(200), Signal::Well);
        check(answered(499), Signal::Well);
        check(answered(500), Signal::Failed { gateway: false });
        check(answered(503), Signal::Failed { gateway: true });
        check(grpc(0), Signal::Well);
        check(grpc(5), Signal::Well);
        check(grpc(14), Signal::Failed { gateway: true });
        check(grpc(13), Signal::Failed { gateway: false });
        check(Outcome::ConnectTimeout, Signal::Unreached);
        check(Outcome::AttemptTimeout, Signal::Unreached);
        check(Outcome::Overflow, Signal::Nothing);
        let listed = OutlierDetection { http_error_codes: vec![429, 503], ..usual };
        assert_eq!(listed.signal(answered(429)), Signal::Failed { gateway: false });
        assert_eq!(listed.signal(answered(503)), Signal::Failed { gateway: true });
        assert_eq!(listed.signal(answered(500)), Signal::Well);
    }

    /// Plays signals: `.` well, `5` a 500, `g` a 503, `x` unreached. A letter for each cause where it is reached.
    fn play(settings: &OutlierDetection, signals: &str) -> String {
        let mut streaks = Streaks::default();
        let signals = signals.chars().map(|signal| match signal {
            '5' => Signal::Failed { gateway: false },
            'g' => Signal::Failed { gateway: true },
            'x' => Signal::Unreached,
            _ => Signal::Well,
        });
        let told = signals.map(|signal| {
            let (next, reached) = streaks.after(signal, settings);
            streaks = Streaks::from_bits(next.to_bits());
            assert_eq!(streaks, next);
            let causes: String = reached.causes().map(|cause| &cause.name()[12..13]).collect();
            assert_eq!(reached.is_nothing(), causes.is_empty());
            if causes.is_empty() { "-".to_owned() } else { causes }
        });
        told.collect()
    }

    #[test]
    fn bad_signals_in_a_row_are_counted() {
        let three = OutlierDetection { consecutive_5xx: 3, ..OutlierDetection::default() };
        assert_eq!(play(&three, "55.555555"), "-----5--5");
        assert_eq!(play(&three, "xg5"), "--5");
        let gateway = OutlierDetection { consecutive_gateway: 2, ..three.clone() };
        assert_eq!(play(&gateway, "gg"), "-g");
        assert_eq!(play(&gateway, "g5g"), "--5");
        assert_eq!(play(&gateway, "5gx"), "--g5");
        let never = OutlierDetection { consecutive_5xx: 0, ..three.clone() };
        assert_eq!(play(&never, "5gx5gx"), "------");
        let split = OutlierDetection { split_local_origin: true, consecutive_local_origin: 2, ..three };
        assert_eq!(play(&split, "x5x5xx"), "-----l");
        assert_eq!(play(&split, "5x5x5"), "----5");
        assert_eq!(play(&split, "x.x."), "----");
    }
}
