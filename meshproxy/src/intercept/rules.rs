//! The rules as text.
//!
//! Out: `nat output` redirects to the proxy what is opened on this host, but for our own traffic (by its mark), what
//! stays on loopback, and what is excluded. In: `prerouting` hands what is for an address of this host to the proxy's
//! transparent socket, its addresses and ports as they are, but for what comes over loopback (which has been through the
//! first chain), answers to connections that were opened here, our own ports, and what is excluded.
//!
//! Without a listener the redirection leads to a closed port, and the last rule of the way in resets: closed. With
//! `fail_open` there is no such rule, and connections are redirected only while the set `alive` holds their family: a
//! marked datagram of the proxy keeps it there for [`ALIVE`] seconds.

use std::fmt::{Display, Write as _};

use ipnet::{IpNet, Ipv4Net};

use super::range::{Range, merged};

/// Family and name of the table.
pub const TABLE: &str = "inet mesh";
/// What the proxy says once is believed for so many seconds, where rules fail open.
pub const ALIVE: u32 = 3;

/// What the rules leave alone, and where they lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Where outbound connections are accepted, on loopback.
    pub outbound: u16,
    /// Where inbound connections are accepted, on loopback.
    pub inbound: u16,
    /// The mark of our own traffic.
    pub mark: u32,
    /// Ports that the proxy itself serves to others.
    pub own: Vec<u16>,
    /// Addresses of services on this host that no sockets stand behind.
    pub services: Option<Ipv4Net>,
    /// Ports that are left alone on the way out.
    pub outbound_ports: Vec<Range>,
    /// Ports that are left alone on the way in.
    pub inbound_ports: Vec<Range>,
    /// Where connections go that are left alone.
    pub outbound_nets: Vec<IpNet>,
    /// Where connections come from that are left alone.
    pub inbound_nets: Vec<IpNet>,
    /// Users whose connections are left alone.
    pub users: Vec<Range>,
    /// Whether connections go on without the proxy while it does not run.
    pub fail_open: bool,
}

/// The script that takes the table away, whether there is one or not.
pub fn removal() -> String {
    format!("add table {TABLE}\ndelete table {TABLE}\n")
}

impl Rules {
    /// The script that puts the table there, in the place of one that is there.
    pub fn script(&self) -> String {
        let mut out = removal();
        let _ = writeln!(out, "table {TABLE} {{");
        if self.fail_open {
            self.pulse(&mut out);
        }
        self.way_out(&mut out);
        self.way_in(&mut out);
        out.push_str("}\n");
        out
    }

    fn pulse(&self, out: &mut String) {
        let (mark, port) = (self.mark, self.outbound);
        let _ = write!(
            out,
            "\tset alive {{\n\t\ttype nf_proto\n\t\tsize 4\n\t\tflags dynamic,timeout\n\t}}\n\
             \tchain pulse {{\n\t\ttype filter hook output priority -151; policy accept;\n\
             \t\tmeta mark {mark} oif \"lo\" udp dport {port} update @alive {{ meta nfproto timeout {ALIVE}s }}\n\t}}\n"
        );
    }

    fn way_out(&self, out: &mut String) {
        let redirect = format!("meta l4proto tcp redirect to :{}", self.outbound);
        let mut chain = Chain::begin(out, "outbound", "type nat hook output priority -110; policy accept;");
        chain.rule("meta l4proto != tcp accept");
        chain.rule(&format!("meta mark {} accept", self.mark));
        // The proxy's own sockets are never led to the proxy.
        if let Some(net) = self.services {
            if self.fail_open {
                chain.rule("meta nfproto != @alive accept");
            }
            chain.rule(&format!("ip daddr {net} {redirect}"));
        }
        chain.rule("oif \"lo\" ip daddr 127.0.0.0/8 accept");
        chain.rule("oif \"lo\" ip6 daddr ::1 accept");
        chain.among("meta skuid", &merged(self.users.iter().copied()));
        chain.among("tcp dport", &merged(self.outbound_ports.iter().copied()));
        chain.nets("daddr", &self.outbound_nets);
        if self.fail_open && self.services.is_none() {
            chain.rule("meta nfproto != @alive accept");
        }
        chain.rule(&redirect);
        chain.end();
    }

