//! The one place that reads the wall clock: certificates, tokens and time stamps of history need it.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Seconds since 1970.
pub type Seconds = i64;

/// What the host's clock says.
pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// What the host's clock says, in seconds since 1970.
pub fn now_seconds() -> Seconds {
    now().unix_timestamp()
}

/// What the host's clock says, in milliseconds since 1970.
pub fn now_milliseconds() -> i64 {
    i64::try_from(now().unix_timestamp_nanos() / 1_000_000).unwrap_or(0)
}

/// A moment as people and JSON read it: `2026-11-23T10:00:00Z`.
pub fn text(seconds: Seconds) -> String {
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|moment| moment.format(&Rfc3339).ok())
        .unwrap_or_else(|| seconds.to_string())
}

#[cfg(test)]
mod tests {
    #[test]
    fn moments_are_rfc_3339() {
        assert_eq!(super::text(1_795_000_000), "2026-11-18T11:06:40Z");
    }
}
