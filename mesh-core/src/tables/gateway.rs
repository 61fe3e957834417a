//! Gateways with the rules of their hosts resolved to destinations.

use std::sync::Arc;

use super::governance::{Governance, Policies};
use super::hosts::Hosts;
use super::routes::{Named, Resolved, RouteTable};
use crate::matching::request::Caller;
use crate::snapshot::gateway::{Gateway, GatewayListener, GatewayServer, VirtualHost};
use crate::vocab::name::Text;

/// A gateway: what it listens on, and what holds for what enters.
#[derive(Debug)]
pub struct GatewayTable {
    /// The section.
    pub section: Gateway,
    /// The policies that hold for it.
    pub governance: Arc<Governance>,
    listeners: Vec<ListenerTable>,
}

/// One port of a gateway, servers in the order of the section.
#[derive(Debug)]
struct ListenerTable {
    hosts: VirtualHosts,
    servers: Vec<ServerTable>,
    /// Servers by host: of one host the first.
    by_host: Hosts<usize>,
    /// The first server that takes every name.
    for_all: Option<usize>,
}

#[derive(Debug)]
struct ServerTable {
    hosts: VirtualHosts,
    streams: Arc<RouteTable>,
}

/// Virtual hosts, in the order of the section, by host.
#[derive(Debug)]
struct VirtualHosts {
    tables: Vec<Arc<RouteTable>>,
    by_host: Hosts<usize>,
}

/// A listener of a gateway.
#[derive(Debug, Clone, Copy)]
pub struct Listener<'t> {
    /// The section.
    pub section: &'t GatewayListener,
    table: &'t ListenerTable,
}

/// A server of a listener.
#[derive(Debug, Clone, Copy)]
pub struct Server<'t> {
    /// The section.
    pub section: &'t GatewayServer,
    table: &'t ServerTable,
}

/// A virtual host: its section and its rules.
pub type HostFound<'t> = (&'t VirtualHost, &'t Arc<RouteTable>);

impl GatewayTable {
    /// Arranges a gateway. `resolve` finds what a backend names.
    pub(super) fn new(
        section: &Gateway,
        policies: &mut Policies,
        resolve: impl Fn(Named<'_>) -> Resolved,
    ) -> GatewayTable {
        let table = |routes: &crate::snapshot::routes::Routes| {
            Arc::new(RouteTable::new(Arc::new(routes.clone()), &resolve))
        };
        let hosts = |hosts: &[VirtualHost]| VirtualHosts {
            tables: hosts.iter().map(|host| table(&host.routes)).collect(),
            by_host: Hosts::new(
                hosts.iter().enumerate().map(|(index, host)| (host.routes.at.host.clone(), index)),
            ),
        };
        let server = |server: &GatewayServer| ServerTable {
            hosts: hosts(&server.virtual_hosts),
            streams: table(&server.streams),
        };
        let listeners = section.listeners.iter().map(|listener| {
            let named = |(index, server): (usize, &GatewayServer)| -> Vec<(Text, usize)> {
                server.hosts.iter().map(|host| (host.clone(), index)).collect()
            };
            let takes_all = |server: &GatewayServer| server.hosts.iter().any(|host| &**host == "*");
            ListenerTable {
                hosts: hosts(&listener.virtual_hosts),
                servers: listener.servers.iter().map(server).collect(),
                by_host: Hosts::new(listener.servers.iter().enumerate().flat_map(named)),
                for_all: listener.servers.iter().position(takes_all),
            }
        });
        GatewayTable {
            governance: policies.govern(&section.policies, &section.tokens, None),
            listeners: listeners.collect(),
            section: section.clone(),
        }
    }

    /// What listens on a port.
    pub fn listener(&self, port: u16) -> Option<Listener<'_>> {
        let mut listeners = self.section.listeners.iter().zip(&self.listeners);
        let (section, table) = listeners.find(|(section, _)| section.port == port)?;
        Some(Listener { section, table })
    }

    /// The gateway as who calls the mesh.
    pub fn caller(&self) -> Caller<'_> {
        Caller {
            namespace: &self.section.workload_namespace,
            labels: &self.section.labels,
            view: Some(&self.section.view),
        }
    }
}

impl<'t> Listener<'t> {
    /// The servers, oldest Gateway first.
    pub fn servers(self) -> impl Iterator<Item = Server<'t>> {
        let servers = self.section.servers.iter().zip(&self.table.servers);
        servers.map(|(section, table)| Server { section, table })
    }

    /// The server for a TLS client: the one whose most specific host holds the server name asked for. A client that
    /// names no server gets one that takes every name.
    pub fn server_for(self, name: Option<&str>) -> Option<Server<'t>> {
        let index = match name {
            Some(name) => self.table.by_host.most_specific(name, |index| Some(*index)),
            None => self.table.for_all,
        }?;
        Some(Server { section: self.section.servers.get(index)?, table: self.table.servers.get(index)? })
    }

    /// The virtual host of a plain HTTP request.
    pub fn host(self, name: &str) -> Option<HostFound<'t>> {
        most_specific(&self.section.virtual_hosts, &self.table.hosts, name)
    }
}

impl<'t> Server<'t> {
    /// The virtual host of a request over TLS that ends here.
    pub fn host(self, name: &str) -> Option<HostFound<'t>> {
        most_specific(&self.section.virtual_hosts, &self.table.hosts, name)
    }

    /// The rules for streams.
    pub fn streams(self) -> &'t Arc<RouteTable> {
        &self.table.streams
    }
}

fn most_specific<'t>(
    hosts: &'t [VirtualHost],
    tables: &'t VirtualHosts,
    name: &str,
) -> Option<HostFound<'t>> {
    let index = tables.by_host.most_specific(name, |index| Some(*index))?;
    Some((hosts.get(index)?, tables.tables.get(index)?))
}
