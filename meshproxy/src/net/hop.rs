//! What one proxy tells the next of a request or byte stream: `TO PROTOCOL VERSION [FROM];sni=NAME`, all in one field. Each
//! field costs both ends its way through the tables of HTTP/2 and the maps of fields, and one that is the same for every
//! request of a caller to an endpoint travels as a byte or two.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{BufMut as _, BytesMut};
use foldhash::fast::RandomState;
use http::HeaderValue;
use mesh_core::vocab::name::Text;

/// So many fields are kept written; nobody is that chatty with more of endpoints.
const MOST_KEPT: usize = 1024;

/// Comes before the server name. Proxies that do not know it pass over it.
const SERVER_NAME: &str = ";sni=";

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
    /// The server name by which one of Istio's proxies would have asked for the destination.
    pub server_name: Option<&'a str>,
}

/// What a field is written from.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// Address and port of the workload.
    pub to: &'a Text,
    /// What its application is spoken to in.
    pub spoken: Spoken,
    /// Who calls.
    pub from: Option<&'a Text>,
    /// The server name.
    pub server_name: Option<&'a Text>,
}

impl Told<'_> {
    /// Writes the field. `version` is that of the snapshot which decided, for whoever reads a capture.
    pub fn write(&self, version: &str) -> HeaderValue {
        let (name, from) = (self.spoken.name(), self.from.map_or("", |from| from));
        let server_name = self.server_name.map_or("", |name| name);
        let length = [self.to, name, version, from, SERVER_NAME, server_name].map(str::len);
        let mut text = BytesMut::with_capacity(length.iter().sum::<usize>() + 3);
        text.put_slice(self.to.as_bytes());
        for part in [name, version, from] {
            if !part.is_empty() {
                text.put_u8(b' ');
                text.put_slice(part.as_bytes());
            }
        }
        if !server_name.is_empty() {
            if from.is_empty() {
                text.put_u8(b' ');
            }
            text.put_slice(SERVER_NAME.as_bytes());
            text.put_slice(server_name.as_bytes());
        }
        HeaderValue::from_maybe_shared(text.freeze()).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

/// Reads the field; `None` if it does not say where the request goes.
pub fn read(value: &HeaderValue) -> Option<Hop<'_>> {
    let mut parts = value.to_str().ok()?.splitn(4, ' ');
    let to = parts.next()?.parse().ok()?;
    let spoken = Spoken::named(parts.next()?)?;
    let last = parts.nth(1).unwrap_or("");
    let (from, server_name) = match last.split_once(SERVER_NAME) {
        Some((from, name)) => (from, name),
        None => (last, ""),
    };
    let some = |text: &'_ str| !text.is_empty();
    Some(Hop {
        to,
        spoken,
        from: Some(from).filter(|from| some(from)),
        server_name: Some(server_name).filter(|name| some(name)),
    })
}

/// Fields that one data thread has written: what is told of one request is told of the next.
#[derive(Debug, Default)]
pub struct Written {
    serial: Cell<u64>,
    fields: RefCell<HashMap<Key, Field, RandomState>>,
}

/// Where the texts are: each endpoint of a destination has one of its own.
type Key = (usize, usize, Spoken);

/// A field, and what keeps others from taking the places of its texts.
#[derive(Debug)]
struct Field {
    value: HeaderValue,
    _to: Text,
    _from: Option<Text>,
}

impl Written {
    /// The field; `serial` is that of the root which decided, of which endpoint and caller are.
    pub fn value(&self, told: &Told<'_>, (serial, version): (u64, &str)) -> HeaderValue {
        let place = |text: &Text| Arc::as_ptr(text).cast::<u8>().addr();
        let key = (place(told.to), told.from.map_or(0, place), told.spoken);
        let mut fields = self.fields.borrow_mut();
        if self.serial.replace(serial) != serial || fields.len() >= MOST_KEPT {
            fields.clear();
        }
        let write =
            || Field { value: told.write(version), _to: Arc::clone(told.to), _from: told.from.cloned() };
        fields.entry(key).or_insert_with(write).value.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let to: SocketAddr = "10.0.0.2:9080".parse().unwrap();
        let name = "outbound_.9080_._.reviews.default.svc.cluster.local";
        for (spoken, from, server_name) in [
            (Spoken::Http1, Some("default/a;app=a;version=v1"), None),
            (Spoken::Http1, Some("default/a;app=a;version=v1"), Some(name)),
            (Spoken::Http2, None, None),
            (Spoken::Http2, None, Some(name)),
            (Spoken::Tcp, Some("x"), Some("y")),
        ] {
            let (from_text, name_text) = (from.map(Text::from), server_name.map(Text::from));
            let told = Told {
                to: &"10.0.0.2:9080".into(),
                spoken,
                from: from_text.as_ref(),
                server_name: name_text.as_ref(),
            };
            let value = told.write("12");
            assert_eq!(read(&value), Some(Hop { to, spoken, from, server_name }), "{value:?}");
        }
    }

    #[test]
    fn anything_else_is_nothing() {
        for text in ["", "10.0.0.2:9080", "10.0.0.2 h2 1", "10.0.0.2:80 h3 1", "a:80 h2 1 x", " h2 1"] {
            assert_eq!(read(&HeaderValue::from_static(text)), None, "{text}");
        }
    }

    #[test]
    fn what_was_written_is_kept_for_one_root() {
        let written = Written::default();
        let (one, other): (Text, Text) = ("10.0.0.1:80".into(), "10.0.0.1:80".into());
        let (a, b): (Text, Text) = ("a".into(), "b".into());
        let value = |to, name, version| {
            let told = Told { to, spoken: Spoken::Http1, from: None, server_name: Some(name) };
            written.value(&told, version).to_str().unwrap().to_owned()
        };
        assert_eq!(value(&one, &a, (1, "v1")), "10.0.0.1:80 http/1.1 v1 ;sni=a");
        // The same address as another destination's endpoint.
        assert_eq!(value(&other, &b, (1, "v1")), "10.0.0.1:80 http/1.1 v1 ;sni=b");
        assert_eq!(value(&one, &a, (1, "v1")), "10.0.0.1:80 http/1.1 v1 ;sni=a");
        assert_eq!(value(&one, &b, (2, "v2")), "10.0.0.1:80 http/1.1 v2 ;sni=b");
        assert_eq!(written.fields.borrow().len(), 1);
    }
}
