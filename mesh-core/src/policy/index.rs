//! Which of many rules can match at all: by what they demand of the caller or of what is called.

use std::borrow::Cow;
use std::collections::HashMap;

use foldhash::fast::FixedState;
use http::HeaderName;
use ipnet::IpNet;

use super::authorization::{AuthorizationRule, Condition, Operation, Source, Values};
use super::subject::{HttpSubject, Subject};
use super::words::{Buckets, Nets, Word, Words, push, push_once};
use crate::matching::path::PathMatch;
use crate::matching::text::TextMatch;
use crate::vocab::name::Text;

/// Rules by the most telling of their demands. A rule is found under each value of it, in order.
#[derive(Debug, Default)]
pub(super) struct RuleIndex {
    principals: Words,
    namespaces: Words,
    accounts: Buckets<Text>,
    trust_domains: Words,
    sources: Nets,
    remotes: Nets,
    names: Words,
    hosts: Words,
    methods: Words,
    paths: Words,
    ports: Buckets<u16>,
    fields: HashMap<HeaderName, Field, FixedState>,
    /// Rules that none of this tells apart.
    rest: Vec<u32>,
}

/// Rules by the value of a header field, and those that want it there.
#[derive(Debug, Default)]
struct Field {
    values: Words,
    present: Vec<u32>,
}

/// One value that a rule demands, of which it demands any.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Principal(Word),
    Namespace(Word),
    Account(Text),
    TrustDomain(Word),
    Source(IpNet),
    Remote(IpNet),
    Name(Word),
    Host(Word),
    Method(Word),
    Path(Word),
    Port(u16),
    /// A header field with such a value; with any, where there is none.
    Field(HeaderName, Option<Word>),
}

impl RuleIndex {
    pub(super) fn new<'r>(rules: impl Iterator<Item = &'r AuthorizationRule>) -> RuleIndex {
        let rules: Vec<Vec<Vec<Key>>> = rules.map(choices).collect();
        let mut crowd: HashMap<&Key, usize, FixedState> = HashMap::default();
        for key in rules.iter().flatten().flatten() {
            *crowd.entry(key).or_default() += 1;
        }
        let mut index = RuleIndex::default();
        for (number, choices) in rules.iter().enumerate() {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            let crowded = |keys: &Vec<Key>| keys.iter().filter_map(|key| crowd.get(key)).max().copied();
            match choices.iter().min_by_key(|keys| crowded(keys)) {
                Some(keys) => keys.iter().for_each(|key| index.add(key, number)),
                None => index.rest.push(number),
            }
        }
        index
    }

    fn add(&mut self, key: &Key, number: u32) {
        match key {
            Key::Principal(word) => self.principals.add(word, number),
            Key::Namespace(word) => self.namespaces.add(word, number),
            Key::Account(name) => push(&mut self.accounts, name.clone(), number),
            Key::TrustDomain(word) => self.trust_domains.add(word, number),
            Key::Source(net) => self.sources.add(*net, number),
            Key::Remote(net) => self.remotes.add(*net, number),
            Key::Name(word) => self.names.add(word, number),
            Key::Host(word) => self.hosts.add(word, number),
            Key::Method(word) => self.methods.add(word, number),
            Key::Path(word) => self.paths.add(word, number),
            Key::Port(port) => push(&mut self.ports, *port, number),
            Key::Field(name, word) => {
                let field = self.fields.entry(name.clone()).or_default();
                match word {
                    Some(word) => field.values.add(word, number),
                    None => push_once(&mut field.present, number),
                }
            }
        }
    }

    /// The first rule, in order, that can match and does.
    pub(super) fn first(&self, subject: &Subject<'_>, matches: impl Fn(u32) -> bool) -> Option<u32> {
        let mut best: Option<u32> = None;
        let mut look = |bucket: Option<&Vec<u32>>| {
            let numbers = bucket.map_or(&[][..], Vec::as_slice);
            let earlier = numbers.iter().take_while(|number| best.is_none_or(|best| **number < best));
            if let Some(found) = earlier.copied().find(|number| matches(*number)) {
                best = Some(found);
            }
        };
        look(Some(&self.rest));
        look(self.ports.get(&subject.port));
        self.of_caller(subject, &mut look);
        if let Some(http) = &subject.http {
            self.of_request(http, &mut look);
        }
        best
    }

    fn of_caller<'i>(&'i self, subject: &Subject<'_>, look: &mut impl FnMut(Option<&'i Vec<u32>>)) {
        if let Some(identity) = subject.identity {
            self.principals.find(identity.principal(), &mut *look);
            if !self.trust_domains.is_empty() {
                self.trust_domains.find(identity.trust_domain(), &mut *look);
            }
        }
        let by_account = !self.namespaces.is_empty() || !self.accounts.is_empty();
        if let Some((namespace, account)) = by_account.then(|| subject.account()).flatten() {
            self.namespaces.find(namespace, &mut *look);
            if !self.accounts.is_empty() {
                look(self.accounts.get(format!("{namespace}/{account}").as_str()));
            }
        }
        if let Some(source) = subject.source {
            self.sources.find(source, &mut *look);
        }
        if let Some(remote) = subject.remote {
            self.remotes.find(remote, &mut *look);
        }
        if let Some(name) = subject.sni {
            self.names.find(name, look);
        }
    }

    fn of_request<'i>(&'i self, http: &HttpSubject<'_>, look: &mut impl FnMut(Option<&'i Vec<u32>>)) {
        self.paths.find(http.path, &mut *look);
        self.methods.find(http.method, &mut *look);
        if !self.hosts.is_empty() {
            let lower = match http.authority.bytes().any(|byte| byte.is_ascii_uppercase()) {
                true => Cow::Owned(http.authority.to_ascii_lowercase()),
                false => Cow::Borrowed(http.authority),
            };
            self.hosts.find(&lower, &mut *look);
        }
        if self.fields.is_empty() {
            return;
        }
        for name in http.headers.keys() {
            let Some(field) = self.fields.get(name) else { continue };
            look(Some(&field.present));
            for value in http.headers.get_all(name) {
                // Bytes that are no text are in the middle of what a prefix and a suffix leave over, if they match.
                field.values.find(&String::from_utf8_lossy(value.as_bytes()), &mut *look);
            }
        }
    }
}

