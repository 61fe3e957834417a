//! Rate limits: which requests one counts, and by what they are counted apart. The buckets are elsewhere
//! (`resilience::ratelimit`); here it is only found out whose bucket a request takes from.

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use foldhash::quality::FixedState;
use http::{HeaderName, HeaderValue};

use crate::matching::request::Request;
use crate::matching::text::TextMatch;
use crate::resilience::ratelimit::{Rate, Standing};
use crate::vocab::identity::SpiffeId;
use crate::vocab::name::Text;

/// A rate limit as it holds at one place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RateLimit {
    /// The resource: `ratelimit/default/reviews`.
    pub origin: Text,
    /// What it is attached to there: `service/default/reviews`, `virtualservice/default/reviews/canary`, or
    /// `selector`. Each target counts for itself.
    pub target: Text,
    /// The workload's ports that it is for; none for all. Always none on a rule.
    pub ports: Vec<u16>,
    /// What it says.
    pub terms: Terms,
}

/// What a rate limit says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Terms {
    /// Whether all proxies together keep to it, or each for itself.
    pub shared: bool,
    /// The limits. A request must be within all that count it.
    pub limits: Vec<Limit>,
    /// Status of what is refused.
    pub status: u16,
    /// Which answers tell how a limit stands.
    pub tell: Tell,
    /// Whether it only counts what it would refuse.
    pub dry_run: bool,
}

/// Which answers tell how a limit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Tell {
    /// Those that refuse.
    #[default]
    Refused,
    /// All.
    All,
    /// None.
    None,
}

/// One limit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Limit {
    /// Its name.
    pub name: Text,
    /// How much passes.
    pub rate: Rate,
    /// By what requests are counted apart; nothing for all together.
    pub key: Vec<KeyPart>,
    /// The requests that it counts.
    pub counts: Counts,
}

/// A property of a request by which it is counted apart from others. What a request does not have counts as empty, so
/// that leaving something out frees nobody.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyPart {
    /// The caller's identity, proven by its certificate.
    Principal,
    /// The namespace of that identity.
    Namespace,
    /// The client's address.
    Address,
    /// Method.
    Method,
    /// Path without query.
    Path,
    /// The values of a header field.
    Header(HeaderName),
}

/// Which requests a limit counts: all conditions must hold, and of each list one. The default counts everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Counts {
    /// Methods.
    pub methods: Vec<TextMatch>,
    /// Paths, without query.
    pub paths: Vec<TextMatch>,
    /// Header fields of which a value must match.
    pub headers: Vec<(HeaderName, TextMatch)>,
}

/// A request as limits see it.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// The request.
    pub request: &'a Request<'a>,
    /// Who sends it, where that is known.
    pub peer: Option<&'a SpiffeId>,
    /// Its namespace, where that is known without an identity.
    pub namespace: Option<&'a str>,
    /// The client's address.
    pub client: Option<IpAddr>,
}

/// A limit that counts a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted<'l> {
    /// The index of the rate limit among those of its place.
    pub place: usize,
    /// The index of the limit in it.
    pub index: usize,
    /// The rate limit.
    pub by: &'l RateLimit,
    /// The limit.
    pub limit: &'l Limit,
    /// The bucket; 0 where all requests have one together.
    pub bucket: u64,
}

/// The limits that count a request, in order. `port` is that of the workload that it came to; `None` on a rule. Buckets are
/// told by a hash under a seed that clients do not know.
pub fn counted<'l>(
    limits: &'l [RateLimit],
    port: Option<u16>,
    asking: &'l Asking<'_>,
    seed: u64,
) -> impl Iterator<Item = Counted<'l>> {
    let here = limits
        .iter()
        .enumerate()
        .filter(move |(_, by)| by.ports.is_empty() || port.is_some_and(|port| by.ports.contains(&port)));
    here.flat_map(move |(place, by)| {
        let counting = by.terms.limits.iter().enumerate().filter(|(_, limit)| limit.counts.hold(asking));
        counting.map(move |(index, limit)| Counted {
            place,
            index,
            by,
            limit,
            bucket: limit.bucket(asking, seed),
        })
    })
}

impl Limit {
    /// The bucket of a request.
    fn bucket(&self, asking: &Asking<'_>, seed: u64) -> u64 {
        if self.key.is_empty() {
            return 0;
        }
        let mut hasher = FixedState::with_seed(seed).build_hasher();
        for part in &self.key {
            part.visit(asking, |value| {
                hasher.write(value);
                hasher.write_usize(value.len());
            });
            hasher.write_u8(0xff);
        }
        hasher.finish().max(1)
    }

    /// Whose bucket it is, in words; `None` where all requests have one together.
    pub fn whose(&self, asking: &Asking<'_>) -> Option<String> {
        let mut words = String::new();
        for part in &self.key {
            if !words.is_empty() {
                words.push_str(", ");
            }
            words.push_str(&part.to_string());
            words.push('=');
            let mut several = false;
            part.visit(asking, |value| {
                if std::mem::replace(&mut several, true) {
                    words.push('+');
                }
                words.push_str(&String::from_utf8_lossy(value));
            });
        }
        (!words.is_empty()).then_some(words)
    }
}

