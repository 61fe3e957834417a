//! A whole snapshot as bytes, for the proxy's last good one on disk.
//!
//! ```text
//! "MESHSNAP"  format version, u32 little-endian  SnapshotFile, protobuf  SHA-256 of all before it
//! ```

use mesh_core::snapshot::digest::Digest;
use mesh_core::snapshot::{Entry, Sections, Snapshot};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::error::{At as _, ConvertError, Fault};
use super::section::encode_entry;
use super::{Wire, decode_entry, encode_section, required};
use crate::generated as wire;

const MAGIC: &[u8; 8] = b"MESHSNAP";
/// Raised when older proxies could no longer read the file; new fields and kinds do not raise it.
const FORMAT: u32 = 1;
const HEADER: usize = MAGIC.len() + size_of::<u32>();
const TRAILER: usize = 32;

/// Why a snapshot file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// Something else, or cut off within the first bytes.
    #[error("not a snapshot file")]
    NotASnapshot,
    /// Of a later version of the proxy.
    #[error("snapshot file of format {0}, this version reads format {FORMAT}")]
    Format(u32),
    /// Cut off, or not what was written.
    #[error("snapshot file is damaged: its checksum does not fit")]
    Damaged,
    /// Whole, but not of this model.
    #[error("snapshot file cannot be read: {0}")]
    Content(#[from] ConvertError),
}

/// The bytes of a snapshot.
pub fn encode_snapshot(snapshot: &Snapshot) -> Vec<u8> {
    let entries = snapshot.sections.iter();
    let file = wire::SnapshotFile {
        version: Some(snapshot.version.to_wire()),
        sections: entries
            .map(|(key, entry)| encode_entry(key, entry.digest, encode_section(&entry.section)))
            .collect(),
    };
    let mut bytes = Vec::with_capacity(HEADER + file.encoded_len() + TRAILER);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    file.encode(&mut bytes).expect("a vector grows");
    let checksum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&checksum);
    bytes
}

/// The snapshot in the bytes. Each digest is checked against the content: where the model has changed since
/// the file was written the content's own digest takes its place, so that the control plane sends the section again.
pub fn decode_snapshot(bytes: &[u8]) -> Result<Snapshot, FileError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(FileError::NotASnapshot)?;
    let (format, rest) = rest.split_first_chunk().ok_or(FileError::NotASnapshot)?;
    match u32::from_le_bytes(*format) {
        FORMAT => {}
        other => return Err(FileError::Format(other)),
    }
    let (body, checksum) = rest.split_last_chunk::<TRAILER>().ok_or(FileError::Damaged)?;
    if Sha256::digest(&bytes[..HEADER + body.len()])[..] != checksum[..] {
        return Err(FileError::Damaged);
    }
    let file =
        wire::SnapshotFile::decode(body).map_err(|error| ConvertError::from(Fault::Malformed(error)))?;
    Ok(Snapshot { version: required(file.version, "version")?, sections: sections(file.sections)? })
}

fn sections(entries: Vec<wire::SectionEntry>) -> Result<Sections, ConvertError> {
    let mut sections = Sections::new();
    for (index, entry) in entries.into_iter().enumerate() {
        let (key, Entry { section, .. }) = decode_entry(entry).at_index(index).at("sections")?;
        let entry = Entry { digest: Digest::of(&section), section };
        if sections.contains_key(&key) {
            return Err(ConvertError::from(Fault::Twice).of_section(&key));
        }
        sections.insert(key, entry);
    }
    Ok(sections)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::convert::samples;

    proptest! {
        #[test]
        fn a_snapshot_survives_the_disk(snapshot in samples::snapshot()) {
            prop_assert_eq!(decode_snapshot(&encode_snapshot(&snapshot)), Ok(snapshot));
        }

        #[test]
        fn damage_is_noticed(
            snapshot in samples::snapshot(), at in any::<prop::sample::Index>(), flip in 1..=255u8,
        ) {
            let mut bytes = encode_snapshot(&snapshot);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(decode_snapshot(&bytes).is_err());
        }

        #[test]
        fn truncation_is_noticed(snapshot in samples::snapshot(), at in any::<prop::sample::Index>()) {
            let bytes = encode_snapshot(&snapshot);
            prop_assert!(decode_snapshot(&bytes[..at.index(bytes.len())]).is_err());
        }
    }

    #[test]
    fn each_fault_has_its_own_error() {
        let good = encode_snapshot(&Snapshot::default());
        let check = |bytes: &[u8], expected: FileError| {
            assert_eq!(decode_snapshot(bytes), Err(expected));
        };
        check(b"", FileError::NotASnapshot);
        check(b"version: 1\n", FileError::NotASnapshot);
        check(&good[..good.len() - 1], FileError::Damaged);
        let mut later = good.clone();
        later[MAGIC.len()] = 2;
        check(&later, FileError::Format(2));
    }

    #[test]
    fn a_digest_of_another_model_is_replaced() {
        let mut snapshot = Snapshot::default();
        let section = samples::trust();
        let entry = Entry::new(section.clone());
        snapshot.sections.insert(section.key(), Entry { digest: Digest([9; 16]), ..entry.clone() });
        let decoded = decode_snapshot(&encode_snapshot(&snapshot)).unwrap();
        assert_eq!(decoded.sections[&section.key()], entry);
    }
}
