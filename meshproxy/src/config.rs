//! Bootstrap configuration: what is needed before the first snapshot, and needs a restart to change.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::Ipv4Net;
use mesh_core::vocab::name::{check_label, check_subdomain};
use mesh_core::vocab::node::check_node_name;
use mesh_core::vocab::ratio::Ratio;

use crate::cli::{AccessLog, Capture, CaptureRules, LogFormat, RunArgs, Switch};
use crate::intercept::rules::Rules;
use crate::net::limits::Limits;
use crate::telemetry::export::settings::{Settings as Otlp, SettingsError};
use crate::telemetry::metrics::Bounds;
use crate::telemetry::trace::Tail;

/// Why the flags cannot be used together, or not on this host.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The name of the node is none.
    #[error("--node: {0}")]
    Node(String),
    /// No address that peers could use.
    #[error("this host has no address that is not loopback; say with --address where peers reach it")]
    NoAddress,
    /// The net of service addresses is none that reaches this host.
    #[error("--loopback-net {0}: must lie in 127.0.0.0/8")]
    LoopbackNet(Ipv4Net),
    /// An address that no peer could reach.
    #[error("--address {0}: peers cannot connect to an unspecified address")]
    Address(IpAddr),
    /// Peers are told the port before it is open.
    #[error("--inbound-addr {0}: peers must know the port, so it cannot be left to the kernel")]
    InboundPort(SocketAddr),
    /// Flags that mean nothing without another one.
    #[error("{0} means nothing without --service")]
    WithoutService(&'static str),
    /// A variable of OpenTelemetry's cannot be used.
    #[error(transparent)]
    Otlp(#[from] SettingsError),
}

/// The flags of `run`, checked and complete.
#[derive(Debug, Clone)]
pub struct Config {
    /// Unique name of this host.
    pub node: String,
    /// Where meshd serves.
    pub control: Vec<ControlUrl>,
    /// The join token's file.
    pub token_file: Option<PathBuf>,
    /// Keys, certificates, last good snapshot.
    pub data_dir: PathBuf,
    /// Files and folders of this host's workloads.
    pub workload: Vec<PathBuf>,
    /// Workloads in the short form, with labels and account.
    pub services: Vec<LocalService>,
    /// Health checks; none means TCP on each port.
    pub checks: Vec<PortCheck>,
    /// Where peers reach this host.
    pub address: IpAddr,
    /// Whether HTTP proxy requests are taken.
    pub explicit: bool,
    /// Whether services have addresses on this host.
    pub loopback: bool,
    /// Where DNS is answered.
    pub dns: SocketAddr,
    /// Where other names are forwarded; empty means what resolv.conf says.
    pub dns_upstream: Vec<SocketAddr>,
    /// Addresses of services.
    pub loopback_net: Ipv4Net,
    /// Form of the access log.
    pub access_log: AccessLog,
    /// How many of the last exchanges each data thread remembers.
    pub remembered: usize,
    /// Whether they are saved when success falls.
    pub flight_alarm: bool,
    /// How much is told in access logs of what went well.
    pub access_log_sample: Ratio,
    /// Which requests that were not sampled are traced all the same.
    pub tail: Tail,
    /// Collectors that the environment names.
    pub otlp: Otlp,
    /// Data threads.
    pub threads: usize,
    /// Mesh listener.
    pub inbound_addr: SocketAddr,
    /// HTTP proxy.
    pub explicit_addr: SocketAddr,
    /// Configuration dump and drain.
    pub admin_addr: SocketAddr,
    /// Readiness.
    pub ready_addr: SocketAddr,
    /// Metrics.
    pub metrics_addr: SocketAddr,
    /// Bound of the graceful end.
    pub drain_time: Duration,
    /// Connections take new requests for so long; `None` for ever.
    pub most_age: Option<Duration>,
    /// How often live traffic is told to meshd; `None` for never.
    pub report_interval: Option<Duration>,
    /// So many kinds of it a data thread tells apart.
    pub report_cells: usize,
    /// How much is taken, and how long is waited.
    pub limits: Limits,
    /// Rules of transparent capture; `None` without it.
    pub rules: Option<Rules>,
    /// Whether the rules are installed and removed by this process.
    pub installs_rules: bool,
    /// How many series of metrics there may be, and how long they stay.
    pub series: Bounds,
    /// Form of the log.
    pub log_format: LogFormat,
}

impl Config {
    /// Checks the flags and fills in what depends on the host.
    pub fn from_args(args: RunArgs) -> Result<Config, ConfigError> {
        let node = match args.node {
            Some(node) => node,
            None => rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase(),
        };
        check_node_name(&node).map_err(|error| ConfigError::Node(error.to_string()))?;
        if !args.loopback_net.network().is_loopback() || args.loopback_net.prefix_len() < 8 {
            return Err(ConfigError::LoopbackNet(args.loopback_net));
        }
        if args.inbound_addr.port() == 0 {
            return Err(ConfigError::InboundPort(args.inbound_addr));
        }
        if args.service.is_empty() && !args.label.is_empty() {
            return Err(ConfigError::WithoutService("--label"));
        }
        if args.service.is_empty() && args.service_account.is_some() {
            return Err(ConfigError::WithoutService("--service-account"));
        }
        let address = match args.address {
            Some(address) if address.is_unspecified() => return Err(ConfigError::Address(address)),
            Some(address) => address,
            None => first_address().ok_or(ConfigError::NoAddress)?,
        };
        let mut services = args.service;
        for service in &mut services {
            service.labels.clone_from(&args.label);
            service.account.clone_from(&args.service_account);
        }
        let loopback = args.capture.contains(&Capture::Loopback);
        let rules = args.capture.contains(&Capture::Transparent).then(|| {
            let own = [args.inbound_addr, args.explicit_addr, args.ready_addr, args.metrics_addr, args.dns];
            let services = (!loopback).then(|| args.loopback_net.trunc());
            args.intercept.rules(&[&own[..], &[args.admin_addr]].concat(), services)
        });
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = args.threads.map_or(cores, usize::from);
        Ok(Config {
            node,
            control: args.control,
            token_file: args.token_file,
            data_dir: args.data_dir,
            workload: args.workload,
            services,
            checks: args.check,
            address,
            explicit: args.capture.contains(&Capture::Explicit),
            loopback,
            dns: args.dns,
            dns_upstream: args.dns_upstream.iter().map(|upstream| upstream.0).collect(),
            loopback_net: args.loopback_net.trunc(),
            access_log: args.access_log,
            access_log_sample: args.access_log_sample,
            tail: args.tail.into(),
            otlp: Otlp::from_env(|name| std::env::var(name).ok())?,
            remembered: (args.flight_recorder as usize).div_ceil(threads.max(1)),
            flight_alarm: args.flight_alarm == Switch::On && args.flight_recorder > 0,
            threads,
            inbound_addr: args.inbound_addr,
            explicit_addr: args.explicit_addr,
            admin_addr: args.admin_addr,
            ready_addr: args.ready_addr,
            metrics_addr: args.metrics_addr,
            drain_time: args.drain_time,
            most_age: (!args.max_connection_age.is_zero()).then_some(args.max_connection_age),
            report_interval: (!args.report_interval.is_zero()).then_some(args.report_interval),
            report_cells: args.report_cells as usize,
            limits: args.limits.into(),
            rules,
            series: Bounds {
                series: usize::try_from(args.max_series).unwrap_or(usize::MAX),
                idle: (!args.series_idle.is_zero()).then_some(args.series_idle),
            },
            installs_rules: args.capture_rules == CaptureRules::Auto,
            log_format: args.log_format,
        })
    }
}

/// The address by which the kernel would leave this host, by its default route or else by any. No packet is sent.
fn first_address() -> Option<IpAddr> {
    let probe = |far: SocketAddr| -> Option<IpAddr> {
        let any: IpAddr = match far {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = std::net::UdpSocket::bind((any, 0)).ok()?;
        socket.connect(far).ok()?;
        let address = socket.local_addr().ok()?.ip();
        (!address.is_loopback() && !address.is_unspecified()).then_some(address)
    };
    // Addresses kept for documentation: never local, so the answer is that of the default route.
    let documentation: [IpAddr; 2] =
        [Ipv4Addr::new(192, 0, 2, 1).into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()];
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let on_link = on_link(&routes).into_iter().map(IpAddr::V4);
    documentation.into_iter().chain(on_link).find_map(|far| probe(SocketAddr::new(far, 9)))
}

/// An address in each network of `/proc/net/route`. Addresses stand there in the machine's order.
fn on_link(routes: &str) -> Vec<Ipv4Addr> {
    let destination = |line: &str| -> Option<Ipv4Addr> {
        let word = line.split_whitespace().nth(1)?;
        let address = Ipv4Addr::from(u32::from_str_radix(word, 16).ok()?.to_ne_bytes());
        (!address.is_unspecified()).then(|| Ipv4Addr::from(u32::from(address) | 1))
    };
    routes.lines().skip(1).filter_map(destination).collect()
}

/// Why a flag's value was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(String);

fn refuse<T>(reason: impl Into<String>) -> Result<T, ValueError> {
    Err(ValueError(reason.into()))
}

/// Where a meshd serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlUrl {
    /// Host name or IP address.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl FromStr for ControlUrl {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<ControlUrl, ValueError> {
        let Ok(uri) = text.parse::<http::Uri>() else { return refuse("not a URL (https://HOST:15012)") };
        if uri.scheme_str() != Some("https") {
            return refuse("must begin with https://");
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return refuse("is only https://HOST:PORT, without a path");
        }
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return refuse("names no host");
        }
        Ok(ControlUrl { host: host.to_owned(), port: uri.port_u16().unwrap_or(15012) })
    }
}

