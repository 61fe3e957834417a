//! Conditions on a request: one entry of a VirtualService's `match`.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::claims::Claims;
use super::pseudo::Pseudo;
use super::text::TextMatch;
use crate::vocab::label::Labels;
use crate::vocab::name::Text;

/// The request as decisions see it: canonical, read once.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Method, as sent.
    pub method: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Authority as sent, port included.
    pub authority: &'a str,
    /// Normalised path, without query.
    pub path: &'a str,
    /// Query without its `?`.
    pub query: Option<&'a str>,
    /// Header fields.
    pub headers: &'a HeaderMap,
    /// Claims of its token; `None` where none was validated.
    pub claims: Option<&'a Claims>,
}

/// The scheme of a request whose target names none, by its `x-forwarded-proto`: what a proxy before this one says, if
/// that is a scheme.
pub fn forwarded_scheme(forwarded: Option<&HeaderValue>) -> &'static str {
    let is_https = forwarded.is_some_and(|text| text.as_bytes().eq_ignore_ascii_case(b"https"));
    if is_https { "https" } else { "http" }
}

/// Who sends: the workload on this host whose request it is.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its labels.
    pub labels: &'a Labels,
    /// Key of the view that it has of the mesh; `None` for the one that most callers have.
    pub view: Option<&'a str>,
}

/// Conditions that must all hold. The default holds always.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct RequestMatch {
    /// Name, for the access log.
    pub name: Option<Text>,
    /// Path without query.
    pub uri: Option<TextMatch>,
    /// `http` or `https`.
    pub scheme: Option<TextMatch>,
    /// Method, case-sensitive.
    pub method: Option<TextMatch>,
    /// Authority as sent, port included.
    pub authority: Option<TextMatch>,
    /// Header fields that must be there and pass; any one of several values is enough.
    pub headers: Vec<(HeaderName, TextMatch)>,
    /// Header fields that must not pass; none of several values may. A missing one counts as empty
    /// where a value is tested.
    pub without_headers: Vec<(HeaderName, TextMatch)>,
    /// The same of what is no field but written like one.
    pub pseudo: Vec<(Pseudo, TextMatch)>,
    /// The same, negated.
    pub without_pseudo: Vec<(Pseudo, TextMatch)>,
    /// Query parameters, raw; the first of several is tested.
    pub query: Vec<(Text, TextMatch)>,
    /// Claims of a validated token that must be there and pass: path of the claim, test of a string or of any
    /// member of a list (`@request.auth.claims`).
    pub claims: Vec<(Vec<Text>, TextMatch)>,
    /// Claims that must not pass.
    pub without_claims: Vec<(Vec<Text>, TextMatch)>,
    /// Labels that the caller must have (`sourceLabels`).
    pub caller_labels: Labels,
    /// Namespace that the caller must be in (`sourceNamespace`).
    pub caller_namespace: Option<Text>,
}

/// The first condition that did not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// Of the caller's labels or namespace.
    Caller,
    /// Of the path.
    Uri,
    /// Of the scheme.
    Scheme,
    /// Of the method.
    Method,
    /// Of the authority.
    Authority,
    /// Of the header condition with this index.
    Header(usize),
    /// Of the negated header condition with this index.
    WithoutHeader(usize),
    /// Of the condition with this index on what is written like a field.
    Pseudo(usize),
    /// Of the negated one with this index.
    WithoutPseudo(usize),
    /// Of the query condition with this index.
    Query(usize),
    /// Of the condition on a claim with this index.
    Claim(usize),
    /// Of the negated condition on a claim with this index.
    WithoutClaim(usize),
}

