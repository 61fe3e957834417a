//! Operators of access logs.

use super::super::expression::Expression;
use super::FormatError;
use super::time::TimeFormat;
use crate::routing::format::{Directive, Field, Plain, field};
use crate::vocab::name::Text;

macro_rules! own {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// An operator without arguments that only access logs have.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Own { $($(#[$doc])* $variant,)* }

        impl Own {
            /// Every one.
            pub const ALL: &'static [Own] = &[$(Own::$variant,)*];

            /// The name between the percent signs.
            pub fn name(self) -> &'static str {
                match self { $(Own::$variant => $name,)* }
            }
        }
    };
}

own! {
    /// Response flags by their long names.
    ResponseFlagsLong = "RESPONSE_FLAGS_LONG",
    /// Why the connection was ended.
    ConnectionTerminationDetails = "CONNECTION_TERMINATION_DETAILS",
    /// Why TLS or the connection upstream failed.
    UpstreamTransportFailureReason = "UPSTREAM_TRANSPORT_FAILURE_REASON",
    /// Bytes from the client, head included.
    DownstreamWireBytesReceived = "DOWNSTREAM_WIRE_BYTES_RECEIVED",
    /// Bytes to the client, head included.
    DownstreamWireBytesSent = "DOWNSTREAM_WIRE_BYTES_SENT",
    /// Bytes of the request's head.
    DownstreamHeaderBytesReceived = "DOWNSTREAM_HEADER_BYTES_RECEIVED",
    /// Bytes of the answer's head.
    DownstreamHeaderBytesSent = "DOWNSTREAM_HEADER_BYTES_SENT",
    /// Milliseconds until the answer's head came.
    ResponseDuration = "RESPONSE_DURATION",
    /// Milliseconds from the answer's head to its end.
    ResponseTxDuration = "RESPONSE_TX_DURATION",
    /// Attempts upstream.
    UpstreamRequestAttemptCount = "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    /// As `UPSTREAM_CLUSTER`.
    UpstreamClusterRaw = "UPSTREAM_CLUSTER_RAW",
    /// Port of the endpoint.
    UpstreamRemotePort = "UPSTREAM_REMOTE_PORT",
    /// `grpc-status` as a number.
    GrpcStatusNumber = "GRPC_STATUS_NUMBER",
    /// Id of the trace.
    TraceId = "TRACE_ID",
    /// What kind of entry it is.
    AccessLogType = "ACCESS_LOG_TYPE",
    /// The query, without `?`.
    QueryParams = "QUERY_PARAMS",
    /// Version of the snapshot that decided. Envoy has none of this.
    SnapshotVersion = "SNAPSHOT_VERSION",
    /// The rule that decided, `virtualservice/default/reviews[0]`. Envoy has none of this.
    Rule = "RULE",
}

/// Operators of Envoy that would never have a value here, each with what comes next to it.
const VALUELESS: [(&str, Option<&str>); 34] = [
    ("COALESCE", Some("REQ(X?Y)")),
    ("COMMON_DURATION", Some("DURATION")),
    ("REQUEST_DURATION", Some("DURATION")),
    ("REQUEST_TX_DURATION", Some("DURATION")),
    ("ROUNDTRIP_DURATION", Some("DURATION")),
    ("UNIQUE_ID", Some("STREAM_ID")),
    ("CUSTOM_FLAGS", Some("RESPONSE_FLAGS")),
    ("FILTER_CHAIN_NAME", Some("ROUTE_NAME")),
    ("VIRTUAL_CLUSTER_NAME", Some("ROUTE_NAME")),
    ("METADATA", Some("RULE")),
    ("DYNAMIC_METADATA", Some("RULE")),
    ("CLUSTER_METADATA", Some("UPSTREAM_CLUSTER")),
    ("UPSTREAM_METADATA", Some("UPSTREAM_HOST")),
    ("FILTER_STATE", Some("CEL(downstream_peer.workload)")),
    ("UPSTREAM_FILTER_STATE", Some("CEL(upstream_peer.workload)")),
    ("UPSTREAM_PROTOCOL", Some("PROTOCOL")),
    ("UPSTREAM_CONNECTION_ID", Some("CONNECTION_ID")),
    ("UPSTREAM_CONNECTION_POOL_READY_DURATION", Some("RESPONSE_DURATION")),
    ("UPSTREAM_TLS_VERSION", None),
    ("UPSTREAM_TLS_CIPHER", None),
    ("UPSTREAM_PEER_SUBJECT", None),
    ("UPSTREAM_PEER_URI_SAN", Some("CEL(upstream_peer.identity)")),
    ("UPSTREAM_LOCAL_URI_SAN", Some("DOWNSTREAM_LOCAL_URI_SAN")),
    ("UPSTREAM_WIRE_BYTES_SENT", Some("DOWNSTREAM_WIRE_BYTES_RECEIVED")),
    ("UPSTREAM_WIRE_BYTES_RECEIVED", Some("DOWNSTREAM_WIRE_BYTES_SENT")),
    ("UPSTREAM_HEADER_BYTES_SENT", Some("DOWNSTREAM_HEADER_BYTES_RECEIVED")),
    ("UPSTREAM_HEADER_BYTES_RECEIVED", Some("DOWNSTREAM_HEADER_BYTES_SENT")),
    ("DOWNSTREAM_TLS_CIPHER", Some("DOWNSTREAM_TLS_VERSION")),
    ("DOWNSTREAM_TLS_SESSION_ID", Some("CONNECTION_ID")),
    ("DOWNSTREAM_PEER_CERT", Some("DOWNSTREAM_PEER_URI_SAN")),
    ("DOWNSTREAM_PEER_FINGERPRINT_256", Some("DOWNSTREAM_PEER_URI_SAN")),
    ("DOWNSTREAM_PEER_SERIAL", Some("DOWNSTREAM_PEER_URI_SAN")),
    ("DOWNSTREAM_PEER_ISSUER", Some("DOWNSTREAM_PEER_URI_SAN")),
    ("DOWNSTREAM_LOCAL_SUBJECT", Some("DOWNSTREAM_LOCAL_URI_SAN")),
];

