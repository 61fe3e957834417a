//! The logs that resources declare, made ready: formats read, ways begun. A data thread makes this once for each set of
//! logs and finds it again by its content, so that it outlives snapshots.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use mesh_core::telemetry::expression::Expression;
use mesh_core::telemetry::format::Template;
use mesh_core::telemetry::logs::{Form, Log, Sink};
use mesh_core::vocab::name::Text;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::time::Instant;

use super::otlp::{RecordForm, resource};
use super::render;
use super::sinks::Way;
use super::value::Told;
use crate::telemetry::export::parcel::{Parcel, Place, Records, Signal};
use crate::telemetry::export::{Exporter, PARCEL};
use crate::telemetry::line;

/// A buffer is handed over when it holds so much, or after some time.
const BUFFER: usize = 128 * 1024;

/// A data thread's buffer for one way.
#[derive(Debug)]
pub struct Pen {
    /// The way.
    pub way: Arc<Way>,
    /// What is to be handed over.
    pub buffer: RefCell<Vec<u8>>,
}

impl Pen {
    /// Writes a line. True where nothing was waiting before.
    pub fn write(&self, line: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut buffer = self.buffer.borrow_mut();
        let was_empty = buffer.is_empty();
        line(&mut buffer);
        if buffer.len() >= BUFFER {
            self.way.hand_over(&mut buffer);
        }
        was_empty
    }

    /// Hands over what waits for more.
    pub fn flush(&self) {
        self.way.hand_over(&mut self.buffer.borrow_mut());
    }
}

impl Drop for Pen {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Records for one collector.
#[derive(Debug)]
struct Collected {
    place: Arc<Place>,
    name: Text,
    form: RecordForm,
    /// By the number of the workload that is told of.
    waiting: RefCell<Vec<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    own: u32,
    resource: Arc<Resource>,
    records: Vec<LogRecord>,
}

/// How one log is written.
#[derive(Debug)]
enum Manner {
    Lines(Rc<Pen>, Form),
    Records(Box<Collected>),
}

/// One log.
#[derive(Debug)]
struct Line {
    filter: Option<Expression>,
    manner: Manner,
}

/// A set of logs.
#[derive(Debug)]
pub struct Set {
    /// What it was made of.
    pub declared: RefCell<Vec<Log>>,
    /// When it was last used.
    pub used: Cell<Instant>,
    lines: Vec<Line>,
}

impl Set {
    /// Makes logs ready. One that cannot be written is told of and left out; one whose format cannot be read, for a newer
    /// control plane has let it pass, is written in Istio's.
    pub fn new(
        declared: &[Log],
        pen: impl Fn(&Text) -> Option<Rc<Pen>>,
        exporter: &Exporter,
        now: Instant,
    ) -> Set {
        let mut lines = Vec::with_capacity(declared.len());
        for log in declared {
            let manner = match &log.sink {
                Sink::File { path, format } => {
                    let Some(pen) = pen(path) else { continue };
                    Manner::Lines(
                        pen,
                        format.read().unwrap_or_else(|error| unreadable(log, &error, Form::Text(None))),
                    )
                }
                Sink::Otlp { collector, name, body, attributes } => {
                    let Some(place) = exporter.place(Signal::Logs, Some(collector)) else { continue };
                    let read = |format: &Text| match Template::parse(format) {
                        Ok(read) => Some(read),
                        Err(error) => unreadable(log, &error, None),
                    };
                    let attributes =
                        attributes.iter().filter_map(|(key, format)| Some((key.clone(), read(format)?)));
                    let form =
                        RecordForm { attributes: attributes.collect(), body: body.as_ref().and_then(read) };
                    let (name, waiting) = (name.clone(), RefCell::default());
                    Manner::Records(Box::new(Collected { place, name, form, waiting }))
                }
            };
            lines.push(Line { filter: log.filter.clone(), manner });
        }
        Set { declared: RefCell::new(declared.to_vec()), used: Cell::new(now), lines }
    }

    /// Tells an entry to each log that wants it. True where something waits now that was not waited for before.
    pub fn write(&self, told: &Told<'_>, exporter: &Exporter) -> bool {
        let mut begun = false;
        for line in &self.lines {
            if line.filter.as_ref().is_some_and(|filter| !filter.as_condition(told.asked)) {
                continue;
            }
            begun |= match &line.manner {
                Manner::Lines(pen, form) => pen.write(|out| match form {
                    Form::Text(None) => line::text(told.entry, told.clock, out),
                    Form::Json(None) => line::json(told.entry, told.clock, out),
                    Form::Text(Some(template)) => render::text(template, told, out),
                    Form::Json(Some(object)) => render::json(object, told, out),
                }),
                Manner::Records(records) => records.write(told, exporter),
            };
        }
        begun
    }

    /// Hands over what waits for more. What is written into files is flushed by its pen.
    pub fn flush(&self, exporter: &Exporter) {
        for line in &self.lines {
            if let Manner::Records(records) = &line.manner {
                records
                    .waiting
                    .borrow_mut()
                    .iter_mut()
                    .for_each(|waiting| records.hand_over(waiting, exporter));
            }
        }
    }
}

impl Collected {
    fn write(&self, told: &Told<'_>, exporter: &Exporter) -> bool {
        let own = told.entry.own();
        let mut all = self.waiting.borrow_mut();
        let begun = all.iter().all(|waiting| waiting.records.is_empty());
        let index = all.iter().position(|waiting| waiting.own == own).unwrap_or_else(|| {
            all.push(Waiting { own, resource: resource(told, &self.name), records: Vec::new() });
            all.len() - 1
        });
        let Some(waiting) = all.get_mut(index) else { return false };
        waiting.records.push(self.form.record(told));
        if waiting.records.len() >= PARCEL {
            self.hand_over(waiting, exporter);
        }
        begun
    }

    fn hand_over(&self, waiting: &mut Waiting, exporter: &Exporter) {
        let records = Records::Logs(std::mem::take(&mut waiting.records));
        let (place, resource) = (Arc::clone(&self.place), Arc::clone(&waiting.resource));
        exporter.hand_over(Parcel { place, resource, records });
    }
}

fn unreadable<T>(log: &Log, error: &dyn std::fmt::Display, instead: T) -> T {
    tracing::error!(
        provider = &*log.provider,
        origin = &*log.origin,
        %error,
        "the format of an access log cannot be read: Istio's is written"
    );
    instead
}
