//! Where traffic goes that no endpoint is chosen for: to the address that it was sent to, or the name that it asks for.

use std::net::IpAddr;

use crate::matching::authority::host_matches;
use crate::snapshot::destination::Destination;
use crate::snapshot::service::Service;
use crate::tables::destinations as tables;
use crate::tables::names::lower;
use crate::vocab::resolution::Resolution;

/// A host and a port to be dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aim {
    /// An address or a name, lower case.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// What is known of where a caller wanted to go.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The name or address that it asked for; `None` where it said nothing.
    pub asked: Option<&'a str>,
    /// What a rule has put in its place.
    pub rewritten: Option<&'a str>,
    /// The service that this means.
    pub service: Option<&'a Service>,
    /// The port that it asked for.
    pub port: u16,
}

/// Whether a caller's traffic goes to what it asked for, and to none of the endpoints: there are none, or it asked for
/// an address that is none of theirs. `hash` is by what the endpoint would be chosen.
pub fn is_aimed(destination: &tables::Destination, hash: Option<u64>, asked: Option<&str>) -> bool {
    let elsewhere = || {
        let asked = asked.map(|asked| asked.trim_start_matches('[').trim_end_matches(']'));
        let asked = asked.and_then(|asked| asked.parse::<IpAddr>().ok());
        asked.is_some_and(|address| !address.is_loopback() && !address.is_unspecified())
    };
    destination.policy.is_passthrough()
        && (destination.endpoints.is_empty() || (hash.is_none() && elsewhere()))
}

/// Where the traffic of a destination goes for which no endpoint is chosen; `None` where that cannot be told. The
/// address of a service on this host stands for the service's name, as nothing else has it.
pub fn aim(policy: &Destination, wanted: &Wanted<'_>) -> Option<Aim> {
    let bare = |text: &str| {
        let text = text.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
        lower(text).into_owned()
    };
    let of_service = || {
        let host = &wanted.service?.host;
        (!host.starts_with('*')).then(|| host.to_string())
    };
    let asked = wanted.asked.map(bare);
    let asked = asked.filter(|asked| match asked.parse::<IpAddr>() {
        Ok(address) => !address.is_loopback() && !address.is_unspecified(),
        Err(_) => wanted.service.is_none_or(|service| host_matches(&service.host, asked)),
    });
    let rewritten = wanted.rewritten.filter(|_| policy.resolution == Resolution::DynamicDns).map(bare);
    let host = rewritten.or(asked).or_else(of_service)?;
    Some(Aim { host, port: policy.target_port.unwrap_or(wanted.port) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancing::policy::Algorithm;
    use crate::vocab::name::DestinationKey;
    use crate::vocab::origin::Origin;
    use crate::vocab::protocol::Protocol;

    #[test]
    fn an_address_that_is_no_endpoint_s_is_gone_to() {
        let key = DestinationKey { host: "a.example".into(), port: 80, subset: None, scope: None };
        let mut policy = Destination::plain(key, Protocol::Http);
        policy.load_balancer = Algorithm::Passthrough;
        let none =
            tables::Destination { policy, cluster: "c".into(), server_name: None, endpoints: Vec::new() };
        let one = none.aimed("x", &["10.0.0.1:80".parse().unwrap()]);
        let check = |destination: &tables::Destination, hash, asked, expected| {
            assert_eq!(is_aimed(destination, hash, asked), expected, "{asked:?} {hash:?}");
        };
        check(&none, None, None, true);
        check(&none, None, Some("a.example"), true);
        check(&one, None, Some("a.example"), false);
        check(&one, None, Some("127.64.0.1"), false);
        check(&one, None, Some("10.0.0.2"), true);
        check(&one, Some(1), Some("10.0.0.1"), false);
        let mut balanced = one.aimed("x", &["10.0.0.1:80".parse().unwrap()]);
        balanced.policy.load_balancer = Algorithm::default();
        check(&balanced, None, Some("10.0.0.2"), false);
    }

    #[test]
    fn the_name_that_is_asked_for_or_the_service_s_own() {
        let service = |host: &str| Service {
            host: host.into(),
            namespace: "default".into(),
            scope: None,
            exported_to: None,
            origin: Origin { resource: "serviceentry/default/e".into(), rule: None },
            names: Vec::new(),
            short_name: None,
            aliases: Vec::new(),
            ports: Vec::new(),
            addresses: Vec::new(),
            networks: Vec::new(),
            auto_address: None,
            resolution: Resolution::None,
            headless: false,
            stands_for: None,
            offset: None,
            external: true,
        };
        let check =
            |of: &str, resolution: Resolution, asked: &str, rewritten: Option<&str>, expected: &str| {
                let key = DestinationKey { host: of.into(), port: 80, subset: None, scope: None };
                let policy = Destination { resolution, ..Destination::plain(key, Protocol::Http) };
                let service = service(of);
                let wanted = Wanted { asked: Some(asked), rewritten, service: Some(&service), port: 80 };
                let host = aim(&policy, &wanted).map_or(String::new(), |aim| aim.host);
                assert_eq!(host, expected, "{of} {asked}");
            };
        check("api.example", Resolution::None, "API.example.", None, "api.example");
        check("api.example", Resolution::None, "other.example", None, "api.example");
        check("api.example", Resolution::None, "127.64.0.3", None, "api.example");
        check("api.example", Resolution::None, "192.0.2.1", None, "192.0.2.1");
        check("api.example", Resolution::None, "[2001:db8::1]", Some("x.example"), "2001:db8::1");
        check("*.example", Resolution::None, "a.example", None, "a.example");
        check("*.example", Resolution::None, "else", None, "");
        check("*.example", Resolution::DynamicDns, "a.example", Some("b.example"), "b.example");
    }
}
