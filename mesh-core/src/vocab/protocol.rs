//! Protocols of ports, and their detection from the first bytes of a connection.

/// What a service port speaks, as declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// Not declared: found out from the first bytes.
    Auto,
    /// HTTP/1.1.
    Http,
    /// HTTP/2 in the clear.
    Http2,
    /// gRPC, that is HTTP/2.
    Grpc,
    /// gRPC-Web, that is HTTP/1.1.
    GrpcWeb,
    /// TLS whose inside is HTTP; passed on unopened.
    Https,
    /// TLS, passed on unopened.
    Tls,
    /// Bytes.
    Tcp,
    /// Ignored: the mesh carries no datagrams.
    Udp,
}

impl Protocol {
    /// From a name such as `http` or `GRPC`; `None` if Istio does not know it.
    pub fn from_name(name: &str) -> Option<Protocol> {
        Some(match name.to_ascii_lowercase().as_str() {
            "http" => Protocol::Http,
            "http2" => Protocol::Http2,
            "grpc" => Protocol::Grpc,
            "grpc-web" => Protocol::GrpcWeb,
            "https" => Protocol::Https,
            "tls" => Protocol::Tls,
            "tcp" | "mongo" | "redis" | "mysql" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return None,
        })
    }

    /// From `appProtocol` if there is one, else from the port's name: what stands before the first `-`. Where that
    /// means nothing, from the number (25, 53, 3306 and 27017 are TCP), else [`Protocol::Auto`].
    pub fn select(app_protocol: Option<&str>, port_name: &str, port: u16) -> Protocol {
        match app_protocol {
            Some("kubernetes.io/h2c") => return Protocol::Http2,
            Some("kubernetes.io/ws") => return Protocol::Http,
            Some("kubernetes.io/wss") => return Protocol::Https,
            Some(_) | None => {}
        }
        let name = app_protocol.unwrap_or(port_name).to_ascii_lowercase();
        if name.starts_with("grpc-web") {
            return Protocol::GrpcWeb;
        }
        match name.split('-').next().and_then(Protocol::from_name) {
            Some(protocol) => protocol,
            None if matches!(port, 25 | 53 | 3306 | 27017) => Protocol::Tcp,
            None => Protocol::Auto,
        }
    }

    /// Whether requests are read on such a port.
    pub fn is_http(self) -> bool {
        matches!(self, Protocol::Http | Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb)
    }

    /// Whether it is TLS that is passed on unopened.
    pub fn is_tls(self) -> bool {
        matches!(self, Protocol::Https | Protocol::Tls)
    }

    /// Whether upstream connections to such a port speak HTTP/2.
    pub fn is_http2(self) -> bool {
        matches!(self, Protocol::Http2 | Protocol::Grpc)
    }

    /// What endpoints behind such a port are spoken to in, where nothing else was said.
    pub fn upstream(self) -> UpstreamProtocol {
        match self {
            Protocol::Auto => UpstreamProtocol::AsClient,
            Protocol::Http | Protocol::GrpcWeb => UpstreamProtocol::Http1,
            Protocol::Http2 | Protocol::Grpc => UpstreamProtocol::Http2,
            Protocol::Https | Protocol::Tls | Protocol::Tcp | Protocol::Udp => UpstreamProtocol::Opaque,
        }
    }

    /// The name shown to people: `http`, `grpc`, `tcp`, `auto`.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Auto => "auto",
            Protocol::Http => "http",
            Protocol::Http2 => "http2",
            Protocol::Grpc => "grpc",
            Protocol::GrpcWeb => "grpc-web",
            Protocol::Https => "https",
            Protocol::Tls => "tls",
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}

/// What a proxy speaks towards an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// The version in which the client came.
    AsClient,
    /// Bytes, passed on unread. A request that a rule leads there goes in HTTP/1.1.
    Opaque,
}

impl UpstreamProtocol {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            UpstreamProtocol::Http1 => "HTTP/1.1",
            UpstreamProtocol::Http2 => "HTTP/2",
            UpstreamProtocol::AsClient => "the client's version of HTTP",
            UpstreamProtocol::Opaque => "bytes",
        }
    }
}

/// What the first bytes of a connection say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detected {
    /// An HTTP/1 request line has begun.
    Http1,
    /// The HTTP/2 connection preface (RFC 9113, section 3.4).
    Http2,
    /// A TLS ClientHello record.
    Tls,
    /// None of these.
    Opaque,
    /// Too few bytes to tell.
    NeedMore,
}

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// A request line's method is looked for in this many bytes, the longest method that is accepted.
const LONGEST_METHOD: usize = 32;

