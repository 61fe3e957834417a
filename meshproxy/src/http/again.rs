//! Whether an attempt is followed by another one: the rule, what the destination bears, and what proxies along the chain of
//! calls say.

use http::response::Parts;
use http::{HeaderMap, HeaderValue};
use mesh_core::resilience::retry::{Tried, Verdict};
use mesh_core::tables::destinations::Transport;
use mesh_core::vocab::outcome::Outcome;

use super::attempt::Trial;
use super::headers::{MESH_FAILED, REQUEST_ID};
use crate::live::chain::{Chain, Sign};
use crate::live::retries::RetryPlace;
use crate::live::root::Roots;

/// What another proxy says of a failure that it tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailedThere {
    /// The application has seen nothing of the request.
    Untaken,
    /// What the application called for it failed, and was tried as often as may be.
    GivenUp,
}

impl FailedThere {
    /// As a field's value.
    pub(super) fn value(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            FailedThere::Untaken => "untaken",
            FailedThere::GivenUp => "given-up",
        })
    }

    /// What an answer says.
    fn read(headers: &HeaderMap) -> Option<FailedThere> {
        match headers.get(&MESH_FAILED)?.as_bytes() {
            b"untaken" => Some(FailedThere::Untaken),
            b"given-up" => Some(FailedThere::GivenUp),
            _ => None,
        }
    }
}

/// What follows an attempt.
#[derive(Debug)]
pub(super) enum Next {
    /// Another one.
    Retry(RetryPlace),
    /// Nothing.
    Nothing,
    /// Nothing: a proxy nearer to the endpoint has tried all that it may.
    GivenUp,
    /// Nothing, as the rule allows no more.
    Exhausted,
    /// Nothing, as the destination bears no more.
    Refused,
}

impl Next {
    /// Whether the rule allows no more.
    pub(super) fn is_exhausted(&self) -> bool {
        matches!(self, Next::Exhausted)
    }

    /// Whether the destination bears no more.
    pub(super) fn is_refused(&self) -> bool {
        matches!(self, Next::Refused)
    }

    /// Whether others need not try what was tried here.
    pub(super) fn gives_up(&self) -> bool {
        matches!(self, Next::GivenUp | Next::Exhausted | Next::Refused)
    }
}

impl Trial<'_> {
    /// What follows an attempt at an endpoint that ended so.
    pub(super) fn next(
        &self,
        (index, outcome): (usize, Outcome),
        told: Option<FailedThere>,
        (tries, repeatable): (u32, bool),
    ) -> Next {
        if told == Some(FailedThere::Untaken) {
            self.destination.note_untaken(index);
        }
        if self.retry.attempts == 0
            || matches!(outcome, Outcome::Response { status: 200, grpc_status: None, .. })
        {
            return Next::Nothing;
        }
        let endpoint = self.destination.endpoints.get(index);
        let is_mesh = endpoint.is_some_and(|one| matches!(one.endpoint.transport, Transport::Mesh { .. }));
        let told = told.filter(|_| is_mesh);
        // Who answers in the place of an application that was not reached says so: that is no answer.
        let meant = if told == Some(FailedThere::Untaken) { Outcome::ConnectFailure } else { outcome };
        let given_up = told == Some(FailedThere::GivenUp);
        let tried = Tried { tries, repeatable, nested: self.nested, given_up };
        match self.retry.verdict(meant, tried) {
            Verdict::Final if given_up => Next::GivenUp,
            Verdict::Final => Next::Nothing,
            // What only the other proxy makes a failure to connect keeps the flags of the answer that it is.
            Verdict::Exhausted if meant != outcome && !self.retry.covers(outcome) => Next::GivenUp,
            Verdict::Exhausted => Next::Exhausted,
            Verdict::Again { charged } => match self.destination.retry(charged) {
                Ok(place) => Next::Retry(place),
                Err(refused) => {
                    let cluster = &self.destination.destination.cluster;
                    self.thread.metrics().overflows(cluster, refused.name()).increment(1);
                    Next::Refused
                }
            },
        }
    }

    /// Lets the proxies before this one know that all was tried here.
    pub(super) fn give_up(&self, request: u64) {
        if request != 0 {
            self.thread.view.roots().chain.note(request, Sign::GivenUp);
        }
    }
}

/// What another proxy says in an answer, if that tells of a failure.
pub(super) fn failed_there(answer: &Parts) -> Option<FailedThere> {
    if answer.status.is_server_error() { FailedThere::read(&answer.headers) } else { None }
}

/// The id of a request as the chain knows it; 0 without one.
pub(super) fn request_id(headers: &HeaderMap) -> u64 {
    headers.get(&REQUEST_ID).map_or(0, |id| Chain::id(id.as_bytes()))
}

/// Whether that is known of the request.
pub(super) fn is_told(roots: &Roots, headers: &HeaderMap, sign: Sign) -> bool {
    roots.chain.knows_any() && roots.chain.knows(request_id(headers), sign)
}
