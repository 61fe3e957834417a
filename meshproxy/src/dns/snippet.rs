//! How this host's resolver is told to ask us.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

/// What to put into which file, for a DNS server at `dns`.
pub fn snippet(dns: SocketAddr) -> String {
    let ip = match dns.ip() {
        any if any.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        ip => ip,
    };
    let mut text = String::new();
    let written = if dns.port() == 53 {
        writeln!(
            text,
            "# /etc/resolv.conf: meshproxy answers mesh names and forwards the others.\n\
             # Name the resolvers that were here with --dns-upstream.\n\
             nameserver {ip}\n\
             options timeout:2 attempts:2"
        )
    } else {
        writeln!(
            text,
            "# /etc/systemd/resolved.conf.d/mesh.conf, then: systemctl restart systemd-resolved\n\
             # resolv.conf itself cannot name a port. meshproxy forwards other names to the resolvers in\n\
             # /run/systemd/resolve/resolv.conf; name them with --dns-upstream where that file is missing.\n\
             [Resolve]\n\
             DNS={}\n\
             Domains=default.svc.cluster.local ~.",
            SocketAddr::new(ip, dns.port())
        )
    };
    // Writing to a string cannot fail.
    debug_assert!(written.is_ok());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_where_the_port_allows_it() {
        let check = |dns: &str, expected: &str| {
            let text = snippet(dns.parse().unwrap());
            assert!(text.contains(expected), "{text}");
        };
        check("127.0.0.1:53", "\nnameserver 127.0.0.1\n");
        check("0.0.0.0:53", "\nnameserver 127.0.0.1\n");
        check("127.0.0.1:15053", "\nDNS=127.0.0.1:15053\n");
    }
}
