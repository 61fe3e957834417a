//! The nodes that have joined, in memory beside the store, so that every call can be checked against them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use mesh_core::vocab::identity::Mark;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::authority::fit;
use super::csr::Fingerprint;
use super::token::{self, Attempt, JoinRefusal};
use crate::clock::{self, Seconds};
use crate::store::{NodeRecord, Revocation, Store, StoreError};

/// A node renews with a new key before it has thrown the old one away; an answer may get lost, too.
const KEYS_KEPT: usize = 4;

/// Why a node could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// By the rules of its token.
    #[error(transparent)]
    Refused(#[from] JoinRefusal),
    /// Not written down, so it did not happen.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Marks of nodes that were thrown out are kept so long: longer than any certificate that bears one is valid.
const MARKS_KEPT: Seconds = 400 * 24 * 3600;

/// What the serial numbers of a node's certificates begin with, from when it joins until it is thrown out.
pub fn mark(node: &NodeRecord) -> Mark {
    let mut digest = Sha256::new();
    digest.update(node.name.as_bytes());
    digest.update([0]);
    digest.update(node.joined.to_be_bytes());
    let mut mark = Mark::default();
    mark.copy_from_slice(&digest.finalize()[..8]);
    fit(mark)
}

/// The joined nodes. Writes go to the store first and block; reads are from memory.
pub struct Members {
    store: Arc<dyn Store>,
    revocations: RwLock<Vec<Revocation>>,
    nodes: RwLock<BTreeMap<String, Arc<NodeRecord>>>,
    changed: watch::Sender<u64>,
}

impl Members {
    /// Reads them from the store.
    pub fn load(store: Arc<dyn Store>) -> Result<Members, StoreError> {
        let nodes = store.nodes()?.into_iter().map(|node| (node.name.clone(), Arc::new(node))).collect();
        let revocations = RwLock::new(store.revocations()?);
        Ok(Members { store, revocations, nodes: RwLock::new(nodes), changed: watch::channel(0).0 })
    }

    /// Ticks whenever a node joined, was changed or was revoked.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// One node, revoked or not.
    pub fn find(&self, name: &str) -> Option<Arc<NodeRecord>> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Every node, by name.
    pub fn all(&self) -> Vec<Arc<NodeRecord>> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The node in good standing that has this key.
    pub fn standing(&self, name: &str, key: &Fingerprint) -> Option<Arc<NodeRecord>> {
        self.find(name).filter(|node| !node.revoked && node.keys.contains(key))
    }

    /// Redeems a token.
    pub fn join(&self, attempt: &Attempt<'_>) -> Result<Arc<NodeRecord>, JoinError> {
        let mut outcome = Err(JoinRefusal::Unknown);
        self.store.join(&attempt.token.id, attempt.node, &mut |token, present| match token::redeem(
            attempt, token, present,
        ) {
            Ok(joined) => {
                outcome = Ok(joined.node.clone());
                Some(joined)
            }
            Err(refusal) => {
                outcome = Err(refusal);
                None
            }
        })?;
        Ok(self.remember(outcome?))
    }

    /// A certificate for a (perhaps new) key of the node was issued.
    pub fn certified(&self, name: &str, key: Fingerprint, expires: Seconds) -> Result<(), StoreError> {
        self.update(name, &mut |node| {
            node.keys.retain(|known| *known != key);
            node.keys.push(key);
            let surplus = node.keys.len().saturating_sub(KEYS_KEPT);
            node.keys.drain(..surplus);
            node.certificate_expires = expires;
        })?;
        Ok(())
    }

    /// The node says where it is reached, in a call from `remote`. False if another node in good standing has that
    /// address, unless the caller is seen to be on that host: several proxies may share one.
    pub fn relocate(&self, name: &str, address: IpAddr, remote: IpAddr) -> Result<bool, StoreError> {
        let text = address.to_string();
        let is_there = remote.to_canonical() == address || remote.to_canonical().is_loopback();
        if self.find(name).is_some_and(|node| node.address == text) {
            return Ok(true);
        }
        if !is_there
            && self.all().iter().any(|node| node.name != name && !node.revoked && node.address == text)
        {
            return Ok(false);
        }
        self.update(name, &mut |node| node.address.clone_from(&text))?;
        Ok(true)
    }

    /// Allows the node more accounts. `None` if there is no such node.
    pub fn allow(&self, name: &str, accounts: &[String]) -> Result<Option<Arc<NodeRecord>>, StoreError> {
        self.update(name, &mut |node| {
            for account in accounts {
                if !node.accounts.contains(account) {
                    node.accounts.push(account.clone());
                }
            }
        })
    }

    /// Throws the node out, and its tokens with it. `None` if there is no such node.
    pub fn revoke(&self, name: &str) -> Result<Option<Arc<NodeRecord>>, StoreError> {
        for token in self.store.tokens()? {
            if token.node == name {
                self.store.delete_token(&token.id)?;
            }
        }
        let now = clock::now_seconds();
        let revoked = self.store.revoke_node(name, now, &mut |node| {
            node.revoked = true;
            node.keys.clear();
            Revocation { mark: mark(node), until: (now + MARKS_KEPT).max(node.certificate_expires) }
        })?;
        *self.revocations.write().unwrap_or_else(PoisonError::into_inner) = self.store.revocations()?;
        Ok(revoked.map(|node| self.remember(node)))
    }

    /// The marks of nodes that were thrown out: no certificate that bears one is worth anything.
    pub fn marks(&self) -> Vec<Mark> {
        let now = clock::now_seconds();
        let revocations = self.revocations.read().unwrap_or_else(PoisonError::into_inner);
        revocations.iter().filter(|one| one.until > now).map(|one| one.mark).collect()
    }

    fn update(
        &self,
        name: &str,
        change: &mut dyn FnMut(&mut NodeRecord),
    ) -> Result<Option<Arc<NodeRecord>>, StoreError> {
        let updated = self.store.update_node(name, change)?;
        Ok(updated.map(|node| self.remember(node)))
    }

    fn remember(&self, node: NodeRecord) -> Arc<NodeRecord> {
        let node = Arc::new(node);
        self.nodes
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(node.name.clone(), Arc::clone(&node));
        self.changed.send_modify(|count| *count += 1);
        node
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::identity::token::{TokenRequest, create};
    use crate::store::embedded::EmbeddedStore;

    #[test]
    fn many_at_once_redeem_a_token_once() {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> =
            Arc::new(EmbeddedStore::open(&dir.path().join("mesh.redb"), 1000).unwrap());
        let members = Members::load(Arc::clone(&store)).unwrap();
        let request = TokenRequest {
            node: "h1".to_owned(),
            accounts: Vec::new(),
            ttl: Duration::from_secs(60),
            uses: 1,
        };
        let (record, token) = create(&request, [0; 32], 0).unwrap();
        store.put_token(&record).unwrap();
        let granted: usize = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..8)
                .map(|key| {
                    let (members, token) = (&members, &token);
                    scope.spawn(move || {
                        let attempt = Attempt { token, node: "h1", key: [key; 32], now: 1 };
                        usize::from(members.join(&attempt).is_ok())
                    })
                })
                .collect();
            tries.into_iter().map(|handle| handle.join().unwrap()).sum()
        });
        assert_eq!(granted, 1);
        let before = members.find("h1").unwrap();
        assert!(members.marks().is_empty());
        members.revoke("h1").unwrap().unwrap();
        assert!(store.tokens().unwrap().is_empty());
        assert_eq!(members.marks(), [mark(&before)]);
        // What it gets when it is let in again bears another mark, at the same moment too.
        let (record, token) = create(&request, [0; 32], 0).unwrap();
        store.put_token(&record).unwrap();
        let again = Attempt { token: &token, node: "h1", key: [9; 32], now: before.joined };
        let again = members.join(&again).unwrap();
        assert_ne!(mark(&again), mark(&before));
        assert_eq!(Members::load(Arc::clone(&store)).unwrap().marks(), [mark(&before)]);
        members.revoke("h1").unwrap().unwrap();
        assert_eq!(members.marks().len(), 2);
        assert!((0..8).all(|key| members.standing("h1", &[key; 32]).is_none()));
    }
}
