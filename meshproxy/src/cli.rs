//! Commands and flags. Every flag has an environment variable of the same name.

mod limits;
mod tail;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use ipnet::Ipv4Net;
use mesh_core::vocab::ratio::Ratio;

pub use self::limits::LimitArgs;
pub use self::tail::TailArgs;
use crate::config::{ControlUrl, LocalService, PortCheck, Upstream};
use crate::intercept::args::InterceptArgs;
use crate::intercept::rules::Rules;

/// The per-host data plane of the mesh.
#[derive(Debug, Parser)]
#[command(name = "meshproxy", version, propagate_version = true, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Carry the traffic of this host.
    Run(Box<RunArgs>),
    /// Lead this host's connections to the proxy by rules of the kernel (nftables), or stop that.
    #[command(subcommand)]
    Intercept(Intercept),
    /// Print the resolver snippet for this host.
    DnsConfig(DnsConfigArgs),
    /// Print a shell completion script.
    Completions {
        /// The shell to print it for.
        shell: Shell,
    },
}

/// Flags of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Unique name of this host [default: its host name]
    #[arg(long, env = "MESHPROXY_NODE", value_name = "NAME")]
    pub node: Option<String>,
    /// Where meshd serves, https://HOST:15012; repeat for replicas
    #[arg(long, env = "MESHPROXY_CONTROL", value_name = "URL", required = true, value_delimiter = ',')]
    pub control: Vec<ControlUrl>,
    /// The join token; needed for the first join only
    #[arg(long, env = "MESHPROXY_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Keys, certificates and the last good snapshot; made with mode 0700
    #[arg(long, env = "MESHPROXY_DATA_DIR", value_name = "DIR", default_value = "./meshproxy-data")]
    pub data_dir: PathBuf,
    /// WorkloadEntry YAML (file or folder) of the workloads on this host; watched
    #[arg(long, env = "MESHPROXY_WORKLOAD", value_name = "PATH", value_delimiter = ',')]
    pub workload: Vec<PathBuf>,
    /// Short form of a workload: this host is an endpoint of service NAME, which is made if it is missing
    #[arg(long, env = "MESHPROXY_SERVICE", value_name = "NAME[.NS]:PORT[/PROTOCOL]", value_delimiter = ',')]
    pub service: Vec<LocalService>,
    /// A label of the workloads that --service declares, K=V
    #[arg(long, env = "MESHPROXY_LABEL", value_name = "K=V", value_delimiter = ',', value_parser = label)]
    pub label: Vec<(String, String)>,
    /// Service account of the workloads that --service declares [default: the service's name]
    #[arg(long, env = "MESHPROXY_SERVICE_ACCOUNT", value_name = "NAME")]
    pub service_account: Option<String>,
    #[allow(rustdoc::broken_intra_doc_links, reason = "the text is the help of the flag")]
    /// Health check: tcp, http:/path, grpc[:service] or exec:CMD; PORT/http:/path names the port
    /// [default: tcp on each port of the services that select the workload]
    #[arg(long, env = "MESHPROXY_CHECK", value_name = "CHECK")]
    pub check: Vec<PortCheck>,
    /// Where peers reach this host [default: its first address that is not loopback]
    #[arg(long, env = "MESHPROXY_ADDRESS", value_name = "IP")]
    pub address: Option<IpAddr>,
    /// How the traffic of applications gets here
    #[arg(
        long,
        env = "MESHPROXY_CAPTURE",
        value_name = "LIST",
        default_value = "explicit,loopback",
        value_delimiter = ','
    )]
    pub capture: Vec<Capture>,
    /// Where DNS is answered, UDP and TCP
    #[arg(long, env = "MESHPROXY_DNS", value_name = "ADDR", default_value = "127.0.0.1:15053")]
    pub dns: SocketAddr,
    /// Where names outside the mesh are forwarded [default: resolv.conf less own addresses]
    #[arg(long, env = "MESHPROXY_DNS_UPSTREAM", value_name = "IP[:PORT]", value_delimiter = ',')]
    pub dns_upstream: Vec<Upstream>,
    /// Addresses of services on this host
    #[arg(long, env = "MESHPROXY_LOOPBACK_NET", value_name = "CIDR", default_value = "127.64.0.0/10")]
    pub loopback_net: Ipv4Net,
    /// A line on stdout for each exchange
    #[arg(long, env = "MESHPROXY_ACCESS_LOG", value_name = "FORMAT", default_value = "json")]
    pub access_log: AccessLog,
    /// How many of the last exchanges are remembered, for `meshd tap --last` and the alarm; 0 for none
    #[arg(
        long,
        env = "MESHPROXY_FLIGHT_RECORDER",
        value_name = "N",
        default_value_t = 4096,
        value_parser = clap::value_parser!(u32).range(0..=1_000_000)
    )]
    pub flight_recorder: u32,
    /// Whether they are saved in the data directory when a service's success falls
    #[arg(long, env = "MESHPROXY_FLIGHT_ALARM", value_name = "on|off", default_value = "on")]
    pub flight_alarm: Switch,
    /// Of what went well only this share is told in access logs, in percent; both proxies of a request choose the same
    #[arg(
        long,
        env = "MESHPROXY_ACCESS_LOG_SAMPLE",
        value_name = "PERCENT",
        default_value = "100",
        value_parser = percent
    )]
    pub access_log_sample: Ratio,
    /// Data-path threads [default: one for each core]
    #[arg(long, env = "MESHPROXY_THREADS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Where peers connect: mutual TLS, HTTP/2
    #[arg(long, env = "MESHPROXY_INBOUND_ADDR", value_name = "IP:PORT", default_value = "0.0.0.0:15008")]
    pub inbound_addr: SocketAddr,
    /// Where applications find the HTTP proxy
    #[arg(long, env = "MESHPROXY_EXPLICIT_ADDR", value_name = "IP:PORT", default_value = "127.0.0.1:15080")]
    pub explicit_addr: SocketAddr,
    /// Configuration dump and drain
    #[arg(long, env = "MESHPROXY_ADMIN_ADDR", value_name = "IP:PORT", default_value = "127.0.0.1:15000")]
    pub admin_addr: SocketAddr,
    /// /healthz/ready
    #[arg(long, env = "MESHPROXY_READY_ADDR", value_name = "IP:PORT", default_value = "127.0.0.1:15021")]
    pub ready_addr: SocketAddr,
    /// /stats/prometheus
    #[arg(long, env = "MESHPROXY_METRICS_ADDR", value_name = "IP:PORT", default_value = "127.0.0.1:15090")]
    pub metrics_addr: SocketAddr,
    /// How long exchanges may take to end after SIGTERM
    #[arg(
        long,
        env = "MESHPROXY_DRAIN_TIME",
        value_name = "DURATION",
        default_value = "30s",
        value_parser = duration
    )]
    pub drain_time: Duration,
    /// Connections older than this take no new requests and end, each somewhat earlier by chance; 0s: never
    #[arg(
        long,
        env = "MESHPROXY_MAX_CONNECTION_AGE",
        value_name = "DURATION",
        default_value = "10m",
        value_parser = duration
    )]
    pub max_connection_age: Duration,
    /// How often live traffic is told to meshd, for `meshd stat` and the like; 0s: never
    #[arg(
        long,
        env = "MESHPROXY_REPORT_INTERVAL",
        value_name = "DURATION",
        default_value = "1s",
        value_parser = interval
    )]
    pub report_interval: Duration,
    /// So many kinds of traffic (caller, called, service, subset, rule) a data thread tells apart in reports
    #[arg(long, env = "MESHPROXY_REPORT_CELLS", value_name = "NUMBER", default_value_t = 4096,
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub report_cells: u32,
    /// How much is taken, and how long is waited
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Tail sampling of traces.
    #[command(flatten)]
    pub tail: TailArgs,
    /// Flags of transparent capture.
    #[command(flatten)]
    pub intercept: InterceptArgs,
    /// Who installs and removes the rules of transparent capture
    #[arg(long, env = "MESHPROXY_CAPTURE_RULES", value_name = "WHO", default_value = "auto")]
    pub capture_rules: CaptureRules,
    /// Most label sets of a metric; what is beyond is counted as `other`
    #[arg(long, env = "MESHPROXY_MAX_SERIES", value_name = "NUMBER", default_value_t = 5_000,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_series: u32,
    /// Series in which nothing happens for so long are forgotten; 0s: never
    #[arg(
        long,
        env = "MESHPROXY_SERIES_IDLE",
        value_name = "DURATION",
        default_value = "1h",
        value_parser = duration
    )]
    pub series_idle: Duration,
    /// Form of the log on stderr
    #[arg(long, env = "MESHPROXY_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// Who installs and removes the rules of transparent capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CaptureRules {
    /// The proxy, at start and on a clean exit
    Auto,
    /// Somebody else, with `meshproxy intercept`
    Manual,
}

