//! The store of a single meshd: one redb file in the data directory.
//!
//! Values are tuples of the database's own, so that no second serialisation stands between us and the file. After
//! an I/O error redb refuses all further work on that handle; the next call opens the file anew, which rolls the
//! unfinished transaction back: memory never shows what the disk has not.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{
    Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, ReadableTable, StorageError,
    TableError, WriteTransaction,
};

use super::past::{self, Step};
use super::rows::{
    DOCUMENTS, DRAINED, HISTORY, META, NODES, OFFSETS, REGISTRATIONS, REVOCATIONS, TOKENS, lines, node_of,
    put_node, put_token, token_of,
};
use super::{
    Change, HistoryEntry, JoinDecision, NodeRecord, Past, Revocation, Store, StoreError, StoredDocument,
    TokenRecord,
};
use crate::clock::Seconds;

/// Newest layout that this program reads and the one that it writes.
const FORMAT: u64 = 1;
/// The mesh lives in memory; the cache only serves start and commits.
const CACHE_BYTES: usize = 4 << 20;
/// History entries kept: a year of a change an hour.
const HISTORY_KEPT: u64 = 10_000;

/// A store in one file.
pub struct EmbeddedStore {
    path: PathBuf,
    database: Mutex<Option<Database>>,
    /// How many versions can be gone back to.
    kept: u64,
}

impl EmbeddedStore {
    /// Opens the file, or makes it where there is none. An existing file that is not a sound store of ours is an
    /// error, never an empty store. `kept` is how many versions can be gone back to.
    pub fn open(path: &Path, kept: u64) -> Result<EmbeddedStore, StoreError> {
        let database = open_database(path)?;
        let store = EmbeddedStore { path: path.to_owned(), database: Mutex::new(Some(database)), kept };
        if !store.read(past::is_begun)? {
            store.write(|tx| {
                let version = tx.open_table(META)?.get("version")?.map_or(0, |value| value.value());
                past::begin(tx, version)
            })?;
        }
        Ok(store)
    }

    fn database(&self) -> MutexGuard<'_, Option<Database>> {
        // A panic under the lock leaves at most an unfinished transaction, which redb rolls back.
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, work: impl Fn(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let mut guard = self.database();
        if guard.is_none() {
            *guard = Some(open_database(&self.path)?);
        }
        let Some(database) = guard.as_ref() else {
            return Err(StoreError::Refused { path: self.path.clone(), reason: "not open".to_owned() });
        };
        let result = work(database);
        if matches!(result, Err(redb::Error::Io(_) | redb::Error::PreviousIo | redb::Error::Backend(_))) {
            *guard = None;
        }
        result.map_err(|error| translate(&self.path, error))
    }

    fn read<T>(&self, work: impl Fn(&ReadTransaction) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        self.with(|database| work(&database.begin_read()?))
    }

    fn write<T>(
        &self,
        mut work: impl FnMut(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let work = std::cell::RefCell::new(&mut work);
        self.with(|database| {
            let mut transaction = database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            let value = (work.borrow_mut())(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })
    }
}

fn open_database(path: &Path) -> Result<Database, StoreError> {
    let existed = match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() == 0 => {
            // redb would take an empty file for a new one.
            return Err(StoreError::Damaged {
                path: path.to_owned(),
                reason: "the file is empty".to_owned(),
            });
        }
        Ok(_) => true,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(source) => return Err(StoreError::Io { path: path.to_owned(), source }),
    };
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    if existed {
        let database = builder.open(path).map_err(|error| opening(path, error))?;
        check_format(path, &database)?;
        return Ok(database);
    }
    // Made beside its place and renamed, so that a crash or a full disk half-way leaves no file that is no store.
    let fresh = path.with_extension("new");
    let io = |source| StoreError::Io { path: path.to_owned(), source };
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let database = builder.create(&fresh).map_err(|error| opening(path, error))?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600)).map_err(io)?;
    initialise(&database).map_err(|error| translate(path, error))?;
    drop(database);
    std::fs::rename(&fresh, path).map_err(io)?;
    if let Some(directory) = path.parent() {
        std::fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(io)?;
    }
    builder.open(path).map_err(|error| opening(path, error))
}

fn initialise(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        meta.insert("format", FORMAT)?;
        meta.insert("version", 0)?;
        transaction.open_table(DOCUMENTS)?;
        transaction.open_table(HISTORY)?;
        transaction.open_table(TOKENS)?;
        transaction.open_table(NODES)?;
        transaction.open_table(REGISTRATIONS)?;
        transaction.open_table(OFFSETS)?;
    }
    transaction.commit()?;
    Ok(())
}

