//! What was let in and still goes on. It is judged again when policies change, and ended where it would not be let in any
//! more; nothing else is. While policies stay as they are this costs a request the copy of its head into a buffer that is
//! there already.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use mesh_core::decide::inbound::{Inbound, admit_to};
use mesh_core::decide::refusal::{Reason, Refusal};
use mesh_core::decide::witness::Silent;
use mesh_core::matching::request::Request;
use mesh_core::message::request::Head;
use mesh_core::message::target::Scheme;
use mesh_core::tables::workloads::HostedWorkload;
use mesh_core::vocab::identity::SpiffeId;
use mesh_core::vocab::name::Text;

use super::root::{Root, Roots};
use super::view::Held;

/// A buffer for fields that grew larger is not kept for the next request.
const MOST_KEPT: usize = 2 * 1024;

/// So many are judged before others get their turn.
const AT_ONCE: usize = 256;

/// All that one data thread has let in.
#[derive(Debug, Default)]
pub struct Standings {
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<u32>>,
    /// What was let in last: whoever polls learns by it what its future has begun.
    latest: Cell<Option<Place>>,
}

/// A slot, and how often it was used before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    index: u32,
    turn: u32,
}

#[derive(Default)]
struct Slot {
    turn: u32,
    /// `None` where nothing stands.
    stands: Option<Stands>,
    /// Fields of the request, one after the other; kept when the slot is free.
    fields: Vec<u8>,
    waker: Option<Waker>,
    refused: Option<Box<Refusal>>,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("turn", &self.turn).finish_non_exhaustive()
    }
}

/// Who was let in where, and for what.
struct Stands {
    workload: Arc<HostedWorkload>,
    to: SocketAddr,
    peer: Option<SpiffeId>,
    source: Option<IpAddr>,
    sni: Option<Text>,
    since: u64,
    request: Option<Line>,
}

/// A request without its fields.
struct Line {
    method: Method,
    scheme: Scheme,
    authority: Authority,
    target: PathAndQuery,
}

/// Something that was let in; forgotten when this is dropped.
#[derive(Debug)]
pub struct Standing {
    all: Rc<Standings>,
    place: Place,
}

impl Standings {
    /// Notes what was let in, by the facts it was judged by. `sni` is the server name among them, and `head` the
    /// request's, as it was judged.
    pub fn enter(
        self: &Rc<Self>,
        workload: Arc<HostedWorkload>,
        facts: &Inbound<'_>,
        sni: Option<&Text>,
        head: Option<&Head>,
    ) -> Standing {
        let index = self.free.borrow_mut().pop();
        let mut slots = self.slots.borrow_mut();
        let index = index.unwrap_or_else(|| {
            slots.push(Slot::default());
            u32::try_from(slots.len() - 1).unwrap_or(u32::MAX)
        });
        let slot = &mut slots[index as usize];
        if let Some(head) = head {
            write(&head.headers, &mut slot.fields);
        }
        slot.stands = Some(Stands {
            workload,
            to: facts.to,
            peer: facts.peer.cloned(),
            source: facts.source,
            sni: sni.cloned(),
            since: facts.now,
            request: head.map(|head| Line {
                method: head.method.clone(),
                scheme: head.scheme,
                authority: head.authority.clone(),
                target: head.target.clone(),
            }),
        });
        let place = Place { index, turn: slot.turn };
        self.latest.set(Some(place));
        Standing { all: Rc::clone(self), place }
    }

    /// Judges all that stands anew whenever policies change; runs as long as its data thread.
    pub async fn keep_judging(self: Rc<Self>, roots: Arc<Roots>, root: impl Fn() -> Held) {
        let mut changes = roots.subscribe();
        let mut before = root();
        // The sender lives in `roots`, so it does not end by itself.
        while changes.changed().await.is_ok() {
            let now = root();
            if !is_alike(&before, &now) {
                self.judge(&root).await;
            }
            before = now;
        }
    }