impl fmt::Display for ControlUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "https://[{}]:{}", self.host, self.port),
            false => write!(f, "https://{}:{}", self.host, self.port),
        }
    }
}

/// A resolver that names are forwarded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upstream(pub SocketAddr);

impl FromStr for Upstream {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Upstream, ValueError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Upstream(address));
        }
        match text.parse::<IpAddr>() {
            Ok(ip) => Ok(Upstream(SocketAddr::new(ip, 53))),
            Err(_) => refuse("expected IP or IP:PORT"),
        }
    }
}

/// A workload in the short form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalService {
    /// Name of the service.
    pub name: String,
    /// Its namespace; `default` where none was said.
    pub namespace: String,
    /// Port of the service and of the workload.
    pub port: u16,
    /// What it speaks; empty means detection.
    pub protocol: String,
    /// Labels of the workload.
    pub labels: Vec<(String, String)>,
    /// Service account; `None` means the service's name.
    pub account: Option<String>,
}

impl FromStr for LocalService {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<LocalService, ValueError> {
        let Some((host, port)) = text.split_once(':') else {
            return refuse("expected NAME[.NS]:PORT[/PROTOCOL]");
        };
        let (port, protocol) = port.split_once('/').unwrap_or((port, ""));
        let (name, namespace) = host.split_once('.').unwrap_or((host, "default"));
        check_label(name).map_err(|error| ValueError(format!("service {error}")))?;
        check_label(namespace).map_err(|error| ValueError(format!("namespace {error}")))?;
        let port = match port.parse::<u16>() {
            Ok(port) if port > 0 => port,
            _ => return refuse(format!("{port:?} is no port")),
        };
        if !protocol.is_empty() && mesh_core::vocab::protocol::Protocol::from_name(protocol).is_none() {
            return refuse(format!("{protocol:?} is no protocol (http, http2, grpc, tcp, tls, https)"));
        }
        Ok(LocalService {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            port,
            protocol: protocol.to_owned(),
            labels: Vec::new(),
            account: None,
        })
    }
}

