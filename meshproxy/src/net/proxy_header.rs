//! The PROXY protocol header that a connection begins with: whose connection it carries on (haproxy's
//! proxy-protocol.txt, versions 1 and 2).

use std::fmt::Write as _;
use std::net::SocketAddr;

/// What every header of version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const VERSION_2_PROXY: u8 = 0x21;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProxyHeader {
    /// Version, 1 or 2.
    pub version: u8,
    /// Where the connection came from.
    pub source: SocketAddr,
    /// Where it was going to.
    pub destination: SocketAddr,
}

impl ProxyHeader {
    /// The header as bytes.
    pub fn encode(&self) -> Vec<u8> {
        if self.version == 2 { self.binary() } else { self.text().into_bytes() }
    }

    fn text(&self) -> String {
        let (family, source, destination) = match (self.source, self.destination) {
            (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
                ("TCP4", source.ip().to_string(), destination.ip().to_string())
            }
            (source, destination) => ("TCP6", v6(source).to_string(), v6(destination).to_string()),
        };
        let mut text = format!("PROXY {family} {source} {destination}");
        // Writing into a string cannot fail.
        let _ = write!(text, " {} {}\r\n", self.source.port(), self.destination.port());
        text
    }

    fn binary(&self) -> Vec<u8> {
        let mut addresses = Vec::with_capacity(36);
        let family = match (self.source, self.destination) {
            (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
                addresses.extend(source.ip().octets());
                addresses.extend(destination.ip().octets());
                TCP4
            }
            (source, destination) => {
                addresses.extend(v6(source).octets());
                addresses.extend(v6(destination).octets());
                TCP6
            }
        };
        addresses.extend(self.source.port().to_be_bytes());
        addresses.extend(self.destination.port().to_be_bytes());
        let mut bytes = Vec::with_capacity(52);
        bytes.extend(SIGNATURE);
        bytes.extend([VERSION_2_PROXY, family]);
        bytes.extend((addresses.len() as u16).to_be_bytes());
        bytes.extend(addresses);
        bytes
    }

    /// It as one of the mesh's own fields.
    pub fn to_field(&self) -> String {
        format!("{} {} {}", self.version, self.source, self.destination)
    }

    /// Reads such a field.
    pub fn from_field(text: &str) -> Option<ProxyHeader> {
        let mut parts = text.split(' ');
        let (version, source, destination) = (parts.next()?, parts.next()?, parts.next()?);
        Some(ProxyHeader {
            version: version.parse().ok().filter(|version| matches!(version, 1 | 2))?,
            source: source.parse().ok()?,
            destination: destination.parse().ok()?,
        })
    }
}

fn v6(address: SocketAddr) -> std::net::Ipv6Addr {
    match address {
        SocketAddr::V4(address) => address.ip().to_ipv6_mapped(),
        SocketAddr::V6(address) => *address.ip(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(version: u8, source: &str, destination: &str) -> ProxyHeader {
        ProxyHeader { version, source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    #[test]
    fn headers_of_both_versions() {
        let text = |source, destination| String::from_utf8(header(1, source, destination).encode()).unwrap();
        assert_eq!(text("10.0.0.1:1234", "10.0.0.2:80"), "PROXY TCP4 10.0.0.1 10.0.0.2 1234 80\r\n");
        assert_eq!(
            text("[2001:db8::1]:5", "[2001:db8::2]:80"),
            "PROXY TCP6 2001:db8::1 2001:db8::2 5 80\r\n"
        );
        assert_eq!(text("10.0.0.1:5", "[::1]:80"), "PROXY TCP6 ::ffff:10.0.0.1 ::1 5 80\r\n");
        let bytes = header(2, "10.0.0.1:1234", "10.0.0.2:80").encode();
        assert_eq!(&bytes[12..], [0x21, 0x11, 0, 12, 10, 0, 0, 1, 10, 0, 0, 2, 4, 210, 0, 80]);
        assert_eq!(&bytes[..12], b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a");
        assert_eq!(header(2, "[::1]:1", "[::2]:2").encode().len(), 16 + 36);
    }

    #[test]
    fn a_field_is_read_back_and_nothing_else() {
        let header = header(2, "10.0.0.1:1234", "[::2]:80");
        assert_eq!(ProxyHeader::from_field(&header.to_field()), Some(header));
        for text in ["", "1", "3 10.0.0.1:1 10.0.0.2:2", "1 x y", "1 10.0.0.1:1"] {
            assert_eq!(ProxyHeader::from_field(text), None, "{text}");
        }
    }
}
