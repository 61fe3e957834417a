//! JSON to [`Node`]s. YAML's reader takes JSON, too, but keeps what it has seen of a flow collection until its end, so
//! a large list would cost a multiple of its size; and it does not know the escapes of characters in two halves.

use super::node::{Entry, Mark, Node, Value};
use super::yaml::{self, DEEPEST, Fault, Keys, Read};

/// Most values in a document; few in tests, which would take long otherwise.
const MOST_VALUES: usize = if cfg!(test) { 100_000 } else { 4_000_000 };

/// Reads a whole file as one JSON document; `None` if it is none, which may still be YAML.
pub(crate) fn document(text: &str) -> Option<Result<Read, Fault>> {
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    let mut reader = Reader { text, at: 0, mark: Mark { line: 1, column: 1 }, values: 0, faults: Vec::new() };
    let read = reader.blank().value(0).and_then(|node| match reader.blank().peek() {
        None => Ok(node),
        Some(_) => Err(End::NoJson),
    });
    match read {
        Ok(node) => Some(Ok((node, reader.faults))),
        Err(End::Beyond(fault)) => Some(Err(fault)),
        Err(End::NoJson) => None,
    }
}

/// Why reading ended before the end.
enum End {
    /// Not JSON.
    NoJson,
    /// Beyond a limit.
    Beyond(Fault),
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    mark: Mark,
    values: usize,
    faults: Vec<Fault>,
}

