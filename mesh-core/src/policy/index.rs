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
    principals: Words,
    namespaces: Words,
    paths: Words,
    ports: Buckets<u16>,
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

fn push<K: Hash + Eq>(buckets: &mut Buckets<K>, key: K, number: u32) {
    let bucket = buckets.entry(key).or_default();
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
    Path(Word),
    Port(u16),
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
            Key::Path(word) => self.paths.add(word, number),
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
        look(self.ports.get(&subject.port));
        if let Some(identity) = subject.identity {
            self.principals.find(identity.principal(), &mut look);
        }
        if let Some((namespace, _)) = subject.account() {
            self.namespaces.find(namespace, &mut look);
        }
        if let Some(http) = subject.http {
            self.paths.find(http.path, &mut look);
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
    any(&source.principals, |test| Word::of(test).map(Key::Principal))
}

fn namespaces(source: &Source) -> Option<Vec<Key>> {
    let named = any(&source.namespaces, |test| Word::of(test).map(Key::Namespace));
    named.or_else(|| {
        any(&source.service_accounts, |account| {
            account.split_once('/').map(|(namespace, _)| Key::Namespace(Word::Exact(namespace.into())))
        })
    })
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
