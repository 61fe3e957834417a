//! What versions replaced, so that the mesh can be brought back to what it was: for each version the earlier
//! content of what it changed.
//!
//! Going back from the newest version, each step undoes one version. A version can be reached as long as every
//! step from now back to it is kept; `past_from` in the table of numbers is the oldest that can be.

use std::collections::BTreeMap;

use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use super::rows::META;
use super::{Past, StoredDocument};

/// Version, created, owner and JSON of what was there before, if anything was.
type Before<'a> = Option<(u64, i64, &'a str, &'a str)>;

/// By version and key.
const REPLACED: TableDefinition<'_, (u64, &str), Before<'static>> = TableDefinition::new("replaced");

/// Oldest version that can be gone back to.
const FROM: &str = "past_from";
/// Newest version whose step was written; another program may have committed since.
const UNTIL: &str = "past_until";
/// The version that the store had when steps began to be kept.
const SINCE: &str = "past_since";
/// Bytes of what is kept.
const BYTES: &str = "past_bytes";

/// Most bytes that are kept, whatever the number of versions; few in tests, which would take long otherwise.
const MOST_BYTES: u64 = if cfg!(test) { 100_000 } else { 256 << 20 };

fn size(key: &str, before: Before<'_>) -> u64 {
    let content = before.map_or(0, |(_, _, owner, json)| owner.len() + json.len());
    (key.len() + content) as u64 + 32
}

/// Makes sure that steps are kept from now on. `version` is that of the store.
pub(super) fn begin(tx: &WriteTransaction, version: u64) -> Result<(), redb::Error> {
    tx.open_table(REPLACED)?;
    let mut meta = tx.open_table(META)?;
    let until = meta.get(UNTIL)?.map(|value| value.value());
    if until == Some(version) {
        return Ok(());
    }
    // A new store, one of an older meshd, or one that an older meshd has worked on in between.
    let mut replaced = tx.open_table(REPLACED)?;
    replaced.retain(|_, _| false)?;
    for (name, value) in [(FROM, version), (UNTIL, version), (SINCE, version), (BYTES, 0)] {
        meta.insert(name, value)?;
    }
    Ok(())
}

/// Whether [`begin`] has something to do.
pub(super) fn is_begun(tx: &ReadTransaction) -> Result<bool, redb::Error> {
    let meta = tx.open_table(META)?;
    let number = |name| Ok::<_, redb::Error>(meta.get(name)?.map(|value| value.value()));
    Ok(number(UNTIL)?.is_some() && number(UNTIL)? == number("version")?)
}

/// The step back from a version, as it is written.
pub(super) struct Step<'tx> {
    version: u64,
    table: redb::Table<'tx, (u64, &'static str), Before<'static>>,
    bytes: u64,
}

impl<'tx> Step<'tx> {
    pub(super) fn new(tx: &'tx WriteTransaction, version: u64) -> Result<Step<'tx>, redb::Error> {
        Ok(Step { version, table: tx.open_table(REPLACED)?, bytes: 0 })
    }

    /// What was there before a key was changed; the first word on a key counts.
    pub(super) fn replaces(&mut self, key: &str, before: Before<'_>) -> Result<(), redb::Error> {
        if self.table.get((self.version, key))?.is_none() {
            self.bytes += size(key, before);
            self.table.insert((self.version, key), before)?;
        }
        Ok(())
    }

    /// Ends the step, and forgets the oldest ones beyond `kept` versions or too many bytes.
    pub(super) fn end(
        mut self,
        meta: &mut redb::Table<'_, &'static str, u64>,
        kept: u64,
    ) -> Result<(), redb::Error> {
        let number = |meta: &redb::Table<'_, &'static str, u64>, name| {
            Ok::<_, redb::Error>(meta.get(name)?.map_or(0, |value| value.value()))
        };
        let mut from = number(meta, FROM)?;
        let mut bytes = number(meta, BYTES)?.saturating_add(self.bytes);
        while from < self.version && (self.version - from > kept || bytes > MOST_BYTES) {
            let oldest = from + 1;
            let step = self.table.extract_from_if((oldest, "")..(oldest + 1, ""), |_, _| true)?;
            for row in step {
                let (key, value) = row?;
                bytes = bytes.saturating_sub(size(key.value().1, value.value()));
            }
            from = oldest;
        }
        for (name, value) in [(FROM, from), (UNTIL, self.version), (BYTES, bytes)] {
            meta.insert(name, value)?;
        }
        Ok(())
    }
}

/// What was different at a version.
pub(super) fn past(tx: &ReadTransaction, version: u64) -> Result<Past, redb::Error> {
    let meta = tx.open_table(META)?;
    let number = |name| Ok::<_, redb::Error>(meta.get(name)?.map_or(0, |value| value.value()));
    let newest = number("version")?;
    if version > newest || version == 0 {
        return Ok(Past::Unknown { oldest: number(FROM)?, newest });
    }
    let oldest = number(FROM)?;
    if version < oldest {
        return Ok(Past::Gone { oldest, newest, unrecorded: version < number(SINCE)? });
    }
    let mut before = BTreeMap::new();
    let table = tx.open_table(REPLACED)?;
    for row in table.range((version + 1, "")..)?.rev() {
        let (key, value) = row?;
        let key = key.value().1;
        let content = value.value().map(|(version, created, owner, json)| StoredDocument {
            key: key.to_owned(),
            json: json.to_owned(),
            created,
            version,
            owner: owner.to_owned(),
        });
        // Later rows are of earlier versions, and nearer to the one that is asked for.
        before.insert(key.to_owned(), content);
    }
    Ok(Past::Kept(before))
}

#[cfg(test)]
mod tests {
    use crate::store::embedded::EmbeddedStore;
    use crate::store::{Change, HistoryEntry, Past, Store};