/// Names with arguments, for what may have been meant.
const WITH_ARGUMENTS: [&str; 12] = [
    "REQ(NAME)",
    "RESP(NAME)",
    "TRAILER(NAME)",
    "REQ_WITHOUT_QUERY(NAME)",
    "START_TIME(FORMAT)",
    "EMIT_TIME",
    "GRPC_STATUS",
    "ENVIRONMENT(NAME)",
    "QUERY_PARAM(NAME)",
    "PATH",
    "CEL(EXPRESSION)",
    "RESPONSE_CODE_DETAILS",
];

/// How `GRPC_STATUS` is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrpcForm {
    /// `InvalidArgument`.
    Camel,
    /// `INVALID_ARGUMENT`.
    Snake,
    /// `3`.
    Number,
}

/// What `PATH` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathForm {
    /// With its query.
    pub query: bool,
}

/// What is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// What values of header fields have too.
    Plain(Plain),
    /// Without arguments.
    Own(Own),
    /// `START_TIME(FORMAT)`: when it began.
    StartTime(TimeFormat),
    /// `EMIT_TIME(FORMAT)`: when it ended.
    EmitTime(TimeFormat),
    /// `REQ(NAME?OTHER)`.
    Request(Field),
    /// `REQ_WITHOUT_QUERY(NAME?OTHER)`.
    RequestWithoutQuery(Field),
    /// `RESP(NAME?OTHER)`.
    Response(Field),
    /// `TRAILER(NAME?OTHER)`: `grpc-status` is the one that is kept.
    Trailer(Field),
    /// `RESPONSE_CODE_DETAILS(ALLOW_WHITESPACES)`.
    DetailsWithSpaces,
    /// `GRPC_STATUS(FORM)`.
    GrpcStatus(GrpcForm),
    /// `ENVIRONMENT(NAME)`: a variable of the proxy.
    Environment(Text),
    /// `QUERY_PARAM(NAME)`.
    QueryParam(Text),
    /// `PATH(FORM)`.
    Path(PathForm),
    /// `CEL(EXPRESSION)`.
    Cel(Expression),
}

/// What stands between percent signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// What is looked up.
    pub what: What,
    /// Only so many bytes.
    pub limit: Option<usize>,
}

