//! Cross-origin requests (VirtualService `corsPolicy`).

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::matching::text::TextMatch;
use crate::vocab::name::Text;

/// What a preflight from an origin that does not match gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum UnmatchedPreflights {
    /// It goes upstream. The default.
    #[default]
    Forward,
    /// It is answered without CORS fields.
    Ignore,
}

/// Which origins may read answers, and how.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct CorsPolicy {
    /// Origins.
    pub allow_origins: Vec<TextMatch>,
    /// Methods, joined by `,` in `access-control-allow-methods`.
    pub allow_methods: Vec<Text>,
    /// Header fields that requests may have.
    pub allow_headers: Vec<Text>,
    /// Header fields that scripts may read.
    pub expose_headers: Vec<Text>,
    /// Seconds that a preflight's answer may be kept.
    pub max_age: Option<u64>,
    /// Whether credentials may be sent.
    pub allow_credentials: bool,
    /// Preflights of other origins.
    pub unmatched_preflights: UnmatchedPreflights,
}

/// Header fields with their values.
pub type Fields = Vec<(HeaderName, HeaderValue)>;

/// What a policy says of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CorsVerdict {
    /// Nothing: it names no origin, or one that does not match.
    #[default]
    Unconcerned,
    /// It goes its way; its answer gets these fields in place of those that it has.
    Mark(Fields),
    /// The proxy answers it with 200, these fields and no body.
    Answer(Fields),
}

impl CorsPolicy {
    /// Judges a request. A preflight is OPTIONS with `origin` and `access-control-request-method`; whether the
    /// method that it asks for is allowed is left to the browser.
    pub fn judge(&self, method: &str, headers: &HeaderMap) -> CorsVerdict {
        let Some(origin) = headers.get(ORIGIN).filter(|origin| !origin.is_empty()) else {
            return CorsVerdict::Unconcerned;
        };
        let asks = headers.get(ACCESS_CONTROL_REQUEST_METHOD).is_some_and(|method| !method.is_empty());
        let preflight = method == "OPTIONS" && asks;
        let matches = self.allow_origins.iter().any(|test| test.matches(origin.as_bytes()));
        match (matches, preflight) {
            (true, true) => CorsVerdict::Answer(self.permission(origin)),
            (true, false) => CorsVerdict::Mark(self.mark(origin)),
            (false, true) if self.unmatched_preflights == UnmatchedPreflights::Ignore => {
                CorsVerdict::Answer(Fields::new())
            }
            (false, _) => CorsVerdict::Unconcerned,
        }
    }

    fn permission(&self, origin: &HeaderValue) -> Fields {
        let mut fields = self.origin(origin);
        push(&mut fields, ACCESS_CONTROL_ALLOW_METHODS, &self.allow_methods);
        push(&mut fields, ACCESS_CONTROL_ALLOW_HEADERS, &self.allow_headers);
        fields.extend(self.max_age.map(|age| (ACCESS_CONTROL_MAX_AGE, HeaderValue::from(age))));
        fields
    }

    fn mark(&self, origin: &HeaderValue) -> Fields {
        let mut fields = self.origin(origin);
        push(&mut fields, ACCESS_CONTROL_EXPOSE_HEADERS, &self.expose_headers);
        fields
    }

    /// The origin is echoed, never `*`.
    fn origin(&self, origin: &HeaderValue) -> Fields {
        let mut fields = vec![(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone())];
        if self.allow_credentials {
            fields.push((ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")));
        }
        fields
    }
}

fn push(fields: &mut Fields, name: HeaderName, list: &[Text]) {
    if let (false, Ok(value)) = (list.is_empty(), HeaderValue::from_str(&list.join(","))) {
        fields.push((name, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(policy: &CorsPolicy, method: &str, origin: &str, asks: &str) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in [(ORIGIN, origin), (ACCESS_CONTROL_REQUEST_METHOD, asks)] {
            if !value.is_empty() {
                headers.insert(name, value.parse().unwrap());
            }
        }
        let words = |fields: Fields| -> Vec<String> {
            let short = |name: &HeaderName| name.as_str()["access-control-".len()..].to_owned();
            fields
                .iter()
                .map(|(name, value)| format!("{}={}", short(name), value.to_str().unwrap()))
                .collect()
        };
        match policy.judge(method, &headers) {
            CorsVerdict::Unconcerned => "-".to_owned(),
            CorsVerdict::Mark(fields) => format!("mark {}", words(fields).join(" ")),
            CorsVerdict::Answer(fields) => format!("answer {}", words(fields).join(" ")),
        }
    }

    #[test]
    fn preflights_are_answered_and_other_requests_marked() {
        let mut policy = CorsPolicy {
            allow_origins: vec![TextMatch::Suffix(".example".into())],
            allow_methods: vec!["GET".into(), "POST".into()],
            allow_headers: vec!["x-a".into()],
            expose_headers: vec!["x-b".into(), "x-c".into()],
            max_age: Some(60),
            allow_credentials: true,
            ..CorsPolicy::default()
        };
        let check = |policy: &CorsPolicy, method: &str, origin: &str, asks: &str, expected: &str| {
            assert_eq!(judged(policy, method, origin, asks), expected, "{method} {origin} {asks}");
        };
        check(&policy, "GET", "", "", "-");
        check(&policy, "GET", "https://other", "", "-");
        let marked = "mark allow-origin=https://a.example allow-credentials=true expose-headers=x-b,x-c";
        check(&policy, "GET", "https://a.example", "", marked);
        check(&policy, "OPTIONS", "https://a.example", "", marked);
        let answered = "answer allow-origin=https://a.example allow-credentials=true allow-methods=GET,POST \
                        allow-headers=x-a max-age=60";
        check(&policy, "OPTIONS", "https://a.example", "DELETE", answered);
        check(&policy, "OPTIONS", "https://other", "GET", "-");
        policy.unmatched_preflights = UnmatchedPreflights::Ignore;
        check(&policy, "OPTIONS", "https://other", "GET", "answer ");
        check(&policy, "GET", "https://other", "GET", "-");
    }
}
