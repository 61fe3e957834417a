//! The one hash of keys and endpoints: xxHash64, which its specification fixes for every version and machine, so that
//! all proxies send the same key to the same endpoint.

use twox_hash::XxHash64;

/// The hash of some bytes.
pub fn hash(bytes: &[u8]) -> u64 {
    XxHash64::oneshot(0, bytes)
}

/// One of many hashes that belong to another one.
pub(super) fn derived(of: u64, number: u64) -> u64 {
    XxHash64::oneshot(of, &number.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_specification() {
        assert_eq!(hash(b""), 0xef46_db37_51d8_e999);
        assert_eq!(hash(b"a"), 0xd24e_c4f1_a98c_6e5b);
        assert_eq!(hash(b"abc"), 0x44bc_2cf5_ad77_0999);
    }
}
