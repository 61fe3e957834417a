//! Watches how requests fare, service by service, and saves what is remembered of them when success falls.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::telemetry::alarm::{Fall, STEP, Watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::tap::{Hub, Watched};
use super::{saved, shown};

/// At most one file in this time.
const PAUSE: Duration = Duration::from_secs(60);

/// Watches until it is dropped.
pub async fn keep(hub: Arc<Hub>) {
    let mut tick = tokio::time::interval(STEP);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watches = HashMap::<Watched, Watch>::new();
    let mut saved_at: Option<Instant> = None;
    loop {
        tick.tick().await;
        let Some((watched, fall)) = step(&mut watches, &hub).await else { continue };
        if saved_at.is_some_and(|at| at.elapsed() < PAUSE) {
            continue;
        }
        saved_at = Some(Instant::now());
        save(&hub, watched, fall).await;
    }
}

/// Looks at the last step of each service; the one that has fallen deepest.
async fn step(watches: &mut HashMap<Watched, Watch>, hub: &Hub) -> Option<(Watched, Fall)> {
    let mut now = hub.tallies().await;
    for watched in watches.keys() {
        now.entry(*watched).or_default();
    }
    let mut worst: Option<(Watched, Fall)> = None;
    for (watched, tally) in now {
        // Number 0 is what is not known.
        if watched.0 == 0 {
            continue;
        }
        let Some(fall) = watches.entry(watched).or_default().step(tally) else { continue };
        if worst.is_none_or(|(_, other)| fall.now.failed > other.now.failed) {
            worst = Some((watched, fall));
        }
    }
    watches.retain(|_, watch| !watch.is_idle());
    worst
}

async fn save(hub: &Arc<Hub>, (service, reporter): Watched, fall: Fall) {
    let mut lines = Vec::new();
    for exchange in hub.past(None, None).await {
        let (_, object) = shown::object(hub, &exchange, None);
        lines.extend_from_slice(object.to_string().as_bytes());
        lines.push(b'\n');
    }
    let (folder, time) = (hub.folder.clone(), shown::now());
    let written = tokio::task::spawn_blocking(move || saved::save(&folder, &time, &lines)).await;
    let service = hub.metrics.service_of(service);
    let (before, now) = (fall.before.success(), fall.now.success());
    let told = format!("success of {} fell from {before:.1} % to {now:.1} %", service.host);
    match written {
        Ok(Ok(path)) => {
            hub.counted.saves.increment(1);
            tracing::warn!(
                service = %service.host,
                reporter = reporter.name(),
                before,
                now,
                requests = fall.now.total,
                path = %path.display(),
                "{told}; the last requests are saved (meshd tap --saved)"
            );
        }
        Ok(Err(error)) => {
            tracing::warn!(service = %service.host, folder = %hub.folder.display(), %error, "{told}; the last requests cannot be saved");
        }
        Err(error) => tracing::warn!(%error, "{told}; the last requests cannot be saved"),
    }
}
