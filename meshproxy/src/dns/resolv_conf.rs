//! What this host's resolver configuration says: where to forward, and which domains are appended to names.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const FILE: &str = "/etc/resolv.conf";
/// Where systemd-resolved keeps what stands behind its stub: the stub may itself ask us.
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";
const STUB: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 53));
/// How long what was read is believed.
const FRESH: Duration = Duration::from_secs(5);

/// The part of a `resolv.conf` that matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Resolvers.
    pub servers: Vec<IpAddr>,
    /// Domains that are appended to names, lower case, no trailing dot.
    pub search: Vec<String>,
}

impl ResolvConf {
    /// Reads a text leniently, as resolvers do: what is not understood is skipped, the last search list counts.
    pub fn parse(text: &str) -> ResolvConf {
        let mut conf = ResolvConf::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    conf.servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()))
                }
                Some("search" | "domain") => {
                    let domains = words.map(|word| word.trim_end_matches('.').to_ascii_lowercase());
                    conf.search = domains.filter(|domain| !domain.is_empty()).collect();
                }
                _ => {}
            }
        }
        conf
    }
}

/// Where to forward, and what to strip from names.
#[derive(Debug, Clone, Default)]
pub struct Resolvers {
    /// Resolvers, best first.
    pub upstreams: Vec<SocketAddr>,
    /// Search domains.
    pub search: Vec<String>,
}

/// The host's resolvers, read anew every few seconds: a laptop changes its network.
#[derive(Debug)]
pub struct HostResolvers {
    given: Vec<SocketAddr>,
    own: SocketAddr,
    known: Mutex<Option<(Instant, Resolvers)>>,
}

impl HostResolvers {
    /// `given` wins over what the host says; `own` is where we answer, and never a resolver for us.
    pub fn new(given: Vec<SocketAddr>, own: SocketAddr) -> HostResolvers {
        HostResolvers { given, own, known: Mutex::default() }
    }

    /// The resolvers of now.
    pub fn now(&self) -> Resolvers {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, resolvers)) = &*known
            && at.elapsed() < FRESH
        {
            return resolvers.clone();
        }
        let read = |path: &str| std::fs::read_to_string(Path::new(path)).ok();
        let resolvers = self.compose(read(FILE).as_deref(), || read(BEHIND_STUB));
        *known = Some((Instant::now(), resolvers.clone()));
        resolvers
    }

    fn compose(&self, text: Option<&str>, behind_stub: impl FnOnce() -> Option<String>) -> Resolvers {
        let mut conf = ResolvConf::parse(text.unwrap_or_default());
        let search = std::mem::take(&mut conf.search);
        if !self.given.is_empty() {
            return Resolvers { upstreams: self.given.clone(), search };
        }
        if conf.servers.contains(&STUB)
            && let Some(behind) = behind_stub().map(|text| ResolvConf::parse(&text))
            && !behind.servers.is_empty()
        {
            conf.servers = behind.servers;
        }
        let upstreams = conf.servers.into_iter().map(|ip| SocketAddr::new(ip, 53));
        Resolvers { upstreams: upstreams.filter(|address| !self.is_own(*address)).collect(), search }
    }

    fn is_own(&self, address: SocketAddr) -> bool {
        let anywhere = self.own.ip().is_unspecified() && address.ip().is_loopback();
        address.port() == self.own.port() && (address.ip() == self.own.ip() || anywhere)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_matter() {
        let conf = ResolvConf::parse(
            "# comment\nnameserver 10.0.0.2\nnameserver fe80::1%eth0\nsearch a.example B.example. ; x\noptions ndots:1\n",
        );
        assert_eq!(conf.servers, ["10.0.0.2".parse::<IpAddr>().unwrap()]);
        assert_eq!(conf.search, ["a.example", "b.example"]);
    }

    #[track_caller]
    fn check(own: &str, text: &str, behind: Option<&str>, expected: &[&str]) {
        let resolvers = HostResolvers::new(Vec::new(), own.parse().unwrap());
        let found = resolvers.compose(Some(text), || behind.map(str::to_owned)).upstreams;
        let expected: Vec<SocketAddr> = expected.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn our_own_address_is_no_resolver() {
        let text = "nameserver 127.0.0.1\nnameserver 10.0.0.2\n";
        check("127.0.0.1:53", text, None, &["10.0.0.2:53"]);
        check("0.0.0.0:53", text, None, &["10.0.0.2:53"]);
        check("127.0.0.1:15053", text, None, &["127.0.0.1:53", "10.0.0.2:53"]);
        check("127.0.0.1:53", "nameserver 127.0.0.53\n", Some("nameserver 10.0.0.9\n"), &["10.0.0.9:53"]);
        check("127.0.0.1:53", "nameserver 127.0.0.53\n", None, &["127.0.0.53:53"]);
    }

    #[test]
    fn what_is_given_wins() {
        let given = vec!["10.0.0.7:5353".parse().unwrap()];
        let resolvers = HostResolvers::new(given.clone(), "127.0.0.1:53".parse().unwrap());
        let found = resolvers.compose(Some("nameserver 10.0.0.2\nsearch a\n"), || None);
        assert_eq!((found.upstreams, found.search), (given, vec!["a".to_owned()]));
    }
}
