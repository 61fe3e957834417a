//! One look over the fields of a head: how large they are, and which of them the other steps need to see.

use http::{HeaderMap, HeaderValue, Version, header};

use super::internal::{self, Whose};
use crate::framing::Sizes;

/// What one look over the fields found.
#[derive(Debug, Default)]
pub struct Found {
    /// Names and values and what stands between them.
    pub bytes: usize,
    /// Whether the content is gRPC.
    pub grpc: bool,
    /// The largest single field.
    pub(super) largest: usize,
    pub(super) hosts: u32,
    pub(super) cookies: u32,
    pub(super) lengths: u32,
    pub(super) encodings: u32,
    pub(super) expectations: u32,
    /// How many fields of the mesh's own (`x-mesh-`).
    pub(super) mesh: u32,
    /// Whether there are other fields that only proxies may set.
    pub(super) internal: bool,
    pub(super) connection: bool,
    /// Whether there are other fields of the connection.
    pub(super) hop: bool,
    /// Whether there is a TE that is not just `trailers`.
    pub(super) codings: bool,
    pub(super) transfer: u32,
    /// Whether a value begins or ends with whitespace, which no value of HTTP/1 does.
    blank: bool,
}

impl Found {
    /// Looks over the fields once.
    pub fn of(headers: &HeaderMap) -> Found {
        let mut found = Found::default();
        for (name, value) in headers {
            let size = name.as_str().len() + value.len() + 4;
            found.bytes += size;
            found.largest = found.largest.max(size);
            let bytes = value.as_bytes();
            found.blank |= bytes.first().is_some_and(is_blank) || bytes.last().is_some_and(is_blank);
            // Names that the library knows are numbers to it, and sooner compared than texts.
            match *name {
                header::HOST => found.hosts += 1,
                header::COOKIE => found.cookies += 1,
                header::CONTENT_LENGTH => found.lengths += 1,
                header::TRANSFER_ENCODING => found.encodings += 1,
                header::EXPECT => found.expectations += 1,
                header::CONTENT_TYPE => found.grpc = is_grpc(value),
                header::CONNECTION => found.connection = true,
                header::UPGRADE => found.hop = true,
                header::TE => {
                    found.transfer += 1;
                    found.codings |= found.transfer > 1 || bytes != b"trailers";
                }
                _ => match name.as_str() {
                    "keep-alive" | "proxy-connection" | "http2-settings" => found.hop = true,
                    name => match internal::whose(name) {
                        Some(Whose::Mesh) => found.mesh += 1,
                        Some(Whose::Proxies) => found.internal = true,
                        None => {}
                    },
                },
            }
        }
        found
    }

    /// Whether there is too much of it.
    pub(super) fn is_too_large(&self, headers: &HeaderMap, sizes: &Sizes) -> bool {
        headers.len() > sizes.fields as usize
            || self.bytes > sizes.list as usize
            || self.largest > sizes.field as usize
    }

    /// Whether there is a field of an HTTP/1 connection where there is no such connection (RFC 9113, section 8.2.2).
    pub(super) fn is_foreign(&self, version: Version) -> bool {
        version == Version::HTTP_2 && (self.connection || self.hop || self.encodings > 0)
    }

    /// Takes whitespace from both ends of values: it is no part of a value (RFC 9110, section 5.5), but HTTP/2 can
    /// write it.
    pub(super) fn trim(&self, headers: &mut HeaderMap) {
        if !self.blank {
            return;
        }
        for value in headers.values_mut() {
            let trimmed = value.as_bytes().trim_ascii();
            if trimmed.len() != value.len()
                && let Ok(mut trimmed) = HeaderValue::from_bytes(trimmed)
            {
                trimmed.set_sensitive(value.is_sensitive());
                *value = trimmed;
            }
        }
    }
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn is_grpc(value: &HeaderValue) -> bool {
    value
        .as_bytes()
        .trim_ascii_start()
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| rest.is_empty() || matches!(rest[0], b'+' | b';'))
}

/// The members of a list that may be spread over several fields of one name.
pub(super) fn members(headers: &HeaderMap, name: impl header::AsHeaderName) -> impl Iterator<Item = &[u8]> {
    let values = headers.get_all(name).into_iter();
    values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::{LONGEST_FIELD, LONGEST_LIST, MOST_FIELDS};
    use http::HeaderName;

    #[test]
    fn whitespace_is_no_part_of_a_value() {
        let mut headers = HeaderMap::new();
        for value in [" admin \t", "guest", "a b"] {
            headers.append("x-role", HeaderValue::from_static(value));
        }
        Found::of(&headers).trim(&mut headers);
        let values: Vec<_> = headers.values().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(values, ["admin", "guest", "a b"]);
    }

    #[test]
    fn sizes_are_limited() {
        let map = |count: usize, size: usize| -> HeaderMap {
            let name = |at: usize| HeaderName::try_from(format!("x-{at:04}")).unwrap();
            (0..count).map(|at| (name(at), HeaderValue::try_from("v".repeat(size)).unwrap())).collect()
        };
        for (count, size, large) in [
            (MOST_FIELDS, 1, false),
            (MOST_FIELDS + 1, 1, true),
            (1, LONGEST_FIELD - 10, false),
            (1, LONGEST_FIELD - 9, true),
            (4, LONGEST_LIST / 4 - 10, false),
            (4, LONGEST_LIST / 4 - 9, true),
        ] {
            let headers = map(count, size);
            assert_eq!(
                Found::of(&headers).is_too_large(&headers, &Sizes::DEFAULT),
                large,
                "{count} of {size}"
            );
        }
    }

    #[test]
    fn grpc_is_told_by_its_content() {
        let grpc = |text: &'static str| {
            let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(text))].into_iter().collect();
            Found::of(&headers).grpc
        };
        assert!(grpc("application/grpc") && grpc("application/grpc+proto") && grpc("application/grpc;x"));
        assert!(!grpc("application/grpc-web"));
    }
}
