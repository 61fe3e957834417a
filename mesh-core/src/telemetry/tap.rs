//! Which exchanges a tap shows, and what of their fields is kept secret. A filter is read once, by the control plane and by
//! every proxy that it is handed to, and holds or not for what a proxy has seen.

use http::HeaderMap;

/// So many alternatives of one condition.
const MOST_ALTERNATIVES: usize = 64;
/// So long a text of a condition.
const LONGEST: usize = 1024;

/// Which reports of an exchange are shown: where both hosts belong to the mesh, there are two of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reporters {
    /// Each exchange once: by the caller's proxy, and by the other where no proxy speaks for the caller.
    #[default]
    Once,
    /// The same among the proxies of one host: by the called one's where the caller is on another host.
    OnceHere,
    /// The callers'.
    Source,
    /// Those of the called.
    Destination,
    /// All.
    Both,
}

impl Reporters {
    /// The word on a command line; `OnceHere` follows from other flags.
    pub fn from_word(word: &str) -> Option<Reporters> {
        match word {
            "source" => Some(Reporters::Source),
            "destination" => Some(Reporters::Destination),
            "both" => Some(Reporters::Both),
            _ => None,
        }
    }
}

/// Who else has told of an exchange that the called one's proxy tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Told {
    /// Nobody.
    #[default]
    Nowhere,
    /// The caller's proxy, which is another host's.
    Elsewhere,
    /// This proxy, for the caller is on the same host.
    Here,
}

/// What a tap asks for, as it was written. Conditions of one kind are alternatives; all kinds must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// The service that is called: its host, `NAME`, `NAME.NAMESPACE`, `NAMESPACE/NAME`.
    pub services: Vec<String>,
    /// The namespace that the caller or the called is in.
    pub namespace: Option<String>,
    /// The caller: workload, service, `app` or namespace; `NAMESPACE/ACCOUNT`; an identity.
    pub from: Vec<String>,
    /// The called one, by the same words or as in `services`.
    pub to: Vec<String>,
    /// Methods, in any case.
    pub methods: Vec<String>,
    /// Beginnings of paths; with a `*`, whole paths.
    pub paths: Vec<String>,
    /// `503`, `5xx`, `>=400`, `500-503`, several with commas.
    pub statuses: Vec<String>,
    /// `NAME: VALUE`, all of which must be there; with a `*` in the value, its form; `NAME` for any value.
    pub headers: Vec<String>,
    /// Who reports.
    pub reporters: Reporters,
}

/// Why a filter was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// A status that is none.
    #[error("status {0:?}: expected a code (503), a class (5xx), a comparison (>=400) or a range (500-503)")]
    Status(String),
    /// A header condition without a name.
    #[error("header {0:?}: expected 'NAME: VALUE' or NAME")]
    Header(String),
    /// An empty condition.
    #[error("{0}: must not be empty")]
    Empty(&'static str),
    /// More than anybody means.
    #[error("{0}: at most {MOST_ALTERNATIVES} values of {LONGEST} characters")]
    TooMuch(&'static str),
}

/// One side of an exchange.
#[derive(Debug, Clone, Copy, Default)]
pub struct Subject<'a> {
    /// Name of the workload.
    pub workload: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its identity, `spiffe://...`.
    pub principal: &'a str,
    /// Label `app`.
    pub app: &'a str,
    /// Istio's canonical name of its service.
    pub service: &'a str,
}

/// What a filter looks at once an exchange is over.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen<'a> {
    /// Whether the caller's proxy reports.
    pub is_source: bool,
    /// Who else does.
    pub told: Told,
    /// The caller.
    pub source: Subject<'a>,
    /// The called.
    pub destination: Subject<'a>,
    /// Host of the service.
    pub host: &'a str,
    /// Its short name.
    pub service: &'a str,
    /// Its namespace.
    pub service_namespace: &'a str,
    /// Method; empty for a byte stream.
    pub method: &'a str,
    /// Path and query.
    pub path: &'a str,
    /// Status; 0 where no answer was given.
    pub status: u16,
}

