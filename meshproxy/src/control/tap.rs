//! The stream on which meshd asks for single exchanges: as they end, out of what is remembered, or saved.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::telemetry::tap::Filter;
use mesh_proto::convert::tap;
use mesh_proto::generated as wire;
use mesh_proto::generated::tap_client::TapClient;
use mesh_proto::generated::tap_request::Ask;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::telemetry::tap::{Hub, Shown, Tap};
use crate::telemetry::{saved, shown};

/// Pause before a stream that broke alone is opened again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often it is told how many were left out.
const TELL: Duration = Duration::from_millis(250);
/// Exchanges of one message.
const BATCH: usize = 64;
/// Messages that wait for the stream, and questions that wait for their turn.
const MESSAGES: usize = 4;
const QUESTIONS: usize = 16;

type Reports = mpsc::Sender<wire::TapReport>;

/// Answers for as long as the channel lasts.
pub async fn run(hub: Arc<Hub>, channel: Channel) -> Status {
    let mut client = TapClient::new(channel);
    loop {
        let ended = session(&hub, &mut client).await;
        // Nobody reads any more.
        hub.clear();
        match ended {
            // A meshd from before there were any.
            Err(status) if status.code() == Code::Unimplemented => return std::future::pending().await,
            // The other streams tell whether meshd has gone.
            Err(status) => tracing::debug!(%status, "the stream of taps broke"),
            Ok(()) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn session(hub: &Arc<Hub>, client: &mut TapClient<Channel>) -> Result<(), Status> {
    let (reports, receiver) = mpsc::channel(MESSAGES);
    let mut asked = client.stream(ReceiverStream::new(receiver)).await?.into_inner();
    let (queue, questions) = mpsc::channel(QUESTIONS);
    let (end, ended) = mpsc::channel(QUESTIONS);
    let asking = async {
        while let Some(request) = asked.message().await? {
            take(hub, request, &reports, &queue, &end).await;
        }
        Ok(())
    };
    tokio::select! {
        over = asking => over,
        () = tell(hub, &reports, ended) => Ok(()),
        () = answer(hub, &reports, questions) => Ok(()),
    }
}

/// Takes one message in.
async fn take(
    hub: &Hub,
    request: wire::TapRequest,
    reports: &Reports,
    queue: &mpsc::Sender<(u64, Ask)>,
    end: &mpsc::Sender<Arc<Tap>>,
) {
    let id = request.id;
    let problem = match request.ask {
        Some(Ask::Watch(watch)) => match Filter::new(&tap::from_wire(watch.filter.unwrap_or_default())) {
            Ok(filter) => {
                let tap = Tap::new(id, filter, watch.most_per_second, watch.headers);
                (!hub.add(&Arc::new(tap))).then(|| "too many taps at once".to_owned())
            }
            Err(error) => Some(error.to_string()),
        },
        Some(Ask::End(_)) => {
            if let Some(tap) = hub.end(id) {
                // Only a stream that has ended takes no more.
                drop(end.send(tap).await);
            }
            None
        }
        Some(ask) => queue.try_send((id, ask)).is_err().then(|| "too many questions at once".to_owned()),
        None => Some("this proxy does not know that question; is it of an older version?".to_owned()),
    };
    if let Some(problem) = problem {
        refuse(reports, id, problem).await;
    }
}

async fn refuse(reports: &Reports, id: u64, problem: String) {
    drop(reports.send(wire::TapReport { id, done: true, problem, ..wire::TapReport::default() }).await);
}

/// Tells what data threads show, and how many they left out.
async fn tell(hub: &Hub, reports: &Reports, mut ended: mpsc::Receiver<Arc<Tap>>) {
    let mut events = hub.shown.lock().await;
    let mut tick = tokio::time::interval(TELL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = BTreeMap::<u64, (u64, u64)>::new();
    let mut ending = Vec::new();
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            count = events.recv_many(&mut batch, BATCH) => {
                if count == 0 || show(hub, reports, &mut batch).await.is_err() {
                    return;
                }
            }
            Some(tap) = ended.recv() => ending.push(tap),
            _ = tick.tick() => {
                // What had matched by then was told before.
                let over: Vec<Arc<Tap>> = std::mem::take(&mut ending);
                while !over.is_empty() && let Ok(shown) = events.try_recv() {
                    batch.push(shown);
                }
                if !batch.is_empty() && show(hub, reports, &mut batch).await.is_err() {
                    return;
                }
                let live = hub.taps();
                let all = live.iter().map(|tap| (tap, false)).chain(over.iter().map(|tap| (tap, true)));
                for (tap, done) in all {
                    let missed = tap.missed();
                    if !done && told.get(&tap.id).copied().unwrap_or_default() == missed {
                        continue;
                    }
                    told.insert(tap.id, missed);
                    let (over_limit, lost) = missed;
                    let report =
                        wire::TapReport { id: tap.id, over_limit, lost, done, ..wire::TapReport::default() };
                    if reports.send(report).await.is_err() {
                        return;
                    }
                }
                told.retain(|id, _| live.iter().any(|tap| tap.id == *id));
            }
        }
    }
}

/// Tells a batch, a message for each tap.
async fn show(hub: &Hub, reports: &Reports, batch: &mut Vec<Shown>) -> Result<(), ()> {
    let mut by_tap = BTreeMap::<u64, Vec<wire::TapEvent>>::new();
    for shown in batch.drain(..) {
        let (began, object) = shown::object(hub, &shown.exchange, shown.fields.as_deref());
        by_tap.entry(shown.tap).or_default().push(event(began, &object));
        hub.counted.sent.increment(1);
    }
    for (id, events) in by_tap {
        let report = wire::TapReport { id, events, ..wire::TapReport::default() };
        reports.send(report).await.map_err(drop)?;
    }
    Ok(())
}

fn event(began: u64, object: &Value) -> wire::TapEvent {
    wire::TapEvent { time_microseconds: began, json: object.to_string().into_bytes() }
}

/// Answers questions about the past, one after another.
async fn answer(hub: &Arc<Hub>, reports: &Reports, mut questions: mpsc::Receiver<(u64, Ask)>) {
    while let Some((id, ask)) = questions.recv().await {
        let sent = match ask {
            Ask::Past(past) => remembered(hub, reports, id, past).await,
            Ask::Saved(asked) => kept(hub, reports, id, asked.name).await,
            Ask::Watch(_) | Ask::End(_) => Ok(()),
        };
        match sent {
            Ok(()) => {
                drop(reports.send(wire::TapReport { id, done: true, ..wire::TapReport::default() }).await);
            }
            Err(problem) => refuse(reports, id, problem).await,
        }
    }
}

async fn remembered(hub: &Hub, reports: &Reports, id: u64, past: wire::TapPast) -> Result<(), String> {
    if hub.keeps == 0 {
        return Err("it remembers nothing (--flight-recorder 0)".to_owned());
    }
    let filter = Filter::new(&tap::from_wire(past.filter.unwrap_or_default())).map_err(|e| e.to_string())?;
    if filter.has_fields() {
        return Err("header fields are not remembered".to_owned());
    }
    let since = Instant::now().checked_sub(Duration::from_millis(past.milliseconds));
    let found = hub.past(Some(Arc::new(filter)), since).await;
    for some in found.chunks(BATCH) {
        let events = some.iter().map(|one| shown::object(hub, one, None));
        let events = events.map(|(began, object)| event(began, &object)).collect();
        send(reports, id, events).await;
    }
    Ok(())
}

/// A list of saved files, or one of them.
async fn kept(hub: &Hub, reports: &Reports, id: u64, name: String) -> Result<(), String> {
    let (folder, node) = (hub.folder.clone(), hub.node.clone());
    let read = move || -> std::io::Result<Option<Vec<wire::TapEvent>>> {
        if name.is_empty() {
            let files = saved::list(&folder)?.into_iter();
            let row =
                |file: saved::Saved| event(0, &json!({"node": node, "name": file.name, "bytes": file.bytes}));
            return Ok(Some(files.map(row).collect()));
        }
        let lines = saved::read(&folder, &name)?;
        let event = |json| wire::TapEvent { time_microseconds: 0, json };
        Ok(lines.map(|lines| lines.into_iter().map(event).collect()))
    };
    let read = tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())?;
    let Some(events) = read.map_err(|error| error.to_string())? else {
        return Err("no such file is saved".to_owned());
    };
    for some in events.chunks(BATCH) {
        send(reports, id, some.to_vec()).await;
    }
    Ok(())
}

async fn send(reports: &Reports, id: u64, events: Vec<wire::TapEvent>) {
    // A stream that has ended ends the session, too.
    drop(reports.send(wire::TapReport { id, events, ..wire::TapReport::default() }).await);
}
