//! Attempts until one is final: pick an endpoint, find a connection, send, judge the outcome, wait, try another.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use http::header::Entry;
use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_core::resilience::retry::RetryPolicy;
use mesh_core::resilience::timeout::{expected_time, grpc_timeout};
use mesh_core::tables::destinations::Transport;
use mesh_core::vocab::outcome::Outcome;
use tokio::time::Instant;

use super::again::{Next, request_id};
use super::body::grpc_status;
use super::deadline::Deadline;
use super::headers::{
    ATTEMPT_COUNT, EXPECTED_TIMEOUT, FORWARDED_PROTO, GRPC_TIMEOUT, MESH_HOP, MESH_PROXY, MESH_RETRY,
    RATE_LIMITED, USUAL_PROTO, number, repeated,
};
use super::load;
use super::race::First;
use super::reply::Failure;
use super::send::{Answer, Message, Sent, connect_failed, fail, late, plain, send_shared};
use crate::identity::origination::Inside;
use crate::live::destination::LiveDestination;
use crate::live::endpoint::{LiveEndpoint, Permit};
use crate::live::load::Ear;
use crate::live::local::LocalWorkload;
use crate::live::retries::RetryPlace;
use crate::live::root::Root;
use crate::net::downstream::Facts;
use crate::net::hop::{Spoken, Told};
use crate::net::proxy_header::ProxyHeader;
use crate::telemetry::trace::Earlier;
use crate::upstream::body::Upload;
use crate::upstream::failure::ConnectError;
use crate::upstream::pool::{Hop, Who};
use crate::upstream::thread::DataThread;
use crate::upstream::way::{Target, Way, proxy_header};

/// Everything that the attempts of one request share.
#[derive(Debug)]
pub struct Trial<'a> {
    /// Who carries it.
    pub thread: &'a Rc<DataThread>,
    /// The root that decided.
    pub root: &'a Root,
    /// Where it goes.
    pub destination: &'a LiveDestination,
    /// Who calls.
    pub caller: Option<&'a Arc<LocalWorkload>>,
    /// How often and on what to try again.
    pub retry: &'a RetryPolicy,
    /// Whether the application behind another proxy is spoken to in HTTP/2.
    pub http2: bool,
    /// The same for an endpoint that no proxy stands before.
    pub direct_http2: bool,
    /// Where the request came from, for destinations that want to hear it (`client`).
    pub client: Option<Box<Facts>>,
    /// Whether the request is gRPC, whose endpoints are told of their time in a field of its own.
    pub grpc: bool,
    /// Hash that endpoints are chosen by, where the destination goes by one.
    pub hash: Option<u64>,
    /// Whether the request comes of a retry of another proxy.
    pub nested: bool,
}

/// Where a request came from, if its destination wants a PROXY header.
pub(super) fn client(destination: &LiveDestination, facts: Facts) -> Option<Box<Facts>> {
    destination.destination.policy.proxy_protocol.map(|_| Box::new(facts))
}

/// How the attempts ended.
#[derive(Debug)]
pub struct Tried {
    /// Index of the endpoint that was tried last.
    pub endpoint: Option<usize>,
    /// The place at that endpoint.
    pub permit: Option<Permit>,
    /// How many there were, those beside others included.
    pub attempts: u32,
    /// How many of them were begun beside others.
    pub beside: u32,
    /// Those before the last.
    pub earlier: Vec<Earlier>,
    /// What came of it; `None` if no endpoint may get traffic.
    pub result: Option<Result<Answer, Failure>>,
    /// Whether the answer would have been tried again if a try had been left.
    pub exhausted: bool,
    /// Whether it would have been if its destination bore more retries.
    pub refused: bool,
    /// The response flag of what was done to the last attempt on purpose.
    pub injected: Option<&'static str>,
}

