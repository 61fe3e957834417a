//! Content digests: equal content, equal digest, on every replica and after every restart.

use std::fmt;
use std::hash::{Hash, Hasher};

use sha2::{Digest as _, Sha256};

use super::section::Section;

/// The first 128 bits of SHA-256 over a section's content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    /// Digests a section.
    pub fn of(section: &Section) -> Digest {
        let mut hasher = ContentHasher(Sha256::new());
        section.hash(&mut hasher);
        let full = hasher.0.finalize();
        let mut digest = [0; 16];
        digest.copy_from_slice(&full[..16]);
        Digest(digest)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Feeds what `derive(Hash)` visits into SHA-256. Integers in little-endian order whatever the machine.
struct ContentHasher(Sha256);

impl Hasher for ContentHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    fn write_u16(&mut self, i: u16) {
        self.0.update(i.to_le_bytes());
    }
    fn write_u32(&mut self, i: u32) {
        self.0.update(i.to_le_bytes());
    }
    fn write_u64(&mut self, i: u64) {
        self.0.update(i.to_le_bytes());
    }
    fn write_usize(&mut self, i: usize) {
        self.0.update((i as u64).to_le_bytes());
    }
    fn write_isize(&mut self, i: isize) {
        self.0.update((i as i64).to_le_bytes());
    }
    /// Never asked for: a content digest has no 64-bit form.
    fn finish(&self) -> u64 {
        0
    }
}
