//! Escapes and classes of characters.

use super::Translation;

impl Translation<'_> {
    /// What follows a backslash outside a class.
    pub(super) fn escape(&mut self) -> Result<(), String> {
        let Some(c) = self.rest.chars().next() else {
            return Err("trailing backslash at the end of the expression".to_owned());
        };
        if let Some(class) = perl_class(c) {
            self.next();
            let text = if c.is_ascii_uppercase() { format!("[^{class}]") } else { format!("[{class}]") };
            self.put(&text);
            return Ok(());
        }
        match c {
            'A' | 'z' => {
                self.next();
                self.put(if c == 'A' { "\\A" } else { "\\z" });
            }
            // Words are of ASCII in RE2.
            'b' | 'B' => {
                self.next();
                self.put(if c == 'b' { "(?-u:\\b)" } else { "(?-u:\\B)" });
            }
            'Q' => {
                let quoted = &self.rest[1..];
                let (quoted, after) = quoted.split_once("\\E").unwrap_or((quoted, ""));
                self.rest = after;
                quoted.chars().for_each(|c| self.literal(c));
            }
            'p' | 'P' => {
                let class = self.unicode_class()?;
                self.put(&class);
            }
            _ => {
                let c = self.escaped()?;
                self.literal(c);
            }
        }
        Ok(())
    }

    /// A character written as an escape, without its backslash; the same inside and outside of classes.
    fn escaped(&mut self) -> Result<char, String> {
        let start = self.rest;
        let invalid = || format!("invalid escape sequence \\{}", start.chars().next().unwrap_or(' '));
        let c = self.next().ok_or_else(invalid)?;
        let code = match c {
            '0'..='7' => {
                let digits = 1 + self.rest.bytes().take(2).take_while(|b| matches!(b, b'0'..=b'7')).count();
                // A digit alone would be a reference back.
                if c != '0' && digits == 1 {
                    return Err(invalid());
                }
                self.rest = &start[digits..];
                u32::from_str_radix(&start[..digits], 8).ok()
            }
            'x' if self.skip("{") => {
                let (digits, after) = self.rest.split_once('}').ok_or_else(invalid)?;
                self.rest = after;
                hexadecimal(digits)
            }
            'x' => {
                let digits = self.rest.get(..2).ok_or_else(invalid)?;
                self.rest = &self.rest[2..];
                hexadecimal(digits)
            }
            'a' => Some(7),
            'f' => Some(12),
            'n' => Some(10),
            'r' => Some(13),
            't' => Some(9),
            'v' => Some(11),
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => Some(u32::from(c)),
            _ => None,
        };
        code.and_then(char::from_u32).ok_or_else(invalid)
    }

    /// `pL`, `p{Greek}`, `P{^Greek}`.
    fn unicode_class(&mut self) -> Result<String, String> {
        let mut negated = self.next() == Some('P');
        let invalid = || "invalid class of characters after \\p".to_owned();
        let first = self.next().ok_or_else(invalid)?;
        let mut single = [0; 4];
        let mut name: &str = if first == '{' {
            let (name, after) = self.rest.split_once('}').ok_or_else(invalid)?;
            self.rest = after;
            name
        } else {
            first.encode_utf8(&mut single)
        };
        if let Some(rest) = name.strip_prefix('^') {
            name = rest;
            negated = !negated;
        }
        let valid = name.starts_with(|c: char| c.is_ascii_uppercase())
            && name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
        if !valid {
            return Err(invalid());
        }
        Ok(format!("\\{}{{{name}}}", if negated { 'P' } else { 'p' }))
    }

    /// What follows an opening bracket.
    pub(super) fn class(&mut self) -> Result<(), String> {
        let mut class = String::from(if self.skip("^") { "[^" } else { "[" });
        let mut first = true;
        while first || !self.rest.starts_with(']') {
            first = false;
            if self.rest.is_empty() {
                return Err("missing closing ]".to_owned());
            }
            if self.named_class(&mut class)? || self.class_escape(&mut class)? {
                continue;
            }
            let low = self.class_char()?;
            put_in_class(low, &mut class);
            if self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.next();
                let high = self.class_char()?;
                if high < low {
                    return Err("invalid range of characters in a class".to_owned());
                }
                class.push('-');
                put_in_class(high, &mut class);
            }
        }
        self.next();
        class.push(']');
        self.put(&class);
        Ok(())
    }

    /// `[:alpha:]` inside a class.
    fn named_class(&mut self, class: &mut String) -> Result<bool, String> {
        const NAMES: [&str; 14] = [
            "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
            "space", "upper", "word", "xdigit",
        ];
        let Some((name, after)) = self.rest.strip_prefix("[:").and_then(|rest| rest.split_once(":]")) else {
            return Ok(false);
        };
        if !NAMES.contains(&name.strip_prefix('^').unwrap_or(name)) {
            return Err(format!("invalid class of characters [:{}:]", name.escape_debug()));
        }
        self.rest = after;
        class.push_str(&format!("[:{name}:]"));
        Ok(true)
    }

    /// `\d`, `\pL` and the like inside a class.
    fn class_escape(&mut self, class: &mut String) -> Result<bool, String> {
        let Some(c) = self.rest.strip_prefix('\\').and_then(|rest| rest.chars().next()) else {
            return Ok(false);
        };
        if let Some(held) = perl_class(c) {
            self.rest = &self.rest[2..];
            let text = if c.is_ascii_uppercase() { format!("[^{held}]") } else { held.to_owned() };
            class.push_str(&text);
            return Ok(true);
        }
        if !matches!(c, 'p' | 'P') {
            return Ok(false);
        }
        self.rest = &self.rest[1..];
        let held = self.unicode_class()?;
        class.push_str(&held);
        Ok(true)
    }

    fn class_char(&mut self) -> Result<char, String> {
        match self.next() {
            Some('\\') => self.escaped(),
            Some(c) => Ok(c),
            None => Err("missing closing ]".to_owned()),
        }
    }
}

fn hexadecimal(digits: &str) -> Option<u32> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if plain { u32::from_str_radix(digits, 16).ok() } else { None }
}

/// What `\d`, `\s`, `\w` and their opposites hold: ASCII only.
fn perl_class(c: char) -> Option<&'static str> {
    match c {
        'd' | 'D' => Some("0-9"),
        's' | 'S' => Some("\\t\\n\\f\\r "),
        'w' | 'W' => Some("0-9A-Za-z_"),
        _ => None,
    }
}

/// A character that stands for itself in a class.
fn put_in_class(c: char, class: &mut String) {
    if c.is_ascii_punctuation() && c != '_' && c != '<' && c != '>' {
        class.push('\\');
    }
    class.push(c);
}
