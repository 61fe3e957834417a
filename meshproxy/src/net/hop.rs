//! What one proxy tells the next of a request or byte stream: `TO PROTOCOL VERSION [FROM]`, all in one field. Each field
//! costs both ends its way through the tables of HTTP/2 and the maps of fields, and one that is the same for every
//! request of a caller to an endpoint travels as a byte or two.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{BufMut as _, BytesMut};
use foldhash::fast::RandomState;
use http::HeaderValue;
use mesh_core::vocab::name::Text;

/// So many fields are kept, before all are forgotten.
const MOST_KEPT: usize = 1024;

/// What the application there is spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

/// The fields that a data thread has written: most requests have one like those before.
#[derive(Debug, Default)]
pub struct Written(RefCell<HashMap<Key, Kept, RandomState>>);

/// Where the texts of a field lie, which stay where they are while they are kept.
type Key = (usize, usize, usize, Spoken);

#[derive(Debug)]
struct Kept {
    field: HeaderValue,
    /// What the key is of.
    _texts: (Text, Text, Option<Text>),
}

impl Written {
    /// As [`write()`].
    pub fn write(&self, to: &Text, spoken: Spoken, version: &Text, from: Option<&Text>) -> HeaderValue {
        let place = |text: &Text| Arc::as_ptr(text).cast::<u8>() as usize;
        let key = (place(to), place(version), from.map_or(0, place), spoken);
        let mut kept = self.0.borrow_mut();
        if let Some(known) = kept.get(&key) {
            return known.field.clone();
        }
        let field = write(to, spoken, version, from.map(|from| &**from));
        if kept.len() >= MOST_KEPT {
            kept.clear();
        }
        let _texts = (to.clone(), version.clone(), from.cloned());
        kept.insert(key, Kept { field: field.clone(), _texts });
        field
    }
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
    fn what_was_written_is_kept_for_the_same_texts_only() {
        let written = Written::default();
        let texts = |all: [&str; 3]| all.map(Text::from);
        for round in 0..2 * MOST_KEPT {
            let [to, version, from] = texts(["10.0.0.2:9080", &round.to_string(), "default/a"]);
            for from in [Some(&from), None] {
                let expected = write(&to, Spoken::Http2, &version, from.map(|from| &**from));
                let kept = [0; 2].map(|_| written.write(&to, Spoken::Http2, &version, from));
                assert_eq!(kept, [expected.clone(), expected]);
            }
            assert!(written.0.borrow().len() <= MOST_KEPT);
        }
    }

    #[test]
    fn anything_else_is_nothing() {
        for text in ["", "10.0.0.2:9080", "10.0.0.2 h2 1", "10.0.0.2:80 h3 1", "a:80 h2 1 x", " h2 1"] {
            assert_eq!(read(&HeaderValue::from_static(text)), None, "{text}");
        }
    }
}
