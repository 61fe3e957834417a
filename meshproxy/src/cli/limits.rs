//! How much a proxy takes and how long it waits, as flags.

use std::time::Duration;

use clap::Args;
use mesh_core::framing::Sizes;

use super::duration;
use crate::net::limits::{Http2, Limits, Patience};

/// Limits and times of `run`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits and times")]
pub struct LimitArgs {
    /// Most connections that are open at a time; more are closed at once
    #[arg(long, env = "MESHPROXY_MAX_CONNECTIONS", value_name = "NUMBER", default_value_t = 10_000)]
    pub max_connections: usize,
    /// Most connections of one other identity of the mesh
    #[arg(long, env = "MESHPROXY_MAX_IDENTITY_CONNECTIONS", value_name = "NUMBER", default_value_t = 1_000)]
    pub max_identity_connections: usize,
    /// Memory beyond which the proxy gives way: at 85 % of it no new streams, at 92 % no new connections, at 96 % no
    /// idle ones [default: 80 % of the memory cgroup's limit, else half of the machine's]
    #[arg(long, env = "MESHPROXY_MEMORY_BUDGET", value_name = "SIZE", value_parser = size)]
    pub memory_budget: Option<u64>,
    /// Most fields of a head
    #[arg(long, env = "MESHPROXY_MAX_FIELDS", value_name = "NUMBER", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_fields: u32,
    /// Largest list of fields of a head
    #[arg(long, env = "MESHPROXY_MAX_FIELD_LIST", value_name = "SIZE", default_value = "32KiB",
        value_parser = upto::<1_048_576>)]
    pub max_field_list: u64,
    /// Largest single field
    #[arg(long, env = "MESHPROXY_MAX_FIELD", value_name = "SIZE", default_value = "16KiB",
        value_parser = upto::<1_048_576>)]
    pub max_field: u64,
    /// Longest target of a request
    #[arg(long, env = "MESHPROXY_MAX_TARGET", value_name = "SIZE", default_value = "8KiB",
        value_parser = upto::<60_000>)]
    pub max_target: u64,
    /// Longest method
    #[arg(long, env = "MESHPROXY_MAX_METHOD", value_name = "BYTES", default_value_t = 32,
        value_parser = clap::value_parser!(u8).range(1..=250))]
    pub max_method: u8,
    /// Longest extension of a chunk
    #[arg(long, env = "MESHPROXY_MAX_CHUNK_EXTENSION", value_name = "SIZE", default_value = "256",
        value_parser = upto::<60_000>)]
    pub max_chunk_extension: u64,
    /// Most of all extensions of the chunks of a message
    #[arg(long, env = "MESHPROXY_MAX_CHUNK_EXTENSIONS", value_name = "SIZE", default_value = "4KiB",
        value_parser = upto::<60_000>)]
    pub max_chunk_extensions: u64,
    /// Most trailers of a message
    #[arg(long, env = "MESHPROXY_MAX_TRAILERS", value_name = "NUMBER", default_value_t = 32,
        value_parser = clap::value_parser!(u8).range(0..=250))]
    pub max_trailers: u8,
    /// Largest list of trailers of a message
    #[arg(long, env = "MESHPROXY_MAX_TRAILER_LIST", value_name = "SIZE", default_value = "8KiB",
        value_parser = upto::<60_000>)]
    pub max_trailer_list: u64,
    /// Most streams of an application's HTTP/2 connection at a time
    #[arg(long, env = "MESHPROXY_MAX_STREAMS", value_name = "NUMBER", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_streams: u32,
    /// What an application may send ahead on a stream of HTTP/2
    #[arg(long, env = "MESHPROXY_STREAM_WINDOW", value_name = "SIZE", default_value = "64KiB",
        value_parser = upto::<16_777_216>)]
    pub stream_window: u64,
    /// What it may send ahead on a connection of HTTP/2
    #[arg(long, env = "MESHPROXY_CONNECTION_WINDOW", value_name = "SIZE", default_value = "1MiB",
        value_parser = upto::<268_435_456>)]
    pub connection_window: u64,
    /// Largest frame of HTTP/2 that is read
    #[arg(long, env = "MESHPROXY_MAX_FRAME", value_name = "SIZE", default_value = "16KiB",
        value_parser = frame)]
    pub max_frame: u64,
    /// Most frames of an application in ten seconds that carry and answer nothing
    #[arg(long, env = "MESHPROXY_MAX_CONTROL_FRAMES", value_name = "NUMBER", default_value_t = 1_000)]
    pub max_control_frames: u32,
    /// Most streams that an application gives up in ten seconds, where they are more than half of all
    #[arg(long, env = "MESHPROXY_MAX_RESETS", value_name = "NUMBER", default_value_t = 500)]
    pub max_resets: u32,
    /// Most streams of an HTTP/2 connection that the proxy resets because of what was sent
    #[arg(long, env = "MESHPROXY_MAX_LOCAL_RESETS", value_name = "NUMBER", default_value_t = 100)]
    pub max_local_resets: usize,
    /// Most streams that were reset before they were looked at
    #[arg(long, env = "MESHPROXY_MAX_PENDING_RESETS", value_name = "NUMBER", default_value_t = 20)]
    pub max_pending_resets: usize,
    /// What waits in one direction for a peer that reads slowly
    #[arg(long, env = "MESHPROXY_BUFFER", value_name = "SIZE", default_value = "64KiB", value_parser = buffer)]
    pub buffer: u64,
    /// How long the first byte of a connection is waited for
    #[arg(long, env = "MESHPROXY_FIRST_BYTE_TIMEOUT", value_name = "DURATION", default_value = "10s",
        value_parser = duration)]
    pub first_byte_timeout: Duration,
    /// The same where the server may speak first
    #[arg(long, env = "MESHPROXY_DETECTION_TIMEOUT", value_name = "DURATION", default_value = "5s",
        value_parser = duration)]
    pub detection_timeout: Duration,
    /// How long a handshake on the mesh port may take
    #[arg(long, env = "MESHPROXY_HANDSHAKE_TIMEOUT", value_name = "DURATION", default_value = "5s",
        value_parser = duration)]
    pub handshake_timeout: Duration,
    /// How long the head of a message, a preface or a frame may take, once it has begun
    #[arg(long, env = "MESHPROXY_HEAD_TIMEOUT", value_name = "DURATION", default_value = "10s",
        value_parser = duration)]
    pub head_timeout: Duration,
    /// How long nothing may come of the body of a request
    #[arg(long, env = "MESHPROXY_BODY_TIMEOUT", value_name = "DURATION", default_value = "60s",
        value_parser = duration)]
    pub body_timeout: Duration,
    /// How long an HTTP/1 connection is kept without a request
    #[arg(long, env = "MESHPROXY_IDLE_TIMEOUT", value_name = "DURATION", default_value = "60s",
        value_parser = duration)]
    pub idle_timeout: Duration,
    /// How long an HTTP/2 connection is kept without a request
    #[arg(long, env = "MESHPROXY_HTTP2_IDLE_TIMEOUT", value_name = "DURATION", default_value = "300s",
        value_parser = duration)]
    pub http2_idle_timeout: Duration,
    /// How long an HTTP/2 connection may be silent before it is asked whether it lives
    #[arg(long, env = "MESHPROXY_PING_INTERVAL", value_name = "DURATION", default_value = "30s",
        value_parser = duration)]
    pub ping_interval: Duration,
    /// How long the answer to that may take
    #[arg(long, env = "MESHPROXY_PING_TIMEOUT", value_name = "DURATION", default_value = "10s",
        value_parser = duration)]
    pub ping_timeout: Duration,
    /// How long a peer may take nothing of what is written
    #[arg(long, env = "MESHPROXY_WRITE_TIMEOUT", value_name = "DURATION", default_value = "60s",
        value_parser = duration)]
    pub write_timeout: Duration,
}

