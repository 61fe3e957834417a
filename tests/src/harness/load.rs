//! Traffic that goes on while something happens, every request of it accounted for.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::client::{Answer, Ask, Client};
use super::netns::Namespace;

/// What is kept of one answer: a name to count it under, or what was wrong with it.
pub type Judge = fn(&Answer) -> Result<String, String>;

/// One request of the load.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When it was sent, since the load began.
    pub at: Duration,
    /// How long it took.
    pub took: Duration,
    /// The judge's verdict, or the transport's error.
    pub verdict: Result<String, String>,
}

/// The load to make.
#[derive(Clone, Debug)]
pub struct LoadSpec {
    /// The request, made again and again.
    pub ask: Ask,
    /// How many connections make it at once.
    pub connections: usize,
    /// The pause of each connection between two requests.
    pub pause: Duration,
    /// Ends after so many requests in all, if given.
    pub count: Option<usize>,
    /// How answers are judged.
    pub judge: Judge,
}

/// A load that is running.
pub struct Load {
    samples: Arc<Mutex<Vec<Sample>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
    began: Instant,
}

impl Load {
    /// Starts it from a host, as a user.
    pub fn start(host: &Namespace, user: Option<u32>, spec: LoadSpec) -> Self {
        let samples = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let began = Instant::now();
        let (into, ending) = (samples.clone(), stop.clone());
        let thread = host.spawn(user, move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
                return;
            };
            tokio::task::LocalSet::new().block_on(&runtime, drive(spec, into, ending, began));
        });
        Self { samples, stop, thread: Some(thread), began }
    }

    /// Runs a load to its end and returns what became of it.
    pub fn run(host: &Namespace, user: Option<u32>, spec: LoadSpec) -> Tally {
        let mut load = Self::start(host, user, spec);
        load.join();
        load.tally()
    }

    /// How many requests have been answered so far.
    pub fn len(&self) -> usize {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether nothing has been answered so far.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The time since it began.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// What became of the requests sent since a moment of the load.
    pub fn tally_since(&self, since: Duration) -> Tally {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        Tally::of(samples.iter().filter(|s| s.at >= since))
    }

    /// What became of all requests so far.
    pub fn tally(&self) -> Tally {
        self.tally_since(Duration::ZERO)
    }

    /// Every request so far.
    pub fn samples(&self) -> Vec<Sample> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops it, after the requests at hand, and returns what became of it.
    pub fn stop(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        self.join();
        self.tally()
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.join();
    }
}

/// The sum of a load.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How many requests were made.
    pub total: usize,
    /// Good answers by the judge's name for them.
    pub counts: BTreeMap<String, usize>,
    /// Failures by their reason.
    pub failures: BTreeMap<String, usize>,
    /// The longest that one took.
    pub slowest: Duration,
}

impl Tally {
    fn of<'a>(samples: impl Iterator<Item = &'a Sample>) -> Self {
        let mut tally = Self::default();
        for sample in samples {
            tally.total += 1;
            tally.slowest = tally.slowest.max(sample.took);
            match &sample.verdict {
                Ok(name) => *tally.counts.entry(name.clone()).or_default() += 1,
                Err(reason) => *tally.failures.entry(reason.clone()).or_default() += 1,
            }
        }
        tally
    }

    /// How many failed.
    pub fn failed(&self) -> usize {
        self.failures.values().sum()
    }

    /// How many were answered under a name.
    pub fn count(&self, name: &str) -> usize {
        self.counts.get(name).copied().unwrap_or(0)
    }

    /// Whether the share of a name is what `expected` (0 to 1) allows: within four standard deviations.
    pub fn is_share(&self, name: &str, expected: f64) -> bool {
        let total = self.total as f64;
        let slack = 4.0 * (expected * (1.0 - expected) / total.max(1.0)).sqrt();
        self.total > 0 && (self.count(name) as f64 / total - expected).abs() <= slack + f64::EPSILON
    }

    /// The counts in words.
    pub fn figure(&self) -> String {
        let mut parts: Vec<String> = self.counts.iter().map(|(name, n)| format!("{name} {n}")).collect();
        parts.extend(self.failures.iter().take(4).map(|(reason, n)| format!("FAILED {n}: {reason}")));
        format!("{} of {} requests", parts.join(", "), self.total)
    }
}

async fn drive(spec: LoadSpec, samples: Arc<Mutex<Vec<Sample>>>, stop: Arc<AtomicBool>, began: Instant) {
    let spec = std::rc::Rc::new(spec);
    let left = std::rc::Rc::new(std::cell::Cell::new(spec.count.unwrap_or(usize::MAX)));
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..spec.connections {
        let (spec, samples, stop, left) = (spec.clone(), samples.clone(), stop.clone(), left.clone());
        workers.spawn_local(async move {
            let mut client = Client::default();
            while !stop.load(Ordering::Relaxed) && left.get() > 0 {
                left.set(left.get() - 1);
                let at = began.elapsed();
                let outcome = client.ask(&spec.ask).await;
                let verdict = match &outcome {
                    Ok(answer) => (spec.judge)(answer),
                    Err(error) => Err(format!("{error:#}")),
                };
                let took = began.elapsed().saturating_sub(at);
                samples.lock().unwrap_or_else(PoisonError::into_inner).push(Sample { at, took, verdict });
                if outcome.is_err() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                if !spec.pause.is_zero() {
                    tokio::time::sleep(spec.pause).await;
                }
            }
        });
    }
    while workers.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(good: usize, total: usize, expected: f64, within: bool) {
        let tally = Tally { total, counts: BTreeMap::from([("v1".to_owned(), good)]), ..Tally::default() };
        assert_eq!(tally.is_share("v1", expected), within, "{good} of {total} at {expected}");
    }

    #[test]
    fn shares_have_binomial_bounds() {
        check(900, 1000, 0.9, true);
        check(930, 1000, 0.9, true);
        check(960, 1000, 0.9, false);
        check(1000, 1000, 1.0, true);
        check(999, 1000, 1.0, false);
        check(1, 1000, 0.0, false);
        check(0, 0, 0.0, false);
    }
}
