//! The context of a trace, as it travels in fields of requests: read, decided on, passed on.
//!
//! Three forms are known: W3C Trace Context, B3 in several fields, B3 in one. What came in a form is passed on in that form,
//! with the proxy's own span as parent; where none came W3C is begun. A field that its specification forbids counts as
//! absent and does not go on.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::tracing::Tracing;
use crate::vocab::random::Random;
use crate::vocab::ratio::Ratio;

/// Context of W3C.
pub static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What vendors add to it.
pub static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// B3 in one field.
pub static B3: HeaderName = HeaderName::from_static("b3");
/// B3: the trace.
pub static B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
/// B3: the span.
pub static B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
/// B3: the span above it.
pub static B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
/// B3: whether it is sampled.
pub static B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
/// B3: whether it is sampled by all means.
pub static B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");
/// A client that gives its own id wants a trace, as in Envoy.
const CLIENT_TRACE: &str = "x-client-trace-id";
const REQUEST_ID: &str = "x-request-id";

/// Istio's share of the traces that begin in the mesh.
pub const SAMPLING: u32 = 10_000;
/// No more members of `tracestate` go on.
const MOST_MEMBERS: usize = 32;
/// Where the id of a request, a UUID, says whether it is sampled: its version, which is a 4 else.
const MARK: usize = 14;
const UUID: usize = 36;

/// Id of a trace.
pub type TraceId = [u8; 16];
/// Id of a span.
pub type SpanId = [u8; 8];

/// The forms in which a context travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forms {
    /// W3C.
    pub w3c: bool,
    /// B3 in several fields.
    pub b3: bool,
    /// B3 in one field.
    pub single: bool,
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// The trace.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
    /// Whether the trace came as 64 bits.
    pub short: bool,
}

/// What a request says of its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heard {
    /// Where it comes from.
    pub parent: Option<Parent>,
    /// Whether whoever called wants it sampled.
    pub decision: Option<bool>,
    /// Whether by all means (B3).
    pub debug: bool,
    /// Whether the trace's id is known to be random (W3C).
    pub is_random: bool,
    /// In which forms it said so.
    pub forms: Forms,
    /// Whether there are fields that must not go on: of W3C, of B3.
    stray: (bool, bool),
    /// Whether a client wants a trace by naming an id of its own.
    client: bool,
    /// What the id of the request says: whether it is sampled, and a number that all proxies read alike.
    request: Option<(bool, u32)>,
}

/// The values of B3 in several fields.
#[derive(Default)]
struct Several<'a> {
    trace: Option<&'a [u8]>,
    span: Option<&'a [u8]>,
    sampled: Option<&'a [u8]>,
    flags: Option<&'a [u8]>,
}

impl Heard {
    /// Reads the fields of a request, going over them once.
    pub fn read(headers: &HeaderMap) -> Heard {
        let mut heard = Heard::default();
        let (mut parent, mut single): (Option<&[u8]>, Option<&[u8]>) = (None, None);
        let (mut is_repeated, mut has_state, mut members) = (false, false, 0);
        let mut several = Several::default();
        for (name, value) in headers {
            let (name, value) = (name.as_str(), value.as_bytes());
            match name.as_bytes() {
                [b't', b'r', b'a', b'c', b'e', ..] => match name {
                    "traceparent" => is_repeated |= parent.replace(value).is_some(),
                    "tracestate" => {
                        has_state = true;
                        members += members_of(value).unwrap_or(MOST_MEMBERS + 1);
                    }
                    _ => {}
                },
                b"b3" => single = Some(value),
                [b'x', b'-', b'b', b'3', b'-', ..] => match name {
                    "x-b3-traceid" => several.trace = Some(value),
                    "x-b3-spanid" => several.span = Some(value),
                    "x-b3-sampled" => several.sampled = Some(value),
                    "x-b3-flags" => several.flags = Some(value),
                    _ => {}
                },
                [b'x', b'-', ..] if name == REQUEST_ID => heard.request = request(value),
                [b'x', b'-', ..] if name == CLIENT_TRACE => heard.client = true,
                _ => {}
            }
        }
        let of_w3c = parent.filter(|_| !is_repeated).and_then(traceparent);
        heard.stray.0 = (of_w3c.is_none() && (parent.is_some() || has_state)) || members > MOST_MEMBERS;
        if let Some((found, flags)) = of_w3c {
            heard.forms.w3c = true;
            heard.parent = Some(found);
            heard.decision = Some(flags & 1 == 1);
            heard.is_random = flags & 2 == 2;
        }
        heard.read_b3(single, &several);
        heard
    }

