//! What seldom happens to an attempt: another one beside it, and faults on purpose. Requests without either never come here.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use mesh_core::resilience::connection_fault::{ConnectionFaultKind, Injected};
use mesh_core::resilience::hedge::Race;
use mesh_core::resilience::timeout::expected_time;
use mesh_core::vocab::outcome::Outcome;
use tokio::time::Instant;

use super::attempt::{Trial, outcome};
use super::body::UpstreamBody;
use super::deadline::Deadline;
use super::impaired::Impaired;
use super::reply::Failure;
use super::send::{Answer, Message, fail, late};
use crate::live::endpoint::Permit;
use crate::live::retries::RetryPlace;
use crate::upstream::body::Upload;

/// The attempt that others may join.
pub(super) struct First<'t> {
    /// Index of its endpoint.
    pub(super) index: usize,
    /// Its place there.
    pub(super) permit: Permit,
    /// What is sent.
    pub(super) message: Box<Message>,
    /// Attempts so far, with this one.
    pub(super) tries: u32,
    /// Those of them that were begun beside others.
    pub(super) joined: u32,
    /// Endpoints that were tried before.
    pub(super) tried: &'t [usize],
}

/// How attempts ended that were under way together.
pub(super) struct Raced {
    /// Index of the endpoint whose word counts.
    pub(super) index: usize,
    /// The place there.
    pub(super) permit: Permit,
    /// What it says.
    pub(super) result: Result<Answer, Failure>,
    /// How many joined the first.
    pub(super) joined: u32,
    /// The other endpoints that were tried, before and now.
    pub(super) others: Vec<usize>,
    /// The response flag of what was done to the request on purpose.
    pub(super) injected: Option<&'static str>,
}

type Running<'f> = Pin<Box<dyn Future<Output = (Permit, Result<Answer, Failure>)> + 'f>>;

/// An attempt under way.
struct Runner<'f> {
    index: usize,
    is_first: bool,
    injected: Option<&'static str>,
    running: Running<'f>,
    _place: Option<RetryPlace>,
}

/// An attempt that has ended, and may be the one that counts.
struct Ended {
    index: usize,
    is_first: bool,
    injected: Option<&'static str>,
    permit: Permit,
    result: Result<Answer, Failure>,
}

enum Event {
    Ended(usize, Permit, Box<Result<Answer, Failure>>),
    Silent,
    Late,
}

