//! What one proxy tells the next of a request or byte stream: `TO PROTOCOL VERSION [FROM]`, all in one field. Each field
//! costs both ends its way through the tables of HTTP/2 and the maps of fields, and one that is the same for every
//! request of a caller to an endpoint travels as a byte or two.

use std::net::SocketAddr;

use bytes::{BufMut as _, BytesMut};
use http::HeaderValue;

/// What the application there is spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Bytes, also of a WebSocket.
    Tcp,
}

impl Spoken {
    fn name(self) -> &'static str {
        match self {
            Spoken::Http1 => "http/1.1",
            Spoken::Http2 => "h2",
            Spoken::Tcp => "tcp",
        }
    }

    fn named(name: &str) -> Option<Spoken> {
        [Spoken::Http1, Spoken::Http2, Spoken::Tcp].into_iter().find(|spoken| spoken.name() == name)
    }
}

/// What a proxy is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop<'a> {
    /// Address and port of the workload that is meant.
    pub to: SocketAddr,
    /// What its application is spoken to in.
    pub spoken: Spoken,
    /// Who calls, as it says itself: `NS/WORKLOAD;app=..;version=..`.
    pub from: Option<&'a str>,
}

/// Writes the field. `version` is that of the snapshot which decided, for whoever reads a capture.
pub fn write(to: &str, spoken: Spoken, version: &str, from: Option<&str>) -> HeaderValue {
    let (name, from) = (spoken.name(), from.unwrap_or(""));
    let mut text = BytesMut::with_capacity(to.len() + name.len() + version.len() + from.len() + 3);
    text.put_slice(to.as_bytes());
    for part in [name, version, from] {
        if !part.is_empty() {
            text.put_u8(b' ');
            text.put_slice(part.as_bytes());
        }
    }
    HeaderValue::from_maybe_shared(text.freeze()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Reads the field; `None` if it does not say where the request goes.
pub fn read(value: &HeaderValue) -> Option<Hop<'_>> {
    let mut parts = value.to_str().ok()?.splitn(4, ' ');
    let to = parts.next()?.parse().ok()?;
    let spoken = Spoken::named(parts.next()?)?;
    let from = parts.nth(1);
    Some(Hop { to, spoken, from })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let to: SocketAddr = "10.0.0.2:9080".parse().unwrap();
        for (spoken, from) in [
            (Spoken::Http1, Some("default/a;app=a;version=v1")),
            (Spoken::Http2, None),
            (Spoken::Tcp, Some("x")),
        ] {
            let value = write("10.0.0.2:9080", spoken, "12", from);
            assert_eq!(read(&value), Some(Hop { to, spoken, from }), "{value:?}");
        }
    }

    #[test]
    fn anything_else_is_nothing() {
        for text in ["", "10.0.0.2:9080", "10.0.0.2 h2 1", "10.0.0.2:80 h3 1", "a:80 h2 1 x", " h2 1"] {
            assert_eq!(read(&HeaderValue::from_static(text)), None, "{text}");
        }
    }
}