impl<'t> Reader<'t> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Goes on by one byte, and counts lines and characters.
    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        if byte == b'\n' {
            self.mark = Mark { line: self.mark.line.saturating_add(1), column: 1 };
        } else if byte & 0xc0 != 0x80 {
            self.mark.column = self.mark.column.saturating_add(1);
        }
        Some(byte)
    }

    fn blank(&mut self) -> &mut Self {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.next();
        }
        self
    }

    fn expect(&mut self, wanted: u8) -> Result<(), End> {
        if self.next() == Some(wanted) { Ok(()) } else { Err(End::NoJson) }
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, End> {
        for byte in word.bytes() {
            self.expect(byte)?;
        }
        Ok(value)
    }

    fn value(&mut self, depth: usize) -> Result<Node, End> {
        let mark = self.mark;
        self.values += 1;
        if depth > DEEPEST {
            let message = format!("nested more than {DEEPEST} levels deep");
            return Err(End::Beyond(Fault { mark, message }));
        }
        if self.values > MOST_VALUES {
            let message = format!("the document has more than {MOST_VALUES} values; split it into several");
            return Err(End::Beyond(Fault { mark, message }));
        }
        let value = match self.peek() {
            Some(b'{') => self.map(depth)?,
            Some(b'[') => self.list(depth)?,
            Some(b'"') => Value::Text(self.string()?),
            Some(b't') => self.word("true", Value::Bool(true))?,
            Some(b'f') => self.word("false", Value::Bool(false))?,
            Some(b'n') => self.word("null", Value::Null)?,
            Some(b'-' | b'0'..=b'9') => self.number()?,
            _ => return Err(End::NoJson),
        };
        Ok(Node { mark, value })
    }

    fn list(&mut self, depth: usize) -> Result<Value, End> {
        self.expect(b'[')?;
        let mut items = Vec::new();
        if self.blank().peek() == Some(b']') {
            self.next();
            return Ok(Value::List(items));
        }
        loop {
            items.push(self.blank().value(depth + 1)?);
            match self.blank().next() {
                Some(b',') => {}
                Some(b']') => return Ok(Value::List(items)),
                _ => return Err(End::NoJson),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, End> {
        self.expect(b'{')?;
        let mut keys = Keys::default();
        if self.blank().peek() == Some(b'}') {
            self.next();
            return Ok(Value::Map(Vec::new()));
        }
        loop {
            let mark = self.blank().mark;
            let key = self.string()?;
            self.blank().expect(b':')?;
            let value = self.blank().value(depth + 1)?;
            if let Some(fault) = keys.add(Entry { key, mark, value }) {
                self.faults.push(fault);
            }
            match self.blank().next() {
                Some(b',') => {}
                Some(b'}') => return Ok(Value::Map(keys.into_entries())),
                _ => return Err(End::NoJson),
            }
        }
    }

    fn number(&mut self) -> Result<Value, End> {
        let start = self.at;
        while matches!(self.peek(), Some(b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')) {
            self.next();
        }
        let text = &self.text[start..self.at];
        // Numbers of JSON are those of YAML without a leading plus, zero or point, or a point at the end.
        let digits = text.strip_prefix('-').unwrap_or(text);
        let whole = digits.split(['.', 'e', 'E']).next().unwrap_or("");
        let odd = whole.is_empty()
            || (whole.len() > 1 && whole.starts_with('0'))
            || digits.split(['e', 'E']).next().is_some_and(|mantissa| mantissa.ends_with('.'));
        match yaml::number(text) {
            Some(number) if !odd => Ok(Value::Number(number)),
            _ => Err(End::NoJson),
        }
    }

    fn string(&mut self) -> Result<Box<str>, End> {
        self.expect(b'"')?;
        let mut out = String::new();
        let mut start = self.at;
        loop {
            match self.peek() {
                Some(b'"') => {
                    out.push_str(&self.text[start..self.at]);
                    self.next();
                    return Ok(out.into());
                }
                Some(b'\\') => {
                    out.push_str(&self.text[start..self.at]);
                    self.next();
                    out.push(self.escaped()?);
                    start = self.at;
                }
                Some(0..=0x1f) | None => return Err(End::NoJson),
                Some(_) => drop(self.next()),
            }
        }
    }

    /// What a backslash stands for; it has been read.
    fn escaped(&mut self) -> Result<char, End> {
        Ok(match self.next() {
            Some(c @ (b'"' | b'\\' | b'/')) => char::from(c),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let first = self.unit()?;
                let code = match first {
                    0xd800..=0xdbff => {
                        self.expect(b'\\')?;
                        self.expect(b'u')?;
                        let second = self.unit()?;
                        if !(0xdc00..=0xdfff).contains(&second) {
                            return Err(End::NoJson);
                        }
                        0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
                    }
                    code => code,
                };
                char::from_u32(code).ok_or(End::NoJson)?
            }
            _ => return Err(End::NoJson),
        })
    }

    fn unit(&mut self) -> Result<u32, End> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.next().and_then(|byte| char::from(byte).to_digit(16)).ok_or(End::NoJson)?;
            unit = unit * 16 + digit;
        }
        Ok(unit)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(serde_json::Value::from),
            any::<i64>().prop_map(serde_json::Value::from),
            "[a-zA-Z0-9 :#äß{}\\[\\],'\"\n\t]{0,12}".prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(serde_json::Value::from),
                prop::collection::vec(("[a-z<:ä ]{0,6}", inner), 0..5)
                    .prop_map(|pairs| serde_json::Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

        #[test]
        fn json_is_read_as_yaml_reads_it(value in prop::collection::vec(any_json(), 0..4), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let text = text.unwrap();
            let own = document(&text).unwrap().unwrap();
            let other = yaml::Reader::new(&text).next().unwrap().unwrap();
            prop_assert_eq!(own, other, "{}", text);
        }
    }

    fn json(text: &str) -> Option<String> {
        let (node, _) = document(text)?.ok()?;
        let mut json = String::new();
        node.write_json(&mut json, &mut Vec::new());
        Some(json)
    }

    #[test]
    fn documents_are_read_and_all_else_is_left() {
        for same in [
            "{}",
            "[]",
            r#"{"a":[1,-2.5,true,false,null,"x"],"":{"b":{}}}"#,
            r#"["ä🙂\"\\\n\u0001/"]"#,
            "[0,-0.0,18446744073709551615,-9223372036854775808,1e+300]",
        ] {
            assert_eq!(json(same).as_deref(), Some(same));
        }
        assert_eq!(json(" [ \"\\ud83d\\ude42\\u00e4\\/\" ]\r\n\t").as_deref(), Some("[\"🙂ä/\"]"));
        for none in [
            "",
            "a: 1",
            "{a: 1}",
            "[1,]",
            "{\"a\" 1}",
            "{} {}",
            "[01]",
            "[1.]",
            "[.5]",
            "[+1]",
            "[0x1]",
            "[tru]",
            "[\"\n\"]",
            "[\"\\x41\"]",
            "[\"\\ud83d\"]",
            "[\"\\ud83dx\"]",
            "[\"",
            "{\"a\":1",
            "---\n{}",
            "[1 2]",
        ] {
            assert!(document(none).is_none(), "{none:?}");
        }
    }

    #[test]
    fn places_faults_and_limits() {
        let (node, faults) = document("\n{\"ä\": 1,\n  \"b\": [\"x\"], \"b\": 2}").unwrap().unwrap();
        assert_eq!((node.mark.line, node.mark.column), (2, 1));
        let place = |entry: &Entry| (entry.mark.line, entry.mark.column, entry.value.mark.column);
        let Value::Map(entries) = &node.value else { panic!() };
        assert_eq!(entries.iter().map(place).collect::<Vec<_>>(), [(2, 2, 7), (3, 3, 8)]);
        assert_eq!(faults[0].message, "the key \"b\" is there twice, first in line 3");
        let beyond = |text: &str| document(text).unwrap().unwrap_err().message;
        assert!(beyond(&"[".repeat(100)).contains("more than 64 levels"));
        assert!(beyond(&format!("[{}1]", "1,".repeat(MOST_VALUES))).contains("more than 100000 values"));
    }
}
