//! Which of many rules can match at all: by what they demand of the caller or of what is called.

use std::collections::HashMap;
use std::hash::Hash;

use foldhash::fast::FixedState;

use super::authorization::{AuthorizationRule, Source, Values};
use super::subject::Subject;
use crate::matching::path::PathMatch;
use crate::matching::text::TextMatch;
use crate::vocab::name::Text;

/// Rules by the most telling of their demands. A rule is found under each value of it, in order.
#[derive(Debug, Default)]
pub(super) struct RuleIndex {
    principals: Buckets<Text>,
    namespaces: Buckets<Text>,
    paths: Buckets<Text>,
    prefixes: Buckets<Text>,
    /// The lengths of all prefixes, each once.
    lengths: Vec<usize>,
    ports: Buckets<u16>,
    /// Rules that none of this tells apart.
    rest: Vec<u32>,
}

/// The hash is fixed: the keys are the operator's, not the client's.
type Buckets<K> = HashMap<K, Vec<u32>, FixedState>;

/// One value that a rule demands, of which it demands any.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Principal(Text),
    Namespace(Text),
    Path(Text),
    Prefix(Text),
    Port(u16),
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
        fn push<K: Hash + Eq>(buckets: &mut Buckets<K>, key: K, number: u32) {
            let bucket = buckets.entry(key).or_default();
            if bucket.last() != Some(&number) {
                bucket.push(number);
            }
        }
        match key {
            Key::Principal(name) => push(&mut self.principals, name.clone(), number),
            Key::Namespace(name) => push(&mut self.namespaces, name.clone(), number),
            Key::Path(path) => push(&mut self.paths, path.clone(), number),
            Key::Prefix(prefix) => {
                push(&mut self.prefixes, prefix.clone(), number);
                if !self.lengths.contains(&prefix.len()) {
                    self.lengths.push(prefix.len());
                }
            }
            Key::Port(port) => push(&mut self.ports, *port, number),
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
        if let Some(identity) = subject.identity {
            look(self.principals.get(identity.principal()));
        }
        if let Some((namespace, _)) = subject.account() {
            look(self.namespaces.get(namespace));
        }
        look(self.ports.get(&subject.port));
        if let Some(http) = subject.http {
            look(self.paths.get(http.path));
            for length in &self.lengths {
                look(http.path.get(..*length).and_then(|head| self.prefixes.get(head)));
            }
        }
        best
    }
}

/// The sets of keys of a rule; it can match only if the subject has one of each set.
fn choices(rule: &AuthorizationRule) -> Vec<Vec<Key>> {
    let mut choices = Vec::new();
    if !rule.from.is_empty() {
        choices.extend(every(&rule.from, principals));
        choices.extend(every(&rule.from, namespaces));
    }
    if !rule.to.is_empty() {
        choices.extend(every(&rule.to, |operation| any(&operation.paths, path)));
        choices.extend(every(&rule.to, |operation| any(&operation.ports, |port| Some(Key::Port(*port)))));
    }
    choices
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

fn principals(source: &Source) -> Option<Vec<Key>> {
    any(&source.principals, |test| match test {
        TextMatch::Exact(name) => Some(Key::Principal(name.clone())),
        _ => None,
    })
}

fn namespaces(source: &Source) -> Option<Vec<Key>> {
    let named = any(&source.namespaces, |test| match test {
        TextMatch::Exact(name) => Some(Key::Namespace(name.clone())),
        _ => None,
    });
    named.or_else(|| {
        any(&source.service_accounts, |account| {
            account.split_once('/').map(|(namespace, _)| Key::Namespace(namespace.into()))
        })
    })
}

fn path(test: &PathMatch) -> Option<Key> {
    let prefix = |text: &str| (text.len() > 1).then(|| Key::Prefix(text.into()));
    match test {
        PathMatch::Text(TextMatch::Exact(path)) => Some(Key::Path(path.clone())),
        PathMatch::Text(TextMatch::Prefix(text)) => prefix(text),
        PathMatch::Text(_) => None,
        PathMatch::Template(template) => prefix(template.prefix()),
    }
}
