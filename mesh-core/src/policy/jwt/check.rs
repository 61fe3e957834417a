//! Whether the tokens of a request are good, and what is known of it then.

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderMap, Method};

use super::error::TokenError;
use super::forward::Forwarding;
use super::keys::KeySet;
use super::place::{Place, places};
use super::token::Token;
use super::{JwtRule, Keys, TokenPolicy};
use crate::matching::claims::Claims;
use crate::matching::request::Request;
use crate::policy::principal;

/// A policy on tokens with its keys, ready to check with.
#[derive(Debug)]
pub struct TokenRules {
    policy: TokenPolicy,
    rules: Vec<Prepared>,
}

#[derive(Debug)]
struct Prepared {
    places: Vec<Place>,
    audiences: Vec<String>,
    keys: KeySet,
}

impl PartialEq for TokenRules {
    /// All else is made of the policy.
    fn eq(&self, other: &TokenRules) -> bool {
        self.policy == other.policy
    }
}

impl Eq for TokenRules {}

impl TokenRules {
    /// Reads the keys of a policy.
    pub fn new(policy: TokenPolicy) -> TokenRules {
        let prepared = policy.rules.iter().map(|rule| Prepared {
            places: places(rule),
            audiences: rule.audiences.iter().map(|audience| bare(audience).to_owned()).collect(),
            keys: match &rule.keys {
                Keys::Inline(set) => KeySet::parse(set),
                Keys::Uri(_) | Keys::Discovery => KeySet::NotFetched,
            },
        });
        TokenRules { rules: prepared.collect(), policy }
    }

    /// What it was made of.
    pub fn policy(&self) -> &TokenPolicy {
        &self.policy
    }

    fn each(&self) -> impl Iterator<Item = Candidate<'_>> {
        self.policy.rules.iter().zip(&self.rules).map(|(rule, prepared)| Candidate { rule, prepared })
    }
}

/// What is known of a request whose tokens are good, or that has none.
#[derive(Debug, Default)]
pub struct Authenticated {
    /// Claims of its token; `None` where there is none.
    pub claims: Option<Claims>,
    /// Header fields as they go on; `None` if they stay.
    pub headers: Option<HeaderMap>,
    /// Query as it goes on, may be empty; `None` if it stays.
    pub query: Option<String>,
}

impl Authenticated {
    /// `ISSUER/SUBJECT` of its token.
    pub fn principal(&self) -> Option<String> {
        self.claims.as_ref().and_then(principal::of)
    }
}

/// Where the keys of a rule should have come from, if they are not at hand and a token of this request needs them.
pub fn unfetched<'p>(policies: &'p [Arc<TokenRules>], request: &Request<'_>) -> Option<&'p JwtRule> {
    let candidates = policies.iter().flat_map(|policy| policy.each());
    let mut waiting = candidates.filter(|candidate| matches!(candidate.prepared.keys, KeySet::NotFetched));
    waiting.find(|candidate| !candidate.tokens(request).is_empty()).map(|candidate| candidate.rule)
}

/// Checks the tokens of a request at a time in seconds since 1970. It passes if some rule accepts all that it finds,
/// if every token is accepted by a rule that reads its place, or if there is none and none is demanded.
pub fn authenticate(
    policies: &[Arc<TokenRules>],
    request: &Request<'_>,
    now: u64,
) -> Result<Authenticated, TokenError> {
    let mut forwarding = Forwarding::default();
    forwarding.sanitize(request, policies.iter().flat_map(|policy| &policy.policy.rules));
    if is_preflight(request) {
        return Ok(pass(None, forwarding));
    }
    let candidates: Vec<Candidate<'_>> = policies.iter().flat_map(|policy| policy.each()).collect();
    let mut found = Vec::with_capacity(candidates.len());
    for candidate in &candidates {
        let tokens = candidate.tokens(request);
        match candidate.accept_all(&tokens, now) {
            Ok(accepted) => {
                // The last that is looked at counts, and Envoy begins at the end.
                for ((place, _), token) in tokens.iter().zip(&accepted).rev() {
                    forwarding.accept(request, candidate.rule, place, token);
                }
                let claims = accepted.first().map(|token| token.conditions(&candidate.rule.space_delimited));
                return Ok(pass(claims, forwarding));
            }
            Err(error) => found.push((tokens, error)),
        }
    }
    if let Some(passed) = each_at_its_place(&candidates, &found, request, now, &mut forwarding) {
        return Ok(pass(passed, forwarding));
    }
    let demanded = candidates.iter().any(|candidate| candidate.rule.required);
    if found.iter().all(|(tokens, _)| tokens.is_empty()) {
        return if demanded { Err(TokenError::Missing) } else { Ok(pass(None, forwarding)) };
    }
    Err(blame(found.iter().map(|(tokens, error)| (!tokens.is_empty(), *error))))
}

