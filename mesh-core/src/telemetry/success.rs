//! Whether an exchange went well, as rates of success count it.

/// How an exchange ended.
#[derive(Debug, Clone, Copy)]
pub struct Ending<'a> {
    /// Status; 0 where no answer was given.
    pub code: u16,
    /// Whether it is gRPC.
    pub grpc: bool,
    /// `grpc-status`, if one came.
    pub grpc_status: Option<u16>,
    /// Why the answer is what it is: `via_upstream` for an answer of the application.
    pub details: &'a str,
    /// Whether the upstream or the proxy broke it off, though a head of an answer went out.
    pub broken_off: bool,
}

impl Ending<'_> {
    /// Whether it went well: answered whole, with a status below 500 and a good status of gRPC. What the proxy itself
    /// refuses (no route, not allowed, too much) went wrong whatever its status; a redirect or a direct response is what
    /// the operator wants.
    pub fn is_success(&self) -> bool {
        if self.broken_off || !(1..500).contains(&self.code) {
            return false;
        }
        if self.grpc && self.grpc_status.is_some_and(fails) {
            return false;
        }
        let wanted = matches!(self.details, "" | "via_upstream" | "direct_response" | "cors_response");
        self.code < 400 || wanted
    }
}

/// Statuses of gRPC that are the server's failure, or its refusal: UNKNOWN, DEADLINE_EXCEEDED, PERMISSION_DENIED, INTERNAL,
/// UNAVAILABLE, DATA_LOSS. The others tell the caller something about its request.
fn fails(status: u16) -> bool {
    matches!(status, 2 | 4 | 7 | 13 | 14 | 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(code: u16, grpc_status: Option<u16>, details: &str, broken_off: bool, expected: bool) {
        let ending = Ending { code, grpc: grpc_status.is_some(), grpc_status, details, broken_off };
        assert_eq!(ending.is_success(), expected, "{ending:?}");
    }

    #[test]
    fn what_counts_as_success() {
        check(200, None, "via_upstream", false, true);
        check(404, None, "via_upstream", false, true);
        check(404, None, "route_not_found", false, false);
        check(403, None, "rbac_access_denied_matched_policy[none]", false, false);
        check(429, None, "local_rate_limited", false, false);
        check(404, None, "direct_response", false, true);
        check(301, None, "direct_response", false, true);
        check(500, None, "via_upstream", false, false);
        check(503, None, "fault_filter_abort", false, false);
        check(0, None, "downstream_remote_disconnect", false, false);
        check(200, None, "upstream_reset", true, false);
        for (status, expected) in
            [(0, true), (1, true), (2, false), (3, true), (4, false), (5, true), (7, false)]
        {
            check(200, Some(status), "via_upstream", false, expected);
        }
        for (status, expected) in [(8, true), (12, true), (13, false), (14, false), (15, false), (16, true)] {
            check(200, Some(status), "via_upstream", false, expected);
        }
    }
}
