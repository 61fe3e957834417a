//! Numbers of rules by what texts and addresses are looked up under.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

use foldhash::fast::FixedState;
use ipnet::IpNet;

use crate::matching::text::TextMatch;
use crate::vocab::name::Text;

/// Rules by a text, by what a text begins with, and by what it ends with.
#[derive(Debug, Default)]
pub(super) struct Words {
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

/// Rules by a network, with the lengths of all prefixes, each once.
#[derive(Debug, Default)]
pub(super) struct Nets {
    nets: Buckets<IpNet>,
    lengths: Vec<(bool, u8)>,
}

/// A text that is wanted whole, at the beginning or at the end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Word {
    Exact(Text),
    Prefix(Text),
    Suffix(Text),
}

impl Word {
    /// What a test demands, if it is one of these and says more than one character.
    pub(super) fn of(test: &TextMatch) -> Option<Word> {
        match test {
            TextMatch::Exact(text) => Some(Word::Exact(text.clone())),
            TextMatch::Prefix(text) if text.len() > 1 => Some(Word::Prefix(text.clone())),
            TextMatch::Suffix(text) if text.len() > 1 => Some(Word::Suffix(text.clone())),
            _ => None,
        }
    }

    /// The same of a test that is made without regard to case; in lower case.
    pub(super) fn of_either_case(test: &TextMatch) -> Option<Word> {
        match test {
            TextMatch::ExactIgnoringCase(text) => Some(Word::Exact(text.clone())),
            TextMatch::PrefixIgnoringCase(text) if text.len() > 1 => Some(Word::Prefix(text.clone())),
            TextMatch::SuffixIgnoringCase(text) if text.len() > 1 => Some(Word::Suffix(text.clone())),
            _ => None,
        }
    }
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
    pub(super) fn add(&mut self, key: &Word, number: u32) {
        match key {
            Word::Exact(text) => push(&mut self.exact, text.clone(), number),
            Word::Prefix(text) => self.prefixes.add(text, number),
            Word::Suffix(text) => self.suffixes.add(text, number),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.lengths.is_empty() && self.suffixes.lengths.is_empty()
    }

    /// Hands out every list of rules that a text is found under.
    pub(super) fn find<'i>(&'i self, text: &str, mut look: impl FnMut(Option<&'i Vec<u32>>)) {
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
    pub(super) fn add(&mut self, net: IpNet, number: u32) {
        let length = (net.addr().is_ipv4(), net.prefix_len());
        if !self.lengths.contains(&length) {
            self.lengths.push(length);
        }
        push(&mut self.nets, net.trunc(), number);
    }

    pub(super) fn find<'i>(&'i self, address: IpAddr, mut look: impl FnMut(Option<&'i Vec<u32>>)) {
        for (_, length) in self.lengths.iter().filter(|(is_ipv4, _)| *is_ipv4 == address.is_ipv4()) {
            let net = IpNet::new(address, *length).ok();
            look(net.and_then(|net| self.nets.get(&net.trunc())));
        }
    }
}

pub(super) fn push<K: Hash + Eq>(buckets: &mut Buckets<K>, key: K, number: u32) {
    push_once(buckets.entry(key).or_default(), number);
}

pub(super) fn push_once(bucket: &mut Vec<u32>, number: u32) {
    if bucket.last() != Some(&number) {
        bucket.push(number);
    }
}

/// The hash is fixed: the keys are the operator's, not the client's.
pub(super) type Buckets<K> = HashMap<K, Vec<u32>, FixedState>;
