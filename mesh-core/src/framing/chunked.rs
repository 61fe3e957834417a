//! A body in chunks (RFC 9112, section 7.1), byte by byte where it says something and by length where it does not.
//!
//! ```text
//! size [;extension] CRLF data CRLF ... 0 [;extension] CRLF [field CRLF ...] CRLF
//! ```
//! Read as strictly as it can be: blanks around sizes, sizes of more than sixteen digits and lines that end with a bare
//! LF are what two readers understand differently.

use super::body::Reached;
use super::chars::{is_text, is_token};
use super::refusal::Refusal;
use super::{Direction, Sizes};

/// The longest name that no trailer may have is shorter.
const NAME: usize = 20;

/// Where a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunked {
    direction: Direction,
    most: Most,
    step: Step,
    /// Bytes left of the chunk, or its size as far as it was read.
    left: u64,
    digits: u8,
    extension: u16,
    extensions: u16,
    trailers: u16,
    trailer_fields: u8,
    /// The name of a trailer field in lower case, as far as there is room.
    name: [u8; NAME],
    named: u16,
}

/// How much of everything there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Most {
    extension: u16,
    extensions: u16,
    trailer_list: u16,
    trailers: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Size,
    Extension,
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    /// The first byte of a trailer line, or the CR of the last one.
    LineStart,
    Name,
    Value,
    LineEnd,
    LastLf,
    Over,
}

impl Chunked {
    /// Nothing was read yet.
    pub fn new(direction: Direction, sizes: &Sizes) -> Chunked {
        let Sizes { extension, extensions, trailer_list, trailers, .. } = *sizes;
        Chunked {
            direction,
            most: Most { extension, extensions, trailer_list, trailers },
            step: Step::Size,
            left: 0,
            digits: 0,
            extension: 0,
            extensions: 0,
            trailers: 0,
            trailer_fields: 0,
            name: [0; NAME],
            named: 0,
        }
    }

    /// Goes on through what was read.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<Reached, Refusal> {
        let mut at = 0;
        while at < bytes.len() && self.step != Step::Over {
            if self.step == Step::Data {
                let rest = bytes.len() - at;
                let length = usize::try_from(self.left).map_or(rest, |left| left.min(rest));
                self.left -= length as u64;
                at += length;
                if self.left == 0 {
                    self.step = Step::DataCr;
                }
                continue;
            }
            self.step = self.take(bytes[at])?;
            at += 1;
        }
        Ok(Reached { length: at, is_over: self.step == Step::Over })
    }

    fn take(&mut self, byte: u8) -> Result<Step, Refusal> {
        match (self.step, byte) {
            (Step::Size, _) => self.size(byte),
            (Step::Extension, b'\r') => Ok(Step::SizeEnd),
            (Step::Extension, _) => self.extend(byte),
            (Step::SizeEnd, b'\n') => Ok(self.chunk()),
            (Step::DataCr, b'\r') => Ok(Step::DataLf),
            (Step::DataLf, b'\n') => Ok(Step::Size),
            (Step::LineStart, b'\r') => Ok(Step::LastLf),
            (Step::LineStart, _) => {
                if self.trailer_fields >= self.most.trailers {
                    return Err(Refusal::Trailers);
                }
                self.trailer_fields += 1;
                self.named = 0;
                self.name(byte)
            }
            (Step::Name, _) => self.name(byte),
            (Step::Value, b'\r') => Ok(Step::LineEnd),
            (Step::Value, _) if is_text(&[byte]) => self.count(Step::Value),
            (Step::LineEnd, b'\n') => Ok(Step::LineStart),
            (Step::LastLf, b'\n') => Ok(Step::Over),
            (Step::Value | Step::LineEnd | Step::LastLf, _) => Err(Refusal::Trailer),
            (Step::SizeEnd | Step::DataCr | Step::DataLf | Step::Data | Step::Over, _) => Err(Refusal::Chunk),
        }
    }

    fn size(&mut self, byte: u8) -> Result<Step, Refusal> {
        const MOST_DIGITS: u8 = 16;
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b';' if self.digits > 0 => return self.extend(byte),
            b'\r' if self.digits > 0 => return Ok(Step::SizeEnd),
            _ => return Err(Refusal::Chunk),
        };
        self.digits += 1;
        // The topmost values stand for something else in some readers.
        if self.digits > MOST_DIGITS || self.left >> 58 != 0 {
            return Err(Refusal::Chunk);
        }
        self.left = self.left << 4 | u64::from(digit);
        Ok(Step::Size)
    }

    fn extend(&mut self, byte: u8) -> Result<Step, Refusal> {
        if !is_text(&[byte]) {
            return Err(Refusal::Chunk);
        }
        if self.extension >= self.most.extension || self.extensions >= self.most.extensions {
            return Err(Refusal::Extensions);
        }
        self.extension += 1;
        self.extensions += 1;
        Ok(Step::Extension)
    }

    /// The size is known.
    fn chunk(&mut self) -> Step {
        self.digits = 0;
        self.extension = 0;
        if self.left == 0 { Step::LineStart } else { Step::Data }
    }

    fn name(&mut self, byte: u8) -> Result<Step, Refusal> {
        if byte == b':' && self.named > 0 {
            let name = self.name.get(..usize::from(self.named));
            if name.is_some_and(|name| self.is_forbidden(name)) {
                return Err(Refusal::Trailer);
            }
            return self.count(Step::Value);
        }
        if !is_token(&[byte]) {
            return Err(Refusal::Trailer);
        }
        if let Some(room) = self.name.get_mut(usize::from(self.named)) {
            *room = byte.to_ascii_lowercase();
        }
        self.named = self.named.saturating_add(1);
        self.count(Step::Name)
    }

    fn count(&mut self, next: Step) -> Result<Step, Refusal> {
        if self.trailers >= self.most.trailer_list {
            return Err(Refusal::Trailers);
        }
        self.trailers += 1;
        Ok(next)
    }

    /// Fields that frame, route, prove who asks or belong to the connection must not come late (RFC 9110, section
    /// 6.5.1): whoever joins trailers with the head would read another message.
    fn is_forbidden(&self, name: &[u8]) -> bool {
        match name {
            b"content-length" | b"transfer-encoding" | b"host" | b"trailer" | b"te" | b"connection"
            | b"keep-alive" | b"proxy-connection" | b"upgrade" | b"content-encoding" | b"content-type"
            | b"content-range" => true,
            b"authorization"
            | b"proxy-authorization"
            | b"cookie"
            | b"expect"
            | b"max-forwards"
            | b"range" => self.direction == Direction::Request,
            _ => false,
        }
    }
}
