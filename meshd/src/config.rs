//! What meshd needs to know before its first version: the flags of `meshd serve`.

use std::path::PathBuf;
use std::time::Duration;

use mesh_core::vocab::identity::TrustDomain;
use mesh_core::vocab::name::check_label;

/// The shortest lifetime of a workload certificate.
const SHORTEST_TTL: Duration = Duration::from_secs(60);

/// Flags of `meshd serve`.
#[derive(Debug, Clone, clap::Args)]
pub struct ServeArgs {
    /// Embedded store, certificate authority and admin socket; created with mode 0700
    #[arg(long, env = "MESHD_DATA_DIR", value_name = "DIR", default_value = "./meshd-data")]
    pub data_dir: PathBuf,
    /// YAML file or folder that is loaded at start and watched (repeatable)
    #[arg(long, env = "MESHD_CONFIG", value_name = "PATH", value_delimiter = ',')]
    pub config: Vec<PathBuf>,
    /// Istio's MeshConfig (YAML), watched: bare, as a document, or in Istio's ConfigMap; one among the applied resources wins
    #[arg(long, env = "MESHD_MESH_CONFIG", value_name = "FILE")]
    pub mesh_config: Option<PathBuf>,
    /// Where versions are kept
    #[arg(long, env = "MESHD_STORE", value_name = "URL", default_value = "embedded")]
    pub store: String,
    /// How many earlier versions `rollback` can go back to (of at most 256 MiB of replaced resources in all)
    #[arg(long, env = "MESHD_KEEP_VERSIONS", value_name = "N", default_value = "1000")]
    pub keep_versions: u64,
    /// So many kinds of live traffic (caller, called, service, subset, rule) `stat` and the like tell apart; each takes up
    /// to 100 KiB for its hour
    #[arg(long, env = "MESHD_TRAFFIC_SERIES", value_name = "N", default_value = "2000", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub traffic_series: u32,
    /// TLS gRPC for meshproxy: join, identity, snapshots, registry
    #[arg(long, env = "MESHD_GRPC_ADDR", value_name = "ADDR", default_value = "127.0.0.1:15012")]
    pub grpc_addr: String,
    /// /metrics, /healthz and /readyz
    #[arg(long, env = "MESHD_HTTP_ADDR", value_name = "ADDR", default_value = "127.0.0.1:15014")]
    pub http_addr: String,
    /// SPIFFE trust domain
    #[arg(long, env = "MESHD_TRUST_DOMAIN", value_name = "NAME", default_value = "cluster.local", value_parser = trust_domain)]
    pub trust_domain: TrustDomain,
    /// Certificate (PEM) of your own, perhaps intermediate, authority; needs --ca-key
    #[arg(long, env = "MESHD_CA_CERT", value_name = "FILE", requires = "ca_key")]
    pub ca_cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, env = "MESHD_CA_KEY", value_name = "FILE", requires = "ca_cert")]
    pub ca_key: Option<PathBuf>,
    /// Certificates from its issuer up to the root (PEM)
    #[arg(long, env = "MESHD_CA_CHAIN", value_name = "FILE", requires = "ca_cert")]
    pub ca_chain: Option<PathBuf>,
    /// Namespace whose policies hold for the whole mesh
    #[arg(long, env = "MESHD_ROOT_NAMESPACE", value_name = "NS", default_value = "istio-system", value_parser = namespace)]
    pub root_namespace: String,
    /// Lifetime of workload certificates, renewed at half of it
    #[arg(long, env = "MESHD_WORKLOAD_CERT_TTL", value_name = "DURATION", default_value = "24h", value_parser = ttl)]
    pub workload_cert_ttl: Duration,
    /// How long a host is believed to be there without a word from it, from 1 second up
    #[arg(long, env = "MESHD_LEASE", value_name = "DURATION", default_value = "10s", value_parser = lease)]
    pub lease: Duration,
    /// How long a workload that flaps is kept out when it is back: after its third fall in a row so long, after each further
    /// one twice as long; 0s turns it off
    #[arg(long, env = "MESHD_FLAP_HOLD", value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub flap_hold: Duration,
    /// But no longer than this
    #[arg(long, env = "MESHD_FLAP_HOLD_MAX", value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub flap_hold_max: Duration,
    /// Temporary data directory, free ports unless given; prints what to type next
    #[arg(long, env = "MESHD_DEV", value_parser = clap::builder::FalseyValueParser::new(), action = clap::ArgAction::SetTrue)]
    pub dev: bool,
    /// Name or address in meshd's own certificate (repeatable; default: bound addresses)
    #[arg(long, env = "MESHD_ADVERTISE", value_name = "NAME|IP", value_delimiter = ',')]
    pub advertise: Vec<String>,
}

fn trust_domain(text: &str) -> Result<TrustDomain, String> {
    TrustDomain::new(text).map_err(|error| error.to_string())
}

fn namespace(text: &str) -> Result<String, String> {
    check_label(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = duration(text)?;
    if ttl < SHORTEST_TTL {
        return Err("a workload certificate lives at least 1m".to_owned());
    }
    Ok(ttl)
}

fn lease(text: &str) -> Result<Duration, String> {
    let lease = duration(text)?;
    if lease < Duration::from_secs(1) || lease.subsec_nanos() > 0 {
        return Err("a lease is whole seconds, at least 1s".to_owned());
    }
    Ok(lease)
}

/// A duration as people write it: `90s`, `1h 30m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

/// The names for meshd's certificate: those that were given, else what it is bound to.
pub fn advertised(given: &[String], bound: std::net::SocketAddr) -> Vec<String> {
    if !given.is_empty() {
        return given.to_vec();
    }
    let mut names = vec!["localhost".to_owned()];
    if let Ok(host) = std::fs::read_to_string("/proc/sys/kernel/hostname") {
        names.push(host.trim().to_owned());
    }
    if !bound.ip().is_unspecified() {
        names.push(bound.ip().to_string());
        return names;
    }
    names.push("127.0.0.1".to_owned());
    // Local addresses stand as `/32 host LOCAL` under their own line.
    let routes = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let mut previous = "";
    for line in routes.lines() {
        let line = line.trim();
        if line.starts_with("/32 host LOCAL")
            && let Some(address) = previous.strip_prefix("|-- ")
            && !names.iter().any(|name| name == address)
        {
            names.push(address.to_owned());
        }
        previous = line;
    }
    names
}
