//! The lines of a head: found once, however they arrive, and what they say of the body.

use memchr::memchr;

use super::Sizes;
use super::chars::{is_text, token, trimmed};
use super::refusal::Refusal;

/// Finds the lines of a head in a buffer that grows.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lines {
    /// Where the first line begins that was not handed out.
    pub(super) start: usize,
    /// Up to where its end was looked for.
    searched: usize,
}

impl Lines {
    /// The next line without its end. `None` if it is not there yet; then it may still have `most` bytes at most.
    pub(super) fn next<'a>(
        &mut self,
        bytes: &'a [u8],
        most: usize,
        too_long: Refusal,
    ) -> Result<Option<&'a [u8]>, Refusal> {
        let from = self.searched.max(self.start);
        let Some(found) = memchr(b'\n', &bytes[from..]) else {
            self.searched = bytes.len();
            // The CR may be there already.
            return if bytes.len() - self.start > most + 1 { Err(too_long) } else { Ok(None) };
        };
        let end = from + found;
        let line = &bytes[self.start..end];
        self.start = end + 1;
        self.searched = self.start;
        if line.len() > most + 1 {
            return Err(too_long);
        }
        match line {
            [line @ .., b'\r'] => Ok(Some(line)),
            _ => Err(Refusal::LineEnd),
        }
    }
}

/// What the field lines of a head say of its body.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fields {
    begin: usize,
    count: usize,
    pub(super) length: Option<u64>,
    pub(super) chunked: bool,
}

impl Fields {
    /// The field lines begin here.
    pub(super) fn begin_at(&mut self, at: usize) {
        self.begin = at;
    }

    /// Judges the lines that are there; `true` when the head is whole.
    pub(super) fn scan(&mut self, lines: &mut Lines, bytes: &[u8], sizes: &Sizes) -> Result<bool, Refusal> {
        let (list, field) = (sizes.list as usize, sizes.field as usize);
        loop {
            let Some(line) = lines.next(bytes, field, Refusal::Fields)? else {
                let too_long = bytes.len() - self.begin > list;
                return if too_long { Err(Refusal::Fields) } else { Ok(false) };
            };
            if lines.start - self.begin > list {
                return Err(Refusal::Fields);
            }
            if line.is_empty() {
                return Ok(true);
            }
            self.count += 1;
            if self.count > sizes.fields as usize {
                return Err(Refusal::FieldCount);
            }
            self.field(line)?;
        }
    }

    /// One field line. Blanks before a name continue the line before (RFC 9112, section 5.2), blanks behind it are
    /// read as part of it by some (section 5.1): neither is a token.
    fn field(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let (name, rest) = line.split_at(token(line));
        let [b':', value @ ..] = rest else { return Err(not_a_field(line)) };
        if name.is_empty() || !is_text(value) {
            return Err(not_a_field(value));
        }
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.length.is_some() {
                    return Err(Refusal::ContentLength);
                }
                self.length = Some(number(trimmed(value)).ok_or(Refusal::ContentLength)?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked || !trimmed(value).eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal::Encoding);
                }
                self.chunked = true;
            }
            _ => return Ok(()),
        }
        if self.chunked && self.length.is_some() { Err(Refusal::LengthAndEncoding) } else { Ok(()) }
    }
}

/// A CR that ends no line is told apart from other bytes that no field may have.
fn not_a_field(bytes: &[u8]) -> Refusal {
    if memchr(b'\r', bytes).is_some() { Refusal::LineEnd } else { Refusal::Field }
}

/// `1*DIGIT` (RFC 9110, section 8.6), and what comes to one byte less than the numbers that stand for something else.
fn number(digits: &[u8]) -> Option<u64> {
    const MOST_DIGITS: usize = 18;
    if digits.is_empty() || digits.len() > MOST_DIGITS {
        return None;
    }
    digits
        .iter()
        .try_fold(0u64, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0')))
}