impl Trial<'_> {
    /// Tries until an outcome is final, or the request's time is over.
    pub async fn run(
        &self,
        message: Box<Message>,
        upload: Option<&Upload>,
        whole: &mut Option<Deadline>,
    ) -> Tried {
        let is_rare = self.is_rare();
        if let (0, false, false, Some(upload)) = (self.retry.attempts, self.direct_http2, is_rare, upload) {
            upload.settle();
        }
        let mut message = Some(message);
        let mut tried: Vec<usize> = Vec::new();
        let mut tries = 0;
        // Those that were begun beside others.
        let mut joined = 0;
        let mut retrying: Option<Box<Retrying>> = None;
        let mut earlier: Vec<Earlier> = Vec::new();
        if self.retry.attempts > 0 || is_rare {
            self.destination.state.retries.note_request();
        }
        loop {
            let Some(mut index) = self.choose(&tried) else {
                break Tried::nothing(tries);
            };
            tries += 1;
            let endpoint = &self.destination.endpoints[index];
            let mut permit = endpoint.state.enter();
            let may_repeat = tries - joined <= self.retry.attempts;
            let Some(sent) = message.take() else { break Tried::nothing(tries) };
            if may_repeat {
                // The copy is kept: what is sent has room for the fields that it still gets.
                message = Some(sent.clone());
            }
            if let Some(retrying) = &mut retrying {
                retrying.request = request_id(&sent.headers);
            }
            let mut begun = self.destination.begin();
            let mut injected = None;
            let result = if is_rare {
                let first = First { index, permit, message: sent, tries, joined, tried: &tried };
                let raced = Box::pin(self.race(first, upload, whole)).await;
                (index, permit, injected) = (raced.index, raced.permit, raced.injected);
                tries += raced.joined;
                joined += raced.joined;
                // Of two that ran beside each other it cannot be told how long the one would have taken.
                begun = begun.filter(|_| raced.joined == 0);
                tried = raced.others;
                raced.result
            } else {
                let expected = expected_time(self.retry.per_try_timeout, self.left(whole, tries));
                let mut own =
                    self.retry.per_try_timeout.map(|time| Deadline::new(time, Instant::now(), upload));
                // Pinned here and not in a function of its own: a future that is moved is stored twice.
                let mut once = pin!(self.once(sent, upload, endpoint, &mut permit, (tries, expected)));
                match (&mut *whole, &mut own) {
                    (None, None) => once.await,
                    (whole, own) => {
                        poll_fn(|cx| {
                            if let Poll::Ready(result) = once.as_mut().poll(cx) {
                                return Poll::Ready(result);
                            }
                            let over = |deadline: &mut Option<Deadline>, cx: &mut task::Context<'_>| {
                                deadline.as_mut().is_some_and(|deadline| deadline.poll(cx).is_ready())
                            };
                            if over(whole, cx) {
                                return Poll::Ready(Err(late()));
                            }
                            if over(own, cx) {
                                return Poll::Ready(Err(fail(Outcome::AttemptTimeout, String::new())));
                            }
                            Poll::Pending
                        })
                        .await
                    }
                }
            };
            if let Ok(answer) = &result {
                self.hear(index, answer.response.headers());
            }
            let outcome = outcome(&result);
            // What a client did not end says nothing of the endpoint.
            if !upload.is_some_and(Upload::is_broken) {
                self.destination.note(index, outcome);
                if let Some(begun) = begun {
                    self.destination.note_pace(index, outcome, begun);
                }
            }
            if let Some(ended) = &mut retrying {
                ended.place = None;
            }
            let repeatable = upload.is_none_or(Upload::can_repeat);
            let told = result.as_ref().ok().and_then(|answer| answer.response.extensions().get().copied());
            match self.next((index, outcome), told, (tries - joined, repeatable)) {
                Next::Retry(place) if self.wait(tries - joined, whole.as_ref()).await => {
                    retrying = Some(Box::new(Retrying { place: Some(place), request: 0 }));
                }
                last => {
                    if let Some(upload) = upload {
                        upload.settle();
                    }
                    let (exhausted, refused) = (last.is_exhausted(), last.is_refused());
                    if last.gives_up() {
                        let sent = retrying.as_ref().map_or(0, |retrying| retrying.request);
                        self.give_up(message.as_ref().map_or(sent, |message| request_id(&message.headers)));
                    }
                    let retried = tries > 1;
                    let result = result.map_err(|failure| Failure { retried, exhausted, refused, ..failure });
                    return Tried {
                        endpoint: Some(index),
                        permit: Some(permit),
                        result: Some(result),
                        attempts: tries,
                        beside: joined,
                        earlier,
                        exhausted,
                        refused,
                        injected,
                    };
                }
            }
            self.thread.metrics().proxy.retries.increment(1);
            let endpoint = self.destination.endpoints[index].shown();
            earlier.push(Earlier { ended: Instant::now(), endpoint, outcome });
            tried.push(index);
        }
    }

    /// Hears what an endpoint reports of its load, where the destination goes by that.
    pub(super) fn hear(&self, index: usize, fields: &HeaderMap) {
        if let Some(ear) = self.ear(index) {
            load::hear(&ear, fields, &self.thread.metrics().proxy);
        }
    }

    /// Who hears the same in trailers.
    pub(super) fn ear(&self, index: usize) -> Option<Ear> {
        self.destination.ear(self.destination.endpoints.get(index)?)
    }

    /// The endpoint for the next try.
    pub(super) fn choose(&self, tried: &[usize]) -> Option<usize> {
        let far = self.avoids_localities(tried);
        let avoid: &[usize] = match &far {
            Some(far) => far,
            None if self.retry.avoid_tried => tried,
            None => &[],
        };
        let place = self.caller.map_or(0, |caller| caller.place);
        self.thread.random(|random| self.destination.pick(place, avoid, self.hash, random))
    }

    /// The endpoints of the localities that were tried, where retries prefer others and there is one that may be used.
    fn avoids_localities(&self, tried: &[usize]) -> Option<Vec<usize>> {
        if !self.retry.remote_localities || tried.is_empty() {
            return None;
        }
        let endpoints = &self.destination.endpoints;
        let was_tried = |endpoint: &LiveEndpoint| {
            tried.iter().any(|index| endpoints[*index].endpoint.locality == endpoint.endpoint.locality)
        };
        let (avoided, others): (Vec<usize>, Vec<usize>) =
            (0..endpoints.len()).partition(|index| was_tried(&endpoints[*index]));
        others.iter().any(|index| endpoints[*index].is_usable()).then_some(avoided)
    }

    /// Waits before the next try; `false` if the request's time would be over then.
    pub(super) async fn wait(&self, tries: u32, whole: Option<&Deadline>) -> bool {
        let wait = self.thread.random(|random| self.retry.wait(tries, random));
        if whole.and_then(Deadline::at).is_some_and(|at| Instant::now() + wait >= at) {
            return false;
        }
        tokio::time::sleep(wait).await;
        true
    }

    /// What is left of the request's time. The same for every first try, so that the table of HTTP/2 has its text.
    pub(super) fn left(&self, whole: &Option<Deadline>, tries: u32) -> Option<Duration> {
        let whole = whole.as_ref()?;
        Some(if tries == 1 { whole.time() } else { whole.left() })
    }

    pub(super) async fn once(
        &self,
        mut message: Box<Message>,
        upload: Option<&Upload>,
        endpoint: &LiveEndpoint,
        permit: &mut Permit,
        (tries, expected): (u32, Option<Duration>),
    ) -> Result<Answer, Failure> {
        if let Some(breaker) = &self.destination.breaker {
            let place = Box::pin(breaker.request(&endpoint.state, self.is_alone(endpoint))).await;
            permit.take(Some(place.map_err(|overflow| connect_failed(ConnectError::from(overflow)))?));
        }
        let place = permit.place();
        let is_mesh = matches!(endpoint.endpoint.transport, Transport::Mesh { .. });
        if is_mesh {
            leave_out(&mut message.headers, &FORWARDED_PROTO, USUAL_PROTO);
        }
        if is_mesh && tries == 1 {
            message.headers.remove(&ATTEMPT_COUNT);
        } else {
            message.headers.insert(&ATTEMPT_COUNT, number(u128::from(tries)));
        }
        if let Some(expected) = expected {
            message.headers.insert(&EXPECTED_TIMEOUT, repeated(expected.as_millis()));
            if self.grpc
                && let Ok(text) = HeaderValue::try_from(grpc_timeout(expected))
            {
                message.headers.insert(&GRPC_TIMEOUT, text);
            }
        }
        let patience = self.destination.destination.policy.connect_timeout;
        match &endpoint.endpoint.transport {
            Transport::Plaintext | Transport::Tls => {
                let address = endpoint.address.ok_or_else(|| connect_failed(ConnectError::NoAddress))?;
                let http2 = self.direct_http2;
                let way = self.way(endpoint, message.authority.host())?;
                let target = Target { addresses: &[address], patience, way: way.as_ref(), place };
                plain(self.thread, message, upload, target, http2).await
            }
            Transport::Mesh { hop, peer } => {
                let spoken = if self.http2 { Spoken::Http2 } else { Spoken::Http1 };
                self.prepare_hop(&mut message.headers, endpoint, spoken);
                if tries > 1 || self.nested {
                    message.headers.insert(&MESH_RETRY, number(1));
                }
                let own = own(self.root, self.caller)?;
                let peer = Who { number: endpoint.peer, id: peer };
                let settings = self.destination.settings.as_ref();
                let hop = Hop { address: *hop, own, peer, patience, settings, place };
                send_shared(message, upload, || self.thread.pool.mesh(&hop)).await.map_err(Sent::failure)
            }
            Transport::Unreachable => Err(connect_failed(ConnectError::NoIdentity)),
        }
    }

    /// Whether a request has a connection to itself at the endpoint: then that is what counts for limits, whatever
    /// carries it there.
    pub(super) fn is_alone(&self, endpoint: &LiveEndpoint) -> bool {
        match endpoint.endpoint.transport {
            Transport::Mesh { .. } => !self.http2,
            Transport::Plaintext | Transport::Tls | Transport::Unreachable => !self.direct_http2,
        }
    }

    /// How an endpoint is reached that no proxy stands before.
    fn way(&self, endpoint: &LiveEndpoint, asked: &str) -> Result<Option<Rc<Way>>, Failure> {
        let inside = if self.direct_http2 { Inside::Http2 } else { Inside::Http1 };
        Way::to(self.destination, endpoint, inside, asked, self.proxy(endpoint)).map_err(connect_failed)
    }

    pub(super) fn proxy(&self, endpoint: &LiveEndpoint) -> Option<ProxyHeader> {
        let client = self.client.as_deref()?;
        proxy_header(self.destination, endpoint, *client, self.caller)
    }

    /// Tells the other proxy what it has to know.
    pub(super) fn prepare_hop(&self, headers: &mut HeaderMap, endpoint: &LiveEndpoint, spoken: Spoken) {
        pass_proxy(headers, self.proxy(endpoint));
        let told = Told {
            to: &endpoint.to,
            spoken,
            from: self.caller.map(|caller| &caller.from),
            server_name: self.destination.destination.server_name.as_ref(),
        };
        let root = (self.root.serial, &*self.root.version);
        headers.insert(&MESH_HOP, self.thread.told.value(&told, root));
    }
}

