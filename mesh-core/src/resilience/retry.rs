//! May this outcome be tried again, and when (VirtualService `retries`).

use std::time::Duration;

use super::hedge::Hedge;
use crate::vocab::outcome::Outcome;
use crate::vocab::random::Random;

/// A reason to try again (Envoy's `x-envoy-retry-on` and `x-envoy-retry-grpc-on` names).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RetryCondition {
    /// No connection.
    ConnectFailure,
    /// The stream was refused unprocessed.
    RefusedStream,
    /// Any break or timeout before the answer.
    Reset,
    /// A break before anything was sent.
    ResetBeforeRequest,
    /// Any 5xx, and whatever `Reset` covers.
    FiveXx,
    /// 502, 503 or 504, and whatever `Reset` covers.
    GatewayError,
    /// 409.
    Retriable4xx,
    /// One of the listed status codes.
    RetriableStatusCodes,
    /// A response with a header field that the request names (`x-envoy-retriable-header-names`). What applications send
    /// of it is not believed, so this never holds.
    RetriableHeaders,
    /// `x-envoy-ratelimited` in the response.
    EnvoyRatelimited,
    /// A failure of HTTP/3 after connecting, which cannot happen here.
    Http3PostConnectFailure,
    /// gRPC status 1.
    Cancelled,
    /// gRPC status 4.
    DeadlineExceeded,
    /// gRPC status 13.
    Internal,
    /// gRPC status 8.
    ResourceExhausted,
    /// gRPC status 14.
    Unavailable,
}

impl RetryCondition {
    /// Every condition.
    pub const ALL: [RetryCondition; 16] = [
        RetryCondition::ConnectFailure,
        RetryCondition::RefusedStream,
        RetryCondition::Reset,
        RetryCondition::ResetBeforeRequest,
        RetryCondition::FiveXx,
        RetryCondition::GatewayError,
        RetryCondition::Retriable4xx,
        RetryCondition::RetriableStatusCodes,
        RetryCondition::RetriableHeaders,
        RetryCondition::EnvoyRatelimited,
        RetryCondition::Http3PostConnectFailure,
        RetryCondition::Cancelled,
        RetryCondition::DeadlineExceeded,
        RetryCondition::Internal,
        RetryCondition::ResourceExhausted,
        RetryCondition::Unavailable,
    ];

