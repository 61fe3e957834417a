//! The body of an answer on its way to the client. It carries the record of the exchange, which is written when the body
//! has ended or is dropped, and gives the upstream's connection back when it was read whole.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use mesh_core::decide::refusal::Refusal;
use mesh_core::message::trailers::{self, TooLarge};
use mesh_core::vocab::outcome::Outcome;

use super::deadline::Deadline;
use super::headers::GRPC_STATUS;
use super::impaired::Impaired;
use super::record::Record;
use super::reply::denied;
use crate::net::activity::UnderWay;
use crate::net::limits;
use crate::upstream::failure;
use crate::upstream::http2;
use crate::upstream::pool::{Lease, Stream};

/// What keeps an upstream's connection counted while its answer is read.
#[derive(Debug)]
pub enum Held {
    /// An HTTP/1 connection: goes back to the pool when the answer was read whole.
    Http1(Lease),
    /// A stream of a shared connection.
    Http2(Stream),
}

impl Held {
    /// From where the connection goes out.
    pub fn local(&self) -> Option<SocketAddr> {
        match self {
            Held::Http1(lease) => lease.local(),
            Held::Http2(stream) => stream.connection().local,
        }
    }
}

/// What an upstream answers.
#[derive(Debug)]
pub enum UpstreamBody {
    /// On an HTTP/1 connection.
    Http1(Incoming),
    /// On a stream of a shared connection.
    Http2(RecvStream),
    /// One that has a fault on purpose.
    Impaired(Box<Impaired>),
}

