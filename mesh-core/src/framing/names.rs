//! Header blocks of HTTP/2, walked for one thing: whether trailers have pseudo fields (RFC 9113, section 8.1), which the
//! library drops in silence. Nothing is decoded: lengths are passed over, and of the table that both sides keep only one
//! bit an entry is known, newest first. Entries that fell out of the table are never asked for, since nothing but the end
//! of the connection would come of it.

/// Entries of the static table (RFC 7541, appendix A), and those among them that are pseudo fields.
const STATIC: u32 = 61;
const PSEUDO: u32 = 14;

/// A reader of header blocks.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    /// Which entries of the table are pseudo fields. A table of 4 KiB has room for 128.
    table: u128,
    /// The highest stream that was opened.
    highest: u32,
    /// Whether this block is one of trailers.
    is_late: bool,
    /// Bytes before the fields of this frame; the first says how much padding there is, if `is_padded`.
    lead: u8,
    is_padded: bool,
    /// Bytes left of the fields of this frame.
    left: u32,
    step: Step,
}

#[derive(Debug, Clone, Copy, Default)]
enum Step {
    /// A field begins.
    #[default]
    Field,
    /// A number of more than one byte goes on.
    Number { what: What, value: u32, shift: u8 },
    /// The length of a name.
    NameLength { is_kept: bool },
    /// The first byte of a name.
    Name { is_kept: bool, is_coded: bool, length: u32 },
    /// The length of a value.
    ValueLength,
    /// So much of a name.
    RestOfName(u32),
    /// So much of a value.
    Value(u32),
    /// What cannot be read is the library's to refuse.
    Lost,
}

/// What a number stands for.
#[derive(Debug, Clone, Copy)]
enum What {
    /// A whole field of the tables.
    Field,
    /// A name of the tables, or 0 for one that is written out.
    Name {
        is_kept: bool,
    },
    /// The length of a name that is written out.
    NameLength {
        is_kept: bool,
        is_coded: bool,
    },
    ValueLength,
    /// How large the table may be.
    Table,
}

impl Names {
    /// A HEADERS frame begins.
    pub(super) fn begin(&mut self, stream: u32, length: u32, flags: u8) {
        const PADDED: u8 = 8;
        const PRIORITY: u8 = 32;
        self.is_late = stream <= self.highest;
        self.highest = self.highest.max(stream);
        self.is_padded = flags & PADDED != 0;
        self.lead = u8::from(self.is_padded) + if flags & PRIORITY != 0 { 5 } else { 0 };
        self.left = length.saturating_sub(u32::from(self.lead));
        self.step = Step::Field;
    }

    /// A CONTINUATION frame begins.
    pub(super) fn go_on(&mut self, length: u32) {
        (self.lead, self.is_padded, self.left) = (0, false, length);
    }