impl From<LimitArgs> for Limits {
    fn from(args: LimitArgs) -> Limits {
        // Each flag is bounded by what fits.
        let large = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let small = |value: u64| u16::try_from(value).unwrap_or(u16::MAX);
        Limits {
            connections: args.max_connections,
            of_identity: args.max_identity_connections,
            memory: args.memory_budget,
            buffer: usize::try_from(args.buffer).unwrap_or(usize::MAX),
            patience: Patience {
                first_byte: args.first_byte_timeout,
                detection: args.detection_timeout,
                handshake: args.handshake_timeout,
                head: args.head_timeout,
                body: args.body_timeout,
                idle: args.idle_timeout,
                idle_http2: args.http2_idle_timeout,
                ping_every: args.ping_interval,
                ping_within: args.ping_timeout,
                write: args.write_timeout,
            },
            sizes: Sizes {
                list: large(args.max_field_list),
                fields: args.max_fields,
                field: large(args.max_field),
                target: large(args.max_target),
                method: args.max_method,
                extension: small(args.max_chunk_extension),
                extensions: small(args.max_chunk_extensions),
                trailer_list: small(args.max_trailer_list),
                trailers: args.max_trailers,
            },
            http2: Http2 {
                streams: args.max_streams,
                stream_window: large(args.stream_window),
                window: large(args.connection_window),
                frame: large(args.max_frame),
                control: args.max_control_frames,
                resets: args.max_resets,
                local_resets: args.max_local_resets,
                pending_resets: args.max_pending_resets,
            },
        }
    }
}

