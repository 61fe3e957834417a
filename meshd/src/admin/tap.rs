//! Single exchanges for people: a line of JSON each, as they come, or sorted out of what proxies remember.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use mesh_core::resilience::ratelimit::{Rate, WHOLE};
use mesh_core::telemetry::tap::{Filter, Reporters, Wanted};
use mesh_proto::convert::tap;
use mesh_proto::generated as wire;
use mesh_proto::generated::tap_request::Ask;
use serde_json::Value;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::server::{Refusal, Shared};
use super::view::{TapLineView, TapRequestView};
use crate::tap::hub::{Answer, AskError, Asked};

/// An empty line so often shows whether anybody is there.
const BEAT: Duration = Duration::from_millis(500);
/// How long proxies have to tell what they left out once a tap is over, and to answer about the past.
const LAST_WORD: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(15);
/// Most exchanges of one answer about the past.
const MOST_PAST: usize = 100_000;

/// Shows exchanges.
pub(super) async fn tap(
    State(state): Shared,
    axum::Json(request): axum::Json<TapRequestView>,
) -> Result<Response, Refusal> {
    let node = request.node.as_deref();
    let ask = question(&request)?;
    let is_live = matches!(ask, Ask::Watch(_));
    let asked = state.taps.ask(&ask, node).map_err(|error| match error {
        AskError::TooMany => Refusal::new(StatusCode::TOO_MANY_REQUESTS, error.to_string()),
        AskError::NotConnected(_) => Refusal::missing(error.to_string()),
    })?;
    let body = if is_live {
        let live = Live::new(asked, &request, state.stop.clone())?;
        let lines = stream::unfold(live, |mut live| async move {
            let bytes = live.next().await?;
            Some((Ok::<Bytes, Infallible>(bytes), live))
        });
        Body::from_stream(lines)
    } else {
        let lines = past(asked, request.limit, &state.stop).await;
        Body::from_stream(stream::iter(lines.into_iter().map(Ok::<Bytes, Infallible>)))
    };
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

fn question(request: &TapRequestView) -> Result<Ask, Refusal> {
    if let Some(name) = &request.saved {
        return Ok(Ask::Saved(wire::TapSaved { name: name.clone() }));
    }
    let reporters = match &request.reporter {
        Some(word) => Reporters::from_word(word).ok_or_else(|| {
            Refusal::bad(format!("reporter {word:?}: expected source, destination or both"))
        })?,
        // Of one host, what it gets from elsewhere is told by nobody else.
        None if request.node.is_some() => Reporters::OnceHere,
        None => Reporters::Once,
    };
    let wanted = Wanted {
        services: request.services.clone(),
        namespace: request.namespace.clone(),
        from: request.from.clone(),
        to: request.to.clone(),
        methods: request.methods.clone(),
        paths: request.paths.clone(),
        statuses: request.statuses.clone(),
        headers: request.headers.clone(),
        reporters,
    };
    let read = Filter::new(&wanted).map_err(|error| Refusal::bad(error.to_string()))?;
    let filter = Some(tap::to_wire(&wanted));
    match request.last_milliseconds {
        Some(_) if read.has_fields() => {
            Err(Refusal::bad("header fields are not remembered: --header means nothing with --last"))
        }
        Some(milliseconds) => Ok(Ask::Past(wire::TapPast { filter, milliseconds })),
        None => Ok(Ask::Watch(wire::TapWatch {
            filter,
            most_per_second: request.most_per_second,
            headers: request.show_headers,
        })),
    }
}

/// What a proxy wrote, if it is an object; who says so is known better here.
fn object(node: String, json: &[u8]) -> Option<Value> {
    let mut value: Value = serde_json::from_slice(json).ok()?;
    value.as_object_mut()?.insert("node".to_owned(), node.into());
    Some(value)
}

fn line(view: &TapLineView, out: &mut Vec<u8>) {
    // A value that was read can be written.
    if serde_json::to_writer(&mut *out, view).is_ok() {
        out.push(b'\n');
    }
}

/// Exchanges as they end.
struct Live {
    asked: Asked,
    rate: Rate,
    full_at: u64,
    began: Instant,
    /// Of each node, what it left out.
    missed: BTreeMap<String, (u64, u64)>,
    /// What was left out here: all proxies together keep to the limit, too.
    over_limit: u64,
    told: (u64, u64),
    left: Option<u64>,
    until: Option<Instant>,
    /// Those whose last word is waited for.
    last_words: Option<(BTreeSet<String>, Instant)>,
    beat: Interval,
    stop: CancellationToken,
    over: bool,
}

impl Live {
    fn new(asked: Asked, request: &TapRequestView, stop: CancellationToken) -> Result<Live, Refusal> {
        let most = request.most_per_second;
        let rate = Rate::new(most, Duration::from_secs(1), most)
            .map_err(|error| Refusal::bad(format!("limit of {most} a second: {error}")))?;
        let began = Instant::now();
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Live {
            asked,
            rate,
            full_at: 0,
            began,
            missed: BTreeMap::new(),
            over_limit: 0,
            told: (0, 0),
            left: request.limit,
            until: request.for_milliseconds.map(|time| began + Duration::from_millis(time)),
            last_words: None,
            beat,
            stop,
            over: false,
        })
    }

    /// The next lines; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        let mut out = Vec::new();
        while out.is_empty() {
            let wake = self.last_words.as_ref().map(|(_, until)| *until).or(self.until);
            let first = tokio::select! {
                answer = self.asked.answers.recv() => answer,
                _ = self.beat.tick() => {
                    self.count(&mut out);
                    out.push(b'\n');
                    continue;
                }
                () = at(wake) => {
                    self.wind_up(&mut out);
                    continue;
                }
                () = self.stop.cancelled() => {
                    self.finish(&mut out);
                    continue;
                }
            };
            let Some(first) = first else {
                self.finish(&mut out);
                continue;
            };
            self.take(first, &mut out);
            // What has come meanwhile goes with it.
            while !self.over
                && out.len() < 64 << 10
                && let Ok(more) = self.asked.answers.try_recv()
            {
                self.take(more, &mut out);
            }
        }
        Some(out.into())
    }

    fn take(&mut self, answer: Answer, out: &mut Vec<u8>) {
        match answer {
            Answer::Event { node, json, .. } => {
                if self.left == Some(0) {
                    return;
                }
                let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
                let (next, standing) = self.rate.take(WHOLE, self.full_at, now);
                self.full_at = next;
                if !standing.admitted {
                    self.over_limit += 1;
                    return;
                }
                let Some(event) = object(node, &json) else { return };
                line(&TapLineView { event: Some(event), ..TapLineView::default() }, out);
                if let Some(left) = &mut self.left {
                    *left -= 1;
                    if *left == 0 {
                        self.wind_up(out);
                    }
                }
            }
            Answer::Missed { node, over_limit, lost } => {
                self.missed.insert(node, (over_limit, lost));
            }
            Answer::Done { node, problem } => {
                if let Some(problem) = problem {
                    line(
                        &TapLineView {
                            problem: Some(format!("{node}: {problem}")),
                            ..TapLineView::default()
                        },
                        out,
                    );
                }
                if let Some((waiting, _)) = &mut self.last_words {
                    waiting.remove(&node);
                    if waiting.is_empty() {
                        self.finish(out);
                    }
                }
            }
        }
    }

    /// It is over: proxies tell what they left out. The second time they are waited for no more.
    fn wind_up(&mut self, out: &mut Vec<u8>) {
        if self.last_words.is_some() || self.asked.nodes.is_empty() {
            return self.finish(out);
        }
        self.asked.end();
        let nodes = self.asked.nodes.iter().cloned().collect();
        self.last_words = Some((nodes, Instant::now() + LAST_WORD));
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        self.count(out);
        self.over = true;
        line(&TapLineView { end: true, ..TapLineView::default() }, out);
    }

    /// Tells how many were left out, where it is more than was told.
    fn count(&mut self, out: &mut Vec<u8>) {
        let over_limit: u64 = self.missed.values().map(|(over, _)| over).sum();
        let lost: u64 = self.missed.values().map(|(_, lost)| lost).sum();
        let now = (over_limit + self.over_limit, lost + self.asked.lost());
        if now != self.told {
            self.told = now;
            let view = TapLineView { over_limit: Some(now.0), lost: Some(now.1), ..TapLineView::default() };
            line(&view, out);
        }
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// What proxies remember or have saved, in the order of time; the last ones where there are more than wanted.
async fn past(mut asked: Asked, limit: Option<u64>, stop: &CancellationToken) -> Vec<Bytes> {
    let mut waiting: BTreeSet<String> = asked.nodes.iter().cloned().collect();
    let until = Instant::now() + PATIENCE;
    let mut events = Vec::new();
    let (mut problems, mut dropped) = (VecDeque::new(), 0_u64);
    while !waiting.is_empty() {
        let answer = tokio::select! {
            answer = asked.answers.recv() => answer,
            () = tokio::time::sleep_until(until) => None,
            () = stop.cancelled() => None,
        };
        match answer {
            Some(Answer::Event { node, began, json }) => {
                if events.len() < MOST_PAST {
                    events.extend(object(node, &json).map(|event| (began, event)));
                } else {
                    dropped += 1;
                }
            }
            Some(Answer::Missed { .. }) => {}
            Some(Answer::Done { node, problem }) => {
                waiting.remove(&node);
                problems.extend(problem.map(|problem| format!("{node}: {problem}")));
            }
            None => {
                problems.extend(waiting.iter().map(|node| format!("{node}: no answer")));
                break;
            }
        }
    }
    if asked.nodes.is_empty() {
        problems.push_back("no proxy is connected".to_owned());
    }
    // Stable: what is saved has no time, and is in its order.
    events.sort_by_key(|(began, _)| *began);
    let most = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let skipped = events.len().saturating_sub(most);
    let mut lines = Vec::new();
    let mut put = |view: TapLineView| {
        let mut out = Vec::new();
        line(&view, &mut out);
        lines.push(Bytes::from(out));
    };
    for (_, event) in events.into_iter().skip(skipped) {
        put(TapLineView { event: Some(event), ..TapLineView::default() });
    }
    for problem in problems {
        put(TapLineView { problem: Some(problem), ..TapLineView::default() });
    }
    let lost = asked.lost() + dropped;
    if lost > 0 {
        put(TapLineView { over_limit: Some(0), lost: Some(lost), ..TapLineView::default() });
    }
    put(TapLineView { end: true, ..TapLineView::default() });
    lines
}
