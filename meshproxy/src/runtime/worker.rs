//! Data threads: one single-threaded runtime each. Work is handed to the least busy one and stays there.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;

/// Jobs that wait for one thread. What does not fit is refused: a thread that is so far behind would not serve it in time.
const QUEUE: usize = 1024;

/// How busy a thread is.
#[derive(Debug, Clone, Default)]
pub struct Load(Arc<AtomicUsize>);

impl Load {
    /// Counts one job until the guard is dropped.
    pub fn hold(&self) -> Busy {
        // Relaxed: a hint for the choice of a thread.
        self.0.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }

    fn now(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// One job that keeps a thread busy.
#[derive(Debug)]
pub struct Busy(Load);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The data threads, from where work is handed out.
#[derive(Debug)]
pub struct Workers<J> {
    threads: Vec<Worker<J>>,
}

#[derive(Debug)]
struct Worker<J> {
    jobs: mpsc::Sender<(J, Busy)>,
    load: Load,
    thread: Option<JoinHandle<()>>,
}

/// What a thread gets: its number, and the jobs with the guard that counts each.
pub type Jobs<J> = mpsc::Receiver<(J, Busy)>;

impl<J: Send + 'static> Workers<J> {
    /// Starts `count` threads, each of which runs what `work` returns until it ends. It should end when its jobs do.
    pub fn start<W, F>(count: usize, work: W) -> std::io::Result<Workers<J>>
    where
        W: Fn(usize, Jobs<J>) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + 'static,
    {
        let threads =
            (0..count.max(1)).map(|number| Worker::start(number, work.clone())).collect::<Result<_, _>>()?;
        Ok(Workers { threads })
    }

    /// Hands a job to the least busy thread; gives it back if that one's queue is full.
    pub fn hand(&self, job: J) -> Result<(), J> {
        let Some(worker) = self.threads.iter().min_by_key(|worker| worker.load.now()) else {
            return Err(job);
        };
        worker.jobs.try_send((job, worker.load.hold())).map_err(|error| match error {
            mpsc::error::TrySendError::Full((job, _)) | mpsc::error::TrySendError::Closed((job, _)) => job,
        })
    }

    /// Takes no more jobs and waits until each thread has ended.
    pub fn join(mut self) {
        for worker in &mut self.threads {
            // Dropping the sender ends the jobs of the thread.
            worker.jobs = mpsc::channel(1).0;
        }
        for worker in &mut self.threads {
            if let Some(thread) = worker.thread.take()
                && thread.join().is_err()
            {
                tracing::error!("a data thread panicked");
            }
        }
    }
}

impl<J: Send + 'static> Worker<J> {
    fn start<W, F>(number: usize, work: W) -> std::io::Result<Worker<J>>
    where
        W: Fn(usize, Jobs<J>) -> F + Send + 'static,
        F: Future<Output = ()> + 'static,
    {
        let (jobs, receiver) = mpsc::channel(QUEUE);
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name(format!("data-{number}")).spawn(move || {
            // A runtime of this thread alone: tasks are its own, and no set of tasks is kept beside it.
            let built = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            match built {
                Ok(runtime) => {
                    // Nobody may wait for the word any more.
                    drop(tell.send(Ok(())));
                    runtime.block_on(work(number, receiver));
                }
                Err(error) => drop(tell.send(Err(error))),
            }
        })?;
        told.recv().unwrap_or(Ok(()))?;
        Ok(Worker { jobs, load: Load::default(), thread: Some(thread) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_go_to_the_least_busy_thread() {
        let (report, reports) = std::sync::mpsc::channel();
        let workers = Workers::start(2, move |number, mut jobs: Jobs<()>| {
            let report = report.clone();
            async move {
                let mut kept = Vec::new();
                while let Some((_, busy)) = jobs.recv().await {
                    kept.push(busy);
                    report.send(number).unwrap();
                }
            }
        })
        .unwrap();
        (0..4).for_each(|_| workers.hand(()).unwrap());
        let mut seen: Vec<usize> = (0..4).map(|_| reports.recv().unwrap()).collect();
        seen.sort_unstable();
        assert_eq!(seen, [0, 0, 1, 1]);
        workers.join();
    }
}