/// The keys of a part of a rule, if it has some.
type Keys<T> = fn(&T) -> Option<Vec<Key>>;

/// The sets of keys of a rule; it can match only if the subject has one of each set.
fn choices(rule: &AuthorizationRule) -> Vec<Vec<Key>> {
    let mut choices = Vec::new();
    if !rule.from.is_empty() {
        let from: [Keys<Source>; 6] = [
            |source| any(&source.principals, |test| Word::of(test).map(Key::Principal)),
            |source| any(&source.namespaces, |test| Word::of(test).map(Key::Namespace)),
            |source| any(&source.service_accounts, |name| Some(Key::Account(name.clone()))),
            |source| any(&source.trust_domains, |test| Word::of(test).map(Key::TrustDomain)),
            |source| any(&source.ip_blocks, |net| Some(Key::Source(*net))),
            |source| any(&source.remote_ip_blocks, |net| Some(Key::Remote(*net))),
        ];
        choices.extend(from.into_iter().filter_map(|keys| every(&rule.from, keys)));
        // Sources of which each tells the caller, one by its principal and another by its namespace.
        choices.extend(every(&rule.from, |source| from.iter().find_map(|keys| keys(source))));
    }
    if !rule.to.is_empty() {
        let to: [Keys<Operation>; 4] = [
            |operation| any(&operation.paths, path),
            |operation| any(&operation.hosts, |test| Word::of_either_case(test).map(Key::Host)),
            |operation| any(&operation.ports, |port| Some(Key::Port(*port))),
            |operation| any(&operation.methods, |test| Word::of(test).map(Key::Method)),
        ];
        choices.extend(to.into_iter().filter_map(|keys| every(&rule.to, keys)));
        choices.extend(every(&rule.to, |operation| to.iter().find_map(|keys| keys(operation))));
    }
    choices.extend(rule.when.iter().filter_map(condition));
    choices
}

/// The keys of a condition, if it has some.
fn condition(condition: &Condition) -> Option<Vec<Key>> {
    match condition {
        // The field of that name is not what is compared.
        Condition::Header(name, _) if *name == http::header::HOST => None,
        Condition::Header(name, values) => any(values, |test| match test {
            TextMatch::Present | TextMatch::NotEmpty => Some(Key::Field(name.clone(), None)),
            _ => Word::of(test).map(|word| Key::Field(name.clone(), Some(word))),
        }),
        Condition::SourceIp(values) => any(values, |net| Some(Key::Source(*net))),
        Condition::RemoteIp(values) => any(values, |net| Some(Key::Remote(*net))),
        Condition::SourceNamespace(values) => any(values, |test| Word::of(test).map(Key::Namespace)),
        Condition::SourceServiceAccount(values) => any(values, |name| Some(Key::Account(name.clone()))),
        Condition::SourcePrincipal(values) => any(values, |test| Word::of(test).map(Key::Principal)),
        Condition::SourceTrustDomain(values) => any(values, |test| Word::of(test).map(Key::TrustDomain)),
        Condition::DestinationPort(values) => any(values, |port| Some(Key::Port(*port))),
        Condition::Sni(values) => any(values, |test| Word::of(test).map(Key::Name)),
        Condition::Pseudo(..)
        | Condition::RequestPrincipal(_)
        | Condition::Audiences(_)
        | Condition::Presenter(_)
        | Condition::Claim(..)
        | Condition::DestinationIp(_)
        | Condition::Metadata(..) => None,
    }
}

/// The keys of all alternatives, if each has some.
fn every<T>(alternatives: &[T], keys: impl Fn(&T) -> Option<Vec<Key>>) -> Option<Vec<Key>> {
    let all: Option<Vec<Vec<Key>>> = alternatives.iter().map(keys).collect();
    all.map(|all| all.into_iter().flatten().collect())
}

/// The keys of a list, if it demands something and each value has one.
fn any<M>(values: &Values<M>, key: impl Fn(&M) -> Option<Key>) -> Option<Vec<Key>> {
    if values.any.is_empty() {
        return None;
    }
    values.any.iter().map(key).collect()
}

fn path(test: &PathMatch) -> Option<Key> {
    match test {
        PathMatch::Text(text) => Word::of(text).map(Key::Path),
        PathMatch::Template(template) => {
            let prefix = template.prefix();
            (prefix.len() > 1).then(|| Key::Path(Word::Prefix(prefix.into())))
        }
    }
}
