//! What stands between a connection and what it carries, where no proxy stands before the endpoint: a PROXY header, and
//! TLS as a rule says; that it goes to a socket of this host; and how a rule wants it kept. A connection in the clear over
//! TCP has nothing of it.

use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;

use mesh_core::resilience::pool::ConnectionSettings;
use mesh_core::tables::destinations::{Dial, Transport};
use mesh_core::vocab::name::Text;

use super::failure::ConnectError;
use crate::identity::origination::{Inside, Originated};
use crate::live::breaker::Place;
use crate::live::destination::LiveDestination;
use crate::live::endpoint::LiveEndpoint;
use crate::live::local::{LocalWorkload, source};
use crate::net::downstream::Facts;
use crate::net::proxy_header::ProxyHeader;
use crate::netns::Netns;

/// What is dialled, how, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The first that does not refuse is taken.
    pub addresses: &'a [SocketAddr],
    /// How long it may take.
    pub patience: Duration,
    /// What the connection begins with; `None` in the clear.
    pub way: Option<&'a Rc<Way>>,
    /// What the request takes of what is limited.
    pub place: Option<&'a Place>,
}

impl<'a> Target<'a> {
    /// In the clear.
    pub fn plain(addresses: &'a [SocketAddr], patience: Duration) -> Target<'a> {
        Target { addresses, patience, way: None, place: None }
    }
}

/// What a connection begins with. Connections are shared only where it is the same.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct Way {
    /// The socket of this host that stands in the place of the address: a path, or `@NAME`.
    pub unix: Option<Text>,
    /// Whose connection it carries on.
    pub proxy: Option<ProxyHeader>,
    /// TLS.
    pub tls: Option<Secured>,
    /// How it is kept.
    pub settings: Option<Arc<ConnectionSettings>>,
    /// The network namespace that it is opened in; `None` for our own.
    pub netns: Option<Arc<Netns>>,
}

impl Way {
    /// How an endpoint is reached that no proxy stands before; `None` in the clear. `asked` is the name that a request is
    /// for. What was to be encrypted is an error where it cannot be.
    pub fn to(
        destination: &LiveDestination,
        endpoint: &LiveEndpoint,
        inside: Inside,
        asked: &str,
        proxy: Option<ProxyHeader>,
    ) -> Result<Option<Rc<Way>>, ConnectError> {
        let tls = match (&endpoint.endpoint.transport, &destination.tls) {
            (Transport::Tls, Some(tls)) => Some(Secured::new(tls, inside, asked)?),
            (Transport::Plaintext, _) => None,
            (Transport::Tls | Transport::Mesh { .. } | Transport::Unreachable, _) => {
                return Err(ConnectError::NoIdentity);
            }
        };
        let unix = match &endpoint.endpoint.address {
            Dial::Unix(path) => Some(path.clone()),
            Dial::Ip(_) | Dial::Name(..) => None,
        };
        let settings = destination.settings.clone();
        let has_any = tls.is_some() || proxy.is_some() || unix.is_some() || settings.is_some();
        Ok(has_any.then(|| Rc::new(Way { unix, proxy, tls, settings, netns: None })))
    }

    /// How a workload of this host is reached, with the PROXY header that its callers' rule wants; `None` in the clear.
    pub fn into(
        local: Option<&Arc<LocalWorkload>>,
        proxy: Option<ProxyHeader>,
        settings: Option<Arc<ConnectionSettings>>,
    ) -> Option<Rc<Way>> {
        let netns = local.and_then(|local| local.netns.clone());
        let has_any = netns.is_some() || proxy.is_some() || settings.is_some();
        has_any.then(|| Rc::new(Way { proxy, netns, settings, ..Way::default() }))
    }
}

/// The PROXY header of connections to a destination that wants one, for one client. An address of this host's own stands
/// for the workload behind it, and for the endpoint where it is the one connected to.
pub fn proxy_header(
    destination: &LiveDestination,
    endpoint: &LiveEndpoint,
    client: Facts,
    local: Option<&Arc<LocalWorkload>>,
) -> Option<ProxyHeader> {
    let version = destination.destination.policy.proxy_protocol?;
    let to = if client.local.ip().is_loopback() { endpoint.address? } else { client.local };
    let from = SocketAddr::new(source(client.peer.ip(), local), client.peer.port());
    Some(ProxyHeader { version, source: from, destination: to })
}

/// TLS towards one server.
#[derive(Debug)]
pub struct Secured {
    /// What is shown and demanded.
    pub config: Arc<rustls::ClientConfig>,
    /// Whom the server is asked for.
    pub name: ServerName<'static>,
    serial: u64,
}

impl PartialEq for Secured {
    fn eq(&self, other: &Secured) -> bool {
        Arc::ptr_eq(&self.config, &other.config) && self.serial == other.serial && self.name == other.name
    }
}

impl Eq for Secured {}

impl Hash for Secured {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.serial.hash(state);
        self.name.hash(state);
    }
}

impl Secured {
    /// TLS as the rule says, asking for the name that a request is for unless the rule has one.
    pub fn new(originated: &Originated, inside: Inside, asked: &str) -> Result<Secured, ConnectError> {
        let ready = originated.ready().map_err(|fault| ConnectError::Tls(fault.to_string()))?;
        let name = ready.name(asked).map_err(|error| ConnectError::Tls(error.to_string()))?;
        Ok(Secured { config: Arc::clone(ready.config(inside)), name, serial: ready.serial })
    }
}
