//! Metrics that are not as Istio has them: disabled ones, tags that are left out or set.

use std::borrow::Cow;

use mesh_core::telemetry::attribute::Attributes;
use mesh_core::telemetry::expression::Expression;
use mesh_core::telemetry::metrics::{Metric, Metrics, TagChange};
use mesh_core::vocab::name::Text;

use super::registry::Pairs;

/// So many different sets of changes are told apart at a time: as many as there are workloads, twice.
const MOST_SHAPES: usize = 256;

/// What is changed of the metrics of requests, byte streams, gRPC calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Requests,
    Streams,
    Messages,
}

impl Subject {
    fn metrics(self) -> &'static [Metric] {
        match self {
            Subject::Requests => {
                &[Metric::RequestCount, Metric::RequestDuration, Metric::RequestSize, Metric::ResponseSize]
            }
            Subject::Streams => &[
                Metric::TcpOpenedConnections,
                Metric::TcpClosedConnections,
                Metric::TcpSentBytes,
                Metric::TcpReceivedBytes,
            ],
            Subject::Messages => &[Metric::GrpcRequestMessages, Metric::GrpcResponseMessages],
        }
    }
}

/// A set of changes, with the expressions in it, each once.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) number: u32,
    metrics: Metrics,
    requests: Vec<Expression>,
    streams: Vec<Expression>,
    messages: Vec<Expression>,
}

impl Shape {
    fn new(number: u32, metrics: &Metrics) -> Shape {
        let of = |subject: Subject| {
            let mut expressions: Vec<Expression> = Vec::new();
            let changes = subject.metrics().iter().filter_map(|metric| metrics.changes.get(metric));
            for change in changes.filter(|change| !change.disabled).flat_map(|change| change.tags.values()) {
                if let TagChange::Set(expression) = change
                    && !expressions.contains(expression)
                {
                    expressions.push(expression.clone());
                }
            }
            expressions
        };
        Shape {
            number,
            requests: of(Subject::Requests),
            streams: of(Subject::Streams),
            messages: of(Subject::Messages),
            metrics: metrics.clone(),
        }
    }

    fn expressions(&self, subject: Subject) -> &[Expression] {
        match subject {
            Subject::Requests => &self.requests,
            Subject::Streams => &self.streams,
            Subject::Messages => &self.messages,
        }
    }

    /// What its expressions say of something.
    pub(super) fn values(&self, subject: Subject, of: &dyn Attributes) -> Box<[Text]> {
        self.expressions(subject).iter().map(|expression| Text::from(expression.as_text(of))).collect()
    }

    pub(super) fn changed<'a>(&'a self, subject: Subject, values: &'a [Text]) -> Changed<'a> {
        Changed { metrics: &self.metrics, expressions: self.expressions(subject), values }
    }
}

/// The sets of changes that a data thread has met.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    known: Vec<std::rc::Rc<Shape>>,
    next: u32,
}

impl Shapes {
    /// The set as this thread keeps it.
    pub(super) fn of(&mut self, metrics: &Metrics) -> std::rc::Rc<Shape> {
        if let Some(known) = self.known.iter().find(|shape| shape.metrics == *metrics) {
            return std::rc::Rc::clone(known);
        }
        if self.known.len() >= MOST_SHAPES {
            self.known.clear();
        }
        let shape = std::rc::Rc::new(Shape::new(self.next, metrics));
        self.next = self.next.wrapping_add(1);
        self.known.push(std::rc::Rc::clone(&shape));
        shape
    }

    /// Forgets them: those of snapshots that are gone would stay otherwise.
    pub(super) fn clear(&mut self) {
        self.known.clear();
    }
}

/// Changes, with what expressions say of one exchange.
#[derive(Debug, Clone, Copy)]
pub(super) struct Changed<'a> {
    metrics: &'a Metrics,
    expressions: &'a [Expression],
    values: &'a [Text],
}

impl<'a> Changed<'a> {
    /// The labels of a metric; `None` if it is disabled.
    pub(super) fn pairs<'b>(&self, metric: Metric, pairs: &'b Pairs<'a>) -> Option<Cow<'b, Pairs<'a>>> {
        let Some(change) = self.metrics.changes.get(&metric) else { return Some(Cow::Borrowed(pairs)) };
        if change.disabled {
            return None;
        }
        let mut changed = pairs.clone();
        for (tag, change) in &change.tags {
            let there = changed.iter().position(|(name, _)| *name == &**tag);
            match (change, there) {
                (TagChange::Remove, Some(index)) => {
                    changed.remove(index);
                }
                (TagChange::Remove, None) => {}
                (TagChange::Set(expression), there) => {
                    let index = self.expressions.iter().position(|known| known == expression);
                    let value =
                        index.and_then(|index| self.values.get(index)).map_or("unknown", |value| &**value);
                    match there {
                        Some(index) => changed[index].1 = value,
                        None => changed.push((&**tag, value)),
                    }
                }
            }
        }
        Some(Cow::Owned(changed))
    }
}
