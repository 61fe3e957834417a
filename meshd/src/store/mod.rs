//! What survives a restart: applied documents with their version, history, tokens, nodes, their registrations and
//! the offsets of service addresses.
//!
//! The seam is [`Store`]. Every method that writes is one transaction, durable when it returns; a failed one has
//! changed nothing. Methods block: callers are the controller's own thread and blocking tasks. The store gives no
//! meaning to documents, accounts or registrations.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_core::vocab::identity::Mark;

use crate::clock::Seconds;

pub mod embedded;
mod past;
mod rows;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file is there and is no store of ours, or a damaged one.
    #[error(
        "the store {path} is damaged ({reason}); stop meshd, move the file away and restore a copy, or start empty by moving it away and applying your files again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// Written by a newer meshd.
    #[error(
        "the store {path} was written by a newer meshd (format {found}, this one reads {known}); run that version, or restore a copy made before the upgrade"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Format of the file.
        found: u64,
        /// Newest format that this program reads.
        known: u64,
    },
    /// Another process has it open.
    #[error("the store {path} is in use by another meshd; stop it, or give this one another --data-dir")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The system refused to read or write.
    #[error("the store {path} cannot be written: {source}{}", hint(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The database refused for a reason of its own.
    #[error("the store {path} refused: {reason}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
    /// `--store` names something that this version does not have.
    #[error("{0}")]
    Url(String),
}

fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            " (nothing was changed; free some space and try again)"
        }
        std::io::ErrorKind::PermissionDenied => " (run as the user who owns the data directory)",
        std::io::ErrorKind::ReadOnlyFilesystem => " (the file system is mounted read-only)",
        _ => "",
    }
}

/// A resource as it was declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDocument {
    /// `virtualservice/default/reviews`.
    pub key: String,
    /// Canonical JSON of the whole resource.
    pub json: String,
    /// When the key was first committed, in milliseconds since 1970; kept by later changes, forgotten by removal.
    pub created: i64,
    /// The version that brought this content.
    pub version: u64,
    /// The `--config` file that owns it; empty when it was applied.
    pub owner: String,
}

/// One change of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Create or replace.
    Put {
        /// `virtualservice/default/reviews`.
        key: String,
        /// Canonical JSON of the whole resource.
        json: String,
        /// When it was created, in milliseconds since 1970; the store keeps an earlier value that it has.
        created: i64,
        /// The `--config` file that owns it, or empty.
        owner: String,
    },
    /// Remove.
    Delete {
        /// `virtualservice/default/reviews`.
        key: String,
    },
}

/// An accepted batch of configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// Its version.
    pub version: u64,
    /// When it was accepted.
    pub time: Seconds,
    /// Who asked for it.
    pub author: String,
    /// `virtualservice/default/reviews configured`.
    pub changes: Vec<String>,
}

/// What the documents were at an earlier version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Past {
    /// What was different then, by key; `None` is what was not there.
    Kept(BTreeMap<String, Option<StoredDocument>>),
    /// There was such a version, but its documents are not kept.
    Gone {
        /// Oldest version that can be gone back to.
        oldest: u64,
        /// Version of now.
        newest: u64,
        /// Whether it was made by a meshd that kept no earlier documents.
        unrecorded: bool,
    },
    /// There never was such a version.
    Unknown {
        /// Oldest version that can be gone back to.
        oldest: u64,
        /// Version of now.
        newest: u64,
    },
}

/// A join token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// Its name.
    pub id: String,
    /// SHA-256 of the secret.
    pub secret_hash: [u8; 32],
    /// The only node that may use it.
    pub node: String,
    /// `NS/SA` that the node may be; `*` for all.
    pub accounts: Vec<String>,
    /// When it was made.
    pub created: Seconds,
    /// From when on it is worth nothing.
    pub expires: Seconds,
    /// How many different keys may use it.
    pub uses: u32,
    /// Fingerprints of the keys that did.
    pub used_by: Vec<[u8; 32]>,
}

/// A host that has joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// Its name.
    pub name: String,
    /// `NS/SA` that it may be; `*` for all.
    pub accounts: Vec<String>,
    /// Where peers reach it, as it said.
    pub address: String,
    /// Fingerprints of the public keys whose certificates are good, oldest first.
    pub keys: Vec<[u8; 32]>,
    /// When it joined first.
    pub joined: Seconds,
    /// When its newest certificate ends.
    pub certificate_expires: Seconds,
    /// Thrown out by the operator.
    pub revoked: bool,
}