impl KeyPart {
    /// Visits the values that a request has.
    fn visit(&self, asking: &Asking<'_>, mut see: impl FnMut(&[u8])) {
        let request = asking.request;
        match self {
            KeyPart::Principal => asking.peer.into_iter().for_each(|peer| see(peer.principal().as_bytes())),
            KeyPart::Namespace => {
                let proven = asking.peer.and_then(SpiffeId::account).map(|(namespace, _)| namespace);
                proven.or(asking.namespace).into_iter().for_each(|namespace| see(namespace.as_bytes()));
            }
            KeyPart::Address => {
                // One client of both families of addresses is one.
                match asking.client.map(|client| client.to_canonical()) {
                    Some(IpAddr::V4(address)) => see(&address.octets()),
                    Some(IpAddr::V6(address)) => see(&address.octets()),
                    None => {}
                }
            }
            KeyPart::Method => see(request.method.as_bytes()),
            KeyPart::Path => see(request.path.as_bytes()),
            KeyPart::Header(name) => {
                request.headers.get_all(name).iter().for_each(|value| see(value.as_bytes()));
            }
        }
    }
}

/// The fields by which an answer tells how a limit stands: those of the IETF's draft (`RateLimit-Policy`, `RateLimit`),
/// those that Envoy has, and `retry-after` where the request was refused. Times are whole seconds, rounded up.
pub fn fields(limit: &Limit, standing: &Standing) -> Vec<(HeaderName, HeaderValue)> {
    let seconds = |time: Duration| time.as_secs() + u64::from(time.subsec_nanos() > 0);
    let Limit { name, rate, .. } = limit;
    let window = seconds(rate.interval());
    // A window that is no whole number of seconds is told as one that is.
    let quota = u128::from(rate.requests()) * u128::from(window) * 1_000_000_000 / rate.interval().as_nanos();
    let (left, full) = (standing.remaining, seconds(standing.full_in));
    // In the draft it is the time after which there is more; Envoy's is that after which the bucket is full.
    let more = if standing.admitted { full } else { seconds(standing.retry_after) };
    let mut fields = vec![
        ("ratelimit-policy", format!("\"{name}\";q={quota};w={window}")),
        ("ratelimit", format!("\"{name}\";r={left};t={more}")),
        ("x-ratelimit-limit", rate.requests().to_string()),
        ("x-ratelimit-remaining", left.to_string()),
        ("x-ratelimit-reset", full.to_string()),
    ];
    if !standing.admitted {
        fields.push(("retry-after", more.max(1).to_string()));
    }
    let field = |(name, value): (&'static str, String)| {
        Some((HeaderName::from_static(name), HeaderValue::try_from(value).ok()?))
    };
    fields.into_iter().filter_map(field).collect()
}

impl fmt::Display for KeyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyPart::Principal => f.write_str("sourcePrincipal"),
            KeyPart::Namespace => f.write_str("sourceNamespace"),
            KeyPart::Address => f.write_str("sourceAddress"),
            KeyPart::Method => f.write_str("method"),
            KeyPart::Path => f.write_str("path"),
            KeyPart::Header(name) => write!(f, "header {name}"),
        }
    }
}

impl Counts {
    /// Whether a request is counted.
    fn hold(&self, asking: &Asking<'_>) -> bool {
        let request = asking.request;
        let any = |list: &[TextMatch], text: &str| {
            list.is_empty() || list.iter().any(|one| one.matches(text.as_bytes()))
        };
        any(&self.methods, request.method)
            && any(&self.paths, request.path)
            && self.headers.iter().all(|(name, wanted)| {
                request.headers.get_all(name).iter().any(|value| wanted.matches(value.as_bytes()))
            })
    }
}

impl fmt::Display for Limit {
    /// `100 requests per 1s, burst 20`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = &self.rate;
        write!(f, "{} requests per {:?}, burst {}", rate.requests(), rate.interval(), rate.burst())
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn limit(name: &str, key: Vec<KeyPart>, counts: Counts) -> Limit {
        Limit { name: name.into(), rate: Rate::new(1, Duration::from_secs(1), 1).unwrap(), key, counts }
    }

    fn at(ports: &[u16], limits: Vec<Limit>) -> RateLimit {
        RateLimit {
            origin: "ratelimit/default/a".into(),
            target: "selector".into(),
            ports: ports.to_vec(),
            terms: Terms { shared: false, limits, status: 429, tell: Tell::Refused, dry_run: false },
        }
    }

