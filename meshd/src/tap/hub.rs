//! Where those who ask meet the proxies' streams. Every queue is bounded: who reads slowly misses something, is told how
//! much, and holds up nobody.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh_proto::generated as wire;
use mesh_proto::generated::tap_request::Ask;
use tokio::sync::mpsc;
use tonic::Status;

use crate::telemetry;

/// So many ask at once: what a proxy tells apart.
pub const MOST_QUESTIONS: usize = 32;
/// Answers that wait for who asked.
const ANSWERS: usize = 1024;
/// The same of the past, all of which comes at once; they take memory only while they wait.
const MANY_ANSWERS: usize = 100_000;
/// Messages that wait for a proxy.
const MESSAGES: usize = 256;

/// What a proxy tells.
#[derive(Debug)]
pub enum Answer {
    /// An exchange, or a saved file.
    Event {
        /// Its node.
        node: String,
        /// When it began, in microseconds since 1970.
        began: u64,
        /// An object of JSON, as the proxy wrote it.
        json: Vec<u8>,
    },
    /// How many it has left out so far.
    Missed {
        /// Its node.
        node: String,
        /// Beyond the limit.
        over_limit: u64,
        /// Nobody took them.
        lost: u64,
    },
    /// It has nothing more.
    Done {
        /// Its node.
        node: String,
        /// Why it cannot answer.
        problem: Option<String>,
    },
}

/// Why a question is not put.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// More than proxies tell apart.
    #[error("{MOST_QUESTIONS} taps run already; end one of them")]
    TooMany,
    /// It cannot be asked.
    #[error("no proxy of node {0:?} is connected; `meshd status` shows those that are")]
    NotConnected(String),
}

/// Who asks, and the proxies' streams.
#[derive(Debug, Default)]
pub struct Hub {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    links: BTreeMap<String, Link>,
    questions: HashMap<u64, Question>,
}

#[derive(Debug)]
struct Link {
    serial: u64,
    sender: mpsc::Sender<Result<wire::TapRequest, Status>>,
}

#[derive(Debug)]
struct Question {
    ask: Ask,
    node: Option<String>,
    answers: mpsc::Sender<Answer>,
    lost: Arc<AtomicU64>,
}

impl Question {
    fn is_live(&self) -> bool {
        matches!(self.ask, Ask::Watch(_))
    }

    fn concerns(&self, node: &str) -> bool {
        self.node.as_deref().is_none_or(|wanted| wanted == node)
    }

    fn tell(&self, answer: Answer) {
        let is_event = matches!(answer, Answer::Event { .. });
        if self.answers.try_send(answer).is_err() && is_event {
            // Relaxed: a counter.
            self.lost.fetch_add(1, Ordering::Relaxed);
            telemetry::tap_lost();
        }
    }
}

impl State {
    /// Sends a message to a proxy; one that does not read is let go: it comes again, and knows of no questions then.
    fn send(&mut self, node: &str, id: u64, ask: Ask) -> bool {
        let Some(link) = self.links.get(node) else { return false };
        let request = wire::TapRequest { id, ask: Some(ask) };
        let sent = link.sender.try_send(Ok(request)).is_ok();
        if !sent {
            self.links.remove(node);
        }
        sent
    }
}

impl Hub {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks one proxy, or all that are connected.
    pub fn ask(self: &Arc<Hub>, ask: &Ask, node: Option<&str>) -> Result<Asked, AskError> {
        let mut state = self.state();
        if state.questions.len() >= MOST_QUESTIONS {
            return Err(AskError::TooMany);
        }
        if let Some(node) = node.filter(|node| !state.links.contains_key(*node)) {
            return Err(AskError::NotConnected(node.to_owned()));
        }
        let room = if matches!(ask, Ask::Watch(_)) { ANSWERS } else { MANY_ANSWERS };
        let (sender, answers) = mpsc::channel(room);
        state.next += 1;
        let id = state.next;
        let lost = Arc::new(AtomicU64::new(0));
        let question = Question {
            ask: ask.clone(),
            node: node.map(str::to_owned),
            answers: sender,
            lost: Arc::clone(&lost),
        };
        let wanted: Vec<String> =
            state.links.keys().filter(|node| question.concerns(node)).cloned().collect();
        state.questions.insert(id, question);
        telemetry::taps(state.questions.len());
        let mut nodes = Vec::new();
        for node in wanted {
            if state.send(&node, id, ask.clone()) {
                nodes.push(node);
            }
        }
        drop(state);
        Ok(Asked { hub: Arc::clone(self), id, nodes, answers, lost })
    }

    /// A proxy has opened its stream: it hears what is asked now. The receiver is what it is sent.
    pub fn enter(
        self: &Arc<Hub>,
        node: &str,
    ) -> (Presence, mpsc::Receiver<Result<wire::TapRequest, Status>>) {
        let (sender, receiver) = mpsc::channel(MESSAGES);
        let mut state = self.state();
        state.next += 1;
        let serial = state.next;
        state.links.insert(node.to_owned(), Link { serial, sender });
        let live = state.questions.iter().filter(|(_, one)| one.is_live() && one.concerns(node));
        let live: Vec<(u64, Ask)> = live.map(|(id, one)| (*id, one.ask.clone())).collect();
        for (id, ask) in live {
            state.send(node, id, ask);
        }
        drop(state);
        (Presence { hub: Arc::clone(self), node: node.to_owned(), serial }, receiver)
    }

