//! While the proxy runs: it looks after the table, and says that it is alive where rules fail open. A table that another
//! tool has taken away or changed is told of and put back by nobody but the operator: two tools that mend after each
//! other never end.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::generation::Generations;
use super::nft;
use crate::dial;
use crate::live::interception::Interception;
use crate::telemetry::metrics::Metrics;

/// How often the number of the ruleset is asked for: a small question to the kernel.
const LOOK: Duration = Duration::from_secs(1);
/// How often the table is read anew where that number cannot be had.
const BLIND: u32 = 10;
/// How often it is said that the proxy is alive.
const BEAT: Duration = Duration::from_millis(500);

/// Watches over the table until dropped.
pub async fn keep(state: watch::Sender<Interception>, metrics: Arc<Metrics>) {
    let generations = Generations::open().ok();
    let mut seen = None;
    let mut looks = 0u32;
    loop {
        let now = generations.as_ref().and_then(Generations::now);
        if (now.is_none() && looks.is_multiple_of(BLIND)) || now != seen {
            match tokio::task::spawn_blocking(nft::find).await {
                Ok(Ok(found)) => {
                    tell(&state, found.interception, &metrics);
                    seen = now;
                }
                Ok(Err(error)) => tracing::warn!(%error, "the rules of interception cannot be looked at"),
                Err(_) => return,
            }
        }
        looks = looks.wrapping_add(1);
        tokio::time::sleep(LOOK).await;
    }
}

fn tell(state: &watch::Sender<Interception>, found: Interception, metrics: &Metrics) {
    let before = *state.borrow();
    if before == found {
        return;
    }
    metrics.proxy.interception.set(if found == Interception::Installed { 1.0 } else { 0.0 });
    match found {
        Interception::Missing | Interception::Altered => {
            metrics.proxy.interception_lost.increment(1);
            tracing::error!(
                state = found.name(),
                "the rules that lead this host's connections to the proxy were {} by another tool; `meshproxy intercept install` puts them back",
                if found == Interception::Missing { "removed" } else { "changed" }
            );
        }
        Interception::Installed => tracing::info!("the rules of interception are in place"),
        Interception::Off => {}
    }
    state.send_replace(found);
}

/// Says to the rules that the proxy is alive, over both families, until dropped.
pub async fn beat(port: u16) {
    let targets: [SocketAddr; 2] = [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
    loop {
        for target in targets {
            // A socket of its own each time: nobody listens there, and what comes of that is nobody's concern.
            if let Ok(socket) = dial::udp(target).await {
                drop(socket.send(b".").await);
            }
        }
        tokio::time::sleep(BEAT).await;
    }
}
