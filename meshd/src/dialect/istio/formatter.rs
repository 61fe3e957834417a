//! The syntax of header values: text, `%%` for a percent sign, and Envoy's formatters `%NAME%`, `%NAME(text)%` and
//! `%NAME(["text", ...])%`. Which names there are is not looked at, as in Istio's admission.

/// A header value as written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// Without formatters; `%%` is read.
    Literal(String),
    /// With formatters: the name of the first.
    Formatted(String),
}

/// Reads a value, or says what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Value, &'static str> {
    let mut literal = String::with_capacity(text.len());
    let mut formatter: Option<&str> = None;
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        literal.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            literal.push('%');
            rest = after;
            continue;
        }
        let end = after.find(['%', '(']).ok_or(UNTERMINATED)?;
        formatter.get_or_insert(&after[..end]);
        let at_end = &after[end..];
        rest = match at_end.strip_prefix('(') {
            Some(inside) => closing_percent(arguments(inside)?)?,
            None => &at_end[1..],
        };
    }
    literal.push_str(rest);
    Ok(match formatter {
        None => Value::Literal(literal),
        Some(name) => Value::Formatted(name.to_owned()),
    })
}

const UNTERMINATED: &str =
    "a formatter such as %HOSTNAME% does not end; a literal percent sign is written %%";

/// Reads behind an opening parenthesis; what follows the closing one.
fn arguments(text: &str) -> Result<&str, &'static str> {
    let text = text.trim_start_matches(' ');
    let Some(list) = text.strip_prefix('[') else {
        // The first character belongs to the argument whatever it is.
        let first = text.chars().next().ok_or(UNTERMINATED)?;
        return match string(&text[first.len_utf8()..])? {
            (After::Parenthesis, rest) => Ok(rest),
            (After::Quote, rest) => list_end(rest),
        };
    };
    next_string(list)
}

/// What ended a text inside parentheses.
enum After {
    Quote,
    Parenthesis,
}

/// Reads up to the end of a text, which a quote or the closing parenthesis is; a backslash hides what follows it.
fn string(text: &str) -> Result<(After, &str), &'static str> {
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next().ok_or("a backslash in a formatter stands before nothing")?),
            ')' => return Ok((After::Parenthesis, &text[at + 1..])),
            '"' => return Ok((After::Quote, &text[at + 1..])),
            _ => {}
        }
    }
    Err(UNTERMINATED)
}

/// Reads a text of a list, from before its quote.
fn next_string(text: &str) -> Result<&str, &'static str> {
    let text = text.trim_start_matches(' ');
    if text.is_empty() {
        return Err(UNTERMINATED);
    }
    let inside = text.strip_prefix('"').ok_or("the list of a formatter holds texts in double quotes")?;
    match string(inside)? {
        (After::Parenthesis, rest) => Ok(rest),
        (After::Quote, rest) => list_end(rest),
    }
}

/// Reads behind a text of a list: another one, or the end of the list and the closing parenthesis.
fn list_end(text: &str) -> Result<&str, &'static str> {
    let mut text = text.trim_start_matches(' ');
    while let Some(more) = text.strip_prefix(',') {
        let inside = more.trim_start_matches(' ');
        let inside =
            inside.strip_prefix('"').ok_or("the list of a formatter holds texts in double quotes")?;
        match string(inside)? {
            (After::Parenthesis, rest) => return Ok(rest),
            (After::Quote, rest) => text = rest.trim_start_matches(' '),
        }
    }
    let text = text.strip_prefix(']').ok_or("the list of a formatter goes on with ',' or ends with ']'")?;
    text.trim_start_matches(' ').strip_prefix(')').ok_or("the arguments of a formatter end with ')'")
}

fn closing_percent(text: &str) -> Result<&str, &'static str> {
    text.trim_start_matches(' ').strip_prefix('%').ok_or("a formatter ends with '%' behind its arguments")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        for (text, expected) in [
            ("", Value::Literal(String::new())),
            ("a b", Value::Literal("a b".to_owned())),
            ("100%% and more", Value::Literal("100% and more".to_owned())),
            ("%HOSTNAME%", Value::Formatted("HOSTNAME".to_owned())),
            ("a %REQ(x-y)% b%%", Value::Formatted("REQ".to_owned())),
            ("%UPSTREAM_METADATA([\"a\", \"b\\\"c\"])%", Value::Formatted("UPSTREAM_METADATA".to_owned())),
            ("%DYNAMIC_METADATA( [\"a\"] ) %", Value::Formatted("DYNAMIC_METADATA".to_owned())),
            ("%START_TIME(%Y/%m)%", Value::Formatted("START_TIME".to_owned())),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        for bad in [
            "%",
            "5%",
            "abcd%oijasodifj",
            "%START_TIME%%",
            "%A(",
            "%A()%",
            "%A(x)",
            "%A(x)y%",
            "%A([x])%",
            "%A([\"x\")",
            "%A([\"x\"x])%",
            "%A([\"x\"]x)%",
            "%A([\"x\", ",
            "%A(x\\",
            "%A([",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