/// A text with `*` for any characters.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Glob(Vec<Box<str>>);

impl Glob {
    fn new(text: &str) -> Glob {
        Glob(text.split('*').map(Box::from).collect())
    }

    fn is_plain(&self) -> bool {
        self.0.len() == 1
    }

    /// Looks for each part behind the one before: the first place is as good as any later one.
    fn matches(&self, text: &str) -> bool {
        let [first, middle @ .., last] = self.0.as_slice() else {
            return self.0.first().is_some_and(|only| **only == *text);
        };
        let Some(mut rest) = text.strip_prefix(&**first) else { return false };
        for part in middle {
            match rest.find(&**part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(&**last)
    }
}

/// A party, as people name it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    Identity(Glob),
    Within(Glob, Glob),
    Named(Glob),
}

impl Who {
    fn new(text: &str) -> Who {
        if text.starts_with("spiffe://") {
            return Who::Identity(Glob::new(text));
        }
        match text.split_once('/') {
            Some((namespace, name)) => Who::Within(Glob::new(namespace), Glob::new(name)),
            None => Who::Named(Glob::new(text)),
        }
    }

    fn is(&self, subject: &Subject<'_>) -> bool {
        let names = [subject.workload, subject.service, subject.app];
        let named = |name: &Glob| names.into_iter().any(|one| !one.is_empty() && name.matches(one));
        match self {
            Who::Identity(identity) => identity.matches(subject.principal),
            Who::Within(namespace, name) => {
                let account = subject.principal.rsplit_once("/sa/").map_or("", |(_, account)| account);
                namespace.matches(subject.namespace) && (name.matches(account) || named(name))
            }
            Who::Named(name) => named(name) || name.matches(subject.namespace),
        }
    }

    fn is_service(&self, seen: &Seen<'_>) -> bool {
        match self {
            Who::Identity(_) => false,
            Who::Within(namespace, name) => {
                namespace.matches(seen.service_namespace) && name.matches(seen.service)
            }
            Who::Named(name) => {
                let short = seen.host.split_once(".svc.").map_or(seen.host, |(short, _)| short);
                [seen.service, seen.host, short].into_iter().any(|one| name.matches(one))
            }
        }
    }
}

/// What a field of the request must be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    name: Box<str>,
    value: Option<Glob>,
}

/// Which exchanges are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    services: Vec<Who>,
    namespace: Option<Box<str>>,
    from: Vec<Who>,
    to: Vec<Who>,
    methods: Vec<Box<str>>,
    paths: Vec<Glob>,
    statuses: Vec<(u16, u16)>,
    fields: Vec<Field>,
    reporters: Reporters,
}

