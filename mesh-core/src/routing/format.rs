//! Values of header fields with variables between percent signs (Envoy's command operators).

use std::fmt;

use http::HeaderValue;

use crate::vocab::name::Text;

/// Longest value, in bytes: bounds what one header operation may cost.
const LONGEST: usize = 16 * 1024;

/// Why a value was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A percent sign that begins no variable.
    #[error("a percent sign that begins no variable; a literal one is written %%")]
    Percent,
    /// A character that no header field may have, or too many of them.
    #[error("it has a character that no header field may have, or is longer than {LONGEST} bytes")]
    Value,
}

macro_rules! plain {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A variable without arguments.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Plain { $($(#[$doc])* $variant,)* }

        impl Plain {
            /// Every variable without arguments.
            pub const ALL: &'static [Plain] = &[$(Plain::$variant,)*];

            /// The name between the percent signs.
            pub fn name(self) -> &'static str {
                match self { $(Plain::$variant => $name,)* }
            }
        }
    };
}

plain! {
    /// `HTTP/1.1`, `HTTP/2`.
    Protocol = "PROTOCOL",
    /// When the request came, in RFC 3339 with milliseconds.
    StartTime = "START_TIME",
    /// Status of the answer.
    ResponseCode = "RESPONSE_CODE",
    /// Details of the answer.
    ResponseCodeDetails = "RESPONSE_CODE_DETAILS",
    /// Response flags.
    ResponseFlags = "RESPONSE_FLAGS",
    /// Bytes of the request's body.
    BytesReceived = "BYTES_RECEIVED",
    /// Bytes of the answer's body.
    BytesSent = "BYTES_SENT",
    /// Milliseconds since the request came.
    Duration = "DURATION",
    /// Address and port of the client.
    DownstreamRemoteAddress = "DOWNSTREAM_REMOTE_ADDRESS",
    /// Address of the client.
    DownstreamRemoteAddressWithoutPort = "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    /// Port of the client.
    DownstreamRemotePort = "DOWNSTREAM_REMOTE_PORT",
    /// Address and port of the peer of the connection, whatever header fields say.
    DownstreamDirectRemoteAddress = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    /// Address of that peer.
    DownstreamDirectRemoteAddressWithoutPort = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    /// Address and port that the client connected to.
    DownstreamLocalAddress = "DOWNSTREAM_LOCAL_ADDRESS",
    /// Address that the client connected to.
    DownstreamLocalAddressWithoutPort = "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    /// Port that the client connected to.
    DownstreamLocalPort = "DOWNSTREAM_LOCAL_PORT",
    /// Identity of the client: the URI in its certificate.
    DownstreamPeerUriSan = "DOWNSTREAM_PEER_URI_SAN",
    /// Identity under which it was received.
    DownstreamLocalUriSan = "DOWNSTREAM_LOCAL_URI_SAN",
    /// Subject of the client's certificate.
    DownstreamPeerSubject = "DOWNSTREAM_PEER_SUBJECT",
    /// Version of TLS.
    DownstreamTlsVersion = "DOWNSTREAM_TLS_VERSION",
    /// Cipher of TLS.
    DownstreamTlsCipher = "DOWNSTREAM_TLS_CIPHER",
    /// Server name that the client asked for.
    RequestedServerName = "REQUESTED_SERVER_NAME",
    /// Address and port of the endpoint.
    UpstreamHost = "UPSTREAM_HOST",
    /// `outbound|PORT|SUBSET|HOST`.
    UpstreamCluster = "UPSTREAM_CLUSTER",
    /// Address and port of the endpoint.
    UpstreamRemoteAddress = "UPSTREAM_REMOTE_ADDRESS",
    /// Address of the endpoint.
    UpstreamRemoteAddressWithoutPort = "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    /// Address and port from which it was sent on.
    UpstreamLocalAddress = "UPSTREAM_LOCAL_ADDRESS",
    /// Name of the route.
    RouteName = "ROUTE_NAME",
    /// Name of this host.
    Hostname = "HOSTNAME",
    /// Id of the request.
    StreamId = "STREAM_ID",
    /// Number of the connection.
    ConnectionId = "CONNECTION_ID",
}

/// A header field between percent signs: `REQ(NAME?OTHER):LIMIT`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Field {
    /// Name in lower case; `:path`, `:method`, `:authority` and `:scheme` too.
    pub name: Text,
    /// Read where the first is missing.
    pub otherwise: Option<Text>,
    /// Only so many bytes.
    pub limit: Option<usize>,
}

impl Field {
    /// The value, `look` having the fields by name.
    pub fn value(&self, look: impl Fn(&str) -> Option<String>) -> Option<String> {
        let mut text = look(&self.name).or_else(|| look(self.otherwise.as_deref()?))?;
        if let Some(limit) = self.limit.filter(|limit| *limit < text.len()) {
            let end = (0..=limit).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            text.truncate(end);
        }
        Some(text)
    }
}

