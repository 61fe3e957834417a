//! Whether a text is an expression of CEL (the Common Expression Language): its syntax, not what it means.
//!
//! Recursive descent over the grammar of the language's definition, with a limit to how deep it goes.

mod literal;
#[cfg(test)]
mod tests;

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
    let mut parser = Parser { text, at: 0, depth: 0, shape: Shape::Other };
    parser.expression()?;
    parser.space();
    if parser.at < text.len() { Err(parser.unexpected("an operator or the end")) } else { Ok(()) }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: u32,
    /// Of what was read last.
    shape: Shape,
}

/// What macros want to know of their arguments.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// A name alone.
    Name,
    /// A field of something.
    Field,
    Other,
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
            self.shape = Shape::Other;
        }
        self.depth -= 1;
        Ok(())
    }

    fn binary(&mut self, level: usize) -> Parsed {
        let Some(operators) = OPERATORS.get(level) else { return self.unary() };
        self.binary(level + 1)?;
        while operators.iter().any(|operator| self.operator(operator)) {
            self.binary(level + 1)?;
            self.shape = Shape::Other;
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
        self.member()?;
        self.shape = Shape::Other;
        Ok(())
    }

    fn member(&mut self) -> Parsed {
        self.primary()?;
        loop {
            if self.take(".") {
                let word = self.word().filter(|word| !["in", "true", "false", "null"].contains(word));
                let Some(word) = word else { return Err(self.unexpected("the name of a field or function")) };
                self.shape = Shape::Field;
                if self.take("(") {
                    self.arguments(word, true)?;
                } else if self.take("{") {
                    self.fields()?;
                }
            } else if self.take("[") {
                self.expression()?;
                self.expect("]")?;
                self.shape = Shape::Other;
            } else {
                return Ok(());
            }
        }
    }

    /// The arguments of a function, up to the closing parenthesis; those of macros are looked at.
    fn arguments(&mut self, function: &str, of_something: bool) -> Parsed {
        let (mut count, mut first) = (0, Shape::Other);
        if !self.take(")") {
            loop {
                self.expression()?;
                count += 1;
                if count == 1 {
                    first = self.shape;
                }
                if !self.take(",") {
                    break;
                }
            }
            self.expect(")")?;
        }
        self.shape = Shape::Other;
        let loops = match function {
            "all" | "exists" | "exists_one" | "existsOne" | "filter" => count == 2,
            "map" => count == 2 || count == 3,
            _ => false,
        };
        if of_something && loops && first != Shape::Name {
            return Err(format!("{function} takes the name of a variable first"));
        }
        if !of_something && function == "has" && count == 1 && first != Shape::Field {
            return Err("has takes a field: has(a.b)".to_owned());
        }
        Ok(())
    }

    fn primary(&mut self) -> Parsed {
        if self.take("(") {
            self.expression()?;
            return self.expect(")");
        }
        self.value()
    }

    /// A value that stands in no parentheses.
    fn value(&mut self) -> Parsed {
        let opens_list = self.take("[");
        if opens_list || self.take("{") {
            if opens_list {
                self.list("]")?
            } else {
                self.entries()?
            }
            self.shape = Shape::Other;
            return Ok(());
        }
        let rest = self.rest();
        let number = rest.strip_prefix('.').unwrap_or(rest).starts_with(|c: char| c.is_ascii_digit());
        self.shape = Shape::Other;
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
            Some(word) if self.take("(") => self.arguments(word, false),
            Some(_) if self.take("{") => self.fields(),
            Some(_) => {
                self.shape = Shape::Name;
                Ok(())
            }
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

    /// `NAME: VALUE` up to a closing brace: the fields of a message.
    fn fields(&mut self) -> Parsed {
        while !self.take("}") {
            if self.word().is_none() {
                return Err(self.unexpected("the name of a field"));
            }
            self.expect(":")?;
            self.expression()?;
            if !self.take(",") {
                self.expect("}")?;
                break;
            }
        }
        self.shape = Shape::Other;
        Ok(())
    }
}