    /// B3 goes behind W3C, and of its two forms the one field goes first, as its specification wants.
    fn read_b3(&mut self, single: Option<&[u8]>, several: &Several<'_>) {
        let Several { trace, span, sampled, flags } = *several;
        if single.is_none() && trace.is_none() && span.is_none() && sampled.is_none() && flags.is_none() {
            return;
        }
        let of_single = single.and_then(b3_single);
        let of_several = b3_several(several);
        self.forms.single = of_single.is_some();
        self.forms.b3 = of_several.is_some();
        self.stray.1 = single.is_some() != of_single.is_some()
            || (of_several.is_none() && (trace.is_some() || span.is_some() || sampled.is_some()));
        for (parent, decision, debug) in of_single.into_iter().chain(of_several) {
            if self.parent.is_none() && parent.is_some() {
                self.parent = parent;
            }
            if self.decision.is_none() {
                (self.decision, self.debug) = (decision, debug);
            }
        }
    }
}

/// `VERSION-TRACE-PARENT-FLAGS`, and more behind a hyphen in versions to come.
fn traceparent(value: &[u8]) -> Option<(Parent, u8)> {
    const LENGTH: usize = 55;
    let head = value.get(..LENGTH)?;
    let version = lower::<1>(&head[..2])?[0];
    let goes_on = match version {
        0xff => return None,
        0 => value.len() == LENGTH,
        _ => value.len() == LENGTH || value[LENGTH] == b'-',
    };
    if !goes_on || [2, 35, 52].iter().any(|at| head[*at] != b'-') {
        return None;
    }
    let trace = lower::<16>(&head[3..35]).filter(|id| *id != [0; 16])?;
    let span = lower::<8>(&head[36..52]).filter(|id| *id != [0; 8])?;
    let flags = lower::<1>(&head[53..])?[0];
    Some((Parent { trace, span, short: false }, flags))
}

/// How many members a `tracestate` has; `None` if it is none.
fn members_of(value: &[u8]) -> Option<usize> {
    let mut count = 0;
    for member in value.split(|byte| *byte == b',') {
        let member = member.trim_ascii();
        if member.is_empty() {
            continue;
        }
        let at = member.iter().position(|byte| *byte == b'=')?;
        let (key, text) = (&member[..at], &member[at + 1..]);
        let is_key = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
        let is_text = |byte: &u8| matches!(byte, 0x20..=0x7e) && *byte != b'=';
        let fits = matches!(key.len(), 1..=256) && matches!(text.len(), 1..=256);
        if !fits || !key.iter().all(is_key) || !text.iter().all(is_text) {
            return None;
        }
        count += 1;
    }
    Some(count)
}

/// A context of B3: where it comes from, the decision, and whether by all means.
type OfB3 = (Option<Parent>, Option<bool>, bool);

/// `TRACE-SPAN[-STATE[-PARENT]]`, or the state alone.
fn b3_single(value: &[u8]) -> Option<OfB3> {
    let state = |state: &[u8]| match state {
        b"0" => Some((Some(false), false)),
        b"1" => Some((Some(true), false)),
        b"d" => Some((Some(true), true)),
        _ => None,
    };
    if let Some((decision, debug)) = state(value) {
        return Some((None, decision, debug));
    }
    let mut parts = value.split(|byte| *byte == b'-');
    let parent = b3_parent(parts.next()?, parts.next()?)?;
    let (decision, debug) = match parts.next() {
        Some(text) => state(text)?,
        None => (None, false),
    };
    if let Some(above) = parts.next() {
        any_case::<8>(above)?;
    }
    parts.next().is_none().then_some((Some(parent), decision, debug))
}