/// The mark of a node that was thrown out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revocation {
    /// What the serial numbers of its certificates begin with.
    pub mark: Mark,
    /// From when on no certificate that bears it can be valid.
    pub until: Seconds,
}

/// What [`Store::join`] writes when the join is granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The token, with the use counted.
    pub token: TokenRecord,
    /// The node as it is from now on.
    pub node: NodeRecord,
}

/// Decides inside the transaction of a join: token and present node in, what to write out.
pub type JoinDecision<'a> = dyn FnMut(Option<TokenRecord>, Option<NodeRecord>) -> Option<Joined> + 'a;

/// A place that keeps the mesh's configuration and its members.
pub trait Store: Send + Sync {
    /// Version of the newest accepted batch; 0 before the first.
    fn version(&self) -> Result<u64, StoreError>;
    /// Every document, by key.
    fn documents(&self) -> Result<Vec<StoredDocument>, StoreError>;
    /// Accepts a batch whole and numbers it. The version is durable on return.
    fn commit(&self, changes: &[Change], entry: &HistoryEntry) -> Result<u64, StoreError>;
    /// Accepted batches, newest first, at most `limit`.
    fn history(&self, limit: usize) -> Result<Vec<HistoryEntry>, StoreError>;
    /// What the documents were at an earlier version.
    fn past(&self, version: u64) -> Result<Past, StoreError>;

    /// Keeps a new token.
    fn put_token(&self, token: &TokenRecord) -> Result<(), StoreError>;
    /// Every token, by id.
    fn tokens(&self) -> Result<Vec<TokenRecord>, StoreError>;
    /// Forgets a token; false if there was none.
    fn delete_token(&self, id: &str) -> Result<bool, StoreError>;
    /// Looks at a token and a node and writes what `decide` answers, in one transaction. False if it wrote nothing.
    fn join(&self, token_id: &str, node: &str, decide: &mut JoinDecision<'_>) -> Result<bool, StoreError>;

    /// One node.
    fn node(&self, name: &str) -> Result<Option<NodeRecord>, StoreError>;
    /// Every node, by name.
    fn nodes(&self) -> Result<Vec<NodeRecord>, StoreError>;
    /// Changes a node in one transaction; `None` if there is none of that name.
    fn update_node(
        &self,
        name: &str,
        change: &mut dyn FnMut(&mut NodeRecord),
    ) -> Result<Option<NodeRecord>, StoreError>;

    /// Throws a node out: changes it and keeps its mark, in one transaction, which forgets the marks that are over by
    /// `now`. `None` if there is none of that name.
    fn revoke_node(
        &self,
        name: &str,
        now: Seconds,
        change: &mut dyn FnMut(&mut NodeRecord) -> Revocation,
    ) -> Result<Option<NodeRecord>, StoreError>;
    /// The marks of nodes that were thrown out.
    fn revocations(&self) -> Result<Vec<Revocation>, StoreError>;

    /// The nodes that the operator has drained.
    fn drained(&self) -> Result<Vec<String>, StoreError>;
    /// Notes whether a node is drained.
    fn set_drained(&self, node: &str, drained: bool) -> Result<(), StoreError>;

    /// The last registration of every node, as opaque bytes.
    fn registrations(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError>;
    /// Replaces a node's registration; `None` removes it.
    fn put_registration(&self, node: &str, registration: Option<&[u8]>) -> Result<(), StoreError>;

    /// Offsets of service addresses by host name.
    fn offsets(&self) -> Result<Vec<(String, u32)>, StoreError>;
    /// Gives each of the hosts that has none the next free offset, once and for all; answers those given.
    fn assign_offsets(&self, hosts: &[String]) -> Result<Vec<(String, u32)>, StoreError>;
}

/// Opens what `--store` names. `kept` is how many versions can be gone back to.
pub fn open(url: &str, data_dir: &Path, kept: u64) -> Result<Arc<dyn Store>, StoreError> {
    if url == "embedded" {
        return Ok(Arc::new(embedded::EmbeddedStore::open(&data_dir.join("mesh.redb"), kept)?));
    }
    let reason = if url.starts_with("etcd://") {
        format!("--store {url}: etcd comes with a later version; use `--store embedded`")
    } else {
        format!("--store {url}: not known; use `embedded`")
    };
    Err(StoreError::Url(reason))
}
