//! The join token as people carry it: what lets a node in the first time.
//!
//! `mesh1.ID.SECRET.PIN`: the id names it to operators, the secret proves it, and the pin is the SHA-256 of the
//! root certificate's DER, by which a host recognises the control plane before it has any certificate of its own.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const PREFIX: &str = "mesh1";

/// Why a text is not a join token. Never repeats the text: it is a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a join token (expected mesh1.ID.SECRET.PIN, as `meshd token create` prints it)")]
pub struct TokenError;

/// A join token in its parts.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Names the token in `token list` and `token revoke`; not a secret.
    pub id: String,
    /// What the control plane compares.
    pub secret: [u8; 16],
    /// SHA-256 of the DER of the root certificate that the control plane's own chain must end in.
    pub pin: [u8; 32],
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = URL_SAFE_NO_PAD.encode(self.secret);
        let pin = URL_SAFE_NO_PAD.encode(self.pin);
        write!(f, "{PREFIX}.{}.{secret}.{pin}", self.id)
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    /// Surrounding white space is forgiven: tokens are read from files that end in a newline.
    fn from_str(text: &str) -> Result<JoinToken, TokenError> {
        let mut parts = text.trim().split('.');
        if parts.next() != Some(PREFIX) {
            return Err(TokenError);
        }
        let id = parts.next().ok_or(TokenError)?;
        let id_is_valid = (1..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric());
        let secret = decode(parts.next())?;
        let pin = decode(parts.next())?;
        if !id_is_valid || parts.next().is_some() {
            return Err(TokenError);
        }
        Ok(JoinToken { id: id.to_owned(), secret, pin })
    }
}

fn decode<const N: usize>(part: Option<&str>) -> Result<[u8; N], TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(part.ok_or(TokenError)?).map_err(|_| TokenError)?;
    bytes.try_into().map_err(|_| TokenError)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken { id: "k3v9".to_owned(), secret: [7; 16], pin: [255; 32] }
    }

    #[test]
    fn text_and_back() {
        let text = format!("{}\n", token());
        assert!(text.starts_with("mesh1.k3v9."));
        assert_eq!(text.parse(), Ok(token()));
    }

    #[test]
    fn anything_else_is_refused() {
        let good = token().to_string();
        for bad in [
            "",
            "mesh1",
            "mesh1.a.b.c",
            &good[1..],
            &good[..good.len() - 2],
            &format!("{good}.x"),
            "mesh1...",
        ] {
            assert_eq!(bad.parse::<JoinToken>(), Err(TokenError), "{bad}");
        }
    }

    #[test]
    fn the_secret_is_not_in_the_debug_text() {
        assert_eq!(format!("{:?}", token()), r#"JoinToken { id: "k3v9", .. }"#);
    }
}
