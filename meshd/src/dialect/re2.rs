//! Regular expressions in the syntax that Istio admits (Go's `regexp`, which is RE2's), said in the syntax of the
//! `regex` crate. The two differ at the edges: what only one of them takes, what a class such as `\d` holds, and
//! what a brace means that is no repetition.

use mesh_core::matching::text::{LONGEST_PATTERN, Pattern};

use super::field::Field;

/// Most repetitions of an expression, those around it multiplied.
const MOST_REPETITIONS: u32 = 1000;

/// Reads a regular expression.
pub(crate) fn pattern(field: &Field<'_>) -> Option<Pattern> {
    let source = field.some_text()?;
    if source.len() > LONGEST_PATTERN {
        field.fault(format!(
            "the regular expression has {} characters, at most {LONGEST_PATTERN} are allowed",
            source.len()
        ));
        return None;
    }
    let pattern = translate(source).and_then(|translated| {
        // Longer only by the classes that were written out; a source that then is too long is taken as it is.
        let text = if translated.len() > LONGEST_PATTERN { source } else { &translated };
        compile(text)
    });
    match pattern {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            field.fault(format!("not a regular expression of RE2: {error}"));
            None
        }
    }
}

/// Compiles a translation. One that is too large with all of Unicode in each of its classes, such as `.{1000}`, is
/// taken byte by byte, which is the same for ASCII.
fn compile(text: &str) -> Result<Pattern, String> {
    let by_byte = || Pattern::new(&format!("(?-u:{text})")).ok();
    Pattern::new(text).or_else(|error| by_byte().ok_or_else(|| error.to_string()))
}

/// The same expression for the `regex` crate, or what is wrong with it.
fn translate(source: &str) -> Result<String, String> {
    let mut translation = Translation {
        rest: source,
        out: String::with_capacity(source.len()),
        groups: vec![Group::default()],
        names: Vec::new(),
    };
    while let Some(c) = translation.next() {
        translation.one(c)?;
    }
    if translation.groups.len() > 1 {
        return Err("missing closing )".to_owned());
    }
    Ok(translation.out)
}

/// What was read of a group, or of the whole.
#[derive(Default)]
struct Group {
    /// Repetitions multiplied, of the part where they are most.
    most: u32,
    /// The same of what stands last, if it can be repeated.
    last: Option<u32>,
    /// Whether what stands last is a repetition, which cannot be repeated itself.
    repeated: bool,
}

impl Group {
    fn push(&mut self, repetitions: u32) {
        self.most = self.most.max(repetitions);
        self.last = Some(repetitions);
        self.repeated = false;
    }

    fn nothing_to_repeat(&mut self) {
        self.last = None;
        self.repeated = false;
    }
}

struct Translation<'s> {
    rest: &'s str,
    out: String,
    /// Never empty.
    groups: Vec<Group>,
    names: Vec<&'s str>,
}