/// The rules of transparent capture.
#[derive(Debug, Subcommand)]
pub enum Intercept {
    /// Install the rules, in the place of those that are there.
    Install(Box<InterceptInstall>),
    /// Remove the rules, whether there are any or not.
    Remove {
        /// Print what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Print the rules that are there, and whether they are as they were installed.
    Show {
        /// The same: nothing is changed in any case
        #[arg(long)]
        dry_run: bool,
    },
}

/// Flags of `intercept install`. They must say what those of `run` say, as environment variables do.
#[derive(Debug, Args)]
pub struct InterceptInstall {
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Flags of transparent capture.
    #[command(flatten)]
    pub intercept: InterceptArgs,
    /// How the traffic of applications gets to the proxy: addresses of services are led there too without `loopback`
    #[arg(
        long,
        env = "MESHPROXY_CAPTURE",
        value_name = "LIST",
        default_value = "transparent",
        value_delimiter = ','
    )]
    pub capture: Vec<Capture>,
    /// Addresses of services on this host
    #[arg(long, env = "MESHPROXY_LOOPBACK_NET", value_name = "CIDR", default_value = "127.64.0.0/10")]
    pub loopback_net: Ipv4Net,
    /// Where peers connect: never captured
    #[arg(long, env = "MESHPROXY_INBOUND_ADDR", value_name = "IP:PORT", default_value = "0.0.0.0:15008")]
    pub inbound_addr: SocketAddr,
    /// HTTP proxy: not captured where others reach it
    #[arg(long, env = "MESHPROXY_EXPLICIT_ADDR", value_name = "IP:PORT", default_value = "127.0.0.1:15080")]
    pub explicit_addr: SocketAddr,
    /// Readiness: not captured where others reach it
    #[arg(long, env = "MESHPROXY_READY_ADDR", value_name = "IP:PORT", default_value = "127.0.0.1:15021")]
    pub ready_addr: SocketAddr,
    /// Metrics: not captured where others reach it
    #[arg(long, env = "MESHPROXY_METRICS_ADDR", value_name = "IP:PORT", default_value = "127.0.0.1:15090")]
    pub metrics_addr: SocketAddr,
    /// DNS: not captured where others reach it
    #[arg(long, env = "MESHPROXY_DNS", value_name = "ADDR", default_value = "127.0.0.1:15053")]
    pub dns: SocketAddr,
}