impl Trial<'_> {
    /// Whether attempts of this request may be joined by others, or have faults.
    pub(super) fn is_rare(&self) -> bool {
        self.retry.hedge.is_some() || self.destination.destination.policy.fault.is_some()
    }

    /// One attempt, and those that are begun while it has no answer, until one of them decides.
    pub(super) async fn race(
        &self,
        first: First<'_>,
        upload: Option<&Upload>,
        whole: &mut Option<Deadline>,
    ) -> Raced {
        let First { index, permit, message, mut tries, joined: before, tried } = first;
        let hedge = self.retry.hedge.filter(|hedge| hedge.concerns(message.method.as_str(), self.nested));
        let mut race = Race::new(hedge.map_or(0, |hedge| hedge.most.saturating_sub(before)));
        let mut tried = tried.to_vec();
        tried.push(index);
        let silence = |race: &Race| {
            let after = hedge.filter(|_| !race.is_full())?.after;
            Some(Deadline::new(after, Instant::now(), upload))
        };
        let mut silence_over = silence(&race);
        let kept = silence_over.is_some().then(|| message.clone());
        let mut running =
            vec![self.runner(index, (permit, message), upload, (tries, self.left(whole, tries)), None)];
        let mut joined = 0;
        let mut answer: Option<Ended> = None;
        let ended = loop {
            let event = poll_fn(|cx| {
                for (at, runner) in running.iter_mut().enumerate() {
                    if let Poll::Ready((permit, result)) = runner.running.as_mut().poll(cx) {
                        return Poll::Ready(Event::Ended(at, permit, Box::new(result)));
                    }
                }
                if whole.as_mut().is_some_and(|whole| whole.poll(cx).is_ready()) {
                    return Poll::Ready(Event::Late);
                }
                if silence_over.as_mut().is_some_and(|silence| silence.poll(cx).is_ready()) {
                    return Poll::Ready(Event::Silent);
                }
                Poll::Pending
            })
            .await;
            match event {
                Event::Late => break None,
                Event::Silent => {
                    let is_whole = upload.is_none_or(Upload::can_be_shared);
                    if race.may_join(is_whole)
                        && let (Some(kept), Some((index, place))) = (&kept, self.other(&tried))
                    {
                        if let Some(upload) = upload {
                            upload.share();
                        }
                        race.join();
                        joined += 1;
                        tries += 1;
                        tried.push(index);
                        let permit = self.destination.endpoints[index].state.enter();
                        let time = (tries, self.left(whole, tries));
                        running.push(self.runner(index, (permit, kept.clone()), upload, time, Some(place)));
                    } else {
                        race.close();
                    }
                    silence_over = silence(&race);
                }
                Event::Ended(at, permit, result) => {
                    let Runner { index, is_first, injected, .. } = running.swap_remove(at);
                    let decides = race.end(outcome(&result), self.retry);
                    let ended = Ended { index, is_first, injected, permit, result: *result };
                    // An answer, however bad, says more than none.
                    let (counts, other) = match answer.take() {
                        Some(answer) if !decides || ended.result.is_err() => (answer, Some(ended)),
                        before => (ended, before),
                    };
                    if let Some(other) = other {
                        self.note_lost(&other, upload);
                    }
                    if decides {
                        break Some(counts);
                    }
                    match counts.result {
                        Ok(_) => answer = Some(counts),
                        Err(_) => self.note_lost(&counts, upload),
                    }
                }
            }
        };
        let counters = &self.thread.metrics().proxy;
        let won = ended.as_ref().is_some_and(|ended| !ended.is_first && ended.result.is_ok());
        counters.hedges_won.increment(u64::from(won));
        counters.hedges_lost.increment(u64::from(joined) - u64::from(won));
        let (index, permit, result, injected) = match ended {
            Some(Ended { index, injected, permit, result, .. }) => (index, permit, result, injected),
            // The request's time is over, whoever was asked first.
            None => {
                let injected = running.iter().find_map(|runner| runner.injected);
                (index, self.destination.endpoints[index].state.enter(), Err(late()), injected)
            }
        };
        tried.retain(|other| *other != index);
        Raced { index, permit, result, joined, others: tried, injected }
    }

    /// Another endpoint, and what its attempt costs; `None` where there is none, or the destination bears no more.
    fn other(&self, tried: &[usize]) -> Option<(usize, RetryPlace)> {
        let place = self.caller.map_or(0, |caller| caller.place);
        let index = self.thread.random(|random| self.destination.pick(place, tried, self.hash, random))?;
        if tried.contains(&index) {
            return None;
        }
        match self.destination.retry(true) {
            Ok(place) => Some((index, place)),
            Err(_) => {
                self.thread.metrics().proxy.hedges_refused.increment(1);
                None
            }
        }
    }

    /// What did not count says something of its endpoint all the same.
    fn note_lost(&self, ended: &Ended, upload: Option<&Upload>) {
        if !upload.is_some_and(Upload::is_broken) {
            self.destination.note(ended.index, outcome(&ended.result));
        }
    }

    /// What happens to an attempt on purpose.
    pub(super) fn injected(&self) -> Option<Injected> {
        let fault = self.destination.destination.policy.fault.as_ref()?;
        let now = self.thread.wall_clock();
        let injected = self.thread.random(|random| fault.roll(now, random))?;
        self.thread.metrics().fault(injected.kind.name());
        Some(injected)
    }

    fn runner<'f>(
        &'f self,
        index: usize,
        (permit, message): (Permit, Box<Message>),
        upload: Option<&'f Upload>,
        time: (u32, Option<Duration>),
        place: Option<RetryPlace>,
    ) -> Runner<'f> {
        let injected = self.injected();
        Runner {
            index,
            is_first: place.is_none(),
            injected: injected.map(|injected| injected.kind.flag()),
            running: Box::pin(self.one(index, (permit, message), upload, time, injected)),
            _place: place,
        }
    }

    async fn one(
        &self,
        index: usize,
        (mut permit, message): (Permit, Box<Message>),
        upload: Option<&Upload>,
        (tries, left): (u32, Option<Duration>),
        injected: Option<Injected>,
    ) -> (Permit, Result<Answer, Failure>) {
        let endpoint = &self.destination.endpoints[index];
        let expected = expected_time(self.retry.per_try_timeout, left);
        let mut own = self.retry.per_try_timeout.map(|time| Deadline::new(time, Instant::now(), upload));
        let result = {
            let once = self.once(message, upload, endpoint, &mut permit, (tries, expected));
            let mut once = pin!(meet(injected, once));
            poll_fn(|cx| {
                if let Poll::Ready(result) = once.as_mut().poll(cx) {
                    return Poll::Ready(result);
                }
                if own.as_mut().is_some_and(|own| own.poll(cx).is_ready()) {
                    return Poll::Ready(Err(fail(Outcome::AttemptTimeout, String::new())));
                }
                Poll::Pending
            })
            .await
        };
        (permit, result)
    }
}

/// What a fault makes of an attempt.
async fn meet(
    injected: Option<Injected>,
    once: impl Future<Output = Result<Answer, Failure>>,
) -> Result<Answer, Failure> {
    let Some(injected) = injected else { return once.await };
    before(injected).await?;
    let mut answer = once.await?;
    answer.response =
        answer.response.map(|body| UpstreamBody::Impaired(Box::new(Impaired::new(body, injected))));
    Ok(answer)
}

/// What a fault does to an attempt before it is made.
pub(super) async fn before(injected: Injected) -> Result<(), Failure> {
    let broken = || Err(fail(Outcome::Reset { before_request: false }, String::new()));
    match injected.kind {
        ConnectionFaultKind::Reset { after: 0 } => broken(),
        ConnectionFaultKind::Blackhole => {
            tokio::time::sleep(injected.left).await;
            broken()
        }
        ConnectionFaultKind::Latency(time) => {
            // There and back again.
            tokio::time::sleep((time * 2).min(injected.left)).await;
            Ok(())
        }
        ConnectionFaultKind::Bandwidth(_) | ConnectionFaultKind::Reset { .. } => Ok(()),
    }
}
