//! VirtualService.

use std::time::Duration;

use ipnet::IpNet;

use crate::matching::request::RequestMatch;
use crate::resilience::fault::FaultPolicy;
use crate::resilience::retry::RetryPolicy;
use crate::routing::header::HeaderChanges;
use crate::routing::rewrite::{Redirect, Rewrite};
use crate::routing::rule::DirectResponse;
use crate::vocab::label::Labels;
use crate::vocab::name::Text;

/// Rules for hosts. Bound to the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualService {
    /// Hosts as written, lower case; short names are resolved against the namespace when compiled.
    pub hosts: Vec<Text>,
    /// Rules for requests, in order.
    pub http: Vec<HttpRoute>,
    /// Rules for byte streams, in order.
    pub tcp: Vec<TcpRoute>,
}

/// A destination as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteDestination {
    /// Host as written, lower case.
    pub host: Text,
    /// Subset.
    pub subset: Option<Text>,
    /// Port number.
    pub port: Option<u16>,
    /// Weight; `None` where it was not written.
    pub weight: Option<u32>,
    /// Changes of the request's header fields.
    pub request_headers: HeaderChanges,
    /// Changes of the response's header fields.
    pub response_headers: HeaderChanges,
    /// Authority set by a header operation on `host` or `:authority`.
    pub authority: Option<Text>,
}

/// What follows a match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpAction {
    /// `route`, with `rewrite`.
    Route {
        /// Never empty.
        destinations: Vec<RouteDestination>,
        /// Rewrite; its authority includes a header operation on `host` at the level of the rule.
        rewrite: Rewrite,
    },
    /// `redirect`.
    Redirect(Redirect),
    /// `directResponse`.
    DirectResponse(DirectResponse),
}

/// One entry of `http[].match`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpMatch {
    /// What is tested per request.
    pub request: RequestMatch,
    /// Service port that the rule is for; tested when compiled.
    pub port: Option<u16>,
}

/// One entry of `http`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRoute {
    /// Name.
    pub name: Option<Text>,
    /// Matches; none matches everything.
    pub matches: Vec<HttpMatch>,
    /// What follows.
    pub action: HttpAction,
    /// `timeout`; `None` for no limit.
    pub timeout: Option<Duration>,
    /// `retries`; Istio's default where it was not written.
    pub retry: RetryPolicy,
    /// `fault`.
    pub fault: FaultPolicy,
    /// `headers.request`.
    pub request_headers: HeaderChanges,
    /// `headers.response`.
    pub response_headers: HeaderChanges,
}

/// One entry of `tcp[].match`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TcpMatch {
    /// Networks of the original destination.
    pub destination_subnets: Vec<IpNet>,
    /// Service port that the rule is for; tested when compiled.
    pub port: Option<u16>,
    /// Labels of the caller.
    pub caller_labels: Labels,
    /// Namespace of the caller.
    pub caller_namespace: Option<Text>,
}

/// One entry of `tcp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpRoute {
    /// Matches; none matches everything.
    pub matches: Vec<TcpMatch>,
    /// Never empty. Their header changes and authority are empty.
    pub destinations: Vec<RouteDestination>,
}