/// How a workload is asked whether it is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckKind {
    /// Its port accepts a connection.
    Tcp,
    /// A GET of this path answers 200 to 399.
    Http(String),
    /// `grpc.health.v1.Health/Check` answers SERVING for this service; empty means the server as a whole.
    Grpc(String),
    /// This shell command ends with 0.
    Exec(String),
}

/// A check and the port that it is meant for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortCheck {
    /// `None` means each port of the services that select the workload.
    pub port: Option<u16>,
    /// What is asked.
    pub kind: CheckKind,
}

impl FromStr for PortCheck {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<PortCheck, ValueError> {
        let (port, kind) = match text.split_once('/') {
            Some((port, kind)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
                match port.parse::<u16>() {
                    Ok(port) if port > 0 => (Some(port), kind),
                    _ => return refuse(format!("{port:?} is no port")),
                }
            }
            _ => (None, text),
        };
        let (word, rest) = kind.split_once(':').unwrap_or((kind, ""));
        let kind = match word {
            "tcp" if rest.is_empty() => CheckKind::Tcp,
            "http" if rest.starts_with('/') && rest.parse::<http::uri::PathAndQuery>().is_ok() => {
                CheckKind::Http(rest.to_owned())
            }
            "grpc" if check_subdomain(&rest.to_ascii_lowercase()).is_ok() || rest.is_empty() => {
                CheckKind::Grpc(rest.to_owned())
            }
            "exec" if !rest.is_empty() && port.is_none() => CheckKind::Exec(rest.to_owned()),
            _ => {
                return refuse(
                    "expected tcp, http:/path, grpc[:service] or exec:CMD, and PORT/ before the first three",
                );
            }
        };
        Ok(PortCheck { port, kind })
    }
}

