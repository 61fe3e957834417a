//! The access log of a data thread. It formats into buffers of its own, one for each log; threads of their own write what
//! the buffers held (`log/sinks.rs`). Where a log is written too slowly whole buffers are dropped and counted: traffic
//! never waits for its log.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::telemetry::Side;
use mesh_core::telemetry::logs::{Log, Logs, is_sampled};
use mesh_core::vocab::name::Text;
use mesh_core::vocab::ratio::Ratio;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::asked::Asked;
use super::entry::Entry;
use super::export::Exporter;
use super::line::{self, Clock};
use super::log::lines::{Pen, Set};
use super::log::sinks::{Sinks, Way};
use super::log::target::Target;
use super::log::value::{Here, Told};
use super::metrics::SeriesCache;

/// Buffers that do not fill are handed over after so long.
const LONGEST_WAIT: Duration = Duration::from_millis(50);
/// Logs that nothing was written to for so long are let go of, and how often is looked for them.
const UNUSED: Duration = Duration::from_secs(120);
const SWEEP: Duration = Duration::from_secs(60);
/// Sets of logs that a data thread keeps ready.
const MOST_SETS: usize = 64;

/// How records look that nothing is declared for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// None is written.
    Off,
    /// Istio's text format.
    Text,
    /// Istio's JSON format.
    Json,
}

/// What the logs of all data threads have in common.
#[derive(Debug, Clone)]
pub struct AccessSink {
    format: Format,
    started: Option<Arc<Way>>,
    sinks: Sinks,
    share: Ratio,
    host: Text,
}

impl AccessSink {
    /// Logs of which those that nothing is declared for go into `out`.
    pub fn start(format: Format, out: impl Write + Send + 'static) -> std::io::Result<AccessSink> {
        let off = AccessSink::off();
        let started = match format {
            Format::Off => None,
            Format::Text | Format::Json => {
                Some(off.sinks.start("/dev/stdout".into(), Target::Open(Box::new(out)))?)
            }
        };
        Ok(AccessSink { format, started, ..off })
    }

    /// Nothing is written but what is declared.
    pub fn off() -> AccessSink {
        let (format, started, sinks) = (Format::Off, None, Sinks::default());
        AccessSink { format, started, sinks, share: Ratio::ONE, host: "".into() }
    }

    /// Only a share of what went well is told.
    pub fn sampled(self, share: Ratio) -> AccessSink {
        AccessSink { share, ..self }
    }

    /// On a host of that name.
    pub fn on(self, host: Text) -> AccessSink {
        AccessSink { host, ..self }
    }

    /// Where all of them go.
    pub fn sinks(&self) -> &Sinks {
        &self.sinks
    }
}

/// A data thread's access log.
#[derive(Debug)]
pub struct AccessLog {
    sink: AccessSink,
    series: Rc<SeriesCache>,
    exporter: Exporter,
    here: Here,
    started: Option<Rc<Pen>>,
    pens: RefCell<Vec<Rc<Pen>>>,
    sets: RefCell<Vec<Rc<Set>>>,
    filled: Notify,
    clock: Clock,
    swept: Cell<Instant>,
}

impl AccessLog {
    /// The log of a data thread.
    pub fn new(sink: AccessSink, series: Rc<SeriesCache>, exporter: Exporter) -> AccessLog {
        let pen = |way: &Arc<Way>| {
            way.count(series.metrics());
            Rc::new(Pen { way: Arc::clone(way), buffer: RefCell::default() })
        };
        AccessLog {
            started: sink.started.as_ref().map(pen),
            here: Here::on(sink.host.clone()),
            sink,
            series,
            exporter,
            pens: RefCell::default(),
            sets: RefCell::default(),
            filled: Notify::new(),
            clock: Clock::default(),
            swept: Cell::new(Instant::now()),
        }
    }

    /// Whether entries are written that nothing is declared for.
    pub fn is_on(&self) -> bool {
        self.started.is_some()
    }