    /// Names of the limits that count `METHOD PATH` with fields `name: value`, and their buckets.
    fn found(
        limits: &[RateLimit],
        port: u16,
        line: &str,
        fields: &[(&'static str, &'static str)],
    ) -> Vec<(String, u64)> {
        let (method, path) = line.split_once(' ').unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let authority = "a";
        let request =
            Request { method, scheme: "http", authority, path, query: None, headers: &headers, claims: None };
        let peer = SpiffeId::parse("spiffe://td/ns/n/sa/s").unwrap();
        let asking = Asking { request: &request, peer: Some(&peer), namespace: None, client: None };
        counted(limits, Some(port), &asking, 7).map(|one| (one.limit.name.to_string(), one.bucket)).collect()
    }

    fn names(limits: &[RateLimit], port: u16, line: &str, fields: &[(&'static str, &'static str)]) -> String {
        let found = found(limits, port, line, fields).into_iter().map(|(name, _)| name);
        found.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn only_what_the_conditions_say_is_counted() {
        let text = |values: &[&str]| values.iter().map(|value| TextMatch::policy(value)).collect::<Vec<_>>();
        let gold = vec![(HeaderName::from_static("x-tier"), TextMatch::policy("gold*"))];
        let limits = [
            at(
                &[],
                vec![
                    limit("all", vec![], Counts::default()),
                    limit("post", vec![], Counts { methods: text(&["POST", "PUT"]), ..Counts::default() }),
                    limit("api", vec![], Counts { paths: text(&["/api/*", "*.json"]), ..Counts::default() }),
                    limit("gold", vec![], Counts { headers: gold, ..Counts::default() }),
                ],
            ),
            at(&[90], vec![limit("ninety", vec![], Counts::default())]),
        ];
        assert_eq!(names(&limits, 80, "GET /", &[]), "all");
        assert_eq!(names(&limits, 90, "PUT /api/x", &[]), "all post api ninety");
        assert_eq!(
            names(&limits, 80, "GET /a.json", &[("x-tier", "iron"), ("x-tier", "golden")]),
            "all api gold"
        );
    }

    #[test]
    fn answers_tell_how_a_limit_stands() {
        let rate = Rate::new(10, Duration::from_secs(1), 2).unwrap();
        let limit = Limit { rate, ..limit("per-user", vec![], Counts::default()) };
        let told = |standing: &Standing| {
            let fields = fields(&limit, standing).into_iter();
            fields.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect::<Vec<_>>()
        };
        let (full_at, first) = rate.take(1_000_000, 0, 1);
        let same = ["ratelimit-policy: \"per-user\";q=10;w=1", "x-ratelimit-limit: 10"];
        let of_first = told(&first);
        assert!(same.iter().all(|line| of_first.contains(&(*line).to_owned())), "{of_first:?}");
        assert!(of_first.contains(&"ratelimit: \"per-user\";r=1;t=1".to_owned()), "{of_first:?}");
        let (full_at, _) = rate.take(1_000_000, full_at, 1);
        let (_, refused) = rate.take(1_000_000, full_at, 1);
        let of_refused = told(&refused);
        for line in ["ratelimit: \"per-user\";r=0;t=1", "x-ratelimit-remaining: 0", "retry-after: 1"] {
            assert!(of_refused.contains(&line.to_owned()), "{of_refused:?}");
        }
    }

    #[test]
    fn each_combination_has_a_bucket_of_its_own() {
        let user = || KeyPart::Header(HeaderName::from_static("x-user"));
        let team = || KeyPart::Header(HeaderName::from_static("x-team"));
        let of = |key: Vec<KeyPart>, line: &str, fields: &[(&'static str, &'static str)]| {
            found(&[at(&[], vec![limit("a", key, Counts::default())])], 80, line, fields)[0].1
        };
        assert_eq!(of(vec![], "GET /", &[("x-user", "a")]), 0);
        let both = |fields: &[(&'static str, &'static str)]| of(vec![user(), team()], "GET /", fields);
        let all = [
            both(&[]),
            both(&[("x-user", "a")]),
            both(&[("x-team", "a")]),
            both(&[("x-user", "")]),
            both(&[("x-user", "ab"), ("x-team", "c")]),
            both(&[("x-user", "a"), ("x-team", "bc")]),
            both(&[("x-user", "a"), ("x-user", "b"), ("x-team", "c")]),
            of(vec![KeyPart::Method, KeyPart::Path], "GET /", &[]),
            of(vec![KeyPart::Principal], "GET /", &[]),
            of(vec![KeyPart::Namespace], "GET /", &[]),
            of(vec![KeyPart::Address], "GET /", &[]),
        ];
        let distinct: std::collections::BTreeSet<u64> = all.into_iter().collect();
        assert_eq!(
            distinct.len(),
            all.len() - usize::from(both(&[]) == of(vec![KeyPart::Address], "GET /", &[]))
        );
        assert!(!distinct.contains(&0));
        assert_eq!(both(&[("x-user", "a")]), both(&[("x-other", "b"), ("x-user", "a")]));
    }
}
