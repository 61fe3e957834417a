//! Numbers and texts of CEL.

use super::{Parsed, Parser};

impl Parser<'_> {
    pub(super) fn number(&mut self) -> Parsed {
        let rest = self.rest();
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let hexadecimal = rest.strip_prefix("0x").or(rest.strip_prefix("0X"));
        let mut end = match hexadecimal {
            Some(rest) => 2 + rest.bytes().take_while(u8::is_ascii_hexdigit).count(),
            None => digits(rest),
        };
        let mut whole = true;
        if hexadecimal.is_none() {
            if let Some(fraction) = rest[end..].strip_prefix('.').filter(|rest| digits(rest) > 0) {
                end += 1 + digits(fraction);
                whole = false;
            }
            if let Some(exponent) = rest[end..].strip_prefix(['e', 'E']) {
                let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
                if digits(unsigned) > 0 {
                    end += 1 + (exponent.len() - unsigned.len()) + digits(unsigned);
                    whole = false;
                }
            }
        }
        let is_unsigned = whole && rest[end..].starts_with(['u', 'U']);
        let text = &rest[..end];
        let value = match hexadecimal {
            Some(_) => u128::from_str_radix(&text[2..], 16).ok(),
            None if whole => text.parse().ok(),
            None => Some(0),
        };
        // One more than the largest is the absolute value of the smallest.
        let largest = if is_unsigned { u128::from(u64::MAX) } else { 1 << 63 };
        if value.is_none_or(|value| value > largest) {
            return Err(self.unexpected("a number of 64 bits"));
        }
        self.at += end + usize::from(is_unsigned);
        if self.rest().starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
            return Err(self.unexpected("an operator after the number"));
        }
        Ok(())
    }

    /// Takes a text or bytes, if one comes next.
    pub(super) fn string(&mut self) -> Result<bool, String> {
        let rest = self.rest();
        let prefix = rest.bytes().take(2).take_while(|b| b"bBrR".contains(b)).count();
        let quotes = &rest[prefix..];
        let Some(quote) = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| quotes.starts_with(quote))
        else {
            return Ok(false);
        };
        let raw = rest[..prefix].contains(['r', 'R']);
        let is_bytes = rest[..prefix].contains(['b', 'B']);
        self.at += prefix + quote.len();
        loop {
            let rest = self.rest();
            if rest.starts_with(quote) {
                self.at += quote.len();
                return Ok(true);
            }
            match rest.chars().next() {
                Some('\\') if !raw => self.escape(is_bytes)?,
                Some('\n' | '\r') if quote.len() == 1 => {
                    return Err(self.unexpected("the closing quotes on the same line"));
                }
                Some(c) => self.at += c.len_utf8(),
                None => return Err(self.unexpected("closing quotes")),
            }
        }
    }

    fn escape(&mut self, is_bytes: bool) -> Parsed {
        let mut chars = self.rest().chars().skip(1);
        let (digits, radix) = match chars.next() {
            Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '"' | '\'' | '\\' | '?' | '`') => (0, 16),
            Some('x' | 'X') => (2, 16),
            Some('u') if !is_bytes => (4, 16),
            Some('U') if !is_bytes => (8, 16),
            Some('0'..='3') => (2, 8),
            _ => return Err(self.unexpected("a known escape after the backslash")),
        };
        let given = chars.take(digits).take_while(|c| c.is_digit(radix)).count();
        if given < digits {
            return Err(self.unexpected("more digits of the escape"));
        }
        self.at += 2 + digits;
        Ok(())
    }
}
