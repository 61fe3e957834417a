//! A request path: brought into one form before anything judges it.

use std::borrow::Cow;

/// Why a path was refused. Such a request is answered with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Does not begin with `/` (and is not `*`).
    #[error("path does not begin with '/'")]
    NotAbsolute,
    /// Has a control character, a space, or an encoded NUL.
    #[error("path contains a control character")]
    Control,
    /// Has a percent sign that two hexadecimal digits do not follow, which every reader reads in its own way.
    #[error("path contains a percent sign without two hexadecimal digits")]
    Escape,
}

/// How far paths are brought into one form before they are judged (MeshConfig `pathNormalization`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Normalization {
    /// Not at all.
    None,
    /// RFC 3986: dot segments, `\\` to `/`, escapes of unreserved characters decoded, characters beyond ASCII escaped. The
    /// default.
    #[default]
    Base,
    /// And runs of slashes become one.
    MergeSlashes,
    /// And escaped slashes and backslashes are decoded first.
    DecodeAndMergeSlashes,
}

impl Normalization {
    /// Every one.
    pub const ALL: [Normalization; 4] = [
        Normalization::None,
        Normalization::Base,
        Normalization::MergeSlashes,
        Normalization::DecodeAndMergeSlashes,
    ];

    /// The name in a MeshConfig.
    pub fn name(self) -> &'static str {
        match self {
            Normalization::None => "NONE",
            Normalization::Base => "BASE",
            Normalization::MergeSlashes => "MERGE_SLASHES",
            Normalization::DecodeAndMergeSlashes => "DECODE_AND_MERGE_SLASHES",
        }
    }

    /// The one form of a path that is judged, routed and forwarded. In every mode a fragment is dropped, and control
    /// characters and an encoded NUL are refused; case, parameters (`;`) and what is encoded twice are left alone. But
    /// for NONE, `..;x` is a dot segment like `..`, as servers take it that drop parameters, and a percent sign
    /// stands before two digits. Normalising twice gives the same as once.
    pub fn apply(self, path: &str) -> Result<Cow<'_, str>, PathError> {
        if path == "*" {
            return Ok(Cow::Borrowed(path));
        }
        if !path.starts_with('/') {
            return Err(PathError::NotAbsolute);
        }
        let seen = Seen::of(path)?;
        let path = if seen.fragment { path.split('#').next().unwrap_or("") } else { path };
        let merges = matches!(self, Normalization::MergeSlashes | Normalization::DecodeAndMergeSlashes);
        if self == Normalization::None {
            return if seen.escape && path.contains("%00") {
                Err(PathError::Control)
            } else {
                Ok(Cow::Borrowed(path))
            };
        }
        let differs = seen.escape || seen.backslash || seen.beyond || seen.dots || (merges && seen.slashes);
        if !differs {
            return Ok(Cow::Borrowed(path));
        }
        let decoded = decode(path, self == Normalization::DecodeAndMergeSlashes)?;
        let resolved = remove_dot_segments(&decoded);
        // After the dot segments, as in Envoy: `/a//../b` is `/a/b`.
        Ok(Cow::Owned(if merges && resolved.contains("//") { merge_slashes(&resolved) } else { resolved }))
    }
}

/// What one pass over a path found: most have nothing of it, and stay as they are.
#[derive(Debug, Default)]
struct Seen {
    escape: bool,
    backslash: bool,
    /// A character that is not ASCII.
    beyond: bool,
    fragment: bool,
    /// A segment that may be `.` or `..`.
    dots: bool,
    slashes: bool,
}

impl Seen {
    fn of(path: &str) -> Result<Seen, PathError> {
        let mut seen = Seen::default();
        let (mut before, bytes) = (0, path.as_bytes());
        for (at, &byte) in bytes.iter().enumerate() {
            match byte {
                0..=b' ' | 0x7f => return Err(PathError::Control),
                b'%' => seen.escape = true,
                b'\\' => seen.backslash = true,
                b'#' => seen.fragment = true,
                0x80.. => seen.beyond = true,
                b'.' if before == b'/' => {
                    seen.dots |= matches!(bytes.get(at + 1), None | Some(b'/' | b'.' | b';' | b'#'));
                }
                b'/' if before == b'/' => seen.slashes = true,
                _ => {}
            }
            before = byte;
        }
        Ok(seen)
    }
}

/// Decodes the escapes of unreserved characters (RFC 3986, section 6.2.2.2), and if wanted those of slashes; characters
/// that no URI has are escaped. What is decoded is decoded once: no percent sign comes out of it.
fn decode(path: &str, slashes: bool) -> Result<String, PathError> {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.bytes().position(|byte| matches!(byte, b'%' | b'\\' | 0x80..)) {
        decoded.push_str(&rest[..at]);
        let special = &rest[at..];
        if let Some(after) = special.strip_prefix('\\') {
            decoded.push('/');
            rest = after;
            continue;
        }
        if !special.starts_with('%') {
            let end = special.bytes().position(|byte| byte.is_ascii()).unwrap_or(special.len());
            escape(&special[..end], &mut decoded);
            rest = &special[end..];
            continue;
        }
        let escape = rest.get(at..at + 3).ok_or(PathError::Escape)?;
        match escaped(escape.as_bytes()).ok_or(PathError::Escape)? {
            0 => return Err(PathError::Control),
            b'/' | b'\\' if slashes => decoded.push('/'),
            byte if is_unreserved(byte) => decoded.push(char::from(byte)),
            _ => decoded.push_str(escape),
        }
        rest = &rest[at + 3..];
    }
    decoded.push_str(rest);
    Ok(decoded)
}

