//! Whether a text is an expression of CEL (the Common Expression Language): its syntax, not what it means.
//!
//! Recursive descent over the grammar of the language's definition, with a limit to how deep it goes.

/// Deepest nesting.
const DEEPEST: u32 = 100;
/// Longest expression, in bytes.
const LONGEST: usize = 64 * 1024;

/// Words that cannot be names.
const RESERVED: [&str; 18] = [
    "as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in", "let",
    "loop", "null", "package", "return", "true", "while",
];

/// Binary operators, those that bind least first.
const OPERATORS: [&[&str]; 5] =
    [&["||"], &["&&"], &["<=", ">=", "==", "!=", "<", ">", "in"], &["+", "-"], &["*", "/", "%"]];

/// Says what is wrong with an expression, and after how many characters.
pub(super) fn check(text: &str) -> Result<(), String> {
    if text.len() > LONGEST {
        return Err(format!("an expression has at most {LONGEST} bytes"));
    }
    let mut parser = Parser { text, at: 0, depth: 0 };
    parser.expression()?;
    parser.space();
    if parser.at < text.len() { Err(parser.unexpected("an operator or the end")) } else { Ok(()) }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: u32,
}

type Parsed = Result<(), String>;

impl<'t> Parser<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn unexpected(&self, wanted: &str) -> String {
        let column = self.text[..self.at].chars().count() + 1;
        match self.rest().chars().next() {
            Some(found) => format!("found {found:?} as character {column}, wanted {wanted}"),
            None => format!("ends too early, wanted {wanted}"),
        }
    }

    /// Passes over white space and comments.
    fn space(&mut self) {
        loop {
            let rest = self.rest().trim_start_matches([' ', '\t', '\r', '\n', '\u{c}']);
            self.at = self.text.len() - rest.len();
            if !rest.starts_with("//") {
                return;
            }
            self.at += rest.find('\n').unwrap_or(rest.len());
        }
    }

    /// Takes a sign, if it comes next.
    fn take(&mut self, sign: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(sign);
        self.at += if found { sign.len() } else { 0 };
        found
    }

    fn expect(&mut self, sign: &str) -> Parsed {
        if self.take(sign) { Ok(()) } else { Err(self.unexpected(&format!("'{sign}'"))) }
    }

    /// Takes a word, if one comes next.
    fn word(&mut self) -> Option<&'t str> {
        self.space();
        let rest = self.rest();
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        if end == 0 || rest.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        self.at += end;
        Some(&rest[..end])
    }

    fn expression(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("is nested deeper than {DEEPEST} levels"));
        }
        self.binary(0)?;
        if self.take("?") {
            self.binary(0)?;
            self.expect(":")?;
            self.expression()?;
        }
        self.depth -= 1;
        Ok(())
    }

    fn binary(&mut self, level: usize) -> Parsed {
        let Some(operators) = OPERATORS.get(level) else { return self.unary() };
        self.binary(level + 1)?;
        while operators.iter().any(|operator| self.operator(operator)) {
            self.binary(level + 1)?;
        }
        Ok(())
    }

    fn operator(&mut self, operator: &str) -> bool {
        let before = self.at;
        if operator == "in" {
            let found = self.word() == Some("in");
            self.at = if found { self.at } else { before };
            return found;
        }
        self.take(operator)
    }

    fn unary(&mut self) -> Parsed {
        let sign = if self.take("!") {
            "!"
        } else if self.take("-") {
            "-"
        } else {
            return self.member();
        };
        while self.take(sign) {}
        self.member()
    }

    fn member(&mut self) -> Parsed {
        self.primary()?;
        loop {
            if self.take(".") {
                let word = self.word();
                if word.is_none_or(|word| ["in", "true", "false", "null"].contains(&word)) {
                    return Err(self.unexpected("the name of a field or function"));
                }
                if self.take("(") {
                    self.list(")")?;
                } else if self.rest().starts_with('{') {
                    self.at += 1;
                    self.entries()?;
                }
            } else if self.take("[") {
                self.expression()?;
                self.expect("]")?;
            } else {
                return Ok(());
            }
        }
    }

    fn primary(&mut self) -> Parsed {
        if self.take("(") {
            self.expression()?;
            return self.expect(")");
        }
        if self.take("[") {
            return self.list("]");
        }
        if self.take("{") {
            return self.entries();
        }
        let rest = self.rest();
        let number = rest.strip_prefix('.').unwrap_or(rest).starts_with(|c: char| c.is_ascii_digit());
        if number {
            return self.number();
        }
        if self.string()? {
            return Ok(());
        }
        let absolute = self.take(".");
        let before = self.at;
        match self.word() {
            Some("true" | "false" | "null") if !absolute => Ok(()),
            Some(word) if RESERVED.contains(&word) => {
                self.at = before;
                Err(self.unexpected(&format!("a value; {word:?} is a reserved word")))
            }
            Some(_) if self.take("(") => self.list(")"),
            Some(_) if self.take("{") => self.entries(),
            Some(_) => Ok(()),
            None => Err(self.unexpected("a value")),
        }
    }

    /// Expressions up to a closing sign.
    fn list(&mut self, end: &str) -> Parsed {
        while !self.take(end) {
            self.expression()?;
            if !self.take(",") {
                return self.expect(end);
            }
        }
        Ok(())
    }

    /// `KEY: VALUE` up to a closing brace.
    fn entries(&mut self) -> Parsed {
        while !self.take("}") {
            self.expression()?;
            self.expect(":")?;
            self.expression()?;
            if !self.take(",") {
                return self.expect("}");
            }
        }
        Ok(())
    }

    fn number(&mut self) -> Parsed {
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
    fn string(&mut self) -> Result<bool, String> {
        let rest = self.rest();
        let prefix = rest.bytes().take(2).take_while(|b| b"bBrR".contains(b)).count();
        let quotes = &rest[prefix..];
        let Some(quote) = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| quotes.starts_with(quote))
        else {
            return Ok(false);
        };
        let raw = rest[..prefix].contains(['r', 'R']);
        self.at += prefix + quote.len();
        loop {
            let rest = self.rest();
            if rest.starts_with(quote) {
                self.at += quote.len();
                return Ok(true);
            }
            match rest.chars().next() {
                Some('\\') if !raw => self.escape()?,
                Some('\n' | '\r') if quote.len() == 1 => {
                    return Err(self.unexpected("the closing quotes on the same line"));
                }
                Some(c) => self.at += c.len_utf8(),
                None => return Err(self.unexpected("closing quotes")),
            }
        }
    }

    fn escape(&mut self) -> Parsed {
        let mut chars = self.rest().chars().skip(1);
        let (digits, radix) = match chars.next() {
            Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '"' | '\'' | '\\' | '?' | '`') => (0, 16),
            Some('x' | 'X') => (2, 16),
            Some('u') => (4, 16),
            Some('U') => (8, 16),
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

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn expressions() {
        for good in [
            "true",
            "response.code >= 400",
            "connection.mtls && request.url_path.contains('v1beta3')",
            "!has(request.auth_claims) || request.headers['x-a'] in [\"a\", \"b\"]",
            "a ? b : c ? d : e",
            "-1 + 2.5e-3 * 0xFFu % .5",
            "{'a': 1, 'b': [1, 2,]}.a",
            "a.b.C{x: 1}",
            r#"r'\d' == b"\x00" // a comment"#,
            "'''two\nlines'''",
            "some-cel-expression",
            "in_list",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let deep = format!("{}1{}", "(".repeat(500), ")".repeat(500));
        for bad in [
            "",
            "response.code >=",
            "a b",
            "a &&",
            "(a",
            "a)",
            "'a",
            "a.",
            "a[",
            "if",
            "1 = 2",
            "a ? b",
            "'\\q'",
            "99999999999999999999",
            "f(a b)",
            "1x",
            deep.as_str(),
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
