//! Tail sampling of traces, as flags.

use std::time::Duration;

use clap::Args;

use super::duration;
use crate::telemetry::trace::Tail;

/// Which requests that were not sampled are traced all the same.
#[derive(Debug, Args)]
#[command(next_help_heading = "Traces")]
pub struct TailArgs {
    /// Export a span of every request that failed, sampled or not: 5xx, reset, refused
    #[arg(long, env = "MESHPROXY_TRACE_TAIL_ERRORS")]
    pub trace_tail_errors: bool,
    /// Export a span of every request that took so long, sampled or not
    #[arg(long, env = "MESHPROXY_TRACE_TAIL_SLOW", value_name = "DURATION", value_parser = duration)]
    pub trace_tail_slow: Option<Duration>,
    /// Most of these spans that wait at a time on one data thread; more are dropped
    #[arg(long, env = "MESHPROXY_TRACE_TAIL_BUFFER", value_name = "NUMBER", default_value_t = Tail::BUFFER)]
    pub trace_tail_buffer: usize,
}

impl From<TailArgs> for Tail {
    fn from(args: TailArgs) -> Tail {
        Tail { errors: args.trace_tail_errors, slow: args.trace_tail_slow, buffer: args.trace_tail_buffer }
    }
}