fn check_format(path: &Path, database: &Database) -> Result<(), StoreError> {
    let found = || -> Result<Option<u64>, redb::Error> {
        Ok(database.begin_read()?.open_table(META)?.get("format")?.map(|value| value.value()))
    };
    match found() {
        Ok(Some(found)) if found <= FORMAT => Ok(()),
        Ok(Some(found)) => Err(StoreError::Newer { path: path.to_owned(), found, known: FORMAT }),
        Ok(None) | Err(_) => {
            Err(StoreError::Damaged { path: path.to_owned(), reason: "it is no store of meshd".to_owned() })
        }
    }
}

fn opening(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path: path.to_owned() },
        DatabaseError::UpgradeRequired(found) => {
            StoreError::Damaged { path: path.to_owned(), reason: format!("file format {found} is not ours") }
        }
        DatabaseError::Storage(StorageError::Io(source))
            if source.kind() == std::io::ErrorKind::InvalidData
                || source.kind() == std::io::ErrorKind::UnexpectedEof =>
        {
            StoreError::Damaged { path: path.to_owned(), reason: source.to_string() }
        }
        other => translate(path, other.into()),
    }
}

fn translate(path: &Path, error: redb::Error) -> StoreError {
    let path = path.to_owned();
    match error {
        redb::Error::Io(source) => StoreError::Io { path, source },
        redb::Error::Corrupted(reason) => StoreError::Damaged { path, reason },
        redb::Error::TableDoesNotExist(name) => {
            StoreError::Damaged { path, reason: format!("table {name} is missing") }
        }
        other => StoreError::Refused { path, reason: other.to_string() },
    }
}

impl Store for EmbeddedStore {
    fn version(&self) -> Result<u64, StoreError> {
        self.read(|tx| Ok(tx.open_table(META)?.get("version")?.map_or(0, |value| value.value())))
    }

    fn documents(&self) -> Result<Vec<StoredDocument>, StoreError> {
        self.read(|tx| {
            let table = tx.open_table(DOCUMENTS)?;
            let mut found = Vec::new();
            for row in table.iter()? {
                let (key, value) = row?;
                let (version, created, owner, json) = value.value();
                found.push(StoredDocument {
                    key: key.value().to_owned(),
                    json: json.to_owned(),
                    created,
                    version,
                    owner: owner.to_owned(),
                });
            }
            Ok(found)
        })
    }

    fn commit(&self, changes: &[Change], entry: &HistoryEntry) -> Result<u64, StoreError> {
        self.write(|tx| {
            let mut meta = tx.open_table(META)?;
            let version = meta.get("version")?.map_or(0, |value| value.value()) + 1;
            meta.insert("version", version)?;
            let mut documents = tx.open_table(DOCUMENTS)?;
            let mut step = Step::new(tx, version)?;
            for change in changes {
                let (Change::Put { key, .. } | Change::Delete { key }) = change;
                step.replaces(key, documents.get(key.as_str())?.as_ref().map(|row| row.value()))?;
                match change {
                    Change::Put { key, json, created, owner } => {
                        let earlier = documents.get(key.as_str())?.map(|row| row.value().1);
                        let created = earlier.map_or(*created, |earlier| earlier.min(*created));
                        documents.insert(key.as_str(), (version, created, owner.as_str(), json.as_str()))?;
                    }
                    Change::Delete { key } => {
                        documents.remove(key.as_str())?;
                    }
                }
            }
            step.end(&mut meta, self.kept)?;
            let mut history = tx.open_table(HISTORY)?;
            let text = entry.changes.join("\n");
            history.insert(version, (entry.time, entry.author.as_str(), text.as_str()))?;
            if version > HISTORY_KEPT {
                history.remove(version - HISTORY_KEPT)?;
            }
            Ok(version)
        })
    }

    fn history(&self, limit: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        self.read(|tx| {
            let table = tx.open_table(HISTORY)?;
            let mut found = Vec::new();
            for row in table.iter()?.rev().take(limit) {
                let (version, value) = row?;
                let (time, author, changes) = value.value();
                found.push(HistoryEntry {
                    version: version.value(),
                    time,
                    author: author.to_owned(),
                    changes: lines(changes),
                });
            }
            Ok(found)
        })
    }

    fn past(&self, version: u64) -> Result<Past, StoreError> {
        self.read(|tx| past::past(tx, version))
    }

    fn put_token(&self, token: &TokenRecord) -> Result<(), StoreError> {
        self.write(|tx| put_token(tx, token))
    }

    fn tokens(&self) -> Result<Vec<TokenRecord>, StoreError> {
        self.read(|tx| {
            let table = tx.open_table(TOKENS)?;
            let mut found = Vec::new();
            for row in table.iter()? {
                let (id, value) = row?;
                found.push(token_of(id.value(), value.value()));
            }
            Ok(found)
        })
    }

    fn delete_token(&self, id: &str) -> Result<bool, StoreError> {
        self.write(|tx| Ok(tx.open_table(TOKENS)?.remove(id)?.is_some()))
    }

