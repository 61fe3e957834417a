//! What a TLS client asks for in its first bytes: a server name and protocols (RFC 8446, sections 4.1.2 and 5.1; RFC
//! 6066, section 3; RFC 7301, section 3.1). Nothing is decrypted; what is malformed asks for nothing.

use std::borrow::Cow;

/// A ClientHello is read up to this size.
pub const LONGEST_HELLO: usize = 16 * 1024;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
const PROTOCOLS: u16 = 16;

/// What the first bytes of a connection say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hello {
    /// There must be more to tell.
    NeedMore,
    /// No TLS, or TLS that asks for no name.
    Nameless,
    /// This name, in lower case.
    Named(String),
}

/// The protocols among those that a client offers (ALPN) which tell one of the mesh from any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offered {
    /// `istio-h2`, `istio-http/1.1` or `istio-http/1.0`: requests from a proxy of the mesh.
    pub mesh_requests: bool,
    /// `istio` or `istio-peer-exchange`: a proxy of the mesh.
    pub mesh: bool,
    /// One that an acceptor can agree on: `h2`, `http/1.1` or `istio`.
    pub known: bool,
    /// Any at all.
    pub any: bool,
}

impl Offered {
    /// Whether mutual TLS of the mesh is meant.
    pub fn is_mesh(self) -> bool {
        self.mesh || self.mesh_requests
    }
}

/// Reads which protocols a client offers; `None` if there must be more to tell.
pub fn offered(bytes: &[u8]) -> Option<Offered> {
    let message = match handshake(bytes) {
        Ok(Some(message)) => message,
        Ok(None) if bytes.len() < LONGEST_HELLO => return None,
        Ok(None) | Err(Malformed) => return Some(Offered::default()),
    };
    let mut found = Offered::default();
    let list = extension(&message, PROTOCOLS).and_then(sized);
    let Some((mut names, _)) = list else { return Some(found) };
    while let Some((length, rest)) = names.split_first() {
        let Some((name, rest)) = rest.split_at_checked(usize::from(*length)) else { break };
        found.any = true;
        match name {
            b"istio-h2" | b"istio-http/1.1" | b"istio-http/1.0" => found.mesh_requests = true,
            b"istio-peer-exchange" => found.mesh = true,
            b"istio" => (found.mesh, found.known) = (true, true),
            b"h2" | b"http/1.1" => found.known = true,
            _ => {}
        }
        names = rest;
    }
    Some(found)
}

/// Reads the server name from the first bytes of a connection.
pub fn server_name(bytes: &[u8]) -> Hello {
    let message = match handshake(bytes) {
        Ok(Some(message)) => message,
        Ok(None) if bytes.len() < LONGEST_HELLO => return Hello::NeedMore,
        Ok(None) | Err(Malformed) => return Hello::Nameless,
    };
    let name = name_in(&message).and_then(|name| std::str::from_utf8(name).ok());
    match name.map(str::to_ascii_lowercase).filter(|name| is_name(name)) {
        Some(name) => Hello::Named(name),
        None => Hello::Nameless,
    }
}

struct Malformed;

/// The first handshake message without its head, put together from its records; `None` if it is not whole yet.
fn handshake(bytes: &[u8]) -> Result<Option<Cow<'_, [u8]>>, Malformed> {
    let mut content: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    let mut rest = bytes;
    loop {
        if let Some(head) = content.get(..4) {
            if head[0] != CLIENT_HELLO {
                return Err(Malformed);
            }
            let length = u32::from_be_bytes([0, head[1], head[2], head[3]]) as usize;
            if length > LONGEST_HELLO {
                return Err(Malformed);
            }
            if content.len() >= 4 + length {
                return Ok(Some(match content {
                    Cow::Borrowed(content) => Cow::Borrowed(&content[4..4 + length]),
                    Cow::Owned(content) => Cow::Owned(content[4..4 + length].to_vec()),
                }));
            }
        }
        match rest {
            [] => return Ok(None),
            [kind, ..] if *kind != HANDSHAKE => return Err(Malformed),
            [_, major, ..] if *major != 3 => return Err(Malformed),
            _ => {}
        }
        let Some(head) = rest.get(..5) else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
        if length == 0 || length > 16 * 1024 {
            return Err(Malformed);
        }
        let there = &rest[5..];
        // What is there of a record that is not whole cannot end the message, unless the record holds more than it.
        let part = &there[..length.min(there.len())];
        if content.is_empty() {
            content = Cow::Borrowed(part);
        } else {
            content.to_mut().extend_from_slice(part);
        }
        rest = &there[part.len()..];
        if part.len() < length {
            rest = &[];
        }
    }
}

/// The first host name that a ClientHello asks for.
fn name_in(message: &[u8]) -> Option<&[u8]> {
    let (list, _) = sized(extension(message, SERVER_NAME)?)?;
    let (kind, name) = list.split_first()?;
    if *kind == HOST_NAME { Some(sized(name)?.0) } else { None }
}