/// Tells the protocol from what a client sent first.
pub fn detect(bytes: &[u8]) -> Detected {
    if bytes.is_empty() {
        return Detected::NeedMore;
    }
    if bytes[0] == 0x16 {
        return match bytes.get(1) {
            None => Detected::NeedMore,
            Some(3) => Detected::Tls,
            Some(_) => Detected::Opaque,
        };
    }
    let common = bytes.len().min(H2_PREFACE.len());
    if bytes[..common] == H2_PREFACE[..common] {
        return if common == H2_PREFACE.len() { Detected::Http2 } else { Detected::NeedMore };
    }
    detect_http1(bytes)
}

/// `METHOD SP target SP HTTP/1.` — the version decides, so that a line-based protocol is not taken for HTTP.
fn detect_http1(bytes: &[u8]) -> Detected {
    let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    let method = bytes.iter().take(LONGEST_METHOD + 1).take_while(|b| token(b)).count();
    if method == 0 || method > LONGEST_METHOD {
        return Detected::Opaque;
    }
    match bytes.get(method) {
        None => return Detected::NeedMore,
        Some(b' ') => {}
        Some(_) => return Detected::Opaque,
    }
    let rest = &bytes[method + 1..];
    let target = rest.iter().take_while(|&&b| b > b' ' && b != 0x7f).count();
    let Some(after) = rest.get(target) else { return Detected::NeedMore };
    if target == 0 || *after != b' ' {
        return Detected::Opaque;
    }
    let version = &rest[target + 1..];
    let expected = b"HTTP/1.";
    let common = version.len().min(expected.len());
    if version[..common] != expected[..common] {
        return Detected::Opaque;
    }
    if common == expected.len() { Detected::Http1 } else { Detected::NeedMore }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_of_a_port() {
        let check = |app: Option<&str>, name: &str, port: u16, expected: Protocol| {
            assert_eq!(Protocol::select(app, name, port), expected, "{app:?} {name} {port}");
        };
        check(None, "http", 80, Protocol::Http);
        check(None, "HTTP-foo", 80, Protocol::Http);
        check(None, "foo-http", 80, Protocol::Auto);
        check(None, "httpfoo", 80, Protocol::Auto);
        check(None, "grpc-web-x", 80, Protocol::GrpcWeb);
        check(None, "grpc-x", 80, Protocol::Grpc);
        check(None, "", 3306, Protocol::Tcp);
        check(None, "http", 3306, Protocol::Http);
        check(Some("kubernetes.io/h2c"), "tcp", 80, Protocol::Http2);
        check(Some("unknown/x"), "tcp", 80, Protocol::Auto);
        check(Some("unknown/x"), "tcp", 3306, Protocol::Tcp);
        check(Some("kubernetes.io/ws"), "tcp", 80, Protocol::Http);
        check(Some("kubernetes.io/wss"), "tcp", 80, Protocol::Https);
        check(Some("grpc-x"), "http", 80, Protocol::Grpc);
        check(Some("TCP"), "http", 80, Protocol::Tcp);
        check(None, "GRPC-Web-x", 80, Protocol::GrpcWeb);
        check(None, "udp-x", 80, Protocol::Udp);
        check(None, "mongo", 80, Protocol::Tcp);
        check(None, "mysql-x", 80, Protocol::Tcp);
        check(None, "tls-x", 80, Protocol::Tls);
        check(None, "", 80, Protocol::Auto);
        check(None, "x-http", 25, Protocol::Tcp);
        check(None, "redis-x", 80, Protocol::Tcp);
    }

    #[test]
    fn first_bytes() {
        let check = |bytes: &[u8], expected: Detected| assert_eq!(detect(bytes), expected, "{bytes:?}");
        check(b"", Detected::NeedMore);
        check(b"GET / HTTP/1.1\r\n", Detected::Http1);
        check(b"GET / HT", Detected::NeedMore);
        check(b"GET /", Detected::NeedMore);
        check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Detected::Http2);
        check(b"PRI * HT", Detected::NeedMore);
        check(b"PRI * HTTP/2.0\r\n\r\nXX", Detected::Opaque);
        check(&[0x16, 3, 1, 0], Detected::Tls);
        check(&[0x16], Detected::NeedMore);
        check(b"*1\r\n$4\r\nPING\r\n", Detected::Opaque);
        check(b"HELO example\r\n", Detected::Opaque);
        check(&[0, 0, 0, 8, 4, 210], Detected::Opaque);
    }
}