    /// The name in `retryOn`.
    pub fn name(self) -> &'static str {
        match self {
            RetryCondition::ConnectFailure => "connect-failure",
            RetryCondition::RefusedStream => "refused-stream",
            RetryCondition::Reset => "reset",
            RetryCondition::ResetBeforeRequest => "reset-before-request",
            RetryCondition::FiveXx => "5xx",
            RetryCondition::GatewayError => "gateway-error",
            RetryCondition::Retriable4xx => "retriable-4xx",
            RetryCondition::RetriableStatusCodes => "retriable-status-codes",
            RetryCondition::RetriableHeaders => "retriable-headers",
            RetryCondition::EnvoyRatelimited => "envoy-ratelimited",
            RetryCondition::Http3PostConnectFailure => "http3-post-connect-failure",
            RetryCondition::Cancelled => "cancelled",
            RetryCondition::DeadlineExceeded => "deadline-exceeded",
            RetryCondition::Internal => "internal",
            RetryCondition::ResourceExhausted => "resource-exhausted",
            RetryCondition::Unavailable => "unavailable",
        }
    }

    /// The condition of that name.
    pub fn from_name(name: &str) -> Option<RetryCondition> {
        RetryCondition::ALL.into_iter().find(|condition| condition.name() == name)
    }

    fn covers_breaks(self) -> bool {
        matches!(self, RetryCondition::Reset | RetryCondition::FiveXx | RetryCondition::GatewayError)
    }

    fn covers(self, outcome: Outcome, codes: &[u16]) -> bool {
        match outcome {
            // What is limited is not asked again, unless just that is wanted.
            Outcome::Response { rate_limited: true, .. } => self == RetryCondition::EnvoyRatelimited,
            Outcome::Response { status, grpc_status, rate_limited: false } => match self {
                RetryCondition::FiveXx => status >= 500,
                RetryCondition::GatewayError => matches!(status, 502..=504),
                RetryCondition::Retriable4xx => status == 409,
                RetryCondition::RetriableStatusCodes => codes.contains(&status),
                RetryCondition::Cancelled => grpc_status == Some(1),
                RetryCondition::DeadlineExceeded => grpc_status == Some(4),
                RetryCondition::Internal => grpc_status == Some(13),
                RetryCondition::ResourceExhausted => grpc_status == Some(8),
                RetryCondition::Unavailable => grpc_status == Some(14),
                RetryCondition::ConnectFailure
                | RetryCondition::RefusedStream
                | RetryCondition::Reset
                | RetryCondition::ResetBeforeRequest
                | RetryCondition::RetriableHeaders
                | RetryCondition::EnvoyRatelimited
                | RetryCondition::Http3PostConnectFailure => false,
            },
            Outcome::ConnectFailure | Outcome::ConnectTimeout => matches!(
                self,
                RetryCondition::ConnectFailure
                    | RetryCondition::Reset
                    | RetryCondition::ResetBeforeRequest
                    | RetryCondition::FiveXx
                    | RetryCondition::GatewayError
            ),
            // Whatever ends without an answer becomes a 503 or 504, so the conditions on those cover it.
            Outcome::RefusedStream => self.covers_breaks() || self == RetryCondition::RefusedStream,
            Outcome::Reset { before_request } => {
                self.covers_breaks() || (before_request && self == RetryCondition::ResetBeforeRequest)
            }
            Outcome::RemoteReset | Outcome::AttemptTimeout | Outcome::ProtocolError => self.covers_breaks(),
            Outcome::RequestTimeout | Outcome::Overflow => false,
        }
    }
}

/// Whether a request may be sent again without asking a rule, when a connection that had served others closed under it:
/// the server may or may not have read it, so only where twice means the same as once (RFC 9110, section 9.2.2).
pub fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE" | "TRACE")
}

/// What follows an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the last one.
    Final,
    /// It would be tried again if there were a try left.
    Exhausted,
    /// Another one.
    Again {
        /// Whether the budget pays for it. What never came to an application was no load to it.
        charged: bool,
    },
}

/// What is known of a request when an attempt has ended.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tried {
    /// Attempts so far.
    pub tries: u32,
    /// Whether its body can be sent once more.
    pub repeatable: bool,
    /// Whether it is itself part of a retry, of a proxy nearer to the client. One of them is enough: each further one along
    /// a chain of calls would multiply what the last one bears.
    pub nested: bool,
    /// Whether proxies nearer to the endpoint have tried all that they may.
    pub given_up: bool,
}

/// How often, on what and how soon to try again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RetryPolicy {
    /// Tries after the first one. 0 disables.
    pub attempts: u32,
    /// Time for each try; `None` leaves only the request's own.
    pub per_try_timeout: Option<Duration>,
    /// Reasons to try again.
    pub on: Vec<RetryCondition>,
    /// Status codes of [`RetryCondition::RetriableStatusCodes`].
    pub codes: Vec<u16>,
    /// First backoff; doubled each time up to ten times it. Default 25 ms.
    pub backoff: Duration,
    /// Whether a retry avoids endpoints that were tried already. Default true.
    pub avoid_tried: bool,
    /// Whether retries prefer localities that were not tried. Default false.
    pub remote_localities: bool,
    /// Whether another attempt is begun beside one that has no answer yet. Default never.
    pub hedge: Option<Hedge>,
}

impl Default for RetryPolicy {
    /// Istio's default: two retries on what is safe to repeat.
    fn default() -> RetryPolicy {
        RetryPolicy {
            attempts: 2,
            per_try_timeout: None,
            on: RetryPolicy::DEFAULT_CONDITIONS.to_vec(),
            codes: Vec::new(),
            backoff: Duration::from_millis(25),
            avoid_tried: true,
            remote_localities: false,
            hedge: None,
        }
    }
}