impl RequestMatch {
    /// The first condition that does not hold, `None` if all do. An unknown caller has no labels and no namespace.
    pub fn mismatch(&self, request: &Request<'_>, caller: Option<&Caller<'_>>) -> Option<Mismatch> {
        if !self.concerns(caller) {
            return Some(Mismatch::Caller);
        }
        let fails =
            |test: &Option<TextMatch>, text: &str| test.as_ref().is_some_and(|t| !t.matches(text.as_bytes()));
        if fails(&self.uri, request.path) {
            return Some(Mismatch::Uri);
        }
        if fails(&self.method, request.method) {
            return Some(Mismatch::Method);
        }
        if fails(&self.scheme, request.scheme) {
            return Some(Mismatch::Scheme);
        }
        if fails(&self.authority, request.authority) {
            return Some(Mismatch::Authority);
        }
        let header_fails = |(name, test): &(HeaderName, TextMatch)| !header_passes(request, name, test);
        if let Some(index) = self.headers.iter().position(header_fails) {
            return Some(Mismatch::Header(index));
        }
        let present = |(name, test): &(HeaderName, TextMatch)| {
            let absent_passes = *test != TextMatch::Present
                && header_values(request, name).next().is_none()
                && test.matches(b"");
            absent_passes || header_passes(request, name, test)
        };
        if let Some(index) = self.without_headers.iter().position(present) {
            return Some(Mismatch::WithoutHeader(index));
        }
        if let Some(index) = self.pseudo.iter().position(|(name, test)| !name.passes(request, test)) {
            return Some(Mismatch::Pseudo(index));
        }
        if let Some(index) = self.without_pseudo.iter().position(|(name, test)| !name.lacks(request, test)) {
            return Some(Mismatch::WithoutPseudo(index));
        }
        let query_fails = |(name, test): &(Text, TextMatch)| {
            !query_value(request.query, name).is_some_and(|value| test.matches(value.as_bytes()))
        };
        if let Some(index) = self.query.iter().position(query_fails) {
            return Some(Mismatch::Query(index));
        }
        let claim = |(path, test): &(Vec<Text>, TextMatch)| {
            request.claims.is_some_and(|claims| claims.pass(path, test))
        };
        if let Some(index) = self.claims.iter().position(|condition| !claim(condition)) {
            return Some(Mismatch::Claim(index));
        }
        self.without_claims.iter().position(claim).map(Mismatch::WithoutClaim)
    }

    /// Whether the conditions on the caller hold.
    pub fn concerns(&self, caller: Option<&Caller<'_>>) -> bool {
        caller_passes(&self.caller_labels, self.caller_namespace.as_deref(), caller)
    }

    /// Tells a person what did not hold.
    pub fn explain(&self, mismatch: Mismatch, request: &Request<'_>) -> String {
        let wanted = |test: &Option<TextMatch>| test.as_ref().map(ToString::to_string).unwrap_or_default();
        let header = |index: usize, list: &[(HeaderName, TextMatch)]| match list.get(index) {
            Some((name, test)) => {
                let found = header_values(request, name).next();
                let found = found.map_or("absent".to_owned(), |v| String::from_utf8_lossy(v).into_owned());
                (name.to_string(), test.to_string(), found)
            }
            None => Default::default(),
        };
        let claim = |index: usize, list: &[(Vec<Text>, TextMatch)]| match list.get(index) {
            Some((path, test)) => (path.join("."), test.to_string()),
            None => Default::default(),
        };
        match mismatch {
            Mismatch::Caller => "the caller's labels or namespace differ".to_owned(),
            Mismatch::Uri => format!("path is {}, wanted {}", request.path, wanted(&self.uri)),
            Mismatch::Scheme => format!("scheme is {}, wanted {}", request.scheme, wanted(&self.scheme)),
            Mismatch::Method => format!("method is {}, wanted {}", request.method, wanted(&self.method)),
            Mismatch::Authority => {
                format!("authority is {}, wanted {}", request.authority, wanted(&self.authority))
            }
            Mismatch::Header(index) => {
                let (name, test, found) = header(index, &self.headers);
                format!("header {name} is {found}, wanted {test}")
            }
            Mismatch::WithoutHeader(index) => {
                let (name, test, found) = header(index, &self.without_headers);
                format!("header {name} is {found}, must not be {test}")
            }
            Mismatch::Pseudo(index) | Mismatch::WithoutPseudo(index) => {
                let negated = matches!(mismatch, Mismatch::WithoutPseudo(_));
                let list = if negated { &self.without_pseudo } else { &self.pseudo };
                let Some((name, test)) = list.get(index) else { return String::new() };
                let found = name.value(request);
                let found = found.as_deref().unwrap_or("absent");
                let wanted = if negated { "must not be" } else { "wanted" };
                format!("header {name} is {found}, {wanted} {test}")
            }
            Mismatch::Query(index) => match self.query.get(index) {
                Some((name, test)) => {
                    let found = query_value(request.query, name).unwrap_or("absent");
                    format!("query parameter {name} is {found}, wanted {test}")
                }
                None => String::new(),
            },
            Mismatch::Claim(index) => {
                let (path, test) = claim(index, &self.claims);
                match request.claims {
                    Some(_) => format!("claim {path} does not pass {test}"),
                    None => format!("no token was validated, wanted claim {path} {test}"),
                }
            }
            Mismatch::WithoutClaim(index) => {
                let (path, test) = claim(index, &self.without_claims);
                format!("claim {path} passes {test} and must not")
            }
        }
    }
}

