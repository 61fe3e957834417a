//! Publisher and subscriber over a wire that delays, breaks and loses.

use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;

use super::message::{Ack, DeltaMessage, Hello, ListenerFault, Nack, digests};
use super::publisher::{Publisher, SyncStatus};
use super::subscriber::Subscriber;
use crate::snapshot::section::{Section, SectionKey};
use crate::snapshot::service::Service;
use crate::snapshot::{Entry, Snapshot, Version};
use crate::vocab::node::{Node, Role};
use crate::vocab::origin::Origin;

/// The content that the fake proxy refuses.
const BAD: u32 = 0;

fn node() -> Node {
    Node { name: "h1".into(), address: [10, 0, 0, 1].into(), role: Role::Host }
}

/// A snapshot with the service `s0`, `s1`, ... of each entry that is `Some`; the number stands for its content.
fn snapshot(number: u64, contents: &[Option<u32>]) -> Arc<Snapshot> {
    let section = |(index, content): (usize, &Option<u32>)| {
        let section = Section::Service(Service {
            host: format!("s{index}").into(),
            namespace: "default".into(),
            origin: Origin { resource: "service/default/s".into(), rule: None },
            names: Vec::new(),
            short_name: None,
            ports: Vec::new(),
            addresses: Vec::new(),
            offset: Some((*content)?),
            external: false,
            scope: None,
            exported_to: None,
            aliases: Vec::new(),
            networks: Vec::new(),
            auto_address: None,
            resolution: Default::default(),
            headless: false,
            stands_for: None,
        });
        Some((section.key(), Entry::new(section)))
    };
    let sections = contents.iter().enumerate().filter_map(section).collect();
    Arc::new(Snapshot { version: Version { number, revision: 0 }, sections })
}

/// Which sections of a snapshot the fake proxy refuses.
fn bad_sections(snapshot: &Snapshot) -> Vec<(Option<SectionKey>, String)> {
    let is_bad = |entry: &Entry| matches!(&*entry.section, Section::Service(s) if s.offset == Some(BAD));
    let bad = snapshot.sections.iter().filter(|(_, entry)| is_bad(entry));
    bad.map(|(key, _)| (Some(key.clone()), "refused".to_owned())).collect()
}

enum Up {
    Hello(Hello),
    Ack(Ack),
    Nack(Nack),
}

/// One proxy, one control plane and the stream between them, while there is one.
struct Wire {
    subscriber: Subscriber,
    publisher: Publisher,
    published: Vec<Arc<Snapshot>>,
    connected: bool,
    up: VecDeque<Up>,
    down: VecDeque<DeltaMessage>,
}

impl Wire {
    fn new() -> Wire {
        Wire {
            subscriber: Subscriber::new(node(), None),
            publisher: Publisher::new(),
            published: vec![snapshot(0, &[])],
            connected: false,
            up: VecDeque::new(),
            down: VecDeque::new(),
        }
    }

    fn newest(&self) -> Arc<Snapshot> {
        self.published.last().unwrap().clone()
    }

    fn publish(&mut self, contents: &[Option<u32>]) {
        let next = snapshot(self.published.len() as u64, contents);
        self.published.push(next.clone());
        if self.connected {
            self.down.extend(self.publisher.on_snapshot(next));
        }
    }

    /// Whatever was on its way is lost, and the next stream ends at a publisher that knows nothing.
    fn break_stream(&mut self) {
        self.connected = false;
        self.up.clear();
        self.down.clear();
        self.publisher = Publisher::new();
    }

    fn connect(&mut self) {
        if !self.connected {
            self.connected = true;
            let hello = self.subscriber.hello();
            self.up.push_back(Up::Hello(hello));
        }
    }

    /// Delivers one message to meshd; false if there is none.
    fn deliver_up(&mut self) -> bool {
        let newest = self.newest();
        let answer = match self.up.pop_front() {
            None => return false,
            Some(Up::Hello(hello)) => self.publisher.on_hello(hello, newest),
            Some(Up::Ack(ack)) => self.publisher.on_ack(ack),
            Some(Up::Nack(nack)) => self.publisher.on_nack(&nack),
        };
        self.down.extend(answer);
        true
    }

