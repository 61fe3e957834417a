//! Tokens checked: signatures of every kind, places, times, audiences, several rules, what goes on.

use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, KeyPair as _};
use aws_lc_rs::{hmac, rsa};
use base64::Engine as _;
use http::HeaderMap;
use serde_json::{Value, json};

use super::check::{Authenticated, TokenRules, authenticate};
use super::error::TokenError;
use super::token::BASE64;
use super::{JwtRule, Keys, TokenPolicy};
use crate::matching::request::Request;
use crate::matching::text::TextMatch;
use crate::vocab::name::Text;

const NOW: u64 = 1_800_000_000;

/// A key that signs, with its public half as a JSON Web Key.
struct Signer {
    algorithm: &'static str,
    key: Secret,
    public: Value,
}

enum Secret {
    Rsa(signature::RsaKeyPair, &'static dyn signature::RsaEncoding),
    Ec(signature::EcdsaKeyPair),
    Ed(signature::Ed25519KeyPair),
    Mac(Box<hmac::Key>),
}

impl Signer {
    fn rsa(algorithm: &'static str) -> Signer {
        let key = rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
        let encoding: &dyn signature::RsaEncoding = match algorithm {
            "RS256" => &signature::RSA_PKCS1_SHA256,
            "RS384" => &signature::RSA_PKCS1_SHA384,
            "RS512" => &signature::RSA_PKCS1_SHA512,
            "PS256" => &signature::RSA_PSS_SHA256,
            "PS384" => &signature::RSA_PSS_SHA384,
            _ => &signature::RSA_PSS_SHA512,
        };
        let number = |bytes: &[u8]| BASE64.encode(bytes).trim_end_matches('=').to_owned();
        // RSAPublicKey of 2048 bits: headers and a zero, the modulus, then 65537.
        let modulus = number(&key.public_key().as_ref()[9..265]);
        let exponent = number(&[1, 0, 1]);
        Signer {
            algorithm,
            key: Secret::Rsa(key, encoding),
            public: json!({"kty": "RSA", "n": modulus, "e": exponent}),
        }
    }

    fn ec(algorithm: &'static str) -> Signer {
        let (signing, curve) = match algorithm {
            "ES256" => (&signature::ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"),
            "ES384" => (&signature::ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"),
            _ => (&signature::ECDSA_P521_SHA512_FIXED_SIGNING, "P-521"),
        };
        let key = signature::EcdsaKeyPair::generate(signing).unwrap();
        let point = &key.public_key().as_ref()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        let public = json!({"kty": "EC", "crv": curve, "x": BASE64.encode(x), "y": BASE64.encode(y)});
        Signer { algorithm, key: Secret::Ec(key), public }
    }

    fn ed() -> Signer {
        let key = signature::Ed25519KeyPair::generate().unwrap();
        let public = json!({"kty": "OKP", "crv": "Ed25519", "x": BASE64.encode(key.public_key().as_ref())});
        Signer { algorithm: "EdDSA", key: Secret::Ed(key), public }
    }

    fn mac(algorithm: &'static str) -> Signer {
        let secret = b"a secret that is long enough for any of these";
        let kind = match algorithm {
            "HS256" => hmac::HMAC_SHA256,
            "HS384" => hmac::HMAC_SHA384,
            _ => hmac::HMAC_SHA512,
        };
        let public = json!({"kty": "oct", "k": BASE64.encode(secret)});
        Signer { algorithm, key: Secret::Mac(Box::new(hmac::Key::new(kind, secret))), public }
    }

    fn sign(&self, text: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.key {
            Secret::Rsa(key, encoding) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(*encoding, &random, text, &mut signature).unwrap();
                signature
            }
            Secret::Ec(key) => key.sign(&random, text).unwrap().as_ref().to_vec(),
            Secret::Ed(key) => key.sign(text).as_ref().to_vec(),
            Secret::Mac(key) => hmac::sign(key, text).as_ref().to_vec(),
        }
    }

    /// A token of these claims; `header` is laid over `alg`.
    fn token_with(&self, header: &Value, claims: &Value) -> String {
        let mut fields = json!({"alg": self.algorithm});
        for (name, value) in header.as_object().unwrap() {
            fields[name] = value.clone();
        }
        let section = |value: &Value| BASE64.encode(value.to_string()).trim_end_matches('=').to_owned();
        let signed = format!("{}.{}", section(&fields), section(claims));
        let signature = BASE64.encode(self.sign(signed.as_bytes()));
        format!("{signed}.{}", signature.trim_end_matches('='))
    }

    fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({}), claims)
    }

