//! The logs of a proxy: one way and one thread for each path, whichever snapshots name it. Data threads hand over whole
//! buffers and never wait; a way ends when the last of them has let go of it, after everything was written.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mesh_core::vocab::name::Text;
use metrics::{Counter, Gauge};

use super::target::Target;
use crate::telemetry::metrics::Metrics;

/// How often buffers are looked for while they come.
const LOOK: Duration = Duration::from_millis(10);
/// Buffers that wait to be written.
const QUEUE: usize = 64;
/// Written buffers that are kept to be filled again.
const MOST_SPARE: usize = 4;
/// Logs at a time.
const MOST: usize = 32;

/// The way to one log.
#[derive(Debug)]
pub struct Way {
    name: Text,
    sender: SyncSender<Vec<u8>>,
    rest: Arc<Rest>,
}

/// What both ends of a way have.
#[derive(Debug, Default)]
struct Rest {
    /// Written buffers: to use them again is cheaper than new memory from another thread.
    spare: Mutex<Vec<Vec<u8>>>,
    /// Lines that were lost, and buffers that wait.
    told: OnceLock<(Counter, Gauge)>,
}

impl Rest {
    fn lose(&self, lines: &[u8]) {
        if let Some((dropped, _)) = self.told.get() {
            dropped.increment(lines.iter().filter(|byte| **byte == b'\n').count() as u64);
        }
    }

    /// One buffer more waits, or one less.
    fn wait(&self, change: f64) {
        if let Some((_, waiting)) = self.told.get() {
            waiting.increment(change);
        }
    }
}

impl Way {
    /// Has what is lost counted.
    pub fn count(&self, metrics: &Metrics) {
        self.rest.told.get_or_init(|| (metrics.log_dropped(&self.name), metrics.log_waiting(&self.name)));
    }

    /// Hands a buffer over and leaves an empty one; what there is no room for is lost, and counted.
    pub fn hand_over(&self, buffer: &mut Vec<u8>) {
        if buffer.is_empty() {
            return;
        }
        let spare = self.rest.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let full = std::mem::replace(buffer, spare.unwrap_or_default());
        // Before: the thread may be sooner than this one.
        self.rest.wait(1.0);
        if let Err(TrySendError::Full(lost) | TrySendError::Disconnected(lost)) = self.sender.try_send(full) {
            self.rest.wait(-1.0);
            self.rest.lose(&lost);
        }
    }
}

/// All logs of a proxy.
#[derive(Debug, Clone, Default)]
pub struct Sinks(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    open: Mutex<BTreeMap<Text, Weak<Way>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// How often the proxy was told to open its logs anew.
    reopen: Arc<AtomicU64>,
}

impl Sinks {
    /// The way to a path, begun where there is none. `None` where there are too many.
    pub fn way(&self, path: &Text) -> Option<Arc<Way>> {
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(way) = open.get(path).and_then(Weak::upgrade) {
            return Some(way);
        }
        open.retain(|_, way| way.strong_count() > 0);
        if open.len() >= MOST {
            tracing::error!(
                path = &**path,
                most = MOST,
                "there are too many access logs: this one is not written"
            );
            return None;
        }
        let target = Target::at(path, &self.0.reopen);
        match self.start(path.clone(), target) {
            Ok(way) => {
                open.insert(path.clone(), Arc::downgrade(&way));
                Some(way)
            }
            Err(error) => {
                tracing::error!(path = &**path, %error, "no thread for an access log: it is not written");
                None
            }
        }
    }