    /// Writes what is to be told of something that ends now.
    pub fn write(&self, entry: &Entry<'_>, side: &Side) {
        let declared = match &side.logs {
            Logs::AsStarted => None,
            Logs::These(logs) if logs.is_empty() => return,
            Logs::These(logs) => Some(logs),
        };
        if self.sink.share != Ratio::ONE && !self.is_chosen(entry) {
            return;
        }
        let begun = match (declared, &self.started) {
            (Some(logs), _) => self.write_declared(logs, entry),
            (None, None) => return,
            (None, Some(pen)) => pen.write(|out| match self.sink.format {
                Format::Off => {}
                Format::Text => line::text(entry, &self.clock, out),
                Format::Json => line::json(entry, &self.clock, out),
            }),
        };
        if begun {
            self.filled.notify_one();
        }
    }

    /// What went wrong is always told; of the rest the share that was asked for.
    #[cold]
    fn is_chosen(&self, entry: &Entry<'_>) -> bool {
        let failed = !entry.flags.is_empty() || !entry.termination.is_empty();
        let refused = entry.code >= 400 || (entry.code == 0 && !entry.protocol.is_empty());
        if failed || refused {
            return true;
        }
        match entry.request_id {
            Some(id) => is_sampled(self.sink.share, id.as_bytes()),
            None => is_sampled(self.sink.share, entry.remote.to_string().as_bytes()),
        }
    }

    #[cold]
    fn write_declared(&self, declared: &[Log], entry: &Entry<'_>) -> bool {
        let set = self.set(declared);
        let asked = Asked::new(entry, &self.series);
        let told = Told { entry, asked: &asked, clock: &self.clock, here: &self.here };
        set.write(&told, &self.exporter)
    }

    /// The set of these logs. They are compared whole, which is quick for the same snapshot: its texts are the same ones.
    fn set(&self, declared: &[Log]) -> Rc<Set> {
        let mut sets = self.sets.borrow_mut();
        let now = Instant::now();
        if let Some(set) = sets.iter().find(|set| *set.declared.borrow() == declared) {
            set.used.set(now);
            let mut known = set.declared.borrow_mut();
            if known.first().map(|log| Arc::as_ptr(&log.origin))
                != declared.first().map(|log| Arc::as_ptr(&log.origin))
            {
                *known = declared.to_vec();
            }
            return Rc::clone(set);
        }
        if sets.len() >= MOST_SETS {
            sets.iter().for_each(|set| set.flush(&self.exporter));
            sets.clear();
        }
        let set = Rc::new(Set::new(declared, |path| self.pen(path), &self.exporter, now));
        sets.push(Rc::clone(&set));
        set
    }

    fn pen(&self, path: &Text) -> Option<Rc<Pen>> {
        // What the proxy was started with writes there too: its lines stay in order with these.
        if let Some(pen) = self.started.as_ref().filter(|_| &**path == "/dev/stdout") {
            return Some(Rc::clone(pen));
        }
        let way = self.sink.sinks.way(path)?;
        let mut pens = self.pens.borrow_mut();
        if let Some(pen) = pens.iter().find(|pen| Arc::ptr_eq(&pen.way, &way)) {
            return Some(Rc::clone(pen));
        }
        way.count(self.series.metrics());
        let pen = Rc::new(Pen { way, buffer: RefCell::default() });
        pens.push(Rc::clone(&pen));
        Some(pen)
    }

    /// Hands over what waits for more.
    pub fn flush(&self) {
        self.started.iter().for_each(|pen| pen.flush());
        self.pens.borrow().iter().for_each(|pen| pen.flush());
        self.sets.borrow().iter().for_each(|set| set.flush(&self.exporter));
    }

    /// Hands buffers over that do not fill, and lets go of logs that nothing is written to; runs as long as its data
    /// thread.
    pub async fn keep_flushing(self: Rc<AccessLog>) {
        loop {
            // A log that is not used needs no look.
            let is_idle = self.sets.borrow().is_empty() && self.pens.borrow().is_empty();
            tokio::select! {
                () = self.filled.notified() => {
                    tokio::time::sleep(LONGEST_WAIT).await;
                    self.flush();
                }
                () = tokio::time::sleep(SWEEP), if !is_idle => {}
            }
            if self.swept.get().elapsed() >= SWEEP {
                self.swept.set(Instant::now());
                self.sweep();
            }
        }
    }

    fn sweep(&self) {
        self.sets.borrow_mut().retain(|set| {
            let keep = set.used.get().elapsed() < UNUSED;
            if !keep {
                set.flush(&self.exporter);
            }
            keep
        });
        self.pens.borrow_mut().retain(|pen| Rc::strong_count(pen) > 1);
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests;