impl Filter {
    /// Reads what was asked for.
    pub fn new(wanted: &Wanted) -> Result<Filter, FilterError> {
        let each = |what: &'static str, texts: &[String]| -> Result<Vec<String>, FilterError> {
            if texts.len() > MOST_ALTERNATIVES || texts.iter().any(|text| text.len() > LONGEST) {
                return Err(FilterError::TooMuch(what));
            }
            let texts: Vec<String> = texts.iter().map(|text| text.trim().to_owned()).collect();
            if texts.iter().any(String::is_empty) { Err(FilterError::Empty(what)) } else { Ok(texts) }
        };
        let who = |what, texts: &[String]| -> Result<Vec<Who>, FilterError> {
            Ok(each(what, texts)?.iter().map(|text| Who::new(text)).collect())
        };
        let mut statuses = Vec::new();
        for text in each("status", &wanted.statuses)? {
            for one in text.split(',') {
                let range = range(one.trim()).ok_or_else(|| FilterError::Status(one.trim().to_owned()))?;
                statuses.push(range);
            }
        }
        let fields: Result<Vec<Field>, FilterError> =
            each("header", &wanted.headers)?.iter().map(|text| field(text)).collect();
        Ok(Filter {
            services: who("service", &wanted.services)?,
            namespace: wanted.namespace.as_deref().map(Box::from),
            from: who("from", &wanted.from)?,
            to: who("to", &wanted.to)?,
            methods: each("method", &wanted.methods)?.into_iter().map(Box::from).collect(),
            paths: each("path", &wanted.paths)?.iter().map(|text| Glob::new(text)).collect(),
            statuses,
            fields: fields?,
            reporters: wanted.reporters,
        })
    }

    /// Whether it looks at fields of the request, which are known at its beginning only.
    pub fn has_fields(&self) -> bool {
        !self.fields.is_empty()
    }

    /// Whether it holds for the fields of a request.
    pub fn holds_for(&self, headers: &HeaderMap) -> bool {
        self.fields.iter().all(|field| {
            headers.get_all(&*field.name).iter().any(|value| match &field.value {
                None => true,
                Some(glob) => glob.matches(&String::from_utf8_lossy(value.as_bytes())),
            })
        })
    }

    /// Whether the rest of it holds for what was seen.
    pub fn matches(&self, seen: &Seen<'_>) -> bool {
        let reported = match self.reporters {
            Reporters::Both => true,
            Reporters::Source => seen.is_source,
            Reporters::Destination => !seen.is_source,
            Reporters::Once => seen.is_source || seen.told == Told::Nowhere,
            Reporters::OnceHere => seen.is_source || seen.told != Told::Here,
        };
        let status =
            |(low, high): &(u16, u16)| !seen.method.is_empty() && (*low..=*high).contains(&seen.status);
        reported
            && any(&self.statuses, status)
            && any(&self.methods, |method| method.eq_ignore_ascii_case(seen.method))
            && any(&self.paths, |path| is_path(path, seen))
            && any(&self.services, |service| service.is_service(seen))
            && any(&self.from, |who| who.is(&seen.source))
            && any(&self.to, |who| who.is(&seen.destination) || who.is_service(seen))
            && self.namespace.as_deref().is_none_or(|namespace| {
                [seen.source.namespace, seen.destination.namespace, seen.service_namespace]
                    .contains(&namespace)
            })
    }
}

/// Whether one of the alternatives holds, or there are none.
fn any<T>(alternatives: &[T], holds: impl Fn(&T) -> bool) -> bool {
    alternatives.is_empty() || alternatives.iter().any(holds)
}

/// A prefix, or a form that the whole path has; with its query only where the form has one.
fn is_path(glob: &Glob, seen: &Seen<'_>) -> bool {
    if seen.method.is_empty() {
        return false;
    }
    if glob.is_plain() {
        return glob.0.first().is_some_and(|prefix| seen.path.starts_with(&**prefix));
    }
    let with_query = glob.0.iter().any(|part| part.contains('?'));
    let path = if with_query { seen.path } else { seen.path.split('?').next().unwrap_or("") };
    glob.matches(path)
}

fn field(text: &str) -> Result<Field, FilterError> {
    let (name, value) = match text.split_once(':') {
        Some((name, value)) => (name, Some(Glob::new(value.trim()))),
        None => (text, None),
    };
    let name = http::HeaderName::from_bytes(name.trim().as_bytes())
        .map_err(|_| FilterError::Header(text.to_owned()))?;
    Ok(Field { name: name.as_str().into(), value })
}

/// The lowest and highest status that a text means.
fn range(text: &str) -> Option<(u16, u16)> {
    let code = |text: &str| -> Option<u16> {
        let text = text.trim();
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten().filter(|code| *code <= 999)
    };
    for (sign, more, from_code) in [(">=", 0, true), ("<=", 0, false), (">", 1, true), ("<", 1, false)] {
        if let Some(rest) = text.strip_prefix(sign) {
            let code = code(rest)?;
            return Some(if from_code {
                (code + more, 999)
            } else {
                // An exchange without an answer has no status to compare.
                (1, code.checked_sub(more)?)
            });
        }
    }
    let text = text.strip_prefix('=').unwrap_or(text);
    if let Some(class) = text.strip_suffix("xx").or_else(|| text.strip_suffix("XX")) {
        let class = code(class).filter(|class| (1..=9).contains(class))?;
        return Some((class * 100, class * 100 + 99));
    }
    if let Some((low, high)) = text.split_once('-') {
        let (low, high) = (code(low)?, code(high)?);
        return (low <= high).then_some((low, high));
    }
    code(text).map(|code| (code, code))
}