impl fmt::Display for RequestMatch {
    /// The conditions in words: `uri /a*, method GET, header end-user jason`; `anything` where there is none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> = Vec::new();
        let plain = [
            ("uri", &self.uri),
            ("scheme", &self.scheme),
            ("method", &self.method),
            ("authority", &self.authority),
        ];
        words.extend(plain.into_iter().filter_map(|(name, test)| Some(format!("{name} {}", test.as_ref()?))));
        words.extend(self.headers.iter().map(|(name, test)| format!("header {name} {test}")));
        words.extend(self.without_headers.iter().map(|(name, test)| format!("without header {name} {test}")));
        words.extend(self.pseudo.iter().map(|(name, test)| format!("header {name} {test}")));
        words.extend(self.without_pseudo.iter().map(|(name, test)| format!("without header {name} {test}")));
        words.extend(self.query.iter().map(|(name, test)| format!("query parameter {name} {test}")));
        words.extend(self.claims.iter().map(|(path, test)| format!("claim {} {test}", path.join("."))));
        let without = self.without_claims.iter();
        words.extend(without.map(|(path, test)| format!("without claim {} {test}", path.join("."))));
        caller_words(&self.caller_labels, self.caller_namespace.as_deref(), &mut words);
        write_words(f, &words)
    }
}

/// The conditions on a caller, in words.
pub(crate) fn caller_words(labels: &Labels, namespace: Option<&str>, words: &mut Vec<String>) {
    words.extend(labels.iter().map(|(key, value)| format!("caller's label {key} {value}")));
    words.extend(namespace.map(|namespace| format!("caller's namespace {namespace}")));
}

pub(crate) fn write_words(f: &mut fmt::Formatter<'_>, words: &[String]) -> fmt::Result {
    if words.is_empty() { f.write_str("anything") } else { f.write_str(&words.join(", ")) }
}

/// Whether a caller has the labels and the namespace that a rule demands. An unknown caller has neither.
pub(crate) fn caller_passes(labels: &Labels, namespace: Option<&str>, caller: Option<&Caller<'_>>) -> bool {
    if labels.is_empty() && namespace.is_none() {
        return true;
    }
    let Some(caller) = caller else { return false };
    namespace.is_none_or(|wanted| wanted == caller.namespace) && labels.selects(caller.labels)
}

fn header_passes(request: &Request<'_>, name: &HeaderName, test: &TextMatch) -> bool {
    header_values(request, name).any(|value| test.matches(value))
}

/// The values of a header field. `Host` is the authority, wherever it came from.
pub(crate) fn header_values<'r>(request: &Request<'r>, name: &HeaderName) -> impl Iterator<Item = &'r [u8]> {
    let is_host = *name == http::header::HOST;
    let authority = is_host.then_some(request.authority.as_bytes());
    let fields = request.headers.get_all(name).into_iter();
    authority.into_iter().chain(fields.filter(move |_| !is_host).map(|value| value.as_bytes()))
}