fn b3_several(several: &Several<'_>) -> Option<OfB3> {
    let debug = several.flags == Some(b"1");
    let decision = match several.sampled {
        _ if debug => Some(true),
        Some(b"1" | b"true") => Some(true),
        Some(b"0" | b"false") => Some(false),
        Some(_) => return None,
        None => None,
    };
    let parent = match (several.trace, several.span) {
        (Some(trace), Some(span)) => Some(b3_parent(trace, span)?),
        // A trace without a span, or the other way round, is no context.
        (Some(_), None) | (None, Some(_)) => return None,
        (None, None) => None,
    };
    (parent.is_some() || decision.is_some()).then_some((parent, decision, debug))
}

fn b3_parent(trace: &[u8], span: &[u8]) -> Option<Parent> {
    let mut id = [0; 16];
    let short = trace.len() == 16;
    match short {
        true => id[8..].copy_from_slice(&any_case::<8>(trace)?),
        false => id = any_case::<16>(trace)?,
    }
    let span = any_case::<8>(span).filter(|span| *span != [0; 8])?;
    (id != [0; 16]).then_some(Parent { trace: id, span, short })
}

/// What the id of a request says, if it is a UUID.
fn request(value: &[u8]) -> Option<(bool, u32)> {
    if value.len() != UUID {
        return None;
    }
    let number = u32::from_be_bytes(any_case::<4>(&value[..8])?);
    Some((matches!(value[MARK], b'9' | b'a' | b'b'), number))
}

/// Marks the id of a sampled request, so that whoever only passes ids on is sampled too. Only a random UUID is marked.
pub fn mark(id: &mut [u8]) -> bool {
    let is_fresh = id.len() == UUID && id[MARK] == b'4';
    if is_fresh {
        id[MARK] = b'9';
    }
    is_fresh
}

fn lower<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    hex(text, |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn any_case<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    hex(text, |byte| byte.is_ascii_hexdigit())
}

fn hex<const N: usize>(text: &[u8], is_digit: impl Fn(u8) -> bool) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.iter().all(|byte| is_digit(*byte)) {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => byte - b'0',
        // A letter, by the check above.
        _ => (byte | 0x20) - b'a' + 10,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0]) << 4 | digit(pair[1]);
    }
    Some(bytes)
}

/// The context that a proxy gives a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: TraceId,
    /// The proxy's own span.
    pub span: SpanId,
    /// The span above it.
    pub parent: Option<SpanId>,
    /// Whether it is sampled.
    pub sampled: bool,
    debug: bool,
    is_random: bool,
    short: bool,
    forms: Forms,
    stray: (bool, bool),
}

impl Context {
    /// Goes on with what came, or begins. Who calls has decided whether it is sampled; else the id of the request has, if
    /// that counts; else a share of the traces is, told from the rest by numbers that every proxy reads alike.
    pub fn begin(heard: &Heard, tracing: &Tracing, random: &mut Random) -> Context {
        let trace = heard.parent.map_or_else(|| new_trace(random), |parent| parent.trace);
        let request = heard.request.filter(|_| tracing.use_request_id);
        let forced = heard.client || request.is_some_and(|(marked, _)| marked);
        let share = tracing.sampling.or(Ratio::from_ppm(SAMPLING)).unwrap_or_default();
        let number = match request {
            Some((_, number)) => u64::from(number),
            None => u64::from_be_bytes([
                0, trace[9], trace[10], trace[11], trace[12], trace[13], trace[14], trace[15],
            ]),
        };
        let sampled = heard.decision.unwrap_or_else(|| forced || number % 1_000_000 < u64::from(share.ppm()));
        let mut forms = heard.forms;
        forms.w3c |= forms == Forms::default();
        Context {
            trace,
            span: new_span(random),
            parent: heard.parent.map(|parent| parent.span),
            sampled,
            debug: heard.debug,
            // The ids that begin here are.
            is_random: heard.is_random || heard.parent.is_none(),
            short: heard.parent.is_some_and(|parent| parent.short),
            forms,
            stray: heard.stray,
        }
    }

