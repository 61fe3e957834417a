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

/// Time that an endpoint is told it has for a try: the try's own, and never more than what is left of the whole. Nothing
/// left is told as a millisecond, as 0 would mean no limit (Envoy, `setTimeoutHeaders`).
pub fn expected_time(per_try: Option<Duration>, left: Option<Duration>) -> Option<Duration> {
    let left = left.map(|left| left.max(Duration::from_millis(1)));
    match (per_try, left) {
        (Some(per_try), Some(left)) => Some(per_try.min(left)),
        (per_try, left) => per_try.or(left),
    }
}

/// Writes a `grpc-timeout` header: eight digits at most, so in the finest unit from milliseconds on that they suffice for.
pub fn grpc_timeout(time: Duration) -> String {
    const MOST: u128 = 99_999_999;
    let mut amount = time.as_millis();
    for (unit, next) in [('m', 1000), ('S', 60), ('M', 60)] {
        if amount <= MOST {
            return format!("{amount}{unit}");
        }
        amount /= next;
    }
    format!("{}H", amount.min(MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_told_the_shortest_time() {
        let ms = Duration::from_millis;
        assert_eq!(expected_time(None, None), None);
        assert_eq!(expected_time(Some(ms(5)), None), Some(ms(5)));
        assert_eq!(expected_time(Some(ms(5)), Some(ms(3))), Some(ms(3)));
        assert_eq!(expected_time(None, Some(Duration::ZERO)), Some(ms(1)));
    }

    #[test]
    fn grpc_timeouts_are_written_in_eight_digits() {
        let check = |time: Duration, expected: &str| assert_eq!(grpc_timeout(time), expected);
        check(Duration::from_millis(250), "250m");
        check(Duration::from_secs(99_999), "99999000m");
        check(Duration::from_secs(100_000), "100000S");
        check(Duration::from_secs(600_000_000), "10000000M");
        check(Duration::from_secs(u64::MAX), "99999999H");
    }

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