    /// A way into something that is open.
    pub fn start(&self, name: Text, target: Target) -> std::io::Result<Arc<Way>> {
        let (sender, receiver) = sync_channel(QUEUE);
        let rest = Arc::<Rest>::default();
        let (emptied, told) = (Arc::clone(&rest), name.clone());
        let write = move || write_all(&receiver, &emptied, target, &told);
        let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(write)?;
        let mut threads = self.0.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|thread| !thread.is_finished());
        threads.push(thread);
        Ok(Arc::new(Way { name, sender, rest }))
    }

    /// Has every file opened anew (SIGUSR1).
    pub fn reopen(&self) {
        self.0.reopen.fetch_add(1, Ordering::Relaxed);
        for way in self.0.open.lock().unwrap_or_else(PoisonError::into_inner).values() {
            if let Some(way) = way.upgrade() {
                // Wakes the thread; one that has something to write needs no waking.
                drop(way.sender.try_send(Vec::new()));
            }
        }
    }

    /// Waits until everything is written, but not for a reader that does not read. All ways must have been let go of.
    pub fn finish(&self, limit: Duration) {
        let until = Instant::now() + limit;
        let threads = std::mem::take(&mut *self.0.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            while !thread.is_finished() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// Writes what comes. Under load it looks once in a while instead of being woken for each buffer: waking is dear for
/// the data thread that does it. A log that cannot be written is told of once, until it can be again.
fn write_all(receiver: &Receiver<Vec<u8>>, rest: &Rest, mut target: Target, name: &str) {
    let mut fails = false;
    while let Ok(first) = receiver.recv() {
        let mut next = Some(first);
        while let Some(buffer) = next.take() {
            for buffer in std::iter::once(buffer).chain(receiver.try_iter()) {
                // What only wakes was not counted.
                if buffer.capacity() > 0 {
                    rest.wait(-1.0);
                }
                match target.write(&buffer) {
                    Ok(()) if fails && !buffer.is_empty() => {
                        fails = false;
                        tracing::info!(log = name, "the access log is written again");
                    }
                    Ok(()) => {}
                    Err(error) => {
                        // Traffic goes on without its log.
                        rest.lose(&buffer);
                        if !std::mem::replace(&mut fails, true) {
                            tracing::warn!(log = name, %error, "the access log cannot be written");
                        }
                    }
                }
                keep(rest, buffer);
            }
            std::thread::sleep(LOOK);
            next = receiver.try_recv().ok();
        }
    }
}

fn keep(rest: &Rest, mut buffer: Vec<u8>) {
    buffer.clear();
    let mut spare = rest.spare.lock().unwrap_or_else(PoisonError::into_inner);
    if spare.len() < MOST_SPARE && buffer.capacity() > 0 {
        spare.push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_way_as_long_as_somebody_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let text: Text = path.to_str().unwrap().into();
        let sinks = Sinks::default();
        let (one, other) = (sinks.way(&text).unwrap(), sinks.way(&text).unwrap());
        assert!(Arc::ptr_eq(&one, &other));
        one.hand_over(&mut b"a\n".to_vec());
        drop(one);
        other.hand_over(&mut b"b\n".to_vec());
        drop(other);
        // What was handed over before is written, in order, though another way begins meanwhile.
        sinks.finish(Duration::from_secs(10));
        sinks.way(&text).unwrap().hand_over(&mut b"c\n".to_vec());
        sinks.finish(Duration::from_secs(10));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\nb\nc\n");
    }

    #[test]
    fn what_is_lost_is_counted_by_log() {
        let metrics = Metrics::default();
        let sinks = Sinks::default();
        let way = sinks.way(&"/dev/full".into()).unwrap();
        way.count(&metrics);
        way.hand_over(&mut b"a\nb\n".to_vec());
        drop(way);
        sinks.finish(Duration::from_secs(10));
        let rendered = metrics.render();
        let expected = "mesh_proxy_access_log_dropped_total{sink=\"/dev/full\"} 2";
        assert!(rendered.contains(expected), "{rendered}");
    }

    #[test]
    fn there_are_not_more_than_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let sinks = Sinks::default();
        let path = |index: usize| -> Text { folder.path().join(index.to_string()).to_str().unwrap().into() };
        let ways: Vec<_> = (0..MOST).map(|index| sinks.way(&path(index)).unwrap()).collect();
        assert!(sinks.way(&path(MOST)).is_none());
        drop(ways);
        assert!(sinks.way(&path(MOST)).is_some());
    }
}