    fn way_in(&self, out: &mut String) {
        let own = self.own.iter().map(|port| Range::one(u32::from(*port)));
        let ports = merged(self.inbound_ports.iter().copied().chain(own));
        let mut chain =
            Chain::begin(out, "inbound", "type filter hook prerouting priority -95; policy accept;");
        chain.rule("meta l4proto != tcp accept");
        chain.rule("iif \"lo\" accept");
        // An answer to a connection whose address others translate looks like one to a port of ours.
        chain.rule("ct direction reply accept");
        chain.rule("fib daddr type != local accept");
        chain.among("tcp dport", &ports);
        chain.nets("saddr", &self.inbound_nets);
        let port = self.inbound;
        chain.rule(&format!("meta nfproto ipv4 meta l4proto tcp tproxy ip to 127.0.0.1:{port} accept"));
        chain.rule(&format!("meta nfproto ipv6 meta l4proto tcp tproxy ip6 to [::1]:{port} accept"));
        if !self.fail_open {
            chain.rule("tcp flags & (fin | syn | rst | ack) == syn reject with tcp reset");
        }
        chain.end();
    }
}

/// A chain that is being written.
struct Chain<'a>(&'a mut String);

impl Chain<'_> {
    fn begin<'a>(out: &'a mut String, name: &str, hook: &str) -> Chain<'a> {
        let _ = writeln!(out, "\tchain {name} {{\n\t\t{hook}");
        Chain(out)
    }

    fn rule(&mut self, rule: &str) {
        let _ = writeln!(self.0, "\t\t{rule}");
    }

    /// Leaves alone what is one of these.
    fn among<T: Display>(&mut self, what: &str, set: &[T]) {
        if !set.is_empty() {
            let set: Vec<String> = set.iter().map(ToString::to_string).collect();
            self.rule(&format!("{what} {{ {} }} accept", set.join(", ")));
        }
    }

    /// Leaves alone addresses of these networks.
    fn nets(&mut self, side: &str, nets: &[IpNet]) {
        let all = IpNet::aggregate(&nets.iter().map(IpNet::trunc).collect());
        let (four, six): (Vec<IpNet>, Vec<IpNet>) =
            all.into_iter().partition(|net| matches!(net, IpNet::V4(_)));
        self.among(&format!("ip {side}"), &four);
        self.among(&format!("ip6 {side}"), &six);
    }

    fn end(self) {
        self.0.push_str("\t}\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules {
            outbound: 15001,
            inbound: 15006,
            mark: 1337,
            own: vec![15008],
            services: None,
            outbound_ports: Vec::new(),
            inbound_ports: vec![Range::one(22)],
            outbound_nets: Vec::new(),
            inbound_nets: Vec::new(),
            users: Vec::new(),
            fail_open: false,
        }
    }

    #[track_caller]
    fn has(rules: &Rules, line: &str, expected: bool) {
        let script = rules.script();
        assert_eq!(script.lines().any(|found| found.trim() == line), expected, "{line} in\n{script}");
    }

    #[test]
    fn a_table_replaces_the_one_before_in_one_transaction() {
        let script = rules().script();
        assert!(
            script.starts_with("add table inet mesh\ndelete table inet mesh\ntable inet mesh {\n"),
            "{script}"
        );
        assert_eq!(script.matches('{').count(), script.matches('}').count());
    }

    #[test]
    fn what_is_excluded_is_left_alone() {
        let nets = ["10.1.2.3/16", "10.0.0.0/16", "10.1.0.0/16", "fd00::1/64"];
        let changed = Rules {
            outbound_ports: vec![Range { from: 8000, to: 8100 }, Range::one(25), Range::one(8100)],
            outbound_nets: nets.iter().map(|net| net.parse().unwrap()).collect(),
            inbound_nets: vec!["192.0.2.0/24".parse().unwrap()],
            users: vec![Range::one(1000), Range { from: 2000, to: 2005 }],
            ..rules()
        };
        has(&changed, "meta skuid { 1000, 2000-2005 } accept", true);
        has(&changed, "tcp dport { 25, 8000-8100 } accept", true);
        has(&changed, "ip daddr { 10.0.0.0/15 } accept", true);
        has(&changed, "ip6 daddr { fd00::/64 } accept", true);
        has(&changed, "ip saddr { 192.0.2.0/24 } accept", true);
        has(&changed, "tcp dport { 22, 15008 } accept", true);
        has(&rules(), "meta mark 1337 accept", true);
    }

    #[test]
    fn failing_open_and_closed() {
        let reset = "tcp flags & (fin | syn | rst | ack) == syn reject with tcp reset";
        let alive = "meta nfproto != @alive accept";
        has(&rules(), reset, true);
        has(&rules(), alive, false);
        let open = Rules { fail_open: true, services: Some("127.64.0.0/10".parse().unwrap()), ..rules() };
        has(&open, reset, false);
        has(&open, alive, true);
        has(&open, "ip daddr 127.64.0.0/10 meta l4proto tcp redirect to :15001", true);
    }
}