    /// The same for a copy of the request: it is not sampled.
    pub fn of_copy(self) -> Context {
        Context { sampled: false, debug: false, ..self }
    }

    /// Writes it into the fields of a request, in the place of what came.
    pub fn write(&self, headers: &mut HeaderMap) {
        if self.stray.0 {
            headers.remove(&TRACESTATE);
            headers.remove(&TRACEPARENT);
        }
        if self.stray.1 {
            for name in [&B3, &B3_TRACE, &B3_SPAN, &B3_PARENT, &B3_SAMPLED, &B3_FLAGS] {
                headers.remove(name);
            }
        }
        if self.forms.w3c {
            headers.insert(&TRACEPARENT, self.traceparent());
        }
        if self.forms.single {
            headers.insert(&B3, self.b3());
        }
        if self.forms.b3 {
            headers.insert(&B3_TRACE, text(self.b3_trace()));
            headers.insert(&B3_SPAN, text(&self.span));
            match &self.parent {
                Some(parent) => headers.insert(&B3_PARENT, text(parent)),
                None => headers.remove(&B3_PARENT),
            };
            if self.debug {
                headers.insert(&B3_FLAGS, HeaderValue::from_static("1"));
                headers.remove(&B3_SAMPLED);
            } else {
                headers.remove(&B3_FLAGS);
                let sampled = if self.sampled { "1" } else { "0" };
                headers.insert(&B3_SAMPLED, HeaderValue::from_static(sampled));
            }
        }
    }

    fn b3_trace(&self) -> &[u8] {
        if self.short { &self.trace[8..] } else { &self.trace }
    }

    fn traceparent(&self) -> HeaderValue {
        let mut text = [b'-'; 55];
        text[..2].copy_from_slice(b"00");
        digits(&self.trace, &mut text[3..35]);
        digits(&self.span, &mut text[36..52]);
        digits(&[u8::from(self.sampled) | u8::from(self.is_random) << 1], &mut text[53..]);
        value(&text)
    }

    fn b3(&self) -> HeaderValue {
        let mut text = [b'-'; 68];
        let trace = self.b3_trace();
        let mut at = trace.len() * 2;
        digits(trace, &mut text[..at]);
        digits(&self.span, &mut text[at + 1..at + 17]);
        at += 18;
        text[at] = match (self.debug, self.sampled) {
            (true, _) => b'd',
            (false, true) => b'1',
            (false, false) => b'0',
        };
        at += 1;
        if let Some(parent) = &self.parent {
            digits(parent, &mut text[at + 1..at + 17]);
            at += 17;
        }
        value(&text[..at])
    }
}

fn new_trace(random: &mut Random) -> TraceId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&random.bits().to_be_bytes());
    id[8..].copy_from_slice(&new_span(random));
    id
}

fn new_span(random: &mut Random) -> SpanId {
    // No id is zero.
    random.bits().max(1).to_be_bytes()
}

fn digits(bytes: &[u8], out: &mut [u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(out.chunks_exact_mut(2)) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
}

fn text(id: &[u8]) -> HeaderValue {
    let mut out = [0; 32];
    digits(id, &mut out[..id.len() * 2]);
    value(&out[..id.len() * 2])
}

fn value(text: &[u8]) -> HeaderValue {
    let mut value = HeaderValue::from_bytes(text).unwrap_or_else(|_| HeaderValue::from_static(""));
    // No secret, but unlike every other: in the table of HTTP/2 it would only drive out what comes again.
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests;