/// `64KiB`, `1MiB`, `2GiB`, or a number of bytes.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text[digits.len()..].trim() {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        other => return Err(format!("unknown unit {other:?} (such as 64KiB or 1MiB)")),
    };
    let number: u64 = digits.parse().map_err(|_| "expected a size such as 64KiB or 1MiB".to_owned())?;
    number.checked_mul(unit).filter(|size| *size > 0).ok_or_else(|| "out of range".to_owned())
}

fn upto<const MOST: u64>(text: &str) -> Result<u64, String> {
    within(text, 1, MOST)
}

/// RFC 9113, section 4.2.
fn frame(text: &str) -> Result<u64, String> {
    within(text, 16_384, 16_777_215)
}

fn buffer(text: &str) -> Result<u64, String> {
    within(text, 8_192, 16_777_216)
}

fn within(text: &str, least: u64, most: u64) -> Result<u64, String> {
    match size(text)? {
        size if (least..=most).contains(&size) => Ok(size),
        _ => Err(format!("must be {least} to {most} bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{FromArgMatches, Parser as _};

    #[test]
    fn sizes_have_units() {
        for (text, expected) in
            [("1", Some(1)), ("64KiB", Some(65_536)), ("128 MiB", Some(134_217_728)), ("2G", Some(2 << 30))]
        {
            assert_eq!(size(text).ok(), expected, "{text}");
        }
        for bad in ["", "0", "KiB", "1kb", "-1", "1.5MiB", "99999999999GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert!(frame("8KiB").is_err() && frame("16KiB").is_ok() && upto::<10>("11").is_err());
    }

    #[test]
    fn flags_and_limits_have_the_same_defaults() {
        let command = LimitArgs::augment_args(clap::Command::new("x").no_binary_name(true));
        let matches = command.try_get_matches_from(Vec::<&str>::new()).unwrap();
        let limits: Limits = LimitArgs::from_arg_matches(&matches).unwrap().into();
        assert_eq!(limits, Limits::default());
        let with = |flags: &[&str]| {
            let run = ["meshproxy", "run", "--control", "https://a:1"];
            crate::cli::Cli::try_parse_from(run.iter().chain(flags)).map(drop)
        };
        with(&["--memory-budget", "128MiB", "--max-field-list", "64KiB", "--max-streams", "7"]).unwrap();
        for bad in [["--max-streams", "0"], ["--max-frame", "1KiB"], ["--max-method", "251"]] {
            with(&bad).unwrap_err();
        }
    }
}
