//! Flags of interception: those of `run`, and of `intercept`, which must say the same.

use std::net::SocketAddr;

use clap::Args;
use ipnet::{IpNet, Ipv4Net};

use super::range::{Range, ports};
use super::rules::Rules;

/// What is intercepted, and what is left alone.
#[derive(Debug, Clone, Args)]
pub struct InterceptArgs {
    /// Loopback port to which outbound connections are led
    #[arg(long, env = "MESHPROXY_CAPTURE_OUTBOUND_PORT", value_name = "PORT", default_value_t = 15001)]
    pub capture_outbound_port: u16,
    /// Loopback port to which inbound connections are led
    #[arg(long, env = "MESHPROXY_CAPTURE_INBOUND_PORT", value_name = "PORT", default_value_t = 15006)]
    pub capture_inbound_port: u16,
    /// Packet mark by which the proxy's own traffic is known
    #[arg(
        long,
        env = "MESHPROXY_CAPTURE_MARK",
        value_name = "NUMBER",
        default_value_t = 1337,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub capture_mark: u32,
    /// Ports and ranges (FROM-TO) that are not captured on the way out
    #[arg(
        long,
        env = "MESHPROXY_EXCLUDE_OUTBOUND_PORTS",
        value_name = "LIST",
        value_delimiter = ',',
        value_parser = ports
    )]
    pub exclude_outbound_ports: Vec<Range>,
    /// Ports and ranges (FROM-TO) that are not captured on the way in
    #[arg(
        long,
        env = "MESHPROXY_EXCLUDE_INBOUND_PORTS",
        value_name = "LIST",
        value_delimiter = ',',
        value_parser = ports,
        default_value = "22,15012"
    )]
    pub exclude_inbound_ports: Vec<Range>,
    /// Networks and addresses to which connections are not captured
    #[arg(
        long,
        env = "MESHPROXY_EXCLUDE_OUTBOUND_CIDRS",
        value_name = "LIST",
        value_delimiter = ',',
        value_parser = net
    )]
    pub exclude_outbound_cidrs: Vec<IpNet>,
    /// Networks and addresses from which connections are not captured
    #[arg(
        long,
        env = "MESHPROXY_EXCLUDE_INBOUND_CIDRS",
        value_name = "LIST",
        value_delimiter = ',',
        value_parser = net
    )]
    pub exclude_inbound_cidrs: Vec<IpNet>,
    /// Users and ranges of them (FROM-TO), by number, whose connections are not captured
    #[arg(long, env = "MESHPROXY_EXCLUDE_UIDS", value_name = "LIST", value_delimiter = ',')]
    pub exclude_uids: Vec<Range>,
    /// While the proxy does not run connections go on without it; otherwise they are refused
    #[arg(long, env = "MESHPROXY_FAIL_OPEN")]
    pub fail_open: bool,
}

impl InterceptArgs {
    /// The rules. `own` are the proxy's listeners, `services` addresses of services that no sockets stand behind.
    pub fn rules(&self, own: &[SocketAddr], services: Option<Ipv4Net>) -> Rules {
        let reached = own.iter().filter(|address| !address.ip().is_loopback());
        Rules {
            outbound: self.capture_outbound_port,
            inbound: self.capture_inbound_port,
            mark: self.capture_mark,
            own: reached.map(SocketAddr::port).collect(),
            services,
            outbound_ports: self.exclude_outbound_ports.clone(),
            inbound_ports: self.exclude_inbound_ports.clone(),
            outbound_nets: self.exclude_outbound_cidrs.clone(),
            inbound_nets: self.exclude_inbound_cidrs.clone(),
            users: self.exclude_uids.clone(),
            fail_open: self.fail_open,
        }
    }
}

/// A network, or an address that stands for itself.
fn net(text: &str) -> Result<IpNet, String> {
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
    net.map_err(|_| format!("{text:?} is neither a network (10.0.0.0/8) nor an address"))
}