    fn set(&self) -> String {
        json!({"keys": [self.public]}).to_string()
    }
}

fn claims() -> Value {
    json!({"iss": "issuer", "sub": "ann", "aud": "shop", "exp": NOW + 300})
}

fn rule(keys: &str) -> JwtRule {
    JwtRule {
        issuer: Some("issuer".into()),
        audiences: Vec::new(),
        keys: Keys::Inline(keys.into()),
        from_headers: Vec::new(),
        from_params: Vec::new(),
        from_cookies: Vec::new(),
        payload_header: None,
        claim_headers: Vec::new(),
        forward_original: false,
        space_delimited: Vec::new(),
        timeout: None,
        required: false,
    }
}

fn rules(rules: Vec<JwtRule>) -> Vec<Arc<TokenRules>> {
    let policy = TokenPolicy { namespace: "default".into(), name: "p".into(), rules };
    vec![Arc::new(TokenRules::new(policy))]
}

fn header_map(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
    }
    headers
}

/// Checks a request with these header fields and this query.
fn ask(
    policies: &[Arc<TokenRules>],
    fields: &[(&str, &str)],
    query: Option<&str>,
) -> Result<Authenticated, TokenError> {
    let headers = header_map(fields);
    let request = Request {
        method: "GET",
        scheme: "http",
        authority: "shop",
        path: "/",
        query,
        headers: &headers,
        claims: None,
    };
    authenticate(policies, &request, NOW)
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn with(rule_: JwtRule, token: &str) -> Result<Option<String>, TokenError> {
    ask(&rules(vec![rule_]), &[("authorization", &bearer(token))], None).map(|found| found.principal())
}

#[test]
fn every_algorithm() {
    let signers = [
        Signer::rsa("RS256"),
        Signer::rsa("RS384"),
        Signer::rsa("RS512"),
        Signer::rsa("PS256"),
        Signer::rsa("PS384"),
        Signer::rsa("PS512"),
        Signer::ec("ES256"),
        Signer::ec("ES384"),
        Signer::ec("ES512"),
        Signer::ed(),
        Signer::mac("HS256"),
        Signer::mac("HS384"),
        Signer::mac("HS512"),
    ];
    for signer in &signers {
        let token = signer.token(&claims());
        let name = signer.algorithm;
        assert_eq!(with(rule(&signer.set()), &token), Ok(Some("issuer/ann".to_owned())), "{name}");
        // One byte of the payload turned over.
        let mut sections: Vec<&str> = token.split('.').collect();
        let other = BASE64.encode(json!({"iss": "issuer", "sub": "eve", "exp": NOW + 300}).to_string());
        sections[1] = other.trim_end_matches('=');
        assert_eq!(with(rule(&signer.set()), &sections.join(".")), Err(TokenError::Signature), "{name}");
    }
    let other = Signer::rsa("RS256");
    assert_eq!(with(rule(&other.set()), &signers[0].token(&claims())), Err(TokenError::Signature));
    // A public key is no shared secret.
    let forged = Signer::mac("HS256").token(&claims());
    assert_eq!(with(rule(&signers[0].set()), &forged), Err(TokenError::Signature));
    let short = signers[9].token(&claims());
    let (head, _) = short.rsplit_once('.').unwrap();
    assert_eq!(with(rule(&signers[9].set()), &format!("{head}.AAAA")), Err(TokenError::SignatureLength));
}

#[test]
fn keys_by_name_and_algorithm() {
    let signer = Signer::ec("ES256");
    let key = |name: Option<&str>, algorithm: Option<&str>| {
        let mut key = signer.public.clone();
        if let Some(name) = name {
            key["kid"] = name.into();
        }
        if let Some(algorithm) = algorithm {
            key["alg"] = algorithm.into();
        }
        key
    };
    let set = |keys: Vec<Value>| json!({ "keys": keys }).to_string();
    let named = |name: &str| signer.token_with(&json!({ "kid": name }), &claims());
    let check = |keys: Vec<Value>, token: &str, expected: Result<(), TokenError>| {
        assert_eq!(with(rule(&set(keys.clone())), token).map(|_| ()), expected, "{keys:?} {token}");
    };
    check(vec![key(Some("a"), None)], &named("a"), Ok(()));
    check(vec![key(Some("a"), None)], &named("b"), Err(TokenError::NoSuchKey));
    check(vec![key(None, None)], &named("b"), Ok(()));
    check(vec![key(Some("a"), None)], &signer.token(&claims()), Ok(()));
    check(vec![key(Some("a"), Some("ES256"))], &named("a"), Ok(()));
    let other = Signer::ec("ES256").public;
    check(vec![other, key(None, None)], &signer.token(&claims()), Ok(()));
    check(vec![json!({"kty": "other"}), json!(7), key(None, None)], &signer.token(&claims()), Ok(()));
    check(vec![], &signer.token(&claims()), Err(TokenError::NoKeys));
    assert_eq!(with(rule("no json"), &signer.token(&claims())), Err(TokenError::NoKeys));
}

#[test]
fn keys_that_are_not_at_hand_verify_nothing() {
    let signer = Signer::ec("ES256");
    for keys in [Keys::Uri("https://issuer/keys".into()), Keys::Discovery] {
        let waiting = JwtRule { keys, ..rule("") };
        assert_eq!(with(waiting.clone(), &signer.token(&claims())), Err(TokenError::Signature));
        let named = signer.token_with(&json!({"kid": "k1"}), &claims());
        assert_eq!(with(waiting.clone(), &named), Err(TokenError::NoSuchKey));
        assert!(ask(&rules(vec![waiting]), &[], None).is_ok());
    }
}

#[test]
fn what_is_wrong_with_a_token() {
    let signer = Signer::ec("ES256");
    let token = |extra: Value| {
        let mut all = claims();
        for (name, value) in extra.as_object().unwrap() {
            all[name] = value.clone();
        }
        signer.token(&all)
    };
    let check = |rule_: JwtRule, token: &str, expected: Result<(), TokenError>| {
        assert_eq!(with(rule_, token).map(|_| ()), expected, "{token}");
    };
    let plain = || rule(&signer.set());
    check(plain(), &token(json!({})), Ok(()));
    check(plain(), &token(json!({"exp": NOW - 60})), Ok(()));
    check(plain(), &token(json!({"exp": NOW - 61})), Err(TokenError::Expired));
    check(plain(), &token(json!({"nbf": NOW + 60})), Ok(()));
    check(plain(), &token(json!({"nbf": NOW + 61})), Err(TokenError::NotYetValid));
    check(plain(), &signer.token(&json!({"iss": "issuer"})), Ok(()));
    check(plain(), &token(json!({"exp": "soon"})), Err(TokenError::ExpiryType));
    check(plain(), &token(json!({"exp": -1})), Err(TokenError::ExpiryRange));
    check(plain(), &token(json!({"nbf": []})), Err(TokenError::NotBeforeType));
    check(plain(), &token(json!({"iat": "x"})), Err(TokenError::IssuedType));
    check(plain(), &token(json!({"iss": 1})), Err(TokenError::IssuerType));
    check(plain(), &token(json!({"sub": 1})), Err(TokenError::SubjectType));
    check(plain(), &token(json!({"jti": 1})), Err(TokenError::NameType));
    check(plain(), &token(json!({"aud": 1})), Err(TokenError::AudienceType));
    check(plain(), &token(json!({"iss": "other"})), Err(TokenError::UnknownIssuer));
    let any_issuer = JwtRule { issuer: None, ..plain() };
    check(any_issuer, &token(json!({"iss": "other"})), Ok(()));
    // The issuer is looked at first, then the time, then the audience, then the signature.
    check(plain(), &token(json!({"iss": "other", "exp": 1})), Err(TokenError::UnknownIssuer));
    let picky = || JwtRule { audiences: vec!["shop".into(), "https://bank/".into()], ..plain() };
    check(picky(), &token(json!({})), Ok(()));
    check(picky(), &token(json!({"aud": "shop/"})), Ok(()));
    check(picky(), &token(json!({"aud": ["x", "http://bank"]})), Ok(()));
    check(picky(), &token(json!({"aud": "shopping"})), Err(TokenError::Audience));
    check(picky(), &token(json!({"aud": []})), Err(TokenError::Audience));
    let without = signer.token(&json!({"iss": "issuer", "sub": "ann"}));
    check(picky(), &without, Err(TokenError::Audience));
    check(picky(), &token(json!({"aud": "x", "exp": 1})), Err(TokenError::Expired));
    let header = |fields: Value| signer.token_with(&fields, &claims());
    check(plain(), &header(json!({"alg": "none"})), Err(TokenError::AlgorithmUnknown));
    check(plain(), &header(json!({"alg": "es256"})), Err(TokenError::AlgorithmUnknown));
    check(plain(), &header(json!({"alg": 1})), Err(TokenError::AlgorithmMissing));
    check(plain(), &header(json!({"kid": 1})), Err(TokenError::KeyName));
    check(plain(), "abc", Err(TokenError::Form));
    check(plain(), "a..c", Err(TokenError::Form));
    check(plain(), "a.b.c.d", Err(TokenError::Form));
    check(plain(), "a.b.c", Err(TokenError::HeaderEncoding));
    check(plain(), "YQ.b.c", Err(TokenError::HeaderJson));
    let good = token(json!({}));
    let sections: Vec<&str> = good.split('.').collect();
    check(plain(), &format!("{}.a.x", sections[0]), Err(TokenError::PayloadEncoding));
    check(plain(), &format!("{}.YQ.x", sections[0]), Err(TokenError::PayloadJson));
    check(plain(), &format!("{}.{}.a", sections[0], sections[1]), Err(TokenError::SignatureEncoding));
    // A token ends where no character of one follows.
    check(plain(), &format!("{good}, more"), Ok(()));
    check(plain(), &format!("{}.{}.+", sections[0], sections[1]), Err(TokenError::Form));
}

#[test]
fn statuses_and_challenges() {
    assert_eq!((TokenError::Expired.status(), TokenError::Audience.status()), (401, 403));
    let uri = "http://shop/a?b";
    let invalid = r#"Bearer realm="http://shop/a?b", error="invalid_token""#;
    assert_eq!(TokenError::Expired.challenge(uri), invalid);
    assert_eq!(TokenError::Missing.challenge(uri), r#"Bearer realm="http://shop/a?b""#);
}

#[test]
fn where_tokens_are_found() {
    let signer = Signer::ec("ES256");
    let token = signer.token(&claims());
    let plain = || rule(&signer.set());
    let check = |rule_: JwtRule, fields: &[(&str, &str)], query: Option<&str>, found: bool| {
        let got = ask(&rules(vec![rule_]), fields, query).map(|got| got.principal().is_some());
        assert_eq!(got, Ok(found), "{fields:?} {query:?}");
    };
    let bearer = bearer(&token);
    check(plain(), &[], None, false);
    check(plain(), &[("authorization", &bearer)], None, true);
    check(plain(), &[("authorization", "Basic abc")], None, false);
    check(plain(), &[("authorization", &format!("bearer {token}"))], None, false);
    check(plain(), &[("authorization", &format!("x Bearer   {token}"))], None, true);
    check(plain(), &[], Some(&format!("a=b&access_token={token}")), true);
    check(plain(), &[], Some(&format!("access%5Ftoken={token}")), true);
    check(plain(), &[], Some(&format!("token={token}")), false);
    let header = || JwtRule { from_headers: vec![("x-token".into(), "T ".into())], ..plain() };
    check(header(), &[("authorization", &bearer)], None, false);
    check(header(), &[("x-token", &format!("T {token}"))], None, true);
    check(header(), &[("x-token", &token)], None, false);
    let bare = || JwtRule { from_headers: vec![("x-token".into(), "".into())], ..plain() };
    check(bare(), &[("x-token", &token)], None, true);
    let parameter = || JwtRule { from_params: vec!["t".into()], ..plain() };
    check(parameter(), &[], Some(&format!("t={token}")), true);
    check(parameter(), &[], Some(&format!("access_token={token}")), false);
    let cookie = || JwtRule { from_cookies: vec!["t".into()], ..plain() };
    check(cookie(), &[("cookie", &format!("a=b; t={token}"))], None, true);
    check(cookie(), &[("cookie", &format!("tt={token}"))], None, false);
    // Every token at a rule's places must be good.
    let two = [("authorization", bearer.as_str()), ("authorization", "Bearer bad")];
    assert_eq!(ask(&rules(vec![plain()]), &two, None).map(|_| ()), Err(TokenError::Form));
    let both = ask(&rules(vec![plain()]), &[("authorization", &bearer)], Some("access_token=bad"));
    assert_eq!(both.map(|_| ()), Err(TokenError::Form));
}

#[test]
fn several_rules() {
    let (one, two) = (Signer::ec("ES256"), Signer::ec("ES256"));
    let of = |issuer: &str| json!({"iss": issuer, "sub": "ann", "exp": NOW + 300});
    let first = || JwtRule { issuer: Some("one".into()), ..rule(&one.set()) };
    let second = || JwtRule { issuer: Some("two".into()), ..rule(&two.set()) };
    let elsewhere = || JwtRule { from_headers: vec![("x-two".into(), "".into())], ..second() };
    let (good_one, good_two) = (bearer(&one.token(&of("one"))), two.token(&of("two")));
    let principal = |list: Vec<JwtRule>, fields: &[(&str, &str)], query: Option<&str>| {
        ask(&rules(list), fields, query).map(|got| got.principal())
    };
    let some = |text: &str| Ok(Some(text.to_owned()));
    // Any rule that accepts is enough.
    assert_eq!(principal(vec![first(), second()], &[("authorization", &good_one)], None), some("one/ann"));
    assert_eq!(
        principal(vec![first(), second()], &[("authorization", &bearer(&good_two))], None),
        some("two/ann")
    );
    assert_eq!(principal(vec![first(), elsewhere()], &[("x-two", &good_two)], None), some("two/ann"));
    let mixed = [("authorization", "Bearer bad"), ("x-two", &good_two)];
    assert_eq!(principal(vec![first(), elsewhere()], &mixed, None), some("two/ann"));
    // Each token good for one of the rules that read its place.
    let query = format!("access_token={good_two}");
    assert_eq!(
        principal(vec![first(), second()], &[("authorization", &good_one)], Some(&query)),
        some("one/ann")
    );
    // What is told where none accepts.
    let unknown = bearer(&one.token(&of("three")));
    let both = vec![first(), second()];
    assert_eq!(principal(both, &[("authorization", &unknown)], None), Err(TokenError::UnknownIssuer));
    let expired = bearer(&two.token(&json!({"iss": "two", "exp": 1})));
    let both = vec![first(), second()];
    assert_eq!(principal(both, &[("authorization", &expired)], None), Err(TokenError::Expired));
    assert_eq!(principal(vec![first(), elsewhere()], &[("x-two", "bad")], None), Err(TokenError::Form));
    // A token is demanded.
    let demanded = || JwtRule { required: true, ..first() };
    assert_eq!(principal(vec![demanded()], &[], None), Err(TokenError::Missing));
    assert_eq!(principal(vec![demanded(), elsewhere()], &[("x-two", &good_two)], None), some("two/ann"));
}

#[test]
fn what_goes_on() {
    let signer = Signer::ec("ES256");
    let claims = json!({
        "iss": "issuer", "sub": "ann", "exp": NOW + 300, "level": 7, "ratio": 0.5, "admin": true,
        "list": ["a"], "inner": {"team": "blue"}, "empty": "",
    });
    let token = signer.token(&claims);
    let names = ["sub", "level", "ratio", "admin", "list", "inner.team", "empty", "nothing"];
    let outputs =
        names.iter().map(|name| (Text::from(format!("x-{}", name.replace('.', "-"))), Text::from(*name)));
    let writing = || JwtRule {
        payload_header: Some("x-payload".into()),
        claim_headers: outputs.clone().collect(),
        ..rule(&signer.set())
    };
    let fields = [
        ("authorization", bearer(&token)),
        ("x-sub", "eve".to_owned()),
        ("x-nothing", "forged".to_owned()),
        ("x-payload", "forged".to_owned()),
        ("other", "stays".to_owned()),
    ];
    let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let got = ask(&rules(vec![writing()]), &fields, None).unwrap();
    let headers = got.headers.unwrap();
    let value = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
    assert_eq!(value("authorization"), None);
    assert_eq!(value("x-payload"), token.split('.').nth(1));
    for (name, expected) in [
        ("x-sub", Some("ann")),
        ("x-level", Some("7")),
        ("x-ratio", Some("0.500000")),
        ("x-admin", Some("true")),
        ("x-list", None),
        ("x-inner-team", Some("blue")),
        ("x-empty", None),
        ("x-nothing", None),
        ("other", Some("stays")),
    ] {
        assert_eq!(value(name), expected, "{name}");
    }
    // Without a token the client's copies are taken away too.
    let got = ask(&rules(vec![writing()]), &[("x-sub", "eve"), ("other", "stays")], None).unwrap();
    let headers = got.headers.unwrap();
    assert!(!headers.contains_key("x-sub") && headers.contains_key("other"));
    assert!(ask(&rules(vec![writing()]), &[("other", "stays")], None).unwrap().headers.is_none());
    let forwarding = JwtRule { forward_original: true, ..rule(&signer.set()) };
    let got = ask(&rules(vec![forwarding]), &[("authorization", &bearer(&token))], None).unwrap();
    assert!(got.headers.is_none());
    let query = format!("a=b&access_token={token}&c");
    let got = ask(&rules(vec![rule(&signer.set())]), &[], Some(&query)).unwrap();
    assert_eq!(got.query.as_deref(), Some("a=b&c"));
}

#[test]
fn claims_for_conditions() {
    let signer = Signer::ec("ES256");
    let claims = json!({
        "iss": "issuer", "sub": "ann", "scope": "read write", "roles": "a b", "groups": ["x", 7],
        "level": 7, "inner": {"list": ["deep"]},
    });
    let listed = JwtRule { space_delimited: vec!["roles".into()], ..rule(&signer.set()) };
    let fields = [("authorization", &*bearer(&signer.token(&claims)))];
    let found = ask(&rules(vec![listed]), &fields, None).unwrap().claims.unwrap();
    for (path, value, expected) in [
        (&["scope"][..], "write", true),
        (&["scope"], "read write", false),
        (&["roles"], "b", true),
        (&["groups"], "x", true),
        (&["groups"], "7", false),
        (&["level"], "7", false),
        (&["inner", "list"], "deep", true),
        (&["sub"], "ann", true),
    ] {
        let names: Vec<Text> = path.iter().map(|name| Text::from(*name)).collect();
        assert_eq!(found.pass(&names, &TextMatch::Exact(value.into())), expected, "{path:?} {value}");
    }
}

#[test]
fn a_preflight_needs_no_token() {
    let signer = Signer::ec("ES256");
    let demanded = rules(vec![JwtRule { required: true, ..rule(&signer.set()) }]);
    let check = |method: &str, fields: &[(&str, &str)], passes: bool| {
        let headers = header_map(fields);
        let request = Request {
            method,
            scheme: "http",
            authority: "shop",
            path: "/",
            query: None,
            headers: &headers,
            claims: None,
        };
        assert_eq!(authenticate(&demanded, &request, NOW).is_ok(), passes, "{method} {fields:?}");
    };
    let asking = [("origin", "http://a"), ("access-control-request-method", "PUT")];
    check("OPTIONS", &asking, true);
    check("GET", &asking, false);
    check("OPTIONS", &asking[..1], false);
}