    fn join(&self, token_id: &str, node: &str, decide: &mut JoinDecision<'_>) -> Result<bool, StoreError> {
        self.write(|tx| {
            let token = tx.open_table(TOKENS)?.get(token_id)?.map(|row| token_of(token_id, row.value()));
            let present = tx.open_table(NODES)?.get(node)?.map(|row| node_of(node, row.value()));
            let Some(joined) = decide(token, present) else { return Ok(false) };
            put_token(tx, &joined.token)?;
            put_node(tx, &joined.node)?;
            Ok(true)
        })
    }

    fn node(&self, name: &str) -> Result<Option<NodeRecord>, StoreError> {
        self.read(|tx| Ok(tx.open_table(NODES)?.get(name)?.map(|row| node_of(name, row.value()))))
    }

    fn nodes(&self) -> Result<Vec<NodeRecord>, StoreError> {
        self.read(|tx| {
            let table = tx.open_table(NODES)?;
            let mut found = Vec::new();
            for row in table.iter()? {
                let (name, value) = row?;
                found.push(node_of(name.value(), value.value()));
            }
            Ok(found)
        })
    }

    fn update_node(
        &self,
        name: &str,
        change: &mut dyn FnMut(&mut NodeRecord),
    ) -> Result<Option<NodeRecord>, StoreError> {
        self.write(|tx| {
            let present = tx.open_table(NODES)?.get(name)?.map(|row| node_of(name, row.value()));
            let Some(mut node) = present else { return Ok(None) };
            change(&mut node);
            put_node(tx, &node)?;
            Ok(Some(node))
        })
    }

    fn revoke_node(
        &self,
        name: &str,
        now: Seconds,
        change: &mut dyn FnMut(&mut NodeRecord) -> Revocation,
    ) -> Result<Option<NodeRecord>, StoreError> {
        self.write(|tx| {
            let present = tx.open_table(NODES)?.get(name)?.map(|row| node_of(name, row.value()));
            let Some(mut node) = present else { return Ok(None) };
            let revocation = change(&mut node);
            put_node(tx, &node)?;
            let mut table = tx.open_table(REVOCATIONS)?;
            table.retain(|_, until| until > now)?;
            table.insert(revocation.mark.as_slice(), revocation.until)?;
            Ok(Some(node))
        })
    }

    fn revocations(&self) -> Result<Vec<Revocation>, StoreError> {
        self.read(|tx| {
            let table = match tx.open_table(REVOCATIONS) {
                // Made by an earlier meshd, and nobody was thrown out since.
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                table => table?,
            };
            let mut found = Vec::new();
            for row in table.iter()? {
                let (mark, until) = row?;
                // One of another length is of no certificate.
                let Ok(mark) = mark.value().try_into() else { continue };
                found.push(Revocation { mark, until: until.value() });
            }
            Ok(found)
        })
    }

    fn drained(&self) -> Result<Vec<String>, StoreError> {
        self.read(|tx| {
            let table = match tx.open_table(DRAINED) {
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                table => table?,
            };
            let names = table.iter()?.map(|row| row.map(|(name, _)| name.value().to_owned()));
            Ok(names.collect::<Result<_, _>>()?)
        })
    }

    fn set_drained(&self, node: &str, drained: bool) -> Result<(), StoreError> {
        self.write(|tx| {
            let mut table = tx.open_table(DRAINED)?;
            match drained {
                true => table.insert(node, ())?.map(drop),
                false => table.remove(node)?.map(drop),
            };
            Ok(())
        })
    }

    fn registrations(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.read(|tx| {
            let table = tx.open_table(REGISTRATIONS)?;
            let mut found = Vec::new();
            for row in table.iter()? {
                let (node, value) = row?;
                found.push((node.value().to_owned(), value.value().to_owned()));
            }
            Ok(found)
        })
    }

    fn put_registration(&self, node: &str, registration: Option<&[u8]>) -> Result<(), StoreError> {
        self.write(|tx| {
            let mut table = tx.open_table(REGISTRATIONS)?;
            match registration {
                Some(bytes) => table.insert(node, bytes)?,
                None => table.remove(node)?,
            };
            Ok(())
        })
    }

    fn offsets(&self) -> Result<Vec<(String, u32)>, StoreError> {
        self.read(|tx| {
            let table = tx.open_table(OFFSETS)?;
            let mut found = Vec::new();
            for row in table.iter()? {
                let (host, offset) = row?;
                found.push((host.value().to_owned(), offset.value()));
            }
            Ok(found)
        })
    }

