//! Which of many rules can match at all: by what they demand of the caller or of what is called.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

use foldhash::fast::FixedState;
use http::HeaderName;
use ipnet::IpNet;

use super::authorization::{AuthorizationRule, Condition, Operation, Source, Values};
use super::subject::{HttpSubject, Subject};
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

/// Rules by a text, by what a text begins with, and by what it ends with.
#[derive(Debug, Default)]
struct Words {
    exact: Buckets<Text>,
    prefixes: Affixes,
    suffixes: Affixes,
}

/// Rules by a part of a text, with the lengths of all parts, each once.
#[derive(Debug, Default)]
struct Affixes {
    parts: Buckets<Text>,
    lengths: Vec<usize>,
}

/// Rules by the value of a header field, and those that want it there.
#[derive(Debug, Default)]
struct Field {
    values: Words,
    present: Vec<u32>,
}

/// Rules by a network, with the lengths of all prefixes, each once.
#[derive(Debug, Default)]
struct Nets {
    nets: Buckets<IpNet>,
    lengths: Vec<(bool, u8)>,
}

impl Affixes {
    fn add(&mut self, part: &Text, number: u32) {
        push(&mut self.parts, part.clone(), number);
        if !self.lengths.contains(&part.len()) {
            self.lengths.push(part.len());
        }
    }
}

impl Words {
    fn add(&mut self, key: &Word, number: u32) {
        match key {
            Word::Exact(text) => push(&mut self.exact, text.clone(), number),
            Word::Prefix(text) => self.prefixes.add(text, number),
            Word::Suffix(text) => self.suffixes.add(text, number),
        }
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.lengths.is_empty() && self.suffixes.lengths.is_empty()
    }

    /// Hands out every list of rules that a text is found under.
    fn find<'i>(&'i self, text: &str, mut look: impl FnMut(Option<&'i Vec<u32>>)) {
        look(self.exact.get(text));
        for length in &self.prefixes.lengths {
            look(text.get(..*length).and_then(|head| self.prefixes.parts.get(head)));
        }
        for length in &self.suffixes.lengths {
            let start = text.len().checked_sub(*length);
            let tail = start.and_then(|start| text.get(start..));
            look(tail.and_then(|tail| self.suffixes.parts.get(tail)));
        }
    }
}

impl Nets {
    fn add(&mut self, net: IpNet, number: u32) {
        let length = (net.addr().is_ipv4(), net.prefix_len());
        if !self.lengths.contains(&length) {
            self.lengths.push(length);
        }
        push(&mut self.nets, net.trunc(), number);
    }

    fn find<'i>(&'i self, address: IpAddr, mut look: impl FnMut(Option<&'i Vec<u32>>)) {
        for (_, length) in self.lengths.iter().filter(|(is_ipv4, _)| *is_ipv4 == address.is_ipv4()) {
            let net = IpNet::new(address, *length).ok();
            look(net.and_then(|net| self.nets.get(&net.trunc())));
        }
    }
}

fn push<K: Hash + Eq>(buckets: &mut Buckets<K>, key: K, number: u32) {
    push_once(buckets.entry(key).or_default(), number);
}

fn push_once(bucket: &mut Vec<u32>, number: u32) {
    if bucket.last() != Some(&number) {
        bucket.push(number);
    }
}

/// The hash is fixed: the keys are the operator's, not the client's.
type Buckets<K> = HashMap<K, Vec<u32>, FixedState>;

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

/// A text that is wanted whole, at the beginning or at the end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Word {
    Exact(Text),
    Prefix(Text),
    Suffix(Text),
}

impl Word {
    /// What a test demands, if it is one of these and says more than one character.
    fn of(test: &TextMatch) -> Option<Word> {
        match test {
            TextMatch::Exact(text) => Some(Word::Exact(text.clone())),
            TextMatch::Prefix(text) if text.len() > 1 => Some(Word::Prefix(text.clone())),
            TextMatch::Suffix(text) if text.len() > 1 => Some(Word::Suffix(text.clone())),
            _ => None,
        }
    }

    /// The same of a test that is made without regard to case; in lower case.
    fn of_either_case(test: &TextMatch) -> Option<Word> {
        match test {
            TextMatch::ExactIgnoringCase(text) => Some(Word::Exact(text.clone())),
            TextMatch::PrefixIgnoringCase(text) if text.len() > 1 => Some(Word::Prefix(text.clone())),
            TextMatch::SuffixIgnoringCase(text) if text.len() > 1 => Some(Word::Suffix(text.clone())),
            _ => None,
        }
    }
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
        if let Some((namespace, account)) = subject.account() {
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

/// The sets of keys of a rule; it can match only if the subject has one of each set.
fn choices(rule: &AuthorizationRule) -> Vec<Vec<Key>> {
    let mut choices = Vec::new();
    if !rule.from.is_empty() {
        let from: [fn(&Source) -> Option<Vec<Key>>; 6] = [
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
        let to: [fn(&Operation) -> Option<Vec<Key>>; 4] = [
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
