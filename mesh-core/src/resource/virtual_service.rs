//! VirtualService.

use std::time::Duration;

use ipnet::IpNet;

use super::reach::{ExportTo, GatewayRef};
use crate::matching::request::RequestMatch;
use crate::resilience::fault::FaultPolicy;
use crate::resilience::hedge::Hedge;
use crate::resilience::retry::RetryPolicy;
use crate::routing::cors::CorsPolicy;
use crate::routing::header::HeaderChanges;
use crate::routing::rewrite::{Redirect, Rewrite};
use crate::routing::rule::DirectResponse;
use crate::vocab::label::Labels;
use crate::vocab::name::Text;
use crate::vocab::ratio::Ratio;

/// Rules for hosts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VirtualService {
    /// Hosts as written, lower case; short names are resolved against the namespace when compiled.
    pub hosts: Vec<Text>,
    /// Gateways that it is bound to; none for the mesh.
    pub gateways: Vec<GatewayRef>,
    /// Who sees it.
    pub export_to: ExportTo,
    /// Rules for requests, in order.
    pub http: Vec<HttpRoute>,
    /// Rules for TLS that is passed on, in order.
    pub tls: Vec<TlsRoute>,
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
    /// `delegate`: the rules of another VirtualService.
    Delegate {
        /// Its namespace; the VirtualService's own where none was written.
        namespace: Text,
        /// Its name.
        name: Text,
        /// Rewrite that its rules inherit.
        rewrite: Rewrite,
    },
}

/// One entry of `http[].match`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpMatch {
    /// What is tested per request.
    pub request: RequestMatch,
    /// Service port that the rule is for; tested when compiled.
    pub port: Option<u16>,
    /// Gateways instead of the VirtualService's; none for those. Where any is written, the caller's labels and
    /// namespace are not looked at.
    pub gateways: Vec<GatewayRef>,
}

/// `mirror`, or one entry of `mirrors`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Where copies go.
    pub destination: RouteDestination,
    /// Share of requests that are copied.
    pub share: Ratio,
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
    /// `timeout`; zero for no limit, `None` where it was not written, which means no limit as well.
    pub timeout: Option<Duration>,
    /// `retries`; `None` where it was not written: the mesh's default.
    pub retry: Option<RetryPolicy>,
    /// The annotation `mesh.io/hedge` of the VirtualService, which all its rules have; `None` where there is none.
    pub hedge: Option<Hedge>,
    /// `fault`; `None` where it was not written.
    pub fault: Option<FaultPolicy>,
    /// `mirror` or `mirrors`.
    pub mirrors: Vec<Mirror>,
    /// `corsPolicy`.
    pub cors: Option<CorsPolicy>,
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
    /// Gateways instead of the VirtualService's.
    pub gateways: Vec<GatewayRef>,
}

/// One entry of `tcp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpRoute {
    /// Matches; none matches everything.
    pub matches: Vec<TcpMatch>,
    /// Never empty. Their header changes and authority are empty.
    pub destinations: Vec<RouteDestination>,
}

/// One entry of `tls[].match`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsMatch {
    /// Server names, lower case, may be wildcards; never empty.
    pub sni_hosts: Vec<Text>,
    /// Networks of the original destination.
    pub destination_subnets: Vec<IpNet>,
    /// Service port that the rule is for; tested when compiled.
    pub port: Option<u16>,
    /// Labels of the caller.
    pub caller_labels: Labels,
    /// Namespace of the caller.
    pub caller_namespace: Option<Text>,
    /// Gateways instead of the VirtualService's.
    pub gateways: Vec<GatewayRef>,
}

/// One entry of `tls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsRoute {
    /// Matches; never empty.
    pub matches: Vec<TlsMatch>,
    /// Never empty. Their header changes and authority are empty.
    pub destinations: Vec<RouteDestination>,
}
