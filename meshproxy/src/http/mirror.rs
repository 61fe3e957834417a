//! Copies of requests. Each is a task of the data thread with a place among a bounded number; it reads the body as far
//! as the request itself has read it. Nothing that becomes of it is felt by the caller: without a place, or too far
//! behind, it is dropped and counted.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use http::uri::Authority;
use http_body::Body as _;
use mesh_core::decide::plan::Forward;
use mesh_core::resilience::retry::RetryPolicy;
use mesh_core::telemetry::context::Context;
use tokio::time::Instant;

use super::attempt::{Trial, client};
use super::body::ReplyBody;
use super::deadline::Deadline;
use super::exchange::{speaks_http2, speaks_http2_directly};
use super::send::{Answer, Message};
use crate::live::local::LocalWorkload;
use crate::live::view::Held;
use crate::net::downstream::Facts;
use crate::telemetry::trace::OPERATION;
use crate::upstream::body::Upload;
use crate::upstream::copied::Watch;
use crate::upstream::thread::DataThread;

/// So many copies are under way at once on one data thread.
const MOST: usize = 512;
/// A copy with which nothing goes on for so long is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The request that is copied.
#[derive(Debug, Clone, Copy)]
pub struct Original<'a> {
    /// Who carries it.
    pub thread: &'a Rc<DataThread>,
    /// The root that decided.
    pub root: &'a Held,
    /// Who calls.
    pub caller: Option<&'a Arc<LocalWorkload>>,
    /// Where it came from.
    pub client: Facts,
    /// Its head, ready to be sent.
    pub message: &'a Message,
    /// The context that copies get in the place of its own.
    pub trace: Option<Context>,
    /// What its client speaks.
    pub version: Version,
    /// Its body, of which nothing has been read.
    pub upload: Option<&'a Upload>,
    /// Time for it.
    pub timeout: Option<Duration>,
}

/// Starts the copies of a request.
pub fn send(forward: &Forward, original: Original<'_>) {
    for plan in &forward.mirrors {
        let counters = &original.thread.metrics().proxy;
        let Some(place) = Place::take(&original.thread.mirrors) else {
            counters.mirrors_dropped.increment(1);
            continue;
        };
        let Ok(authority) = Authority::try_from(plan.authority.as_str()) else { continue };
        counters.mirrors.increment(1);
        let copied = original.upload.map(|upload| upload.copy(&original.thread.bodies));
        let (upload, watch) = copied.unzip();
        let copy = Copy {
            thread: Rc::clone(original.thread),
            root: Rc::clone(original.root),
            caller: original.caller.cloned(),
            client: original.client,
            destination: plan.destination,
            message: Box::new(copy_of(authority, &original)),
            version: original.version,
            upload,
            watch,
            timeout: original.timeout,
            read: Cell::new(0),
        };
        tokio::task::spawn_local(async move {
            copy.run().await;
            drop(place);
        });
    }
}

/// The head of a copy. It is not sampled: the trace is the request's.
fn copy_of(authority: Authority, original: &Original<'_>) -> Message {
    let mut message = Message { authority, ..original.message.clone() };
    if let Some(context) = original.trace {
        context.write(&mut message.headers);
        message.headers.remove(&OPERATION);
    }
    message
}

/// One of the places for copies.
struct Place(Rc<Cell<usize>>);

impl Place {
    fn take(taken: &Rc<Cell<usize>>) -> Option<Place> {
        if taken.get() >= MOST {
            return None;
        }
        taken.set(taken.get() + 1);
        Some(Place(Rc::clone(taken)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

struct Copy {
    thread: Rc<DataThread>,
    root: Held,
    caller: Option<Arc<LocalWorkload>>,
    client: Facts,
    destination: usize,
    message: Box<Message>,
    version: Version,
    upload: Option<Upload>,
    watch: Option<Watch>,
    timeout: Option<Duration>,
    read: Cell<u64>,
}

impl Copy {
    async fn run(self) {
        let answered = tokio::select! {
            answered = self.exchange() => answered,
            () = self.stalled() => false,
            // Its connection may be in the middle of a write that never ends.
            () = self.given_up() => false,
        };
        let counters = &self.thread.metrics().proxy;
        if self.watch.as_ref().is_some_and(Watch::fell_behind) {
            counters.mirrors_dropped.increment(1);
        } else if !answered {
            counters.mirrors_failed.increment(1);
        }
    }

    /// Sends it once and reads its answer to the end; `false` if there was none.
    async fn exchange(&self) -> bool {
        let destination = &self.root.destinations[self.destination];
        let trial = Trial {
            thread: &self.thread,
            root: &self.root,
            destination,
            caller: self.caller.as_ref(),
            retry: &RetryPolicy::disabled(),
            http2: speaks_http2(destination.destination.policy.protocol, self.version),
            direct_http2: speaks_http2_directly(destination.destination.policy.upstream, self.version),
            client: client(destination, self.client),
            grpc: false,
            hash: None,
            nested: false,
        };
        let upload = self.upload.as_ref();
        let mut whole = self.timeout.map(|timeout| Deadline::new(timeout, Instant::now(), upload));
        let tried = trial.run(self.message.clone(), upload, &mut whole).await;
        let Some(Ok(Answer { response, held, .. })) = tried.result else { return false };
        let mut body = ReplyBody::unread(response.into_body(), held);
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let Ok(frame) = frame else { break };
            if let (Some(index), Some(trailers)) = (tried.endpoint, frame.trailers_ref()) {
                trial.hear(index, trailers);
            }
            self.read.set(self.read.get() + 1);
        }
        drop(tried.permit);
        true
    }

    /// Resolves when it fell too far behind.
    async fn given_up(&self) {
        match &self.watch {
            Some(watch) => watch.given_up().await,
            None => std::future::pending().await,
        }
    }

    /// Resolves when nothing was sent or read for a while.
    async fn stalled(&self) {
        let progress = || (self.watch.as_ref().map_or(0, Watch::moved), self.read.get());
        let mut seen = progress();
        loop {
            tokio::time::sleep(PATIENCE).await;
            let now = progress();
            if now == seen {
                return;
            }
            seen = now;
        }
    }
}
