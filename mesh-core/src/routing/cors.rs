//! Cross-origin requests (VirtualService `corsPolicy`).

use crate::matching::text::TextMatch;
use crate::vocab::name::Text;

/// What a preflight from an origin that does not match gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum UnmatchedPreflights {
    /// It goes upstream. The default.
    #[default]
    Forward,
    /// It is answered without CORS fields.
    Ignore,
}

/// Which origins may read answers, and how.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct CorsPolicy {
    /// Origins.
    pub allow_origins: Vec<TextMatch>,
    /// Methods, joined by `,` in `access-control-allow-methods`.
    pub allow_methods: Vec<Text>,
    /// Header fields that requests may have.
    pub allow_headers: Vec<Text>,
    /// Header fields that scripts may read.
    pub expose_headers: Vec<Text>,
    /// Seconds that a preflight's answer may be kept.
    pub max_age: Option<u64>,
    /// Whether credentials may be sent.
    pub allow_credentials: bool,
    /// Preflights of other origins.
    pub unmatched_preflights: UnmatchedPreflights,
}