    /// Goes on through the payload of such a frame; `false` if these are trailers with a pseudo field.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> bool {
        while self.lead > 0
            && let [first, rest @ ..] = bytes
        {
            if std::mem::take(&mut self.is_padded) {
                self.left = self.left.saturating_sub(u32::from(*first));
            }
            self.lead -= 1;
            bytes = rest;
        }
        let length = bytes.len().min(self.left as usize);
        self.left -= length as u32;
        let mut at = 0;
        while at < length {
            let rest = (length - at) as u32;
            match &mut self.step {
                Step::RestOfName(left) | Step::Value(left) => {
                    let passed = rest.min(*left);
                    *left -= passed;
                    at += passed as usize;
                    if *left == 0 {
                        self.step = match self.step {
                            Step::RestOfName(_) => Step::ValueLength,
                            _ => Step::Field,
                        };
                    }
                }
                Step::Lost => return true,
                _ => {
                    if self.take(bytes[at]) && self.is_late {
                        return false;
                    }
                    at += 1;
                }
            }
        }
        true
    }

    /// One byte that says something; `true` if it is of a pseudo field.
    fn take(&mut self, byte: u8) -> bool {
        let (what, mask) = match self.step {
            Step::Field => match byte {
                0x80.. => (What::Field, 0x7f),
                0x40.. => (What::Name { is_kept: true }, 0x3f),
                0x20.. => (What::Table, 0x1f),
                _ => (What::Name { is_kept: false }, 0x0f),
            },
            Step::NameLength { is_kept } => (What::NameLength { is_kept, is_coded: byte >= 0x80 }, 0x7f),
            Step::ValueLength => (What::ValueLength, 0x7f),
            Step::Number { what, value, shift } => {
                let value = value.saturating_add(u32::from(byte & 0x7f) << shift);
                if byte < 0x80 {
                    return self.number(what, value);
                }
                self.step = match shift {
                    0..21 => Step::Number { what, value, shift: shift + 7 },
                    _ => Step::Lost,
                };
                return false;
            }
            Step::Name { is_kept, is_coded, length } => {
                // A colon, or its Huffman code, which has seven bits.
                let is_pseudo = if is_coded { byte >> 1 == 0x5c } else { byte == b':' };
                if is_kept {
                    self.keep(is_pseudo);
                }
                self.step = if length > 1 { Step::RestOfName(length - 1) } else { Step::ValueLength };
                return is_pseudo;
            }
            Step::RestOfName(_) | Step::Value(_) | Step::Lost => return false,
        };
        let value = u32::from(byte & mask);
        if value == u32::from(mask) {
            self.step = Step::Number { what, value, shift: 0 };
            return false;
        }
        self.number(what, value)
    }

    /// A number is whole; `true` if it names a pseudo field.
    fn number(&mut self, what: What, value: u32) -> bool {
        match what {
            What::Field => {
                self.step = Step::Field;
                self.is_pseudo(value)
            }
            What::Name { is_kept } if value == 0 => {
                self.step = Step::NameLength { is_kept };
                false
            }
            What::Name { is_kept } => {
                let is_pseudo = self.is_pseudo(value);
                if is_kept {
                    self.keep(is_pseudo);
                }
                self.step = Step::ValueLength;
                is_pseudo
            }
            What::NameLength { is_kept, is_coded } if value > 0 => {
                self.step = Step::Name { is_kept, is_coded, length: value };
                false
            }
            What::NameLength { is_kept, .. } => {
                if is_kept {
                    self.keep(false);
                }
                self.step = Step::ValueLength;
                false
            }
            What::ValueLength => {
                self.step = if value > 0 { Step::Value(value) } else { Step::Field };
                false
            }
            What::Table => {
                self.step = Step::Field;
                false
            }
        }
    }

    fn keep(&mut self, is_pseudo: bool) {
        self.table = self.table << 1 | u128::from(is_pseudo);
    }

    fn is_pseudo(&self, index: u32) -> bool {
        match index.checked_sub(STATIC + 1) {
            None => (1..=PSEUDO).contains(&index),
            Some(at) => self.table.checked_shr(at).is_some_and(|table| table & 1 == 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A head, then trailers, in pieces of every size.
    #[track_caller]
    fn check(head: &[u8], trailers: &[u8], expected: bool) {
        for size in [1, 2, 3, 1000] {
            let mut names = Names::default();
            let mut block = |stream: u32, fields: &[u8]| {
                names.begin(stream, fields.len() as u32, 4);
                fields.chunks(size).all(|piece| names.read(piece))
            };
            assert!(block(1, head), "a head may have pseudo fields");
            assert_eq!(block(1, trailers), expected, "pieces of {size}");
            assert!(block(3, head), "the next request");
        }
    }

    #[test]
    fn trailers_have_no_pseudo_fields() {
        // :method GET, :scheme http, :path /t kept in the table, x-a: b kept in the table.
        let head = b"\x82\x86\x44\x02/t\x40\x03x-a\x01b";
        check(head, b"\x00\x05x-sum\x011", true);
        check(head, b"\x40\x05x-sum\x011\xbe", true);
        check(head, b"", true);
        // Of the static table: a whole field, a name, a name that is never kept.
        check(head, b"\x82", false);
        check(head, b"\x84", false);
        check(head, b"\x88", false);
        check(head, b"\x04\x02/x", false);
        check(head, b"\x14\x02/x", false);
        check(head, b"\x44\x02/x", false);
        check(head, b"\x8f", true);
        // Of the other table: x-a is the newest, :path behind it.
        check(head, b"\xbe", true);
        check(head, b"\xbf", false);
        check(head, b"\x7e\x01c", true);
        check(head, b"\x7f\x00\x01c", false);
        check(head, b"\x0f\x30\x01c", false);
        // Written out, plain and as a Huffman code.
        check(head, b"\x00\x05:path\x02/x", false);
        check(head, b"\x40\x02:x\x011", false);
        check(head, b"\x00\x84\xb9\x58\xd3\x3f\x02/x", false);
        check(head, b"\x00\x05x-sum\x011\x82", false);
        check(head, b"\x20\x00\x05x-sum\x011", true);
        // A value that looks like one, names and values of many bytes.
        check(head, b"\x00\x01x\x05:path", true);
        check(head, &[&b"\x00\x7f\x81\x01"[..], &[b'x'; 256], b"\x7f\x81\x01", &[0x82; 256]].concat(), true);
        check(head, &[&b"\x00\x01x\x7f\x81\x01"[..], &[b'x'; 256], b"\x82"].concat(), false);
        // What nobody can read is not judged here.
        check(head, b"\xff\xff\xff\xff\xff\xff\xff\x82", true);
        check(head, b"\x00\x00\x011", true);
    }

    #[test]
    fn padding_and_priority_are_no_fields() {
        let mut names = Names::default();
        names.begin(1, 1, 4);
        assert!(names.read(b"\x82"));
        names.begin(1, 1 + 5 + 4 + 3, 4 | 8 | 32);
        assert!(names.read(b"\x03\x82\x82\x82\x82\x82\x00\x01x\x00\x82\x82\x82"));
        names.begin(1, 4, 0);
        assert!(names.read(b"\x00\x01x\x00"));
        names.go_on(1);
        assert!(!names.read(b"\x84"));
    }
}