impl UpstreamBody {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReplyError>>> {
        match self {
            UpstreamBody::Impaired(impaired) => impaired.poll(cx),
            UpstreamBody::Http1(incoming) => Pin::new(incoming).poll_frame(cx).map_err(ReplyError::Upstream),
            UpstreamBody::Http2(stream) => http2::poll_frame(stream, cx).map_err(ReplyError::UpstreamStream),
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        match self {
            UpstreamBody::Impaired(impaired) => impaired.is_end_stream(),
            UpstreamBody::Http1(incoming) => incoming.is_end_stream(),
            UpstreamBody::Http2(stream) => stream.is_end_stream(),
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            UpstreamBody::Impaired(impaired) => impaired.size_hint(),
            UpstreamBody::Http1(incoming) => incoming.size_hint(),
            // The field that says it is passed on.
            UpstreamBody::Http2(stream) if stream.is_end_stream() => SizeHint::with_exact(0),
            UpstreamBody::Http2(_) => SizeHint::default(),
        }
    }
}

/// Why an answer broke off.
#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    /// The upstream broke off.
    #[error("the upstream broke off")]
    Upstream(#[source] hyper::Error),
    /// The same on a stream of a shared connection.
    #[error("the upstream broke off")]
    UpstreamStream(#[source] h2::Error),
    /// The upstream's trailers.
    #[error("the upstream's trailers cannot be passed on")]
    Trailers(#[from] TooLarge),
    /// The request's time was over.
    #[error("the request's time was over")]
    Deadline,
    /// A newer policy is against it.
    #[error("a policy is against it now")]
    Refused,
    /// A fault ends it on purpose.
    #[error("a fault ends it")]
    Injected,
}

/// The body of an answer.
#[derive(Debug)]
pub struct ReplyBody {
    content: Content,
    record: Option<Box<Record>>,
    held: Option<Held>,
    deadline: Option<Deadline>,
    under_way: Option<UnderWay>,
    /// How it broke off, told with the next turn.
    broken: Option<ReplyError>,
}

#[derive(Debug)]
enum Content {
    Own(Bytes),
    Upstream(UpstreamBody),
}

impl ReplyBody {
    /// An answer of our own.
    pub fn own(content: Bytes, record: Box<Record>) -> ReplyBody {
        ReplyBody {
            content: Content::Own(content),
            record: Some(record),
            held: None,
            deadline: None,
            under_way: None,
            broken: None,
        }
    }

    /// An answer without a record: the record is kept by somebody else.
    pub fn silent() -> ReplyBody {
        ReplyBody {
            content: Content::Own(Bytes::new()),
            record: None,
            held: None,
            deadline: None,
            under_way: None,
            broken: None,
        }
    }

    /// The answer of an upstream, read until `deadline`.
    pub fn upstream(
        incoming: UpstreamBody,
        held: Held,
        record: Box<Record>,
        deadline: Option<Deadline>,
    ) -> ReplyBody {
        ReplyBody {
            content: Content::Upstream(incoming),
            record: Some(record),
            held: Some(held),
            deadline,
            under_way: None,
            broken: None,
        }
    }

    /// An answer that is read to its end and goes nowhere.
    pub fn unread(incoming: UpstreamBody, held: Held) -> ReplyBody {
        ReplyBody {
            content: Content::Upstream(incoming),
            record: None,
            held: Some(held),
            deadline: None,
            under_way: None,
            broken: None,
        }
    }

    /// Keeps the exchange under way until this answer has been written.
    pub fn hold(&mut self, under_way: UnderWay) {
        self.under_way = Some(under_way);
    }

    fn finish(&mut self) {
        if let Some(mut record) = self.record.take() {
            record.complete();
        }
        match self.held.take() {
            Some(Held::Http1(mut lease)) => lease.give_back(),
            Some(Held::Http2(stream)) => stream.finish(),
            None => {}
        }
        self.deadline = None;
    }

    fn fail(&mut self, flag: &str, reason: &'static str) {
        if let Some(mut record) = self.record.take() {
            record.broke_off(flag, reason);
        }
        self.held = None;
    }

    /// An answer that is whole before its request is may be followed by a reset without an error, and the rest of the
    /// request is not wanted (RFC 9113, section 8.1). Where the request is whole, such a reset cuts the answer short.
    fn is_early_end(&self, error: &ReplyError) -> bool {
        let ReplyError::UpstreamStream(error) = error else { return false };
        let sending = matches!(&self.held, Some(Held::Http2(stream)) if stream.is_sending());
        sending && error.is_reset() && error.reason() == Some(h2::Reason::NO_ERROR)
    }

    /// A policy has turned against what goes on. A gRPC client hears so, and for every other the answer breaks off.
    fn cut_off(
        &mut self,
        refusal: &Refusal,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplyError>>> {
        self.held = None;
        let record = self.record.take();
        let trailers = record.filter(|record| record.grpc).map(|mut record| {
            let trailers = denied(refusal, record.flags);
            record.trailers(&trailers);
            trailers
        });
        match trailers {
            Some(trailers) => {
                self.content = Content::Own(Bytes::new());
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            None => {
                // What came before goes out first.
                self.broken = Some(ReplyError::Refused);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReplyError>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(record) = &mut self.record
            && let Some(standing) = &record.standing
            && let Poll::Ready(refusal) = standing.poll_refused(cx)
        {
            record.cut_off(&refusal);
            return self.cut_off(&refusal, cx);
        }
        let Content::Upstream(incoming) = &mut self.content else { return Poll::Ready(None) };
        let frame = match incoming.poll(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let over = self.deadline.as_mut().is_some_and(|deadline| deadline.poll(cx).is_ready());
                if over {
                    self.fail("UT", "response_timeout");
                    return Poll::Ready(Some(Err(ReplyError::Deadline)));
                }
                return Poll::Pending;
            }
        };
        let frame = frame.map(|frame| {
            frame.and_then(|mut frame| {
                frame
                    .trailers_mut()
                    .map_or(Ok(()), |fields| trailers::canonical(fields, &limits::sizes()))?;
                Ok(frame)
            })
        });
        match frame {
            Some(Ok(frame)) => {
                if let Some(record) = &mut self.record {
                    match (frame.data_ref(), frame.trailers_ref()) {
                        (Some(data), _) => record.pass(data),
                        (None, Some(trailers)) => record.trailers(trailers),
                        (None, None) => {}
                    }
                }
                // Behind trailers nobody asks for more.
                if frame.is_trailers() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                if self.is_early_end(&error) {
                    self.finish();
                    return Poll::Ready(None);
                }
                let outcome = match &error {
                    // What ends before its framing says is not the protocol, however it ends (Envoy).
                    ReplyError::Upstream(_) | ReplyError::Trailers(_) => Outcome::ProtocolError,
                    ReplyError::UpstreamStream(error) => match &self.held {
                        Some(Held::Http2(stream)) => stream.connection().outcome(error),
                        Some(Held::Http1(_)) | None => failure::http2_outcome(error),
                    },
                    ReplyError::Deadline | ReplyError::Refused => Outcome::RequestTimeout,
                    ReplyError::Injected => Outcome::Reset { before_request: false },
                };
                let details = match outcome {
                    Outcome::ProtocolError => "upstream_reset_after_response_started{protocol_error}",
                    Outcome::RemoteReset => "upstream_reset_after_response_started{remote_reset}",
                    Outcome::RefusedStream => {
                        "upstream_reset_after_response_started{remote_refused_stream_reset}"
                    }
                    _ => "upstream_reset_after_response_started{connection_termination}",
                };
                self.fail(outcome.flag(), details);
                // What came before goes out first: with the error hyper throws away what it has not written.
                self.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            None => {
                self.finish();
                Poll::Ready(None)
            }
        }
    }
}

/// The gRPC status in the fields of an answer or its trailers.
pub fn grpc_status(fields: &HeaderMap) -> Option<u16> {
    fields.get(&GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = ReplyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReplyError>>> {
        let this = self.get_mut();
        match &mut this.content {
            Content::Own(content) if content.is_empty() => {
                this.finish();
                Poll::Ready(None)
            }
            Content::Own(content) => {
                let content = std::mem::take(content);
                if let Some(record) = &mut this.record {
                    record.data(content.len());
                }
                this.finish();
                Poll::Ready(Some(Ok(Frame::data(content))))
            }
            Content::Upstream(_) => Poll::Ready(ready!(this.poll_incoming(cx))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Own(content) => content.is_empty(),
            Content::Upstream(incoming) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Own(content) => SizeHint::with_exact(content.len() as u64),
            Content::Upstream(incoming) => incoming.size_hint(),
        }
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        // A body without content, or whose length says that all was read, is not polled to its end.
        if self.record.is_some() && self.is_end_stream() {
            self.finish();
        }
    }
}