impl PortCheck {
    /// How it is shown to people for a port: `tcp:9080`, `http:9080/healthz`.
    pub fn describe(&self, port: u16) -> String {
        match &self.kind {
            CheckKind::Tcp => format!("tcp:{port}"),
            CheckKind::Http(path) => format!("http:{port}{path}"),
            CheckKind::Grpc(service) if service.is_empty() => format!("grpc:{port}"),
            CheckKind::Grpc(service) => format!("grpc:{port}:{service}"),
            CheckKind::Exec(command) => format!("exec:{command}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_urls() {
        let check = |text: &str, host: &str, port: u16| {
            assert_eq!(text.parse(), Ok(ControlUrl { host: host.to_owned(), port }), "{text}");
        };
        check("https://10.0.0.1:15012", "10.0.0.1", 15012);
        check("https://meshd", "meshd", 15012);
        check("https://[::1]:9/", "::1", 9);
        for bad in ["10.0.0.1:15012", "http://a:1", "https://a/x", "https://u@a", ""] {
            assert!(bad.parse::<ControlUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn short_forms() {
        let parsed: LocalService = "reviews.shop:9080/http".parse().unwrap();
        assert_eq!((parsed.name.as_str(), parsed.namespace.as_str()), ("reviews", "shop"));
        assert_eq!((parsed.port, parsed.protocol.as_str()), (9080, "http"));
        assert_eq!("a:1".parse::<LocalService>().unwrap().namespace, "default");
        for bad in ["a", "a:0", "a:70000", "A:1", "a.b.c:1", "a:1/smtp", ":1"] {
            assert!(bad.parse::<LocalService>().is_err(), "{bad}");
        }
    }

    #[test]
    fn checks() {
        let check = |text: &str, port, kind| {
            assert_eq!(text.parse(), Ok(PortCheck { port, kind }), "{text}");
        };
        check("tcp", None, CheckKind::Tcp);
        check("9080/tcp", Some(9080), CheckKind::Tcp);
        check("http:/healthz", None, CheckKind::Http("/healthz".into()));
        check("8081/http:/a?b=c", Some(8081), CheckKind::Http("/a?b=c".into()));
        check("grpc", None, CheckKind::Grpc(String::new()));
        check("grpc:shop.Reviews", None, CheckKind::Grpc("shop.Reviews".into()));
        check("exec:test -f /run/ok", None, CheckKind::Exec("test -f /run/ok".into()));
        for bad in ["", "http", "http:x", "0/tcp", "99999/tcp", "exec:", "80/exec:true", "udp"] {
            assert!(bad.parse::<PortCheck>().is_err(), "{bad}");
        }
    }

    #[test]
    fn networks_without_a_default_route_are_found() {
        let routes =
            "Iface Destination Gateway Flags\neth0 00000000 0100000A 0003\neth0 00004D0A 00000000 0001\n";
        assert_eq!(on_link(routes), [Ipv4Addr::new(10, 77, 0, 1)]);
    }

    #[test]
    fn upstreams_have_port_53_by_default() {
        assert_eq!("10.0.0.2".parse(), Ok(Upstream("10.0.0.2:53".parse().unwrap())));
        assert_eq!("::1".parse(), Ok(Upstream("[::1]:53".parse().unwrap())));
        assert!("dns".parse::<Upstream>().is_err());
    }
}