    /// A proxy has told something.
    pub fn report(&self, node: &str, report: wire::TapReport) {
        let state = self.state();
        let Some(question) = state.questions.get(&report.id).filter(|one| one.concerns(node)) else { return };
        for event in report.events {
            let (began, json) = (event.time_microseconds, event.json);
            question.tell(Answer::Event { node: node.to_owned(), began, json });
        }
        if report.over_limit > 0 || report.lost > 0 {
            let (over_limit, lost) = (report.over_limit, report.lost);
            question.tell(Answer::Missed { node: node.to_owned(), over_limit, lost });
        }
        if report.done {
            let problem = (!report.problem.is_empty()).then_some(report.problem);
            question.tell(Answer::Done { node: node.to_owned(), problem });
        }
    }
}

/// A proxy's stream; it ends when this is dropped.
#[derive(Debug)]
pub struct Presence {
    hub: Arc<Hub>,
    node: String,
    serial: u64,
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut state = self.hub.state();
        // One that came back in the meantime stays.
        if state.links.get(&self.node).is_some_and(|link| link.serial == self.serial) {
            state.links.remove(&self.node);
        }
        for question in state.questions.values().filter(|one| !one.is_live() && one.concerns(&self.node)) {
            let problem = Some("its connection to meshd broke".to_owned());
            question.tell(Answer::Done { node: self.node.clone(), problem });
        }
    }
}

/// A question; it ends everywhere when this is dropped.
#[derive(Debug)]
pub struct Asked {
    hub: Arc<Hub>,
    id: u64,
    /// The nodes whose proxies were asked.
    pub nodes: Vec<String>,
    /// What they tell.
    pub answers: mpsc::Receiver<Answer>,
    lost: Arc<AtomicU64>,
}

impl Asked {
    /// Answers that nobody took in time.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Ends it at the proxies, which tell then that they are done.
    pub fn end(&self) {
        self.hub.end(self.id);
    }
}

impl Hub {
    fn end(&self, id: u64) {
        let mut state = self.state();
        let nodes: Vec<String> = match state.questions.get(&id) {
            Some(question) if question.is_live() => {
                state.links.keys().filter(|node| question.concerns(node)).cloned().collect()
            }
            _ => return,
        };
        for node in nodes {
            state.send(&node, id, Ask::End(wire::TapEnd {}));
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.hub.end(self.id);
        let mut state = self.hub.state();
        state.questions.remove(&self.id);
        telemetry::taps(state.questions.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch() -> Ask {
        Ask::Watch(wire::TapWatch::default())
    }

    fn event(id: u64) -> wire::TapReport {
        let events = vec![wire::TapEvent { time_microseconds: 1, json: b"{}".to_vec() }];
        wire::TapReport { id, events, ..wire::TapReport::default() }
    }

    #[test]
    fn a_question_reaches_proxies_that_are_there_and_those_that_come() {
        let hub = Arc::new(Hub::default());
        let (_h1, mut at_h1) = hub.enter("h1");
        let mut asked = hub.ask(&watch(), None).unwrap();
        assert_eq!(asked.nodes, ["h1"]);
        let (_h2, mut at_h2) = hub.enter("h2");
        let id = at_h1.try_recv().unwrap().unwrap().id;
        assert_eq!(at_h2.try_recv().unwrap().unwrap().id, id);
        hub.report("h2", event(id));
        assert!(matches!(asked.answers.try_recv(), Ok(Answer::Event { node, .. }) if node == "h2"));
        drop(asked);
        for receiver in [&mut at_h1, &mut at_h2] {
            assert!(matches!(receiver.try_recv().unwrap().unwrap().ask, Some(Ask::End(_))));
        }
        assert!(hub.state().questions.is_empty());
        let (_h3, mut at_h3) = hub.enter("h3");
        assert!(at_h3.try_recv().is_err());
    }

    #[test]
    fn only_the_node_that_is_meant_is_asked_and_heard() {
        let hub = Arc::new(Hub::default());
        let (_h1, mut at_h1) = hub.enter("h1");
        let (h2, mut at_h2) = hub.enter("h2");
        assert!(matches!(hub.ask(&watch(), Some("h9")), Err(AskError::NotConnected(_))));
        let past = Ask::Past(wire::TapPast::default());
        let mut asked = hub.ask(&past, Some("h2")).unwrap();
        assert!(at_h1.try_recv().is_err());
        let id = at_h2.try_recv().unwrap().unwrap().id;
        hub.report("h1", event(id));
        assert!(asked.answers.try_recv().is_err());
        drop(h2);
        assert!(matches!(asked.answers.try_recv(), Ok(Answer::Done { problem: Some(_), .. })));
    }

    #[test]
    fn who_does_not_read_misses_something_and_is_told() {
        let hub = Arc::new(Hub::default());
        let (_h1, mut at_h1) = hub.enter("h1");
        let asked = hub.ask(&watch(), None).unwrap();
        let id = at_h1.try_recv().unwrap().unwrap().id;
        (0..ANSWERS + 5).for_each(|_| hub.report("h1", event(id)));
        assert_eq!(asked.lost(), 5);
    }

    #[test]
    fn there_is_a_bound() {
        let hub = Arc::new(Hub::default());
        let asked: Vec<Asked> = (0..MOST_QUESTIONS).map(|_| hub.ask(&watch(), None).unwrap()).collect();
        assert!(matches!(hub.ask(&watch(), None), Err(AskError::TooMany)));
        drop(asked);
        assert!(hub.ask(&watch(), None).is_ok());
    }
}