/// Whether the values of a field are not for showing: credentials, or what sounds like them.
pub fn is_secret(name: &str) -> bool {
    const NAMES: [&str; 6] = [
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "x-api-key",
        "x-forwarded-client-cert",
    ];
    let name = name.to_ascii_lowercase();
    NAMES.contains(&&*name) || ["token", "secret", "password"].iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn seen() -> Seen<'static> {
        Seen {
            is_source: true,
            told: Told::Nowhere,
            source: Subject {
                workload: "productpage-v1",
                namespace: "default",
                principal: "spiffe://cluster.local/ns/default/sa/bookinfo-productpage",
                app: "productpage",
                service: "productpage",
            },
            destination: Subject {
                workload: "reviews-v2",
                namespace: "shop",
                principal: "spiffe://cluster.local/ns/shop/sa/bookinfo-reviews",
                app: "reviews",
                service: "reviews",
            },
            host: "reviews.shop.svc.cluster.local",
            service: "reviews",
            service_namespace: "shop",
            method: "GET",
            path: "/reviews/1?full=1",
            status: 503,
        }
    }

    fn texts(all: &[&str]) -> Vec<String> {
        all.iter().map(|one| (*one).to_owned()).collect()
    }

    #[test]
    fn each_condition_alone() {
        type Put = fn(&mut Wanted) -> &mut Vec<String>;
        let (service, from, to): (Put, Put, Put) = (|w| &mut w.services, |w| &mut w.from, |w| &mut w.to);
        let (method, path, status): (Put, Put, Put) =
            (|w| &mut w.methods, |w| &mut w.paths, |w| &mut w.statuses);
        for (put, values, expected) in [
            (service, &["reviews"][..], true),
            (service, &["reviews.shop"], true),
            (service, &["shop/reviews"], true),
            (service, &["reviews.shop.svc.cluster.local"], true),
            (service, &["reviews.default"], false),
            (service, &["ratings", "reviews"], true),
            (service, &["reviews-v2"], false),
            (service, &["rev*"], true),
            (from, &["productpage"], true),
            (from, &["productpage-v1"], true),
            (from, &["default"], true),
            (from, &["default/bookinfo-productpage"], true),
            (from, &["shop/bookinfo-productpage"], false),
            (from, &["default/*"], true),
            (from, &["spiffe://cluster.local/ns/default/sa/bookinfo-productpage"], true),
            (from, &["reviews"], false),
            (to, &["reviews"], true),
            (to, &["reviews-v2"], true),
            (to, &["reviews-v1"], false),
            (to, &["shop"], true),
            (to, &["shop/bookinfo-reviews"], true),
            (to, &["reviews.shop.svc.cluster.local"], true),
            (method, &["get"], true),
            (method, &["POST"], false),
            (method, &["POST", "GET"], true),
            (path, &["/rev"], true),
            (path, &["/reviews/1?full"], true),
            (path, &["/reviews/*"], true),
            (path, &["/*/1"], true),
            (path, &["*/2"], false),
            (path, &["/rev*?full=1"], true),
            (path, &["/ratings"], false),
            (status, &["5xx"], true),
            (status, &["503"], true),
            (status, &[">=400"], true),
            (status, &[">503"], false),
            (status, &["<=503"], true),
            (status, &["<503"], false),
            (status, &["500-502"], false),
            (status, &["200, 500-503"], true),
            (status, &["4xx", "200"], false),
        ] {
            let mut wanted = Wanted::default();
            *put(&mut wanted) = texts(values);
            let filter = Filter::new(&wanted).unwrap();
            assert_eq!(filter.matches(&seen()), expected, "{values:?}");
        }
        assert!(Filter::new(&Wanted::default()).unwrap().matches(&seen()));
    }

    #[test]
    fn all_kinds_must_hold() {
        let mut wanted = Wanted {
            services: texts(&["reviews"]),
            statuses: texts(&["5xx"]),
            namespace: Some("shop".to_owned()),
            ..Wanted::default()
        };
        assert!(Filter::new(&wanted).unwrap().matches(&seen()));
        wanted.methods = texts(&["PUT"]);
        assert!(!Filter::new(&wanted).unwrap().matches(&seen()));
        wanted.methods.clear();
        wanted.namespace = Some("elsewhere".to_owned());
        assert!(!Filter::new(&wanted).unwrap().matches(&seen()));
    }

    #[test]
    fn a_byte_stream_has_neither_path_nor_status() {
        let stream = Seen { method: "", path: "", status: 0, ..seen() };
        for (paths, statuses, expected) in
            [(&[][..], &[][..], true), (&["*"], &[], false), (&[], &["0"], false)]
        {
            let wanted = Wanted { paths: texts(paths), statuses: texts(statuses), ..Wanted::default() };
            assert_eq!(Filter::new(&wanted).unwrap().matches(&stream), expected, "{paths:?} {statuses:?}");
        }
    }

    #[test]
    fn each_exchange_is_shown_once() {
        use Reporters::{Both, Destination, Once, OnceHere, Source};
        let cases = [
            ((true, Told::Nowhere), [true, true, true, false, true]),
            ((false, Told::Nowhere), [true, true, false, true, true]),
            ((false, Told::Elsewhere), [false, true, false, true, true]),
            ((false, Told::Here), [false, false, false, true, true]),
        ];
        for ((is_source, told), expected) in cases {
            let seen = Seen { is_source, told, ..seen() };
            let shown = [Once, OnceHere, Source, Destination, Both].map(|reporters| {
                Filter::new(&Wanted { reporters, ..Wanted::default() }).unwrap().matches(&seen)
            });
            assert_eq!(shown, expected, "{is_source} {told:?}");
        }
    }

    #[test]
    fn fields_of_the_request() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-user", "jason"), ("x-user", "eve"), ("accept", "text/html, */*")] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        for (conditions, expected) in [
            (&["X-User: jason"][..], true),
            (&["x-user:eve"], true),
            (&["x-user: ja"], false),
            (&["x-user: ja*"], true),
            (&["x-user"], true),
            (&["x-other"], false),
            (&["x-user: eve", "accept: text/html*"], true),
            (&["x-user: eve", "x-other: 1"], false),
        ] {
            let filter = Filter::new(&Wanted { headers: texts(conditions), ..Wanted::default() }).unwrap();
            assert!(filter.has_fields());
            assert_eq!(filter.holds_for(&headers), expected, "{conditions:?}");
        }
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for status in ["", "abc", "6-5", "xx", "-", ">=", "1000", "5x", "<0", "200,", "+5", "10xx"] {
            let wanted = Wanted { statuses: texts(&[status]), ..Wanted::default() };
            assert!(Filter::new(&wanted).is_err(), "{status:?}");
        }
        for header in ["", ": x", "a b: c"] {
            let wanted = Wanted { headers: texts(&[header]), ..Wanted::default() };
            assert!(Filter::new(&wanted).is_err(), "{header:?}");
        }
        let many = vec!["/".to_owned(); MOST_ALTERNATIVES + 1];
        assert!(Filter::new(&Wanted { paths: many, ..Wanted::default() }).is_err());
    }

    #[test]
    fn credentials_are_secret() {
        for name in [
            "Authorization",
            "proxy-authorization",
            "Cookie",
            "set-cookie",
            "x-api-key",
            "x-csrf-token",
            "X-Forwarded-Client-Cert",
            "x-my-secret-thing",
            "Password",
        ] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["accept", "x-request-id", "user-agent", "x-author"] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
