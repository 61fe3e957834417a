//! Context that travels with a request. `traceparent`, `b3` and `baggage` pass through untouched: the application
//! connects them. A request without `x-request-id` gets one.

use http::HeaderValue;
use mesh_core::vocab::random::Random;

/// A random UUID (version 4) as a header value.
pub fn request_id(random: &mut Random) -> HeaderValue {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut bytes = [0u8; 16];
    bytes[..8].copy_from_slice(&random.bits().to_be_bytes());
    bytes[8..].copy_from_slice(&random.bits().to_be_bytes());
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = HEX[usize::from(byte >> 4)];
        text[at + 1] = HEX[usize::from(byte & 15)];
        at += 2;
    }
    HeaderValue::from_bytes(&text).expect("hex digits and hyphens")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_uuids() {
        let id = request_id(&mut Random::seeded(1));
        let id = id.to_str().unwrap();
        let hyphens: Vec<usize> = id.match_indices('-').map(|(at, _)| at).collect();
        assert_eq!((id.len(), hyphens), (36, vec![8, 13, 18, 23]));
        assert_eq!(&id[14..15], "4");
    }
}