/// What stands between percent signs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Variable {
    /// Without arguments.
    Plain(Plain),
    /// `REQ(...)`: a header field of the request.
    Request(Field),
    /// `RESP(...)`: a header field of the response.
    Response(Field),
    /// Something that has no value here, such as metadata of filters, as it is written; always empty.
    Empty(Text),
}

impl Variable {
    fn parse(name: &str, arguments: Option<&str>, limit: Option<usize>) -> Option<Variable> {
        match (name, arguments) {
            ("REQ", arguments) => Some(Variable::Request(field(arguments?, limit)?)),
            ("RESP", arguments) => Some(Variable::Response(field(arguments?, limit)?)),
            (_, None | Some("")) if limit.is_none() => {
                Plain::ALL.iter().find(|plain| plain.name() == name).copied().map(Variable::Plain)
            }
            _ => None,
        }
    }
}

/// `NAME?OTHER`, the names of fields.
pub(crate) fn field(arguments: &str, limit: Option<usize>) -> Option<Field> {
    let (name, otherwise) =
        arguments.split_once('?').map_or((arguments, None), |(name, other)| (name, Some(other)));
    let valid = |name: &str| {
        let bare = name.strip_prefix(':').unwrap_or(name);
        http::HeaderName::from_bytes(bare.as_bytes()).is_ok()
    };
    if !valid(name) || !otherwise.is_none_or(valid) {
        return None;
    }
    let lower = |name: &str| Text::from(name.to_ascii_lowercase());
    Some(Field { name: lower(name), otherwise: otherwise.map(lower), limit })
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, field) = match self {
            Variable::Plain(plain) => return write!(f, "%{}%", plain.name()),
            Variable::Empty(written) => return write!(f, "%{written}%"),
            Variable::Request(field) => ("REQ", field),
            Variable::Response(field) => ("RESP", field),
        };
        write!(f, "%{name}({}", field.name)?;
        if let Some(otherwise) = &field.otherwise {
            write!(f, "?{otherwise}")?;
        }
        match field.limit {
            Some(limit) => write!(f, "):{limit}%"),
            None => f.write_str(")%"),
        }
    }
}

/// A part of a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Piece {
    /// As it stands.
    Text(Text),
    /// Looked up for each message.
    Variable(Variable),
}

/// The value of a header operation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Template {
    /// Always the same.
    Fixed(HeaderValue),
    /// Put together for each message. At least one piece is a variable.
    Pieces(Vec<Piece>),
}

impl Template {
    /// Reads a value as it is written: `%NAME%` is a variable, `%%` a percent sign.
    pub fn parse(text: &str) -> Result<Template, FormatError> {
        if text.len() > LONGEST {
            return Err(FormatError::Value);
        }
        let mut pieces: Vec<Piece> = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            plain.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('%') {
                plain.push('%');
                rest = after;
                continue;
            }
            let (variable, after) = variable(rest)?;
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain).into()));
            }
            pieces.push(Piece::Variable(variable));
            rest = after;
        }
        plain.push_str(rest);
        let valid = |text: &str| HeaderValue::from_str(text).map_err(|_| FormatError::Value);
        if pieces.is_empty() {
            return HeaderValue::from_bytes(plain.as_bytes())
                .map(Template::Fixed)
                .map_err(|_| FormatError::Value);
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain.into()));
        }
        for piece in &pieces {
            if let Piece::Text(text) = piece {
                valid(text)?;
            }
        }
        Ok(Template::Pieces(pieces))
    }

    /// The text that [`Template::parse`] reads as this; `None` for bytes that are no text.
    pub fn source(&self) -> Option<String> {
        match self {
            Template::Fixed(value) => Some(std::str::from_utf8(value.as_bytes()).ok()?.replace('%', "%%")),
            Template::Pieces(pieces) => Some(
                pieces
                    .iter()
                    .map(|piece| match piece {
                        Piece::Text(text) => text.replace('%', "%%"),
                        Piece::Variable(variable) => variable.to_string(),
                    })
                    .collect(),
            ),
        }
    }

    /// What is looked up for each message.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        let pieces: &[Piece] = match self {
            Template::Fixed(_) => &[],
            Template::Pieces(pieces) => pieces,
        };
        pieces.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Variable(variable) => Some(variable),
        })
    }

    /// The value for one message. A variable without a value is empty; `None` if nothing is left, for a field with
    /// an empty value is never set (Envoy's `keep_empty_value`, which Istio leaves off).
    pub fn value(&self, values: &dyn Fn(&Variable) -> Option<String>) -> Option<HeaderValue> {
        match self {
            Template::Fixed(value) => (!value.is_empty()).then(|| value.clone()),
            Template::Pieces(pieces) => {
                let mut out = String::new();
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => out.push_str(text),
                        Piece::Variable(variable) => {
                            out.push_str(values(variable).as_deref().unwrap_or(""));
                        }
                    }
                }
                HeaderValue::from_bytes(out.as_bytes()).ok().filter(|value| !value.is_empty())
            }
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Template::Fixed(value) => f.write_str(&String::from_utf8_lossy(value.as_bytes())),
            Template::Pieces(pieces) => pieces.iter().try_for_each(|piece| match piece {
                Piece::Text(text) => f.write_str(text),
                Piece::Variable(variable) => variable.fmt(f),
            }),
        }
    }
}