    /// Delivers one delta to the proxy, which decides about it; false if there is none.
    fn deliver_down(&mut self) -> bool {
        let Some(message) = self.down.pop_front() else { return false };
        let candidate = self.subscriber.on_delta(&message);
        let reasons = bad_sections(&candidate.snapshot);
        self.up.push_back(if reasons.is_empty() {
            Up::Ack(self.subscriber.accept(candidate.nonce, Vec::new()).unwrap())
        } else {
            Up::Nack(self.subscriber.reject(candidate.nonce, reasons).unwrap())
        });
        true
    }

    /// An answer from a stream that is long gone.
    fn stale_answers(&mut self) {
        let version = Version { number: 999, revision: 9 };
        assert_eq!(self.publisher.on_ack(Ack { nonce: 0, version, listener_faults: Vec::new() }), None);
        assert_eq!(self.publisher.on_nack(&Nack { nonce: 0, reasons: Vec::new() }), None);
    }

    /// The proxy's process starts anew with its last good snapshot.
    fn restart_proxy(&mut self) {
        self.break_stream();
        self.subscriber = Subscriber::new(node(), self.subscriber.current().cloned());
    }

    fn settle(&mut self) {
        self.connect();
        let mut steps = 0;
        while self.deliver_up() || self.deliver_down() {
            steps += 1;
            assert!(steps < 16, "the stream does not come to rest");
        }
    }

    #[track_caller]
    fn check_invariants(&self) {
        assert!(self.down.len() <= 1, "more than one delta outstanding");
        if let Some(current) = self.subscriber.current() {
            assert_eq!(bad_sections(current), [], "refused content is in force");
            assert!(self.published.contains(current), "a mix of snapshots is in force");
        }
        if self.publisher.state().status == SyncStatus::Synced {
            assert_eq!(self.subscriber.current(), Some(&self.newest()));
        }
    }

    #[track_caller]
    fn check_converged(&self) {
        let newest = self.newest();
        let state = self.publisher.state();
        if bad_sections(&newest).is_empty() {
            assert_eq!(self.subscriber.current(), Some(&newest));
            assert_eq!((state.status, state.reason.as_str()), (SyncStatus::Synced, ""));
        } else {
            assert_eq!(state.status, SyncStatus::Rejected);
            assert!(state.reason.ends_with(": refused"), "{}", state.reason);
        }
        assert_eq!(state.acknowledged, self.subscriber.version());
    }
}