impl RetryPolicy {
    /// What an empty `retryOn` means.
    pub const DEFAULT_CONDITIONS: [RetryCondition; 4] = [
        RetryCondition::ConnectFailure,
        RetryCondition::RefusedStream,
        RetryCondition::Unavailable,
        RetryCondition::Cancelled,
    ];

    /// No second try.
    pub fn disabled() -> RetryPolicy {
        RetryPolicy { attempts: 0, ..RetryPolicy::default() }
    }

    /// Whether the conditions name this outcome, however many tries are left.
    pub fn covers(&self, outcome: Outcome) -> bool {
        self.on.iter().any(|condition| condition.covers(outcome, &self.codes))
    }

    /// Whether to try again after `tries` tries, the last of which ended so.
    pub fn allows(&self, outcome: Outcome, tries: u32) -> bool {
        tries <= self.attempts && self.covers(outcome)
    }

    /// What follows an attempt that ended so.
    pub fn verdict(&self, outcome: Outcome, tried: Tried) -> Verdict {
        if self.attempts == 0 || outcome == Outcome::RequestTimeout || !self.covers(outcome) {
            return Verdict::Final;
        }
        if tried.tries > self.attempts {
            return Verdict::Exhausted;
        }
        let charged = !outcome.never_arrived();
        if (charged && tried.nested) || tried.given_up || !tried.repeatable {
            return Verdict::Final;
        }
        Verdict::Again { charged }
    }

