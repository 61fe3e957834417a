//! A second attempt beside one that has no answer yet (annotation `mesh.io/hedge` of a VirtualService): when there may be
//! one, and which of them decides. What it costs the destination is paid by its budget of retries.

use std::time::Duration;

use super::retry::{RetryPolicy, is_idempotent};
use crate::vocab::outcome::Outcome;

/// How soon and how often a request is sent a second time while the first is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hedge {
    /// So long there must be no answer since the request was whole.
    pub after: Duration,
    /// Attempts beside the first, for one request. 1 to [`Hedge::MOST`].
    pub most: u32,
    /// Whether requests of every method may be carried out twice, as the rule says; else only idempotent ones.
    pub any_method: bool,
}

impl Hedge {
    /// More attempts than this beside the first are of no use to anybody.
    pub const MOST: u32 = 3;
    /// No answer comes sooner.
    pub const SOONEST: Duration = Duration::from_millis(1);
    /// Who waits longer wants a retry.
    pub const LATEST: Duration = Duration::from_secs(60);

    /// Whether a request may be sent twice at all. One that comes of a retry may not: whoever retries is trying others
    /// already, and both would multiply what an endpoint bears.
    pub fn concerns(&self, method: &str, nested: bool) -> bool {
        !nested && (self.any_method || is_idempotent(method))
    }
}

/// Attempts of one request that are under way together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Race {
    left: u32,
    under_way: u32,
}

impl Race {
    /// The first attempt has begun; so many may join it.
    pub fn new(left: u32) -> Race {
        Race { left, under_way: 1 }
    }

    /// Whether another may be begun beside what is under way. `whole` is whether everything of the request is here and
    /// can be sent again.
    pub fn may_join(&self, whole: bool) -> bool {
        whole && self.left > 0 && self.under_way > 0
    }

    /// Whether any more may ever join.
    pub fn is_full(&self) -> bool {
        self.left == 0
    }

    /// Another one is wanted and cannot be had: there will be none.
    pub fn close(&mut self) {
        self.left = 0;
    }

    /// Another one has begun.
    pub fn join(&mut self) {
        self.left = self.left.saturating_sub(1);
        self.under_way += 1;
    }

    /// An attempt has ended so. Whether that is how the request ends: an answer that no rule would have tried again and
    /// that is no error of the server, or anything where nothing else is under way.
    pub fn end(&mut self, outcome: Outcome, retry: &RetryPolicy) -> bool {
        self.under_way = self.under_way.saturating_sub(1);
        self.under_way == 0 || is_final(outcome, retry)
    }
}

fn is_final(outcome: Outcome, retry: &RetryPolicy) -> bool {
    match outcome {
        Outcome::Response { .. } => !outcome.is_failure() && !retry.covers(outcome),
        // That of all of them together.
        Outcome::RequestTimeout => true,
        Outcome::ConnectFailure
        | Outcome::ConnectTimeout
        | Outcome::RefusedStream
        | Outcome::Reset { .. }
        | Outcome::RemoteReset
        | Outcome::AttemptTimeout
        | Outcome::Overflow
        | Outcome::ProtocolError => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::resilience::retry::RetryCondition;

    fn answer(status: u16) -> Outcome {
        Outcome::Response { status, grpc_status: None, rate_limited: false }
    }

    #[test]
    fn who_may_be_sent_twice() {
        let hedge = |any_method| Hedge { after: Duration::from_millis(50), most: 1, any_method };
        for (any_method, method, nested, expected) in [
            (false, "GET", false, true),
            (false, "PUT", false, true),
            (false, "POST", false, false),
            (false, "PATCH", false, false),
            (true, "POST", false, true),
            (false, "GET", true, false),
            (true, "POST", true, false),
        ] {
            assert_eq!(
                hedge(any_method).concerns(method, nested),
                expected,
                "{any_method} {method} {nested}"
            );
        }
    }

    /// A race that events happen to: `+` silence with the request here, `-` silence before it is, `2` `4` `5` an answer
    /// of that class, `x` a break, `r` an answer that the rule would try again, `t` the end of the request's time.
    fn run(left: u32, events: &str) -> String {
        let retry = RetryPolicy {
            on: vec![RetryCondition::RetriableStatusCodes],
            codes: vec![404],
            ..RetryPolicy::default()
        };
        let mut race = Race::new(left);
        let mut told = String::new();
        for event in events.chars() {
            let outcome = match event {
                '+' | '-' => {
                    let joins = race.may_join(event == '+');
                    if joins {
                        race.join();
                    }
                    told.push(if joins { 'j' } else { '.' });
                    continue;
                }
                '2' => answer(200),
                '4' => answer(400),
                '5' => answer(500),
                'r' => answer(404),
                't' => Outcome::RequestTimeout,
                _ => Outcome::Reset { before_request: false },
            };
            let decides = race.end(outcome, &retry);
            told.push(if decides { '!' } else { '.' });
            if decides {
                break;
            }
        }
        told
    }

    #[test]
    fn the_first_answer_that_is_final_decides() {
        for (left, events, expected) in [
            (1, "2", "!"),
            (1, "x", "!"),
            (1, "5", "!"),
            (1, "+2", "j!"),
            (1, "+4", "j!"),
            // A bad answer waits for what is under way, and counts where that is no better.
            (1, "+5x", "j.!"),
            (1, "+x2", "j.!"),
            (1, "+r2", "j.!"),
            (1, "+xx", "j.!"),
            (1, "+++2", "j..!"),
            (2, "+++2", "jj.!"),
            (2, "+x+x2", "j.j.!"),
            (1, "-+", ".j"),
            (0, "+2", ".!"),
            (1, "+t", "j!"),
        ] {
            assert_eq!(run(left, events), expected, "{left} {events}");
        }
    }

    proptest! {
        /// Never more attempts than may be, never one after the end, and always an end once all have ended.
        #[test]
        fn attempts_are_bounded_and_one_decides(left in 0_u32..=Hedge::MOST, events in "[-+245xrt]{0,30}") {
            let told = run(left, &events);
            let joined = told.matches('j').count();
            prop_assert!(joined <= left as usize);
            prop_assert!(told.matches('!').count() <= 1);
            let ended = events.chars().filter(|event| !"+-".contains(*event)).count();
            prop_assert!(told.ends_with('!') || ended <= joined);
        }
    }
}