/// The raw value of the first query parameter of that name; empty for `?a`.
pub fn query_value<'q>(query: Option<&'q str>, name: &str) -> Option<&'q str> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        map
    }

    fn passes(condition: &RequestMatch, path: &str, query: Option<&str>, fields: &[(&str, &str)]) -> bool {
        let headers = headers(fields);
        let request = Request {
            method: "GET",
            scheme: "http",
            authority: "a:80",
            path,
            query,
            headers: &headers,
            claims: None,
        };
        condition.mismatch(&request, None).is_none()
    }

    fn header(name: &'static str, test: TextMatch) -> Vec<(HeaderName, TextMatch)> {
        vec![(HeaderName::from_static(name), test)]
    }

    #[test]
    fn a_proxy_before_says_what_the_scheme_was() {
        let check = |text: Option<&'static str>, expected: &str| {
            assert_eq!(forwarded_scheme(text.map(HeaderValue::from_static).as_ref()), expected, "{text:?}");
        };
        check(None, "http");
        check(Some("HTTPS"), "https");
        check(Some("ftp"), "http");
    }

    #[test]
    fn any_value_of_a_header_is_enough() {
        let jason = RequestMatch {
            headers: header("end-user", TextMatch::Exact("jason".into())),
            ..Default::default()
        };
        assert!(passes(&jason, "/", None, &[("end-user", "jason")]));
        assert!(passes(&jason, "/", None, &[("end-user", "x"), ("end-user", "jason")]));
        assert!(!passes(&jason, "/", None, &[("end-user", "x,jason")]));
        assert!(!passes(&jason, "/", None, &[]));
    }

    #[test]
    fn a_negated_header_may_be_missing() {
        let not_a =
            RequestMatch { without_headers: header("x", TextMatch::Exact("a".into())), ..Default::default() };
        assert!(passes(&not_a, "/", None, &[]));
        assert!(!passes(&not_a, "/", None, &[("x", "b"), ("x", "a")]));
        let absent = RequestMatch { without_headers: header("x", TextMatch::Present), ..Default::default() };
        assert!(passes(&absent, "/", None, &[]));
        assert!(!passes(&absent, "/", None, &[("x", "")]));
    }

    #[test]
    fn query_values_are_raw_and_the_first_counts() {
        let check = |test: TextMatch, query: Option<&str>, expected: bool| {
            let condition = RequestMatch { query: vec![("a".into(), test.clone())], ..Default::default() };
            assert_eq!(passes(&condition, "/", query, &[]), expected, "{test} {query:?}");
        };
        check(TextMatch::Exact("x%20y".into()), Some("a=x%20y"), true);
        check(TextMatch::Exact("x y".into()), Some("a=x%20y"), false);
        check(TextMatch::Present, Some("a"), true);
        check(TextMatch::Present, Some("b=a"), false);
        check(TextMatch::Exact("1".into()), Some("a=2&a=1"), false);
        check(TextMatch::Present, None, false);
    }

    #[test]
    fn claims_need_a_validated_token() {
        let group = |test: &str| (vec![Text::from("groups")], TextMatch::Exact(test.into()));
        let claims: Claims =
            [("groups", crate::matching::claims::Claim::List(vec!["dev".into()]))].into_iter().collect();
        let headers = HeaderMap::new();
        let check = |condition: &RequestMatch, claims: Option<&Claims>, expected: bool| {
            let request = Request {
                method: "GET",
                scheme: "http",
                authority: "a",
                path: "/",
                query: None,
                headers: &headers,
                claims,
            };
            assert_eq!(condition.mismatch(&request, None).is_none(), expected, "{condition} {claims:?}");
        };
        let wanted = RequestMatch { claims: vec![group("dev")], ..Default::default() };
        check(&wanted, Some(&claims), true);
        check(&wanted, None, false);
        let unwanted = RequestMatch { without_claims: vec![group("dev")], ..Default::default() };
        check(&unwanted, Some(&claims), false);
        check(&unwanted, None, true);
    }
}