impl<'s> Translation<'s> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn skip(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn group(&mut self) -> &mut Group {
        self.groups.last_mut().expect("the whole expression is never closed")
    }

    fn one(&mut self, c: char) -> Result<(), String> {
        match c {
            '(' => self.open(),
            ')' if self.groups.len() > 1 => {
                let most = self.groups.pop().map_or(1, |group| group.most);
                self.group().push(most.max(1));
                self.out.push(')');
                Ok(())
            }
            ')' => Err("unexpected )".to_owned()),
            '|' => {
                self.group().nothing_to_repeat();
                self.out.push('|');
                Ok(())
            }
            '*' | '+' | '?' => self.repeat(c.encode_utf8(&mut [0; 4]), 1),
            '{' => match self.counts()? {
                Some((text, times)) => self.repeat(&text, times),
                None => {
                    self.literal('{');
                    Ok(())
                }
            },
            '[' => self.class(),
            '\\' => self.escape(),
            '^' | '$' | '.' => {
                self.group().push(1);
                self.out.push(c);
                Ok(())
            }
            c => {
                self.literal(c);
                Ok(())
            }
        }
    }

    fn literal(&mut self, c: char) {
        self.group().push(1);
        self.out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
    }

    fn put(&mut self, text: &str) {
        self.group().push(1);
        self.out.push_str(text);
    }

    fn repeat(&mut self, operator: &str, times: u32) -> Result<(), String> {
        if self.group().repeated {
            return Err(format!("invalid nested repetition operator {operator}"));
        }
        let Some(inner) = self.group().last else {
            return Err(format!("missing argument to repetition operator {operator}"));
        };
        let all = inner.saturating_mul(times.max(1));
        if all > MOST_REPETITIONS {
            return Err(format!("invalid repeat count, more than {MOST_REPETITIONS}"));
        }
        self.group().push(all);
        self.group().repeated = true;
        self.out.push_str(operator);
        if self.skip("?") {
            self.out.push('?');
        }
        Ok(())
    }

    /// `n}`, `n,}` or `n,m}` and how often at most; `None` where the brace stands for itself.
    fn counts(&mut self) -> Result<Option<(String, u32)>, String> {
        let Some((inside, after)) = self.rest.split_once('}') else { return Ok(None) };
        let number = |text: &str| {
            let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            (plain && (text.len() == 1 || !text.starts_with('0'))).then(|| text.parse().unwrap_or(u32::MAX))
        };
        let (least, most) = match inside.split_once(',') {
            Some((least, "")) => (number(least), Some(None)),
            Some((least, most)) => (number(least), number(most).map(Some)),
            None => (number(inside), number(inside).map(Some)),
        };
        let (Some(least), Some(most)) = (least, most) else { return Ok(None) };
        if least > MOST_REPETITIONS || most.is_some_and(|most| most > MOST_REPETITIONS || most < least) {
            return Err(format!("invalid repeat count {{{inside}}}"));
        }
        self.rest = after;
        Ok(Some((format!("{{{inside}}}"), most.unwrap_or(least))))
    }

    /// What follows an opening parenthesis.
    fn open(&mut self) -> Result<(), String> {
        if !self.skip("?") {
            self.out.push('(');
            self.groups.push(Group::default());
            return Ok(());
        }
        if self.rest.starts_with("<=") || self.rest.starts_with("<!") {
            return Err("look-behind is not supported".to_owned());
        }
        if self.skip("P<") || self.skip("<") {
            let (name, after) = self.rest.split_once('>').ok_or("invalid named capture")?;
            let valid = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !valid || self.names.contains(&name) {
                return Err(format!("invalid or duplicate name of a capture {name:?}"));
            }
            // Names mean nothing here, and the other syntax does not take all of them.
            self.names.push(name);
            self.rest = after;
            self.out.push('(');
            self.groups.push(Group::default());
            return Ok(());
        }
        self.flags()
    }

    /// `(?i)`, `(?i:` and the like.
    fn flags(&mut self) -> Result<(), String> {
        let unsupported = || "look-ahead and other Perl syntax is not supported".to_owned();
        let mut flags = String::new();
        loop {
            match self.next() {
                Some(c @ ('i' | 'm' | 's' | 'U')) => {
                    if !flags.split('-').next_back().is_some_and(|part| part.contains(c)) {
                        flags.push(c);
                    }
                }
                Some('-') if !flags.contains('-') => flags.push('-'),
                Some(end @ (':' | ')')) if !flags.ends_with('-') => {
                    if end == ':' {
                        self.groups.push(Group::default());
                    } else {
                        self.group().nothing_to_repeat();
                    }
                    if end == ':' || !flags.is_empty() {
                        self.out.push_str(&format!("(?{}{end}", sorted_out(&flags)));
                    }
                    return Ok(());
                }
                _ => return Err(unsupported()),
            }
        }
    }

    /// What follows a backslash outside a class.
    fn escape(&mut self) -> Result<(), String> {
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
    fn class(&mut self) -> Result<(), String> {
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

/// Flags without those that are set and cleared at once, which the other syntax refuses: the later one counts.
fn sorted_out(flags: &str) -> String {
    match flags.split_once('-') {
        Some((set, cleared)) => {
            let set: String = set.chars().filter(|c| !cleared.contains(*c)).collect();
            format!("{set}-{cleared}")
        }
        None => flags.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

        #[test]
        fn whatever_is_translated_compiles(source in "([a-c0-3\\\\\\[\\](){}?*+|^$.,:<>Pidwsxb!=ä-]){0,14}") {
            if let Ok(text) = translate(&source) {
                prop_assert!(compile(&text).is_ok(), "{} as {}", source, text);
            }
        }
    }

    #[test]
    fn what_re2_takes_means_the_same() {
        for (source, text, expected) in [
            ("v[0-9]+", "v12", true),
            (r"\d+", "12", true),
            (r"\d+", "\u{663}", false),
            (r"\w+", "\u{e4}", false),
            (r"[\w-]+", "a-b", true),
            (r"[^\s]+", "a b", false),
            (r"a\b.*", "a b", true),
            ("a{", "a{", true),
            ("a{,2}", "a{,2}", true),
            ("a{2}", "aa", true),
            ("x{01}", "x{01}", true),
            (r"\Qa.b\E+", "a.bb", true),
            (r"\Qa.b", "axb", false),
            (r"\/a\-b\_", "/a-b_", true),
            (r"\<a\>", "<a>", true),
            ("[a&&b]+", "a&b", true),
            ("[[a]b", "[b", true),
            ("[]a]+", "a]", true),
            ("[--a]", "A", true),
            (r"[\]\^]+", "]^", true),
            ("(?P<n>a)(?<m>b)", "ab", true),
            ("(?i)JASON", "jason", true),
            ("(?i-i:a)", "A", false),
            ("(?)a", "a", true),
            ("(?:a|b)+?", "ab", true),
            (r"\x41\x{42}\101", "ABA", true),
            (r"\pL\p{Greek}\P{^Greek}", "a\u{3b1}\u{3b1}", true),
            ("[[:alpha:]]+", "ab", true),
            ("a|", "", true),
            ("^*a$", "a", true),
            ("(a{10}){100}", "a", false),
            ("/.{0,1000}", "/a", true),
            ("[^/]{1,1000}", "a/", false),
        ] {
            let translated = translate(source).unwrap();
            let pattern = compile(&translated).unwrap();
            assert_eq!(pattern.matches(text.as_bytes()), expected, "{source} as {translated} on {text}");
        }
    }

    #[test]
    fn what_re2_refuses_is_refused() {
        for bad in [
            "(",
            "a)",
            "[",
            "[]",
            "*",
            "a|*",
            "a**",
            "a*+",
            "a{2}{3}",
            "a{1001}",
            "a{2,1}",
            "(a{100}){11}",
            "(?=x)",
            "(?!x)",
            "(?<=x)",
            "(?x)a",
            "(?P=n)",
            "(?P<>a)",
            "(?P<n>a)(?P<n>b)",
            "(?i",
            "(?-)a",
            "(?i-)a",
            "a(?i)*",
            r"\1",
            r"(a)\1",
            r"\8",
            r"\C",
            r"\Z",
            r"\u0041",
            r"\x4",
            r"\x{110000}",
            "\\",
            r"[\b]",
            "[b-a]",
            "[[:nope:]]",
            r"\p{Nope}",
            r"\p{Script=Greek}",
            "[a",
        ] {
            let result = translate(bad).and_then(|text| compile(&text));
            assert!(result.is_err(), "{bad}");
        }
    }
}
