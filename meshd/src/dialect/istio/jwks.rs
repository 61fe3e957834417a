//! Whether a text is a set of keys that verify tokens (RFC 7517), and whether one is the address of such.

use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

/// How the numbers of a key may be written.
const BASES: [GeneralPurpose; 4] = [URL_SAFE_NO_PAD, URL_SAFE, STANDARD, STANDARD_NO_PAD];

/// Curves of keys.
const CURVES: [&str; 7] = ["Ed25519", "Ed448", "P-256", "P-384", "P-521", "X25519", "X448"];

/// Reads an inline key set: `{"keys": [...]}`, or a single key. Says which of the keys are secret, or what is wrong.
pub(super) fn check_keys(text: &str) -> Result<Vec<usize>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))?;
    let Value::Object(set) = value else {
        return Err("must be a JSON object with the list keys".to_owned());
    };
    let keys = match set.get("keys") {
        None => return Ok(if check_key(&set)? { vec![0] } else { Vec::new() }),
        Some(Value::Array(keys)) => keys,
        Some(_) => return Err("must have a list as its keys".to_owned()),
    };
    let mut secret = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        let checked = match key {
            Value::Object(key) => check_key(key),
            _ => Err("is no JSON object".to_owned()),
        };
        if checked.map_err(|error| format!("key {index}: {error}"))? {
            secret.push(index);
        }
    }
    Ok(secret)
}

/// Whether a key is a secret, and not one to verify with only; or what is wrong with it.
fn check_key(key: &Map<String, Value>) -> Result<bool, String> {
    let kind = key.get("kty").and_then(Value::as_str);
    let wanted: &[&str] = match kind {
        Some("RSA") => &["n", "e"],
        Some("EC") => &["x", "y"],
        Some("OKP") => &["x"],
        Some("oct") => &["k"],
        Some(other) => return Err(format!("kty {other:?} is none of RSA, EC, OKP, oct")),
        None => return Err("has no kty".to_owned()),
    };
    if wanted.contains(&"x") {
        match key.get("crv").and_then(Value::as_str) {
            Some(curve) if CURVES.contains(&curve) => {}
            Some(curve) => return Err(format!("crv {curve:?} is none of {}", CURVES.join(", "))),
            None => return Err("has no crv".to_owned()),
        }
    }
    for name in wanted {
        let Some(text) = key.get(*name).and_then(Value::as_str) else {
            return Err(format!("has no {name}"));
        };
        if BASES.iter().all(|base| base.decode(text).is_err()) {
            return Err(format!("{name} is not base64url"));
        }
    }
    for name in ["kid", "alg"] {
        if key.get(name).is_some_and(|value| !value.is_string()) {
            return Err(format!("{name} is no text"));
        }
    }
    match key.get("use") {
        Some(Value::String(purpose)) if !["sig", "enc"].contains(&purpose.as_str()) => {
            return Err(format!("use {purpose:?} is none of sig, enc"));
        }
        _ => {}
    }
    Ok(kind == Some("oct") || key.contains_key("d"))
}

/// Whether a text is an absolute `http` or `https` URL.
pub(super) fn is_url(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let known = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let odd = |c: char| c.is_ascii_control() || c == ' ' || c == '\\';
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let after_host = match host.strip_prefix('[') {
        Some(inside) => match inside.split_once(']') {
            Some((address, after)) if address.parse::<std::net::Ipv6Addr>().is_ok() => after,
            _ => return false,
        },
        None => host.find(':').map_or("", |colon| &host[colon..]),
    };
    let port = after_host.strip_prefix(':');
    let port_fits = match port {
        Some(port) => port.bytes().all(|b| b.is_ascii_digit()) && port.len() <= 5,
        None => after_host.is_empty(),
    };
    let has_control = rest.contains(|c: char| c.is_ascii_control());
    known && port_fits && !authority.contains(odd) && !has_control && percent_signs_fit(rest)
}

/// Whether every percent sign is followed by two hexadecimal digits, but for those of a query.
pub(super) fn percent_signs_fit(text: &str) -> bool {
    let (before, fragment) = text.split_once('#').unwrap_or((text, ""));
    let path = before.split('?').next().unwrap_or("");
    [path, fragment].iter().flat_map(|part| part.split('%').skip(1)).all(|after| {
        let digits = after.bytes().take(2).filter(u8::is_ascii_hexdigit);
        digits.count() == 2
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_sets() {
        for good in [
            r#"{"keys": []}"#,
            r#"{"keys": [{"kty": "RSA", "kid": "a", "n": "AQAB", "e": "AQAB"}]}"#,
            r#"{"kty": "EC", "crv": "P-256", "x": "AQAB", "y": "AQAB"}"#,
            r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0"}, {"kty": "OKP", "crv": "Ed25519", "x": "AQAB"}]}"#,
        ] {
            assert!(check_keys(good).is_ok(), "{good}");
        }
        for bad in [
            "foo",
            "[]",
            "{}",
            r#"{"keys": 1}"#,
            r#"{"keys": [1]}"#,
            r#"{"keys": [{"kty": "RSA", "n": "AQAB"}]}"#,
            r#"{"keys": [{"kty": "RSA", "n": "!", "e": "AQAB"}]}"#,
            r#"{"keys": [{"kty": "XYZ"}]}"#,
            r#"{"kty": "EC", "x": "AQAB", "y": "AQAB"}"#,
            r#"{"kty": "EC", "crv": "P-1", "x": "AQAB", "y": "AQAB"}"#,
            r#"{"kty": "oct", "k": "AQAB", "use": "all"}"#,
            r#"{"kty": "oct", "k": "AQAB", "kid": 1}"#,
        ] {
            assert!(check_keys(bad).is_err(), "{bad}");
        }
        let mixed = r#"{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}, {"kty": "oct", "k": "YS+/"}]}"#;
        assert_eq!(check_keys(mixed), Ok(vec![1]));
    }

    #[test]
    fn urls() {
        for good in [
            "http://foo.com",
            "https://foo.com:1234/a/b?c=d%20e",
            "HTTPS://[::1]:8080/",
            "http://a@b/",
            "http://a/b c",
            "http://a/?b=%",
        ] {
            assert!(is_url(good), "{good}");
        }
        for bad in [
            "foo.com",
            "tcp://foo.com",
            "http://foo.com:abc",
            "hTPp\\\\blah",
            "http://a b",
            "https://[x]/",
            "http://a/%b",
            "http://a/b\t",
        ] {
            assert!(!is_url(bad), "{bad}");
        }
    }
}