    /// A part at a time, so that traffic does not wait, and each by the root that is current then: what is let in meanwhile
    /// was judged by no older one.
    async fn judge(&self, root: &impl Fn() -> Held) {
        let mut next = 0;
        loop {
            let mut wakers = Vec::new();
            {
                let root = root();
                let mut slots = self.slots.borrow_mut();
                for slot in slots.iter_mut().skip(next).take(AT_ONCE) {
                    slot.judge(&root, &mut wakers);
                }
                next += AT_ONCE;
                if next >= slots.len() {
                    next = usize::MAX;
                }
            }
            wakers.into_iter().for_each(Waker::wake);
            if next == usize::MAX {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Whether something is refused whose owner has not taken notice.
    fn is_refused(&self, place: Place) -> bool {
        let slots = self.slots.borrow();
        slots.get(place.index as usize).is_some_and(|slot| slot.turn == place.turn && slot.refused.is_some())
    }

    /// A future that is dropped where what it has let in is refused and it does not see to that by itself: it waits for
    /// a client that takes nothing. What was let in while it was made is its own too: a request is judged before there is
    /// a task for it.
    pub fn watch<F>(self: &Rc<Self>, inner: F) -> Watched<F> {
        Watched { inner, all: Rc::clone(self), begun: self.latest.take() }
    }
}

/// Whether the same policies hold for the same workloads.
fn is_alike(before: &Root, now: &Root) -> bool {
    let pairs = || before.locals.iter().zip(&now.locals);
    before.locals.len() == now.locals.len()
        && pairs().all(|(before, now)| Arc::ptr_eq(&before.hosted, &now.hosted))
}

impl Slot {
    fn judge(&mut self, root: &Root, wakers: &mut Vec<Waker>) {
        let Some(stands) = &mut self.stands else { return };
        // A workload that has gone lets nothing new in; what it let in may end in peace.
        let Some(now) = root.tables.workloads.get(&stands.workload.section.key) else { return };
        let before = &stands.workload;
        let alike = Arc::ptr_eq(before, now)
            || Arc::ptr_eq(&before.governance, &now.governance) && before.section.mtls == now.section.mtls;
        if !alike && let Some(refusal) = stands.refused_by(now, &self.fields) {
            self.refused = Some(Box::new(refusal));
            wakers.extend(self.waker.take());
        }
        stands.workload = Arc::clone(now);
    }
}

impl Stands {
    fn refused_by(&self, workload: &Arc<HostedWorkload>, fields: &[u8]) -> Option<Refusal> {
        let headers = self.request.as_ref().map(|_| read(fields));
        let request = self.request.as_ref().zip(headers.as_ref()).map(|(line, headers)| Request {
            method: line.method.as_str(),
            scheme: line.scheme.name(),
            authority: line.authority.as_str(),
            path: line.target.path(),
            query: line.target.query(),
            headers,
            claims: None,
        });
        let facts = Inbound {
            to: self.to,
            peer: self.peer.as_ref(),
            shown: None,
            source: self.source,
            sni: self.sni.as_deref(),
            request: request.as_ref(),
            // A token that was valid when it came is not held against what it began.
            now: self.since,
        };
        let refusal = admit_to(workload, &facts, &mut Silent).err()?;
        (!matches!(refusal.reason, Reason::NotHere)).then_some(refusal)
    }
}

impl Standing {
    /// Ready when it is refused. Told once.
    pub fn poll_refused(&self, cx: &mut Context<'_>) -> Poll<Box<Refusal>> {
        let mut slots = self.all.slots.borrow_mut();
        let slot = &mut slots[self.place.index as usize];
        if let Some(refusal) = slot.refused.take() {
            return Poll::Ready(refusal);
        }
        match &mut slot.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            waker => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Why it is refused, if it is. Told once.
    pub fn take_refused(&self) -> Option<Box<Refusal>> {
        self.all.slots.borrow_mut()[self.place.index as usize].refused.take()
    }

    /// Resolves when it is refused.
    pub async fn refused(&self) -> Box<Refusal> {
        poll_fn(|cx| self.poll_refused(cx)).await
    }

    /// What a future comes to, unless it is refused before.
    pub async fn unless_refused<F: Future>(&self, future: F) -> Result<F::Output, Box<Refusal>> {
        let mut future = pin!(future);
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => self.poll_refused(cx).map(Err),
        })
        .await
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        let mut slots = self.all.slots.borrow_mut();
        let slot = &mut slots[self.place.index as usize];
        slot.turn = slot.turn.wrapping_add(1);
        let gone = (slot.stands.take(), slot.waker.take(), slot.refused.take());
        slot.fields.clear();
        slot.fields.shrink_to(MOST_KEPT);
        // Others may be entered or left while these are dropped.
        drop(slots);
        drop(gone);
        self.all.free.borrow_mut().push(self.place.index);
    }
}

/// See [`Standings::watch`]. Resolves to `None` where it was cut off.
#[derive(Debug)]
pub struct Watched<F> {
    inner: F,
    all: Rc<Standings>,
    begun: Option<Place>,
}

impl<F: Future + Unpin> Future for Watched<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let this = self.get_mut();
        this.all.latest.set(None);
        let polled = Pin::new(&mut this.inner).poll(cx);
        if let Some(begun) = this.all.latest.take() {
            this.begun = Some(begun);
        }
        match polled {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if this.begun.is_some_and(|begun| this.all.is_refused(begun)) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Fields one after the other: lengths of name and value, then both.
fn write(headers: &HeaderMap, into: &mut Vec<u8>) {
    for (name, value) in headers {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        // Heads are far smaller than such lengths can say.
        into.extend_from_slice(&u32::try_from(name.len()).unwrap_or(0).to_ne_bytes());
        into.extend_from_slice(&u32::try_from(value.len()).unwrap_or(0).to_ne_bytes());
        into.extend_from_slice(name);
        into.extend_from_slice(value);
    }
}

fn read(fields: &[u8]) -> HeaderMap {
    fn length(bytes: &mut &[u8]) -> Option<usize> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        *bytes = rest;
        usize::try_from(u32::from_ne_bytes(*length)).ok()
    }
    let mut rest = fields;
    let mut headers = HeaderMap::new();
    while let (Some(name), Some(value)) = (length(&mut rest), length(&mut rest)) {
        let Some((field, after)) = rest.split_at_checked(name + value) else { break };
        rest = after;
        let (name, value) = field.split_at(name);
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_they_were_written() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("a", "1"), ("b", ""), ("a", "2"), ("long", "x\u{e9}y")] {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let mut fields = Vec::new();
        write(&headers, &mut fields);
        assert_eq!(read(&fields), headers);
        assert_eq!(read(&[]), HeaderMap::new());
    }
}