/// What begins behind a percent sign, with what follows its end.
fn variable(text: &str) -> Result<(Variable, &str), FormatError> {
    match known(text) {
        Some(found) => Ok(found),
        None => {
            let rest = empty(text).ok_or(FormatError::Percent)?;
            let written = &text[..text.len() - rest.len() - 1];
            Ok((Variable::Empty(written.into()), rest))
        }
    }
}

/// What stands between percent signs, taken apart.
pub(crate) struct Directive<'a> {
    /// `REQ`.
    pub(crate) name: &'a str,
    /// Between the parentheses.
    pub(crate) arguments: Option<&'a str>,
    /// Behind the colon.
    pub(crate) limit: Option<usize>,
}

/// `NAME%`, `NAME(ARGUMENTS)%` or `NAME(ARGUMENTS):LIMIT%`, behind the first percent sign, with what follows the last.
pub(crate) fn directive(text: &str) -> Option<(Directive<'_>, &str)> {
    let end = text.bytes().take_while(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'_').count();
    let (name, mut rest) = text.split_at(end);
    let mut arguments = None;
    if let Some(inner) = rest.strip_prefix('(') {
        let close = closing(inner)?;
        arguments = Some(&inner[..close]);
        rest = &inner[close + 1..];
    }
    let mut limit = None;
    if let Some(digits) = rest.strip_prefix(':') {
        let close = digits.find('%')?;
        limit = Some(digits[..close].parse().ok()?);
        rest = &digits[close..];
    }
    Some((Directive { name, arguments, limit }, rest.trim_start_matches(' ').strip_prefix('%')?))
}

/// Where the parenthesis ends that has been opened before.
fn closing(inner: &str) -> Option<usize> {
    let mut open = 1;
    inner.bytes().position(|byte| {
        match byte {
            b'(' => open += 1,
            b')' => open -= 1,
            _ => {}
        }
        open == 0
    })
}

/// The same of what has a value.
fn known(text: &str) -> Option<(Variable, &str)> {
    let (found, rest) = directive(text)?;
    Some((Variable::parse(found.name, found.arguments, found.limit)?, rest))
}

/// Behind the end of anything else: up to a percent sign, which may stand in parentheses.
fn empty(text: &str) -> Option<&str> {
    let at = text.find(['%', '(']).filter(|at| *at > 0)?;
    let Some(inner) = text[at..].strip_prefix('(') else { return Some(&text[at + 1..]) };
    let mut chars = inner.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            ')' => return inner[at + 1..].trim_start_matches(' ').strip_prefix('%'),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Option<String> {
        let values = |variable: &Variable| match variable {
            Variable::Plain(Plain::Protocol) => Some("HTTP/2".to_owned()),
            Variable::Request(field) if &*field.name == "x-user" => Some("jason".to_owned()),
            _ => None,
        };
        let found = Template::parse(text).unwrap().value(&values)?;
        Some(found.to_str().unwrap().to_owned())
    }

    #[test]
    fn variables_stand_between_percent_signs() {
        for (text, expected) in [
            ("plain", Some("plain")),
            ("100%%", Some("100%")),
            ("a-%PROTOCOL%-b", Some("a-HTTP/2-b")),
            ("%REQ(X-User?:authority):3%!", Some("jason!")),
            ("%RESPONSE_FLAGS%", None),
            ("a%NOBODY%%REQ%%REQ(a b)%b%START_TIME(%Y)%", Some("ab")),
            ("%UPSTREAM_METADATA([\"a\", \"\\)\"]) %%REQ(x-user) %", Some("jason")),
            ("", None),
        ] {
            assert_eq!(value(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_variable_is_refused() {
        for text in ["50%", "%PROTOCOL", "%REQ(", "%REQ()x%", "a\nb"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_source_reads_as_the_same() {
        for text in
            ["plain", "100%%", "a-%PROTOCOL%-%%-%REQ(x-user?:path):3%", "%RESP(server)%", "%X(%%)%%A%"]
        {
            let parsed = Template::parse(text).unwrap();
            assert_eq!(parsed.source().as_deref(), Some(text));
            assert_eq!(Template::parse(&parsed.source().unwrap()).unwrap(), parsed);
        }
    }
}