    fn put(name: &str, json: &str) -> Change {
        Change::Put { key: name.to_owned(), json: json.to_owned(), created: 5, owner: String::new() }
    }

    fn commit(store: &EmbeddedStore, changes: &[Change]) {
        let entry = HistoryEntry { version: 0, time: 1, author: String::new(), changes: Vec::new() };
        store.commit(changes, &entry).unwrap();
    }

    /// `KEY=CONTENT` of what was different, `-` for what was not there.
    fn differences(store: &EmbeddedStore, version: u64) -> String {
        match store.past(version).unwrap() {
            Past::Kept(before) => {
                let one = |(key, content): (String, Option<super::StoredDocument>)| {
                    format!("{key}={}", content.map_or("-".to_owned(), |content| content.json))
                };
                before.into_iter().map(one).collect::<Vec<_>>().join(" ")
            }
            Past::Gone { oldest, newest, unrecorded } => format!("{oldest}..{newest} {unrecorded}"),
            Past::Unknown { oldest, newest } => format!("unknown {oldest}..{newest}"),
        }
    }

    #[test]
    fn each_version_can_be_gone_back_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mesh.redb");
        let store = EmbeddedStore::open(&path, 100).unwrap();
        commit(&store, &[put("a", "1"), put("b", "1")]);
        commit(&store, &[put("a", "2"), put("a", "3")]);
        commit(&store, &[Change::Delete { key: "a".to_owned() }, put("c", "1")]);
        commit(&store, &[put("a", "4")]);
        drop(store);
        let store = EmbeddedStore::open(&path, 100).unwrap();
        assert_eq!(differences(&store, 4), "");
        assert_eq!(differences(&store, 3), "a=-");
        assert_eq!(differences(&store, 2), "a=3 c=-");
        assert_eq!(differences(&store, 1), "a=1 c=-");
        assert_eq!(differences(&store, 0), "unknown 0..4");
        assert_eq!(differences(&store, 5), "unknown 0..4");
    }

    #[test]
    fn only_so_many_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mesh.redb");
        let store = EmbeddedStore::open(&path, 2).unwrap();
        for content in ["1", "2", "3", "4"] {
            commit(&store, &[put("a", content)]);
        }
        assert_eq!(differences(&store, 2), "a=2");
        assert_eq!(differences(&store, 1), "2..4 false");
        drop(store);
        // Fewer from the next commit on.
        let store = EmbeddedStore::open(&path, 1).unwrap();
        commit(&store, &[put("a", "5")]);
        assert_eq!(differences(&store, 4), "a=4");
        assert_eq!(differences(&store, 3), "4..5 false");
    }

    #[test]
    fn only_so_much_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(&dir.path().join("mesh.redb"), 100).unwrap();
        for size in [30_000, 30_000, 30_000, 30_000, 10, 200_000, 10] {
            commit(&store, &[put("a", &"x".repeat(size))]);
        }
        // The last step alone is too much.
        assert_eq!(differences(&store, 6), "7..7 false");
        assert_eq!(differences(&store, 7), "");
        commit(&store, &[put("a", "y")]);
        assert_eq!(differences(&store, 7), format!("a={}", "x".repeat(10)));
    }

    #[test]
    fn what_an_older_program_wrote_is_not_made_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mesh.redb");
        let store = EmbeddedStore::open(&path, 100).unwrap();
        commit(&store, &[put("a", "1")]);
        commit(&store, &[put("a", "2")]);
        drop(store);
        // As an older meshd commits: without a step.
        let database = redb::Database::open(&path).unwrap();
        let tx = database.begin_write().unwrap();
        tx.open_table(super::META).unwrap().insert("version", 3).unwrap();
        tx.commit().unwrap();
        drop(database);
        let store = EmbeddedStore::open(&path, 100).unwrap();
        assert_eq!(differences(&store, 2), "3..3 true");
        commit(&store, &[put("a", "4")]);
        assert_eq!(differences(&store, 3), "a=2");
        assert_eq!(differences(&store, 1), "3..4 true");
    }
}
