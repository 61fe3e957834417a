//! Regular expressions in the syntax that Istio admits (Go's `regexp`, which is RE2's), said in the syntax of the
//! `regex` crate. The two differ at the edges: what only one of them takes, what a class such as `\d` holds, and
//! what a brace means that is no repetition.

use mesh_core::matching::text::{LONGEST_PATTERN, Pattern};

use super::field::Field;

mod class;
#[cfg(test)]
mod tests;

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
    // Counted first: whether a document is accepted does not depend on those before it.
    if !field.may_compile(source) {
        return None;
    }
    if let Some(pattern) = field.compiled(source) {
        return Some(pattern);
    }
    let pattern = translate(source).and_then(|translated| {
        // Longer only by the classes that were written out; a source that then is too long is taken as it is.
        let text = if translated.len() > LONGEST_PATTERN { source } else { &translated };
        compile(text)
    });
    match pattern {
        Ok(pattern) => {
            field.remember(source, &pattern);
            Some(pattern)
        }
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
