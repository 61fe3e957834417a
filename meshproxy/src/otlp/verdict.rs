//! What a collector's answer means, by OpenTelemetry's rules: taken, to be sent again, or lost.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tonic::{Code, Status};

/// Why an export came to nothing this time.
#[derive(Debug)]
pub(super) struct Failure {
    /// In words.
    pub(super) reason: String,
    /// Whether it may be sent again.
    pub(super) again: bool,
    /// How long the collector wants to be left alone.
    pub(super) wait: Option<Duration>,
}

impl Failure {
    /// Nothing was answered.
    pub(super) fn broken(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Failure {
        Failure { reason: reason.into().to_string(), again: true, wait: None }
    }

    /// An answer over gRPC.
    pub(super) fn of_grpc(status: &Status) -> Failure {
        let wait = retry_delay(status.details());
        let again = match status.code() {
            Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss => true,
            // Only where the collector says that it will have room again.
            Code::ResourceExhausted => wait.is_some(),
            // A connection that broke in the middle looks like this.
            Code::Unknown => std::error::Error::source(status).is_some(),
            _ => false,
        };
        Failure { reason: format!("{:?}: {}", status.code(), status.message()), again, wait }
    }

    /// An answer over HTTP.
    pub(super) fn of_http(status: StatusCode, headers: &HeaderMap) -> Failure {
        let again = matches!(status.as_u16(), 429 | 502..=504);
        let wait = headers.get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Failure { reason: status.to_string(), again, wait: wait.map(Duration::from_secs) }
    }
}

/// `google.rpc.RetryInfo` among the details of a status.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    delay: Option<Span>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Span {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Details {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

fn retry_delay(details: &[u8]) -> Option<Duration> {
    use prost::Message as _;
    let details = Details::decode(details).ok()?.details;
    let info = details.iter().find(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(&*info.value).ok()?.delay?;
    Some(Duration::new(delay.seconds.try_into().ok()?, delay.nanos.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn what_may_be_sent_again() {
        for (code, again) in [
            (Code::Unavailable, true),
            (Code::DeadlineExceeded, true),
            (Code::ResourceExhausted, false),
            (Code::InvalidArgument, false),
            (Code::Unimplemented, false),
            (Code::PermissionDenied, false),
        ] {
            assert_eq!(Failure::of_grpc(&Status::new(code, "")).again, again, "{code:?}");
        }
        for (code, again) in
            [(400, false), (404, false), (413, false), (429, true), (500, false), (503, true)]
        {
            let failure = Failure::of_http(StatusCode::from_u16(code).unwrap(), &HeaderMap::new());
            assert_eq!(failure.again, again, "{code}");
        }
    }

    #[test]
    fn a_collector_that_says_when_is_asked_again_then() {
        let info = RetryInfo { delay: Some(Span { seconds: 2, nanos: 500_000_000 }) };
        let detail =
            Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".into(), value: info.encode_to_vec() };
        let details = Details { details: vec![detail] }.encode_to_vec();
        let status = Status::with_details(Code::ResourceExhausted, "", details.into());
        let failure = Failure::of_grpc(&status);
        assert_eq!((failure.again, failure.wait), (true, Some(Duration::from_millis(2500))));
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", "3".parse().unwrap());
        let failure = Failure::of_http(StatusCode::SERVICE_UNAVAILABLE, &headers);
        assert_eq!(failure.wait, Some(Duration::from_secs(3)));
        assert_eq!(retry_delay(b"\xff\xff"), None);
    }
}