    fn assign_offsets(&self, hosts: &[String]) -> Result<Vec<(String, u32)>, StoreError> {
        self.write(|tx| {
            let mut meta = tx.open_table(META)?;
            // Offset 0 is the network's own address, 1 is kept for the proxy itself.
            let mut next = meta.get("next_offset")?.map_or(2, |value| value.value());
            let mut table = tx.open_table(OFFSETS)?;
            let mut given = Vec::new();
            for host in hosts {
                if table.get(host.as_str())?.is_some() {
                    continue;
                }
                let Ok(offset) = u32::try_from(next) else { break };
                table.insert(host.as_str(), offset)?;
                given.push((host.clone(), offset));
                next += 1;
            }
            meta.insert("next_offset", next)?;
            Ok(given)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(changes: &[&str]) -> HistoryEntry {
        HistoryEntry {
            version: 0,
            time: 100,
            author: "root".to_owned(),
            changes: changes.iter().map(|&change| change.to_owned()).collect(),
        }
    }

    fn put(key: &str, json: &str, created: i64) -> Change {
        Change::Put { key: key.to_owned(), json: json.to_owned(), created, owner: String::new() }
    }

    #[test]
    fn batches_are_numbered_and_survive_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mesh.redb");
        let store = EmbeddedStore::open(&path, 1000).unwrap();
        assert_eq!(store.version().unwrap(), 0);
        assert_eq!(store.commit(&[put("service/default/a", "{}", 5)], &entry(&["a created"])).unwrap(), 1);
        assert_eq!(store.commit(&[put("service/default/a", "{1}", 9)], &entry(&["x", "y"])).unwrap(), 2);
        drop(store);
        let store = EmbeddedStore::open(&path, 1000).unwrap();
        let documents = store.documents().unwrap();
        assert_eq!(documents.len(), 1);
        assert_eq!((documents[0].created, documents[0].version, documents[0].json.as_str()), (5, 2, "{1}"));
        assert_eq!(store.history(1).unwrap()[0].changes, ["x", "y"]);
        let gone = Change::Delete { key: "service/default/a".to_owned() };
        assert_eq!(store.commit(&[gone], &entry(&[])).unwrap(), 3);
        assert!(store.documents().unwrap().is_empty());
    }

    #[test]
    fn offsets_are_given_once_and_for_all() {
        let dir = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(&dir.path().join("mesh.redb"), 1000).unwrap();
        let hosts = ["a".to_owned(), "b".to_owned()];
        assert_eq!(store.assign_offsets(&hosts).unwrap(), [("a".to_owned(), 2), ("b".to_owned(), 3)]);
        assert_eq!(store.assign_offsets(&["b".to_owned(), "c".to_owned()]).unwrap(), [("c".to_owned(), 4)]);
        assert_eq!(store.offsets().unwrap().len(), 3);
    }

    #[test]
    fn a_file_that_is_no_store_is_never_taken_for_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in
            [("empty", Vec::new()), ("text", b"hello".repeat(2000)), ("zero", vec![0; 1 << 20])]
        {
            let path = dir.path().join(name);
            std::fs::write(&path, &content).unwrap();
            let error = EmbeddedStore::open(&path, 1000).err().expect(name);
            assert!(matches!(error, StoreError::Damaged { .. }), "{name}: {error}");
            assert_eq!(std::fs::read(&path).unwrap(), content, "{name} was touched");
        }
    }

    #[test]
    fn damage_anywhere_is_found_or_harmless() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mesh.redb");
        let store = EmbeddedStore::open(&path, 1000).unwrap();
        for index in 0..50 {
            let name = format!("service/default/s{index}");
            store.commit(&[put(&name, &"x".repeat(300), 1)], &entry(&["c"])).unwrap();
        }
        drop(store);
        let sound = std::fs::read(&path).unwrap();
        let broken = dir.path().join("broken.redb");
        for offset in (0..sound.len()).step_by(sound.len() / 40) {
            let mut bytes = sound.clone();
            let end = (offset + 64).min(bytes.len());
            bytes[offset..end].fill(0xa5);
            std::fs::write(&broken, &bytes).unwrap();
            match EmbeddedStore::open(&broken, 1000) {
                Ok(store) => {
                    assert_eq!(store.documents().unwrap().len(), 50, "damage at {offset} lost documents")
                }
                Err(error) => assert!(error.to_string().contains("broken.redb"), "{error}"),
            }
        }
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mesh.redb");
        drop(EmbeddedStore::open(&path, 1000).unwrap());
        let database = Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(META).unwrap().insert("format", FORMAT + 1).unwrap();
        transaction.commit().unwrap();
        drop(database);
        let error = EmbeddedStore::open(&path, 1000).err().expect("newer");
        assert!(error.to_string().contains("newer meshd"), "{error}");
    }

    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mesh.redb");
        let _first = EmbeddedStore::open(&path, 1000).unwrap();
        assert!(matches!(EmbeddedStore::open(&path, 1000).err(), Some(StoreError::InUse { .. })));
    }
}
