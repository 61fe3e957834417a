//! Keeps the addresses of names fresh that endpoints have: each is asked for again when its time to live is over, off the
//! request path. A name that cannot be resolved keeps the addresses it had.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::vocab::name::Text;
use rand::Rng;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::forward::Forwarder;
use crate::live::root::Roots;
use crate::telemetry::metrics::Metrics;

/// Names that are asked for at one time.
const AT_ONCE: usize = 32;
/// Addresses of one name that are used.
const MOST_ADDRESSES: usize = 256;
/// No name is asked for more often.
const SOONEST: Duration = Duration::from_secs(1);
/// Every name is asked for at least so often.
const LATEST: Duration = Duration::from_secs(3600);
/// Where an answer does not say how long it is good for; also the longest pause after a failure (Istio's dnsRefreshRate).
const REFRESH: Duration = Duration::from_secs(60);
/// What comes in shortly after one another is put in force at once.
const GATHER: Duration = Duration::from_millis(20);

/// What is known of when to ask for a name.
#[derive(Debug, Clone, Copy)]
struct Due {
    at: Instant,
    failures: u32,
    /// Whether it is being asked for.
    asked: bool,
}

type Answered = (Text, Option<(Arc<[IpAddr]>, Duration)>);

/// Resolves the names of the root, again and again, until dropped.
pub async fn keep(roots: Arc<Roots>, forwarder: Forwarder, metrics: Arc<Metrics>) {
    let mut changed = roots.subscribe();
    let mut names: BTreeMap<Text, Due> = BTreeMap::new();
    let mut asking: JoinSet<Answered> = JoinSet::new();
    let mut gathered = Vec::new();
    let mut flush: Option<Instant> = None;
    follow(&roots, &mut names);
    loop {
        let now = Instant::now();
        for (name, due) in names.iter_mut().filter(|(_, due)| !due.asked && due.at <= now) {
            if asking.len() >= AT_ONCE {
                break;
            }
            due.asked = true;
            asking.spawn(ask(forwarder.clone(), name.clone()));
        }
        // With all places taken the next answer makes room, and nothing else can.
        let waiting = asking.len() < AT_ONCE;
        let next = names.values().filter(|due| waiting && !due.asked).map(|due| due.at).min();
        tokio::select! {
            result = changed.changed() => match result {
                Ok(()) => follow(&roots, &mut names),
                Err(_) => return,
            },
            Some(answered) = asking.join_next() => {
                let Ok((name, answer)) = answered else { continue };
                let Some(due) = names.get_mut(&name) else { continue };
                due.asked = false;
                let wait = match &answer {
                    Some((_, fresh)) => {
                        metrics.proxy.names_resolved.increment(1);
                        due.failures = 0;
                        *fresh
                    }
                    None => {
                        metrics.proxy.names_failed.increment(1);
                        due.failures = due.failures.saturating_add(1);
                        pause(due.failures)
                    }
                };
                due.at = Instant::now() + jittered(wait);
                gathered.push((name, answer.map(|(addresses, _)| addresses)));
                flush.get_or_insert(Instant::now() + GATHER);
            }
            () = until(flush) => {
                flush = None;
                roots.answer(std::mem::take(&mut gathered));
            }
            () = until(next) => {}
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Takes the names of the current root; new ones are asked for at once.
fn follow(roots: &Roots, names: &mut BTreeMap<Text, Due>) {
    let root = roots.load();
    names.retain(|name, _| root.names.contains(name));
    for name in &root.names {
        names.entry(name.clone()).or_insert(Due { at: Instant::now(), failures: 0, asked: false });
    }
}

async fn ask(forwarder: Forwarder, name: Text) -> Answered {
    match forwarder.look_up(&name).await {
        Ok(answer) => {
            let mut addresses = answer.addresses;
            addresses.truncate(MOST_ADDRESSES);
            let fresh = match answer.ttl {
                0 => REFRESH,
                seconds => Duration::from_secs(seconds.into()).clamp(SOONEST, LATEST),
            };
            (name, Some((addresses.into(), fresh)))
        }
        Err(error) => {
            tracing::warn!(%name, %error, "a name cannot be resolved; what was known of it stays");
            (name, None)
        }
    }
}

/// The pause after so many failures in a row.
fn pause(failures: u32) -> Duration {
    SOONEST.saturating_mul(1 << failures.saturating_sub(1).min(6)).min(REFRESH)
}

/// Up to a tenth less, so that names that came together do not stay together.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::rng().random_range(0.9..1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute() {
        let seconds: Vec<u64> = [1, 2, 3, 7, 40].map(|failures| pause(failures).as_secs()).into();
        assert_eq!(seconds, [1, 2, 4, 60, 60]);
        for _ in 0..100 {
            let wait = jittered(Duration::from_secs(10));
            assert!((Duration::from_secs(9)..=Duration::from_secs(10)).contains(&wait), "{wait:?}");
        }
    }
}