    /// How long to wait before retry number `retry` (from 1): uniform below a limit that doubles, full jitter.
    pub fn wait(&self, retry: u32, random: &mut Random) -> Duration {
        let doubled = self.backoff.saturating_mul(1 << retry.saturating_sub(1).min(16));
        let limit = doubled.min(self.backoff.saturating_mul(10));
        Duration::from_nanos(random.below(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_conditions() {
        let policy = RetryPolicy::default();
        let response = |status, grpc_status| Outcome::Response { status, grpc_status, rate_limited: false };
        for (outcome, expected) in [
            (Outcome::ConnectFailure, true),
            (Outcome::ConnectTimeout, true),
            (Outcome::RefusedStream, true),
            (response(503, None), false),
            (response(200, Some(14)), true),
            (response(200, Some(13)), false),
            (Outcome::Reset { before_request: true }, false),
            (Outcome::RemoteReset, false),
            (Outcome::RequestTimeout, false),
            (Outcome::Overflow, false),
        ] {
            assert_eq!(policy.allows(outcome, 1), expected, "{outcome:?}");
        }
    }

    #[test]
    fn each_condition_covers_its_outcomes() {
        let response = |status, grpc_status| Outcome::Response { status, grpc_status, rate_limited: false };
        let reset = Outcome::Reset { before_request: false };
        let before = Outcome::Reset { before_request: true };
        let breaks = [
            Outcome::RefusedStream,
            Outcome::RemoteReset,
            reset,
            Outcome::AttemptTimeout,
            Outcome::ProtocolError,
        ];
        let check = |word: &str, covered: &[Outcome], others: &[Outcome]| {
            let on = vec![RetryCondition::from_name(word).unwrap()];
            let policy = RetryPolicy { on, codes: vec![425], ..RetryPolicy::default() };
            for (list, expected) in [(covered, true), (others, false)] {
                list.iter().for_each(|outcome| {
                    assert_eq!(policy.covers(*outcome), expected, "{word} {outcome:?}");
                });
            }
        };
        check("connect-failure", &[Outcome::ConnectFailure, Outcome::ConnectTimeout], &breaks);
        check("refused-stream", &[Outcome::RefusedStream], &[reset, Outcome::ConnectFailure]);
        check("reset", &[&breaks[..], &[Outcome::ConnectFailure]].concat(), &[response(503, None)]);
        check("reset-before-request", &[before, Outcome::ConnectFailure], &breaks);
        check("5xx", &[&breaks[..], &[response(500, None)]].concat(), &[response(499, None)]);
        check("gateway-error", &[&breaks[..], &[response(504, None)]].concat(), &[response(500, None)]);
        check("retriable-4xx", &[response(409, None)], &[response(404, None), reset]);
        check("retriable-status-codes", &[response(425, None)], &[response(503, None), reset]);
        for (word, status) in [
            ("cancelled", 1),
            ("deadline-exceeded", 4),
            ("resource-exhausted", 8),
            ("internal", 13),
            ("unavailable", 14),
        ] {
            check(
                word,
                &[response(200, Some(status))],
                &[response(200, Some(2)), response(503, None), reset],
            );
        }
        for inert in ["retriable-headers", "http3-post-connect-failure", "envoy-ratelimited"] {
            check(inert, &[], &[reset, response(503, None), Outcome::ConnectFailure]);
        }
        for word in RetryCondition::ALL {
            check(word.name(), &[], &[Outcome::RequestTimeout, Outcome::Overflow]);
        }
    }

    #[test]
    fn what_is_rate_limited_is_tried_again_only_if_that_is_wanted() {
        let limited = Outcome::Response { status: 503, grpc_status: None, rate_limited: true };
        let on = |on: &[RetryCondition]| RetryPolicy { on: on.to_vec(), ..RetryPolicy::default() };
        assert!(!on(&[RetryCondition::FiveXx, RetryCondition::Reset]).allows(limited, 1));
        assert!(on(&[RetryCondition::EnvoyRatelimited]).allows(limited, 1));
        let plain = Outcome::Response { status: 429, grpc_status: None, rate_limited: false };
        assert!(!on(&[RetryCondition::EnvoyRatelimited]).allows(plain, 1));
    }

    #[test]
    fn what_follows_an_attempt() {
        let policy = RetryPolicy { on: vec![RetryCondition::FiveXx], ..RetryPolicy::default() };
        let failed = Outcome::Response { status: 500, grpc_status: None, rate_limited: false };
        let (refused, fine) = (
            Outcome::ConnectFailure,
            Outcome::Response { status: 200, grpc_status: None, rate_limited: false },
        );
        let tried = |tries| Tried { tries, repeatable: true, ..Tried::default() };
        let nested = Tried { nested: true, ..tried(1) };
        let (charged, free) = (Verdict::Again { charged: true }, Verdict::Again { charged: false });
        for (outcome, tried, expected) in [
            (fine, tried(1), Verdict::Final),
            (failed, tried(1), charged),
            (failed, tried(2), charged),
            (failed, tried(3), Verdict::Exhausted),
            (failed, nested, Verdict::Final),
            (failed, Tried { given_up: true, ..tried(1) }, Verdict::Final),
            (failed, Tried { repeatable: false, ..tried(1) }, Verdict::Final),
            // Nothing of it arrived, so it may be sent elsewhere wherever in a chain this is.
            (refused, tried(1), free),
            (refused, nested, free),
            (refused, tried(3), Verdict::Exhausted),
            (Outcome::RequestTimeout, tried(1), Verdict::Final),
        ] {
            assert_eq!(policy.verdict(outcome, tried), expected, "{outcome:?} {tried:?}");
        }
        assert_eq!(RetryPolicy::disabled().verdict(refused, tried(1)), Verdict::Final);
    }

    #[test]
    fn attempts_are_retries() {
        let policy = RetryPolicy::default();
        assert!(policy.allows(Outcome::ConnectFailure, 2));
        assert!(!policy.allows(Outcome::ConnectFailure, 3));
        assert!(!RetryPolicy::disabled().allows(Outcome::ConnectFailure, 1));
    }

    #[test]
    fn backoff_doubles_up_to_ten_times() {
        let policy = RetryPolicy::default();
        let mut random = Random::seeded(3);
        for (retry, limit) in [(1, 25), (2, 50), (3, 100), (4, 200), (5, 250), (6, 250), (90, 250)] {
            let longest = (0..500).map(|_| policy.wait(retry, &mut random)).max().unwrap();
            let limit = Duration::from_millis(limit);
            assert!(longest < limit && longest > limit * 9 / 10, "{retry}: {longest:?}");
        }
    }
}
