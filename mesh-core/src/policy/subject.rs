//! What is known of a request or stream when it is judged.

use std::borrow::Cow;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName};

use crate::matching::claims::Claims;
use crate::vocab::identity::SpiffeId;

static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What is known of a request or stream when it is judged.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The caller's verified identity, if it has one.
    pub identity: Option<&'a SpiffeId>,
    /// Address of the direct peer; `None` where it is not known.
    pub source: Option<IpAddr>,
    /// Address of the client, as far as proxies before tell it; `None` where it is not known.
    pub remote: Option<IpAddr>,
    /// Address of the workload.
    pub destination: IpAddr,
    /// Port of the workload.
    pub port: u16,
    /// Server name that the TLS client asked for.
    pub sni: Option<&'a str>,
    /// The request; `None` for a byte stream.
    pub http: Option<HttpSubject<'a>>,
}

/// The parts of a request that rules read.
#[derive(Debug, Clone, Copy)]
pub struct HttpSubject<'a> {
    /// Method.
    pub method: &'a str,
    /// Normalised path.
    pub path: &'a str,
    /// Query without its `?`.
    pub query: Option<&'a str>,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Authority as sent, port included.
    pub authority: &'a str,
    /// Header fields.
    pub headers: &'a HeaderMap,
    /// Claims of its token; `None` where none was validated.
    pub claims: Option<&'a Claims>,
    /// Of a field that comes several times each value is judged alone. ALLOW wants all of them to pass; for the other
    /// actions one is enough: a second value neither hides a bad one nor borrows the good of another.
    pub every_value: bool,
}

impl<'a> HttpSubject<'a> {
    /// What a name with a colon stands for: the path has its query.
    pub(super) fn pseudo(&self, name: &str) -> Option<Cow<'a, str>> {
        match name {
            ":method" => Some(Cow::Borrowed(self.method)),
            ":authority" => Some(Cow::Borrowed(self.authority)),
            ":scheme" => Some(Cow::Borrowed(self.scheme)),
            ":path" => Some(match self.query {
                Some(query) => Cow::Owned(format!("{}?{query}", self.path)),
                None => Cow::Borrowed(self.path),
            }),
            _ => None,
        }
    }
}

impl<'a> Subject<'a> {
    /// The same as rules that allow look at it.
    pub(super) fn for_allow(&self) -> Subject<'a> {
        let http = self.http.map(|http| HttpSubject { every_value: true, ..http });
        Subject { http, ..*self }
    }

    /// Namespace and account of the caller.
    pub(super) fn account(&self) -> Option<(&'a str, &'a str)> {
        self.identity.and_then(SpiffeId::account)
    }

    /// Claims of the request's token.
    pub(super) fn claims(&self) -> Option<&'a Claims> {
        self.http.and_then(|http| http.claims)
    }
}

/// Address of the client: the last entry of the last X-Forwarded-For, as the nearest proxy wrote it, else that of the
/// direct peer.
pub fn client_address(headers: &HeaderMap, peer: Option<IpAddr>) -> Option<IpAddr> {
    let forwarded = headers.get_all(&FORWARDED_FOR).iter().next_back();
    let last = forwarded.and_then(|value| value.to_str().ok()).and_then(|list| list.rsplit(',').next());
    last.and_then(|entry| entry.trim().parse().ok()).or(peer)
}

/// Address of the client of a gateway that believes a number of proxies before it: the entry of X-Forwarded-For that the
/// farthest of them wrote, else that of the direct peer. One that believes none goes by its peer alone.
pub fn gateway_client(headers: &HeaderMap, peer: Option<IpAddr>, trusted: u32) -> Option<IpAddr> {
    let before = usize::try_from(trusted).ok().and_then(|trusted| trusted.checked_sub(1));
    let fields = headers.get_all("x-forwarded-for").iter().rev();
    let mut entries = fields.filter_map(|value| value.to_str().ok()).flat_map(|list| list.rsplit(','));
    before.and_then(|before| entries.nth(before)).and_then(|entry| entry.trim().parse().ok()).or(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_believes_as_many_proxies_as_it_is_told() {
        let peer = Some(IpAddr::from([10, 0, 0, 1]));
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "1.1.1.1, 2.2.2.2".parse().unwrap());
        headers.append("x-forwarded-for", "3.3.3.3".parse().unwrap());
        for (trusted, expected) in
            [(0, "10.0.0.1"), (1, "3.3.3.3"), (2, "2.2.2.2"), (3, "1.1.1.1"), (4, "10.0.0.1")]
        {
            let found = gateway_client(&headers, peer, trusted).map(|address| address.to_string());
            assert_eq!(found.as_deref(), Some(expected), "{trusted}");
        }
    }

    #[test]
    fn the_nearest_proxy_s_word_counts() {
        let peer = Some(IpAddr::from([10, 0, 0, 1]));
        for (fields, expected) in [
            (&[][..], "10.0.0.1"),
            (&["1.1.1.1"], "1.1.1.1"),
            (&["1.1.1.1, 2.2.2.2"], "2.2.2.2"),
            (&["1.1.1.1", "::1"], "::1"),
            (&["1.1.1.1, nobody"], "10.0.0.1"),
            (&[""], "10.0.0.1"),
        ] {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append("x-forwarded-for", field.parse().unwrap());
            }
            let found = client_address(&headers, peer).map(|address| address.to_string());
            assert_eq!(found.as_deref(), Some(expected), "{fields:?}");
        }
    }
}
