//! Kinds of bytes in heads, eight at a time where they are many.

const fn table(allowed: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut index = 0;
    while index < allowed.len() {
        table[allowed[index] as usize] = true;
        index += 1;
    }
    table
}

/// Bytes of a token (RFC 9110, section 5.6.2).
const TOKEN: [bool; 256] = table(b"!#$%&'*+-.^_`|~");

/// How many bytes of a token this begins with.
pub(super) fn token(bytes: &[u8]) -> usize {
    // Four at a time: a name is seldom longer than a few of these.
    let (words, _) = bytes.as_chunks::<4>();
    let mut length = 0;
    for [first, second, third, fourth] in words {
        let good = TOKEN[usize::from(*first)]
            & TOKEN[usize::from(*second)]
            & TOKEN[usize::from(*third)]
            & TOKEN[usize::from(*fourth)];
        if !good {
            break;
        }
        length += 4;
    }
    let rest = bytes[length..].iter().position(|byte| !TOKEN[usize::from(*byte)]);
    rest.map_or(bytes.len(), |rest| length + rest)
}

/// Whether this is a token.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && token(bytes) == bytes.len()
}

/// Whether this is a field's value, or a reason phrase: no control bytes but the tab (RFC 9110, section 5.5).
pub(super) fn is_text(bytes: &[u8]) -> bool {
    is_free_of_controls(bytes, b' ') || bytes.iter().all(|&byte| byte == b'\t' || byte >= b' ' && byte != DEL)
}

/// Whether this may stand between the spaces of a request line: neither blanks nor control bytes.
pub(super) fn is_visible(bytes: &[u8]) -> bool {
    !bytes.is_empty() && is_free_of_controls(bytes, b'!')
}

const DEL: u8 = 0x7f;

/// Whether no byte is below `least`, at most 128, or DEL.
fn is_free_of_controls(bytes: &[u8], least: u8) -> bool {
    let (words, _) = bytes.as_chunks::<8>();
    let Some(last) = bytes.last_chunk::<8>() else {
        return bytes.iter().all(|&byte| byte >= least && byte != DEL);
    };
    // The last eight may overlap with those before.
    let found = words.iter().fold(controls(*last, least), |found, word| found | controls(*word, least));
    found & TOP == 0
}

const ONES: u64 = u64::MAX / 255;
const TOP: u64 = ONES * 128;

/// A word with the top bit of some byte set exactly if one of these is below `least` or DEL: a borrow out of a byte
/// reaches the next only where one was found.
fn controls(word: [u8; 8], least: u8) -> u64 {
    let word = u64::from_le_bytes(word);
    let below = word.wrapping_sub(ONES * u64::from(least)) & !word;
    let del = word ^ (ONES * u64::from(DEL));
    below | (del.wrapping_sub(ONES) & !del)
}

/// A value without the blanks around it (RFC 9112, section 5).
pub(super) fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_at_a_time_is_as_one_by_one() {
        for length in 0..40 {
            for at in 0..length {
                for byte in 0..=255 {
                    for rest in [b'a', b' ', 0xff, 0x80, b'~'] {
                        let mut bytes = vec![rest; length];
                        bytes[at] = byte;
                        let text = bytes.iter().all(|&b| b == b'\t' || b >= 0x20 && b != 0x7f);
                        assert_eq!(is_text(&bytes), text, "{bytes:?}");
                        let visible = bytes.iter().all(|&b| b > 0x20 && b != 0x7f);
                        assert_eq!(is_visible(&bytes), visible, "{bytes:?}");
                    }
                }
            }
        }
    }
}
