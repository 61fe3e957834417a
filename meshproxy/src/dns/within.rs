//! The same answers in the network namespaces that workloads of this host live in, at the same address there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::vocab::name::Text;
use tokio::task::{AbortHandle, JoinSet};

use super::forward::Forwarder;
use super::names::AddressOf;
use super::server::{self, DnsSockets};
use crate::live::root::Roots;
use crate::netns::{Id, Netns};

/// Namespaces are looked at so often: one may be made anew under the same name.
const LOOK: Duration = Duration::from_secs(2);

/// Serves every such namespace until dropped.
pub async fn serve(
    at: SocketAddr,
    forwarder: Forwarder,
    roots: Arc<Roots>,
    address_of: Option<AddressOf>,
    captured: bool,
) {
    let mut tasks: JoinSet<()> = JoinSet::new();
    let mut served: BTreeMap<Text, (Id, AbortHandle)> = BTreeMap::new();
    // What was said of a namespace that cannot be served.
    let mut told: BTreeMap<Text, String> = BTreeMap::new();
    let mut changed = roots.subscribe();
    loop {
        changed.mark_unchanged();
        let tables = Arc::clone(&roots.load().tables);
        let names: Vec<Text> = tables.network_namespaces().into_iter().cloned().collect();
        served.retain(|name, (_, task)| {
            let stays = names.contains(name);
            if !stays {
                task.abort();
            }
            stays
        });
        told.retain(|name, _| names.contains(name));
        for name in &names {
            let netns = Netns::named(name);
            let opened = netns.look().and_then(|id| {
                if let Some((known, task)) = served.get(name) {
                    if *known == id && !task.is_finished() {
                        return Ok(None);
                    }
                    task.abort();
                }
                Ok(Some((id, DnsSockets::bind_within(&netns, at)?)))
            });
            match opened {
                Ok(None) => {}
                Ok(Some((id, sockets))) => {
                    let (forwarder, roots) = (forwarder.clone(), Arc::clone(&roots));
                    let serving = server::serve(sockets, forwarder, roots, address_of.clone(), captured);
                    served.insert(name.clone(), (id, tasks.spawn(serving)));
                    told.remove(name);
                }
                Err(error) => {
                    if let Some((_, task)) = served.remove(name) {
                        task.abort();
                    }
                    let error = error.to_string();
                    if told.get(name) != Some(&error) {
                        tracing::warn!(netns = &**name, address = %at, error, "names are not answered there; trying on");
                        told.insert(name.clone(), error);
                    }
                }
            }
        }
        while tasks.try_join_next().is_some() {}
        tokio::select! {
            // `roots` holds the sender.
            _ = changed.changed() => {}
            () = tokio::time::sleep(LOOK), if !names.is_empty() => {}
        }
    }
}