/// A retry that is under way.
struct Retrying {
    place: Option<RetryPlace>,
    /// The id of its request.
    request: u64,
}

impl Tried {
    fn nothing(attempts: u32) -> Tried {
        Tried {
            endpoint: None,
            permit: None,
            attempts,
            beside: 0,
            earlier: Vec::new(),
            result: None,
            exhausted: false,
            refused: false,
            injected: None,
        }
    }
}

/// Takes a field away that says what is taken for granted: the proxy there adds it again, which is cheaper than to
/// carry it through the tables of both ends.
fn leave_out(headers: &mut HeaderMap, name: &HeaderName, usual: &str) {
    if let Entry::Occupied(field) = headers.entry(name) {
        let mut values = field.iter();
        if values.next().is_some_and(|value| value == usual) && values.next().is_none() {
            field.remove();
        }
    }
}

/// Has the other proxy begin its connection to the application with a PROXY header.
fn pass_proxy(headers: &mut HeaderMap, proxy: Option<ProxyHeader>) {
    let field = proxy.and_then(|header| HeaderValue::from_str(&header.to_field()).ok());
    if let Some(field) = field {
        headers.insert(&MESH_PROXY, field);
    }
}

/// As whom the mesh hop is made. Without a known caller there is no guess.
pub(super) fn own<'a>(root: &'a Root, caller: Option<&'a Arc<LocalWorkload>>) -> Result<Who<'a>, Failure> {
    let caller = match (caller, &root.locals[..]) {
        (Some(caller), _) => caller,
        (None, [only]) if only.is_everybody() => only,
        (None, _) => return Err(connect_failed(ConnectError::NoIdentity)),
    };
    match caller.id() {
        Some(id) => Ok(Who { number: caller.identity, id }),
        None => Err(connect_failed(ConnectError::NoIdentity)),
    }
}

pub(super) fn outcome(result: &Result<Answer, Failure>) -> Outcome {
    match result {
        Ok(answer) => {
            let status = answer.response.status();
            let grpc_status = grpc_status(answer.response.headers());
            // Only failures are looked at more closely.
            let failed = !status.is_success() || grpc_status.is_some_and(|status| status != 0);
            let rate_limited = failed && answer.response.headers().contains_key(&RATE_LIMITED);
            Outcome::Response { status: status.as_u16(), grpc_status, rate_limited }
        }
        Err(failure) => failure.outcome,
    }
}
