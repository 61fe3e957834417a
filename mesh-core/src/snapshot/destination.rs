//! A service port or subset with its policy.

use std::time::Duration;

use crate::balancing::locality::Preference;
use crate::balancing::policy::{Algorithm, Warmup};
use crate::policy::mtls::ClientTls;
use crate::resilience::connection_fault::ConnectionFault;
use crate::resilience::outlier::OutlierDetection;
use crate::resilience::pool::{PoolLimits, RetryBudget};
use crate::vocab::label::Labels;
use crate::vocab::name::{DestinationKey, Text};
use crate::vocab::protocol::{Protocol, UpstreamProtocol};
use crate::vocab::resolution::Resolution;
use crate::vocab::tunnel::Tunnel;

/// Where traffic goes and how: the endpoints of `key.host` whose labels `labels` selects. Nothing in it depends on
/// the proxy that reads it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Host, port, subset and scope.
    pub key: DestinationKey,
    /// The DestinationRule that shaped it.
    pub origin: Option<Text>,
    /// What the port speaks.
    pub protocol: Protocol,
    /// Labels of the subset; empty selects all.
    pub labels: Labels,
    /// How the endpoints are found.
    pub resolution: Resolution,
    /// Port in place of the one addressed, where traffic goes to where it was sent or to the name it asks for.
    pub target_port: Option<u16>,
    /// How an endpoint is chosen; always [`Algorithm::Passthrough`] where traffic goes to where it was sent.
    pub load_balancer: Algorithm,
    /// Which localities get traffic, and in which order.
    pub preference: Preference,
    /// How a new endpoint gets its share.
    pub warmup: Option<Warmup>,
    /// How connections are secured.
    pub tls: ClientTls,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// Limits of connections and requests.
    pub pool: PoolLimits,
    /// When endpoints are left alone for a while; `None` for never.
    pub outlier_detection: Option<OutlierDetection>,
    /// Limit of retries relative to requests; it replaces `pool.max_retries`.
    pub retry_budget: Option<RetryBudget>,
    /// What happens to connections on purpose.
    pub fault: Option<ConnectionFault>,
    /// Proxy through which byte streams go.
    pub tunnel: Option<Tunnel>,
    /// Version of the PROXY header that connections begin with.
    pub proxy_protocol: Option<u8>,
    /// What endpoints are spoken to in.
    pub upstream: UpstreamProtocol,
    /// Whether callers reach the endpoints of their own host only.
    pub node_local: bool,
}

impl Destination {
    /// A destination of which nothing was said.
    pub fn plain(key: DestinationKey, protocol: Protocol) -> Destination {
        Destination {
            key,
            origin: None,
            protocol,
            labels: Labels::default(),
            resolution: Resolution::Static,
            target_port: None,
            load_balancer: Algorithm::default(),
            preference: Preference::None,
            warmup: None,
            tls: ClientTls::Auto,
            connect_timeout: Duration::from_secs(10),
            pool: PoolLimits::default(),
            outlier_detection: None,
            retry_budget: None,
            fault: None,
            tunnel: None,
            proxy_protocol: None,
            upstream: protocol.upstream(),
            node_local: false,
        }
    }

    /// Whether traffic goes to the address or the name that the caller means, so that no endpoint is chosen.
    pub fn is_passthrough(&self) -> bool {
        self.load_balancer == Algorithm::Passthrough || self.resolution == Resolution::DynamicDns
    }
}