fn pass(claims: Option<Claims>, forwarding: Forwarding) -> Authenticated {
    Authenticated { claims, headers: forwarding.headers, query: forwarding.query }
}

/// A browser asks before it sends, and sends no credentials with the question.
fn is_preflight(request: &Request<'_>) -> bool {
    let has = |name: &str| request.headers.get(name).is_some_and(|value| !value.is_empty());
    request.method == Method::OPTIONS.as_str() && has("origin") && has("access-control-request-method")
}

/// A rule with its keys.
#[derive(Debug, Clone, Copy)]
struct Candidate<'p> {
    rule: &'p JwtRule,
    prepared: &'p Prepared,
}

type Found<'p, 'r> = Vec<(&'p Place, Cow<'r, str>)>;

impl<'p> Candidate<'p> {
    fn tokens<'r>(&self, request: &Request<'r>) -> Found<'p, 'r> {
        let places = self.prepared.places.iter();
        places.flat_map(|place| place.tokens(request).into_iter().map(move |token| (place, token))).collect()
    }

    fn accept_all<'t>(&self, tokens: &'t Found<'_, '_>, now: u64) -> Result<Vec<Token<'t>>, TokenError> {
        if tokens.is_empty() {
            return Err(TokenError::Missing);
        }
        // The last is looked at first, as Envoy does: its error is the one that is told.
        let accepted: Result<Vec<_>, _> =
            tokens.iter().rev().map(|(_, token)| self.accept(token, now)).collect();
        accepted.map(|mut accepted| {
            accepted.reverse();
            accepted
        })
    }

    fn accept<'t>(&self, text: &'t str, now: u64) -> Result<Token<'t>, TokenError> {
        let token = Token::parse(text)?;
        if self.rule.issuer.as_ref().is_some_and(|issuer| **issuer != *token.issuer) {
            return Err(TokenError::UnknownIssuer);
        }
        token.check_time(now)?;
        let wanted = &self.prepared.audiences;
        let meant = |audience: &String| wanted.iter().any(|wanted| wanted == bare(audience));
        if !wanted.is_empty() && !token.audiences.iter().any(meant) {
            return Err(TokenError::Audience);
        }
        self.prepared.keys.verify(&token)?;
        Ok(token)
    }
}

/// An audience without its scheme and the slash at its end: with and without them it is the same.
fn bare(audience: &str) -> &str {
    let rest = audience.strip_prefix("https://").or_else(|| audience.strip_prefix("http://"));
    let rest = rest.unwrap_or(audience);
    rest.strip_suffix('/').unwrap_or(rest)
}

/// The claims of the first token, if each token is accepted by some rule that reads its place.
fn each_at_its_place(
    candidates: &[Candidate<'_>],
    found: &[(Found<'_, '_>, TokenError)],
    request: &Request<'_>,
    now: u64,
    forwarding: &mut Forwarding,
) -> Option<Option<Claims>> {
    let mut seen: Vec<(&Place, &str)> = Vec::new();
    for (place, token) in found.iter().flat_map(|(tokens, _)| tokens) {
        if !seen.contains(&(place, token)) {
            seen.push((place, token));
        }
    }
    if seen.len() < 2 {
        return None;
    }
    let mut accepted = Vec::with_capacity(seen.len());
    for (place, text) in seen {
        let mut readers = candidates.iter().filter(|candidate| candidate.prepared.places.contains(place));
        let token = readers.find_map(|reader| Some((place, reader, reader.accept(text, now).ok()?)))?;
        accepted.push(token);
    }
    for (place, reader, token) in accepted.iter().rev() {
        forwarding.accept(request, reader.rule, place, token);
    }
    let first = accepted.first();
    Some(first.map(|(_, reader, token)| token.conditions(&reader.rule.space_delimited)))
}

/// The error that is told where every rule has one: that there is none, or an unknown issuer, only where nothing else
/// is wrong; of the others that of the first rule that found a token, or else the last.
fn blame(errors: impl Iterator<Item = (bool, TokenError)>) -> TokenError {
    let plain = |error| matches!(error, TokenError::Missing | TokenError::UnknownIssuer);
    let (mut told, mut first) = (TokenError::Missing, None);
    for (present, error) in errors {
        if present {
            first = first.or(Some(error));
        }
        if !plain(error) || told == TokenError::Missing {
            told = error;
        }
    }
    first.filter(|error| !plain(*error)).unwrap_or(told)
}