/// The content of the first extension of a kind.
fn extension(message: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut rest = message.get(2 + 32..)?;
    let session = usize::from(*rest.first()?);
    rest = rest.get(1 + session..)?;
    (_, rest) = sized(rest)?;
    let methods = usize::from(*rest.first()?);
    rest = rest.get(1 + methods..)?;
    let (mut extensions, _) = sized(rest)?;
    while let Some(kind) = extensions.get(..2) {
        let kind = u16::from_be_bytes([kind[0], kind[1]]);
        let (content, after) = sized(&extensions[2..])?;
        if kind == wanted {
            return Some(content);
        }
        extensions = after;
    }
    None
}

/// What follows a length of two bytes, and what is behind it.
fn sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::from(u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]));
    bytes[2..].split_at_checked(length)
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sized_by(bytes: &[u8], width: usize) -> Vec<u8> {
        let length = (bytes.len() as u32).to_be_bytes();
        [&length[4 - width..], bytes].concat()
    }

    /// A ClientHello with these extensions, as one handshake message.
    fn hello(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let extension =
            |(kind, content): &(u16, Vec<u8>)| [kind.to_be_bytes().to_vec(), sized_by(content, 2)].concat();
        let extensions: Vec<u8> = extensions.iter().flat_map(extension).collect();
        let body = [
            &[3, 3][..],
            &[7; 32],
            &sized_by(&[9; 32], 1),
            &sized_by(&[0x13, 1, 0x13, 2], 2),
            &[1, 0],
            &sized_by(&extensions, 2),
        ];
        [&[CLIENT_HELLO][..], &sized_by(&body.concat(), 3)].concat()
    }

    fn named(name: &str) -> Vec<u8> {
        let list = [&[HOST_NAME][..], &sized_by(name.as_bytes(), 2)].concat();
        hello(&[(0x0a0a, vec![0]), (SERVER_NAME, sized_by(&list, 2)), (43, vec![2, 3, 4])])
    }

    /// The message in records of at most this size.
    fn records(message: &[u8], size: usize) -> Vec<u8> {
        message.chunks(size).flat_map(|part| [&[HANDSHAKE, 3, 1][..], &sized_by(part, 2)].concat()).collect()
    }

    #[test]
    fn the_name_is_found_however_the_message_is_cut() {
        let expected = Hello::Named("www.example.com".to_owned());
        for size in [1, 7, 64, 4096] {
            let bytes = records(&named("WWW.Example.com"), size);
            assert_eq!(server_name(&bytes), expected, "records of {size}");
            for cut in 0..bytes.len() {
                assert_eq!(server_name(&bytes[..cut]), Hello::NeedMore, "records of {size}, cut at {cut}");
            }
            let followed = [&bytes[..], b"more"].concat();
            assert_eq!(server_name(&followed), expected);
        }
    }

    fn offering(names: &[&str]) -> Vec<u8> {
        let list: Vec<u8> = names.iter().flat_map(|name| sized_by(name.as_bytes(), 1)).collect();
        hello(&[(0x0a0a, vec![0]), (PROTOCOLS, sized_by(&list, 2))])
    }

    #[test]
    fn protocols_tell_proxies_of_the_mesh_from_others() {
        let check = |names: &[&str], (mesh, requests, known): (bool, bool, bool)| {
            let bytes = records(&offering(names), 64);
            let any = !names.is_empty();
            let expected = Offered { mesh_requests: requests, mesh, known, any };
            assert_eq!(offered(&bytes), Some(expected), "{names:?}");
            assert_eq!(offered(&bytes[..bytes.len() - 1]), None);
        };
        check(&[], (false, false, false));
        check(&["h2", "http/1.1"], (false, false, true));
        check(&["istio-peer-exchange", "istio"], (true, false, true));
        check(&["istio-http/1.1", "istio", "http/1.1"], (true, true, true));
        check(&["istio-h2"], (false, true, false));
        check(&["istio-h", "mqtt", "ISTIO"], (false, false, false));
        assert_eq!(offered(b"GET / HTTP/1.1\r\n"), Some(Offered::default()));
        assert_eq!(offered(&records(&hello(&[(PROTOCOLS, vec![0, 9, 200])]), 64)), Some(Offered::default()));
        let bytes = records(&offering(&["h2", "istio"]), 4096);
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut wrong = bytes.clone();
                wrong[at] = value;
                offered(&wrong);
            }
        }
    }

    #[test]
    fn what_is_malformed_asks_for_no_name() {
        for name in ["", "a b", "a/b", "\u{e9}"] {
            assert_eq!(server_name(&records(&named(name), 4096)), Hello::Nameless, "{name}");
        }
        for message in [hello(&[]), hello(&[(SERVER_NAME, vec![])]), hello(&[(SERVER_NAME, vec![0, 9, 0])])] {
            assert_eq!(server_name(&records(&message, 4096)), Hello::Nameless);
        }
        assert_eq!(server_name(b"GET / HTTP/1.1\r\n"), Hello::Nameless);
        assert_eq!(server_name(&[HANDSHAKE, 3, 1, 0, 0]), Hello::Nameless);
        assert_eq!(server_name(&[HANDSHAKE, 3, 1, 0, 4, 2, 0, 0, 0]), Hello::Nameless);
        // Any bytes of a hello may be wrong: no panic, and never more than a name.
        let bytes = records(&named("a.example"), 4096);
        for at in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut wrong = bytes.clone();
                wrong[at] = value;
                server_name(&wrong);
            }
        }
    }
}
