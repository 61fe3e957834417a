//! Deadlines of a request.

use std::time::Duration;

/// Time to connect to an endpoint where nothing else is said (MeshConfig `connectTimeout`).
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads a `grpc-timeout` header: up to eight digits and a unit of `HMSmun` (gRPC over HTTP/2, "Timeout").
/// A malformed one counts as absent.
pub fn parse_grpc_timeout(value: &str) -> Option<Duration> {
    let unit = value.chars().last().filter(char::is_ascii_alphabetic)?;
    let digits = &value[..value.len() - 1];
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_secs(amount * 3600),
        'M' => Duration::from_secs(amount * 60),
        'S' => Duration::from_secs(amount),
        'm' => Duration::from_millis(amount),
        'u' => Duration::from_micros(amount),
        'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// Time for a whole request: the route's, or the client's `grpc-timeout` where that is shorter or the route has none.
pub fn request_timeout(route: Option<Duration>, grpc_timeout: Option<&str>) -> Option<Duration> {
    let route = route.filter(|timeout| !timeout.is_zero());
    match (route, grpc_timeout.and_then(parse_grpc_timeout).filter(|timeout| !timeout.is_zero())) {
        (Some(route), Some(client)) => Some(route.min(client)),
        (route, client) => route.or(client),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts() {
        let check = |value: &str, expected: Option<Duration>| {
            assert_eq!(parse_grpc_timeout(value), expected, "{value}")
        };
        check("1S", Some(Duration::from_secs(1)));
        check("250m", Some(Duration::from_millis(250)));
        check("99999999H", Some(Duration::from_secs(99_999_999 * 3600)));
        check("999999999S", None);
        check("S", None);
        check("1", None);
        check("-1S", None);
        check("1é", None);
    }

    #[test]
    fn the_shorter_timeout_counts() {
        let second = Duration::from_secs(1);
        assert_eq!(request_timeout(None, None), None);
        assert_eq!(request_timeout(Some(Duration::ZERO), None), None);
        assert_eq!(request_timeout(Some(second), Some("5S")), Some(second));
        assert_eq!(request_timeout(None, Some("1S")), Some(second));
    }
}