#[derive(Debug, Clone)]
enum Step {
    Publish(Vec<Option<u32>>),
    PublishSameContent,
    Connect,
    Break,
    RestartProxy,
    DeliverUp,
    DeliverDown,
    StaleAnswers,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // One content in nine is refused, so that a snapshot of up to five sections is accepted more often than not.
    let contents = prop::collection::vec(prop::option::of(0..9u32), 0..5);
    let step = prop_oneof![
        4 => contents.prop_map(Step::Publish),
        1 => Just(Step::PublishSameContent),
        3 => Just(Step::Connect),
        1 => Just(Step::Break),
        1 => Just(Step::RestartProxy),
        6 => Just(Step::DeliverUp),
        6 => Just(Step::DeliverDown),
        1 => Just(Step::StaleAnswers),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    #[test]
    fn publisher_and_subscriber_converge(steps in steps()) {
        let mut wire = Wire::new();
        let mut contents = Vec::new();
        for step in steps {
            match step {
                Step::Publish(next) => {
                    contents = next;
                    wire.publish(&contents);
                }
                Step::PublishSameContent => wire.publish(&contents),
                Step::Connect => wire.connect(),
                Step::Break => wire.break_stream(),
                Step::RestartProxy => wire.restart_proxy(),
                Step::DeliverUp => drop(wire.deliver_up()),
                Step::DeliverDown => drop(wire.deliver_down()),
                Step::StaleAnswers => wire.stale_answers(),
            }
            wire.check_invariants();
        }
        wire.settle();
        wire.check_invariants();
        wire.check_converged();
    }

    #[test]
    fn a_delta_leads_from_what_is_held_to_what_is_wanted(
        held in prop::collection::vec(prop::option::of(0..3u32), 0..6),
        wanted in prop::collection::vec(prop::option::of(0..3u32), 0..6),
    ) {
        let (held, wanted) = (snapshot(1, &held), snapshot(2, &wanted));
        let delta = crate::snapshot::delta::Delta::between(&digests(&held), &wanted);
        prop_assert_eq!(&delta.apply(&held), &*wanted);
        for (key, entry) in &delta.upserts {
            prop_assert_ne!(held.sections.get(key), Some(entry));
        }
    }
}

/// A publisher to which a proxy without a snapshot said hello, and the first delta.
fn greeted(first: Arc<Snapshot>) -> (Publisher, DeltaMessage) {
    let mut publisher = Publisher::new();
    let hello = Subscriber::new(node(), None).hello();
    let delta = publisher.on_hello(hello, first).unwrap();
    (publisher, delta)
}

fn ack(message: &DeltaMessage) -> Ack {
    Ack { nonce: message.nonce, version: message.delta.version, listener_faults: Vec::new() }
}

#[test]
fn a_slow_proxy_gets_the_newest_and_no_queue() {
    let (mut publisher, first) = greeted(snapshot(1, &[Some(1)]));
    assert_eq!(publisher.on_snapshot(snapshot(2, &[Some(2)])), None);
    assert_eq!(publisher.on_snapshot(snapshot(3, &[Some(3)])), None);
    let next = publisher.on_ack(ack(&first)).unwrap();
    assert_eq!(next.delta.version.number, 3);
    assert_eq!(publisher.state().status, SyncStatus::Stale);
    assert_eq!(publisher.on_ack(ack(&next)), None);
    assert_eq!(publisher.state().status, SyncStatus::Synced);
}

#[test]
fn a_version_that_changes_nothing_is_sent_empty() {
    let (mut publisher, first) = greeted(snapshot(1, &[Some(1)]));
    publisher.on_ack(ack(&first));
    let next = publisher.on_snapshot(snapshot(2, &[Some(1)])).unwrap();
    assert!(next.delta.is_empty());
    assert_eq!(next.delta.version.number, 2);
}

#[test]
fn refused_content_is_sent_once() {
    let (mut publisher, first) = greeted(snapshot(1, &[Some(1)]));
    publisher.on_ack(ack(&first));
    let refused = publisher.on_snapshot(snapshot(2, &[Some(BAD)])).unwrap();
    let nack = Nack { nonce: refused.nonce, reasons: vec![(None, "no".to_owned())] };
    assert_eq!(publisher.on_nack(&nack), None);
    assert_eq!(publisher.on_snapshot(snapshot(3, &[Some(BAD)])), None);
    let state = publisher.state();
    assert_eq!((state.status, state.reason.as_str()), (SyncStatus::Rejected, "no"));
    assert_eq!(state.acknowledged.map(|version| version.number), Some(1));
    assert!(publisher.on_snapshot(snapshot(4, &[Some(1)])).unwrap().delta.is_empty());
}

#[test]
fn an_answer_to_another_delta_is_ignored() {
    let (mut publisher, first) = greeted(snapshot(1, &[Some(1)]));
    publisher.on_snapshot(snapshot(2, &[Some(2)]));
    let stale = Ack { nonce: first.nonce + 1, ..ack(&first) };
    assert_eq!(publisher.on_ack(stale), None);
    assert_eq!(publisher.state().acknowledged, None);
}

#[test]
fn a_reconnect_resends_only_what_differs() {
    let held = snapshot(1, &[Some(1), Some(2), Some(3)]);
    let hello = Subscriber::new(node(), Some(held)).hello();
    let mut publisher = Publisher::new();
    let message = publisher.on_hello(hello, snapshot(2, &[Some(1), Some(4), None])).unwrap();
    let keys: Vec<String> = message.delta.upserts.iter().map(|(key, _)| key.to_string()).collect();
    assert_eq!(keys, ["service/s1"]);
    assert_eq!(message.delta.removals, [SectionKey::Service { host: "s2".into(), scope: None }]);
}

#[test]
fn listener_faults_are_shown_and_do_not_reject() {
    let (mut publisher, first) = greeted(snapshot(1, &[Some(1)]));
    let fault = ListenerFault { address: "127.0.0.1:15008".into(), reason: "in use".into() };
    publisher.on_ack(Ack { listener_faults: vec![fault.clone()], ..ack(&first) });
    assert_eq!(publisher.state().status, SyncStatus::Synced);
    assert_eq!(publisher.state().listener_faults, [fault]);
}