/// Escapes every byte that is not ASCII.
pub(super) fn escape(text: &str, into: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii() {
            into.push(char::from(byte));
        } else {
            into.push('%');
            into.push(char::from(DIGITS[usize::from(byte >> 4)]));
            into.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}

/// The byte that `%XX` stands for.
fn escaped(escape: &[u8]) -> Option<u8> {
    let hex = |at: usize| escape.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    u8::try_from(hex(1)? * 16 + hex(2)?).ok()
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986, section 5.2.4, for a path that begins with a slash.
fn remove_dot_segments(path: &str) -> String {
    let mut kept = String::with_capacity(path.len());
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment.split(';').next() {
            Some(name @ ("." | "..")) => {
                if name == ".." {
                    kept.truncate(kept.rfind('/').unwrap_or(0));
                }
                if segments.peek().is_none() {
                    kept.push('/');
                }
            }
            _ => {
                kept.push('/');
                kept.push_str(segment);
            }
        }
    }
    kept
}

fn merge_slashes(path: &str) -> String {
    let mut merged = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !merged.ends_with('/') {
            merged.push(c);
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode() {
        let check = |path: &str, expected: [&str; 4]| {
            for (mode, expected) in Normalization::ALL.into_iter().zip(expected) {
                assert_eq!(mode.apply(path).as_deref(), Ok(expected), "{path} {}", mode.name());
            }
        };
        let always = |path: &str| check(path, [path; 4]);
        let resolved = |path: &str, form: &str| check(path, [path, form, form, form]);
        resolved("/a/../b", "/b");
        resolved("/a/./b/.", "/a/b/");
        resolved("/a/b/..", "/a/");
        resolved("/../../a", "/a");
        resolved("/a/..", "/");
        resolved("/.", "/");
        resolved("/%2e%2e/admin", "/admin");
        resolved("/x/.%2E/admin", "/admin");
        resolved(r"/x\..\admin", "/admin");
        resolved("/%61/x", "/a/x");
        resolved("/%7Eu", "/~u");
        check("//admin", ["//admin", "//admin", "/admin", "/admin"]);
        check("//a///b/", ["//a///b/", "//a///b/", "/a/b/", "/a/b/"]);
        check("/a//../b", ["/a//../b", "/a/b", "/a/b", "/a/b"]);
        check("/..//admin", ["/..//admin", "//admin", "/admin", "/admin"]);
        check("/a%2Fb", ["/a%2Fb", "/a%2Fb", "/a%2Fb", "/a/b"]);
        check("/a%2f%2Fb", ["/a%2f%2Fb", "/a%2f%2Fb", "/a%2f%2Fb", "/a/b"]);
        check("/a%5c..%5Cb", ["/a%5c..%5Cb", "/a%5c..%5Cb", "/a%5c..%5Cb", "/b"]);
        check("/a/%2e%2e%2Fb", ["/a/%2e%2e%2Fb", "/a/..%2Fb", "/a/..%2Fb", "/b"]);
        check(
            "/x/..%2f..%2fadmin",
            ["/x/..%2f..%2fadmin", "/x/..%2f..%2fadmin", "/x/..%2f..%2fadmin", "/admin"],
        );
        check("/A;x=1/%C0%AE#f", ["/A;x=1/%C0%AE"; 4]);
        check("/admin#x/../y", ["/admin"; 4]);
        always("/a%252Fb");
        always("/%252e%252e/");
        always("/.well-known/x");
        always("/...");
        always("/a..b/c.");
        always("/a/b%20c");
        check(
            "/\u{e9}/..x\u{20ac}",
            ["/\u{e9}/..x\u{20ac}", "/%C3%A9/..x%E2%82%AC", "/%C3%A9/..x%E2%82%AC", "/%C3%A9/..x%E2%82%AC"],
        );
        check("/\u{e9}%61", ["/\u{e9}%61", "/%C3%A9a", "/%C3%A9a", "/%C3%A9a"]);
        always("*");
    }

    #[test]
    fn parameters_do_not_hide_a_dot_segment() {
        let check = |path: &str, expected: &str| {
            assert_eq!(Normalization::Base.apply(path).as_deref(), Ok(expected), "{path}");
        };
        check("/public/..;/private", "/private");
        check("/public/..;a=b/private", "/private");
        check("/public/%2e%2e;a=b/private", "/private");
        check("/public/.;x/a", "/public/a");
        check("/a/..;x", "/");
        check("/admin;x/../y", "/y");
        check("/admin;x/y", "/admin;x/y");
        check("/..a;x/y", "/..a;x/y");
        check("/..%3Bx/y", "/..%3Bx/y");
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for mode in Normalization::ALL {
            for bad in
                ["/%00", "/a%00b", "/a\0b", "a", "", "?x", "%2Fa", "\\a", "**", "/\u{7f}", "/a b", "/a\r\n"]
            {
                assert!(mode.apply(bad).is_err(), "{bad:?} {}", mode.name());
            }
            for bad in
                ["/100%", "/%", "/%2", "/%zz", "/%u002e%u002e/", "/%%32e%%32e/admin", "/%2%65", "/%\u{e9}"]
            {
                let refused = mode != Normalization::None;
                assert_eq!(mode.apply(bad).is_err(), refused, "{bad:?} {}", mode.name());
            }
        }
    }
}
