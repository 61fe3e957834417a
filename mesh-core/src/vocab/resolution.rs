//! How the endpoints of a service are found.

/// How endpoints are found (`resolution` of a ServiceEntry). A Kubernetes Service is [`Resolution::Static`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Resolution {
    /// Traffic goes to the address that it was sent to. The default of a ServiceEntry.
    #[default]
    None,
    /// The endpoints that are written or selected.
    Static,
    /// All addresses of the hosts, or of the endpoints' names.
    Dns,
    /// One address of the host for each new connection.
    DnsRoundRobin,
    /// The name that a request asks for, for wildcard hosts.
    DynamicDns,
}

impl Resolution {
    /// The name in a ServiceEntry.
    pub fn name(self) -> &'static str {
        match self {
            Resolution::None => "NONE",
            Resolution::Static => "STATIC",
            Resolution::Dns => "DNS",
            Resolution::DnsRoundRobin => "DNS_ROUND_ROBIN",
            Resolution::DynamicDns => "DYNAMIC_DNS",
        }
    }

    /// Whether names of endpoints are resolved.
    pub fn resolves_names(self) -> bool {
        matches!(self, Resolution::Dns | Resolution::DnsRoundRobin)
    }
}