impl InterceptInstall {
    /// The rules.
    pub fn rules(&self) -> Rules {
        let own = [self.inbound_addr, self.explicit_addr, self.ready_addr, self.metrics_addr, self.dns];
        let services = (!self.capture.contains(&Capture::Loopback)).then(|| self.loopback_net.trunc());
        self.intercept.rules(&own, services)
    }
}

/// Flags of `dns-config`.
#[derive(Debug, Args)]
pub struct DnsConfigArgs {
    /// Where DNS is answered
    #[arg(long, env = "MESHPROXY_DNS", value_name = "ADDR", default_value = "127.0.0.1:15053")]
    pub dns: SocketAddr,
}

/// How traffic of applications gets here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Capture {
    /// HTTP proxy requests and CONNECT
    Explicit,
    /// An address for each service, served by DNS
    Loopback,
    /// nftables redirection of this network namespace
    Transparent,
}

/// Form of the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AccessLog {
    /// None
    Off,
    /// Istio's text form
    Text,
    /// One JSON object a line
    Json,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// On
    On,
    /// Off
    Off,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

fn percent(text: &str) -> Result<Ratio, String> {
    let share = text.trim_end_matches('%').parse().ok().and_then(Ratio::from_percent);
    share.ok_or_else(|| "expected a number from 0 to 100".to_owned())
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected K=V".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error} (such as 30s or 1m)"))
}

/// None, or something that meshd's steps of a second can follow.
fn interval(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    let fits = time.is_zero() || (Duration::from_millis(100)..=Duration::from_secs(10)).contains(&time);
    if fits { Ok(time) } else { Err("expected 0s, or 100ms to 10s".to_owned()) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_of_run_has_an_environment_variable() {
        let command = Cli::command();
        let run = command.find_subcommand("run").unwrap();
        for argument in run.get_arguments().filter(|a| !matches!(a.get_id().as_str(), "help" | "version")) {
            let long = argument.get_long().unwrap_or_default();
            let expected = format!("MESHPROXY_{}", long.replace('-', "_").to_uppercase());
            assert_eq!(argument.get_env().and_then(|e| e.to_str()), Some(expected.as_str()), "{long}");
        }
    }

    #[test]
    fn defaults_are_the_contract_s() {
        let cli = Cli::try_parse_from(["meshproxy", "run", "--control", "https://10.0.0.1:15012"]).unwrap();
        let Command::Run(run) = cli.command else { panic!("not run") };
        assert_eq!(run.capture, [Capture::Explicit, Capture::Loopback]);
        assert_eq!(run.inbound_addr.port(), 15008);
        assert_eq!(run.drain_time, Duration::from_secs(30));
        let bounds = crate::config::Config::from_args(*run).unwrap().series;
        assert_eq!(bounds, crate::telemetry::metrics::Bounds::default());
    }

    #[test]
    fn wrong_usage_is_refused() {
        for bad in [
            &["run"][..],
            &["run", "--control", "http://h:1"],
            &["run", "--control", "https://h:1", "--service", "reviews"],
            &["run", "--control", "https://h:1", "--check", "ping"],
            &["run", "--control", "https://h:1", "--capture", "magic"],
            &["run", "--control", "https://h:1", "--threads", "0"],
            &["run", "--control", "https://h:1", "--label", "x"],
            &["run", "--control", "https://h:1", "--report-interval", "1m"],
            &["run", "--control", "https://h:1", "--exclude-outbound-ports", "0"],
            &["run", "--control", "https://h:1", "--capture-mark", "0"],
            &["intercept"],
            &["intercept", "install", "--exclude-outbound-cidrs", "10.0.0.0/33"],
        ] {
            let words = ["meshproxy"].iter().chain(bad);
            assert!(Cli::try_parse_from(words).is_err(), "{bad:?}");
        }
    }
}