impl Operator {
    pub(super) fn read(found: &Directive<'_>) -> Result<Operator, FormatError> {
        let Directive { name, arguments, limit } = *found;
        let given = arguments.filter(|arguments| !arguments.is_empty());
        let wrong =
            |reason: &str| FormatError::Arguments { name: name.to_owned(), reason: reason.to_owned() };
        let fields = || {
            let given = given.ok_or_else(|| wrong("names a header field in parentheses"))?;
            field(given, limit)
                .ok_or_else(|| wrong("what stands in parentheses is no name of a header field"))
        };
        let time = || {
            let unknown = |conversion| wrong(&format!("{conversion} is no part of a time"));
            given.map_or(Ok(TimeFormat::default()), |given| TimeFormat::parse(given).map_err(unknown))
        };
        let named =
            |what: &str| given.map(Text::from).ok_or_else(|| wrong(&format!("names {what} in parentheses")));
        let what = match name {
            "REQ" => What::Request(fields()?),
            "REQ_WITHOUT_QUERY" => What::RequestWithoutQuery(fields()?),
            "RESP" => What::Response(fields()?),
            "TRAILER" => {
                let field = fields()?;
                if [Some(&field.name), field.otherwise.as_ref()]
                    .into_iter()
                    .flatten()
                    .any(|name| !matches!(&**name, "grpc-status"))
                {
                    return Err(wrong("of trailers only grpc-status is kept"));
                }
                What::Trailer(field)
            }
            "START_TIME" => What::StartTime(time()?),
            "EMIT_TIME" => What::EmitTime(time()?),
            "RESPONSE_CODE_DETAILS" => match given {
                None => What::Plain(Plain::ResponseCodeDetails),
                Some("ALLOW_WHITESPACES") => What::DetailsWithSpaces,
                Some(_) => return Err(wrong("takes ALLOW_WHITESPACES or nothing")),
            },
            "GRPC_STATUS" => What::GrpcStatus(match given {
                None | Some("CAMEL_STRING") => GrpcForm::Camel,
                Some("SNAKE_STRING") => GrpcForm::Snake,
                Some("NUMBER") => GrpcForm::Number,
                Some(_) => return Err(wrong("takes CAMEL_STRING, SNAKE_STRING or NUMBER")),
            }),
            "ENVIRONMENT" => What::Environment(named("a variable")?),
            "QUERY_PARAM" => What::QueryParam(named("a parameter")?),
            "PATH" => {
                let (form, whose) =
                    given.unwrap_or("WQ").split_once(':').unwrap_or((given.unwrap_or("WQ"), ""));
                if !matches!(whose, "" | "ORIG" | "PATH" | "ORIG_OR_PATH") {
                    return Err(wrong("takes WQ or NQ, and ORIG, PATH or ORIG_OR_PATH behind a colon"));
                }
                match form {
                    "WQ" => What::Path(PathForm { query: true }),
                    "NQ" => What::Path(PathForm { query: false }),
                    _ => return Err(wrong("takes WQ (with query) or NQ (without)")),
                }
            }
            "CEL" => {
                let source = given.ok_or_else(|| wrong("has an expression in parentheses"))?;
                What::Cel(Expression::new(source).map_err(|error| wrong(&error.to_string()))?)
            }
            _ => plain(name, given.is_some() || limit.is_some())?,
        };
        Ok(Operator { what, limit })
    }

    /// Whether it reads fields of the request or the answer that are not kept for every line.
    pub fn reads_fields(&self) -> bool {
        let rare = |field: &Field| {
            [Some(&field.name), field.otherwise.as_ref()].into_iter().flatten().any(|name| !is_kept(name))
        };
        match &self.what {
            What::Request(field) | What::RequestWithoutQuery(field) => rare(field),
            What::Response(_) => true,
            What::Cel(expression) => {
                expression.request_headers().any(|name| !is_kept(name))
                    || expression.response_headers().next().is_some()
            }
            What::Own(Own::TraceId) => true,
            _ => false,
        }
    }
}

/// Whether a field of the request is kept for every line that is told.
fn is_kept(name: &str) -> bool {
    matches!(
        name,
        ":path"
            | ":method"
            | ":authority"
            | "host"
            | "user-agent"
            | "x-forwarded-for"
            | "x-request-id"
            | "x-envoy-original-path"
    )
}

fn plain(name: &str, argued: bool) -> Result<What, FormatError> {
    let near = |wanted: Option<&str>| wanted.and_then(nearest);
    if let Some((_, next)) = VALUELESS.iter().find(|(known, _)| *known == name) {
        return Err(FormatError::Valueless { name: name.to_owned(), near: *next });
    }
    let own = Own::ALL.iter().find(|own| own.name() == name).map(|own| What::Own(*own));
    let shared = || Plain::ALL.iter().find(|plain| plain.name() == name).map(|plain| What::Plain(*plain));
    match own.or_else(shared) {
        Some(_) if argued => Err(FormatError::Arguments {
            name: name.to_owned(),
            reason: "takes nothing in parentheses and no length".to_owned(),
        }),
        Some(found) => Ok(found),
        None => Err(FormatError::Unknown { name: name.to_owned(), near: near(Some(name)) }),
    }
}

fn nearest(name: &str) -> Option<&'static str> {
    let plain = Plain::ALL.iter().map(|plain| plain.name());
    let own = Own::ALL.iter().map(|own| own.name());
    plain
        .chain(own)
        .chain(WITH_ARGUMENTS)
        .map(|known| (strsim::damerau_levenshtein(name, known.split('(').next().unwrap_or(known)), known))
        .filter(|(distance, known)| distance * 2 <= known.len())
        .min()
        .map(|(_, known)| known)
}
