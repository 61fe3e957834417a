//! Kinds of bytes in heads.

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

/// Whether this is a token.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().fold(true, |good, byte| good & TOKEN[usize::from(*byte)])
}

/// Whether this is a field's value, or a reason phrase: no control bytes but the tab (RFC 9110, section 5.5).
pub(super) fn is_text(bytes: &[u8]) -> bool {
    // No early exit: so it is compiled to vector instructions.
    !bytes.iter().fold(false, |bad, &byte| bad | ((byte < b' ') & (byte != b'\t')) | (byte == 0x7f))
}

/// Whether this may stand between the spaces of a request line: neither blanks nor control bytes.
pub(super) fn is_visible(bytes: &[u8]) -> bool {
    !bytes.is_empty() && !bytes.iter().fold(false, |bad, &byte| bad | (byte <= b' ') | (byte == 0x7f))
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
