//! Which conditions of a long list may hold for a request.
//!
//! Each condition is kept under one thing that it demands: a path, what a path begins with, an authority, or the value
//! of a header field. A request is asked only about conditions kept under what it has, and about those that are kept
//! under nothing: in the order of the list, and about none behind the first that holds. So order is kept whatever the
//! index knows, and a request is asked about no more conditions than a search of the list would look at.

use http::HeaderName;

use super::Index;
use super::affixes::{Affixes, Side};
use super::names::lower;
use crate::matching::request::{Request, RequestMatch, header_values};
use crate::matching::text::TextMatch;
use crate::routing::rule::HttpRule;
use crate::vocab::name::Text;

/// Below so many conditions a search of all is faster.
const WORTHWHILE: usize = 16;
/// So many conditions of one path are not told apart further.
const FEW: usize = 8;
/// Header fields that conditions are kept under: those that most of them demand. Each is looked up for every request.
const MOST_FIELDS: usize = 4;
/// Lists that are merged at once. Of more, as where many prefixes hold one another, some conditions are asked in vain.
const AT_ONCE: usize = 16;

/// Conditions by what they demand. Their numbers count through all rules; a rule without conditions counts as one.
#[derive(Debug)]
pub(crate) struct ConditionIndex {
    /// The rule and the condition of a number.
    places: Vec<(u32, Option<u32>)>,
    /// Numbers, those of a bucket side by side and ascending.
    numbers: Vec<u32>,
    paths: Paths,
    /// Case aside: in lower case.
    caseless: Paths,
    authorities: Index<Text, Bucket>,
    fields: Vec<(HeaderName, ByValue)>,
    /// Conditions kept under nothing.
    rest: Bucket,
}

/// Some of the numbers, from where to where.
type Bucket = (u32, u32);

/// By the value of a header field.
type ByValue = Index<Box<[u8]>, Bucket>;

#[derive(Debug, Default)]
struct Paths {
    exact: Index<Text, Bucket>,
    prefixes: Affixes<Bucket>,
}

/// What a condition demands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Path(Text),
    Prefix(Text),
    CaselessPath(Text),
    CaselessPrefix(Text),
    Authority(Text),
    Field(HeaderName, Text),
}

impl ConditionIndex {
    /// The index of a list, if it is long enough to be worth one.
    pub(crate) fn new(rules: &[HttpRule]) -> Option<ConditionIndex> {
        let conditions: usize = rules.iter().map(|rule| rule.matches.len().max(1)).sum();
        let worthwhile = (WORTHWHILE..u32::MAX as usize).contains(&conditions);
        worthwhile.then(|| ConditionIndex::of(rules))
    }

    fn of(rules: &[HttpRule]) -> ConditionIndex {
        let fields = common_fields(rules);
        let mut places = Vec::new();
        let mut demands = Vec::new();
        for (rule, number) in rules.iter().zip(0..) {
            if rule.matches.is_empty() {
                places.push((number, None));
                demands.push([const { None }; 3]);
            }
            for (condition, within) in rule.matches.iter().zip(0..) {
                places.push((number, Some(within)));
                demands.push(keys(condition, &fields));
            }
        }
        let mut crowd: Index<&Key, usize> = Index::default();
        for key in demands.iter().flatten().flatten() {
            *crowd.entry(key).or_default() += 1;
        }
        let mut kept: Index<&Key, Vec<u32>> = Index::default();
        let mut rest = Vec::new();
        for (demanded, number) in demands.iter().zip(0..) {
            match demanded.iter().flatten().min_by_key(|key| crowd[key].max(FEW)) {
                Some(key) => kept.entry(key).or_default().push(number),
                None => rest.push(number),
            }
        }
        let mut index = ConditionIndex {
            places,
            numbers: Vec::with_capacity(demands.len()),
            paths: Paths::default(),
            caseless: Paths::default(),
            authorities: Index::default(),
            fields: fields.into_iter().map(|name| (name, Index::default())).collect(),
            rest: (0, 0),
        };
        index.rest = index.bucket(&rest);
        index.arrange(kept);
        index
    }

    fn bucket(&mut self, numbers: &[u32]) -> Bucket {
        let start = self.numbers.len();
        self.numbers.extend_from_slice(numbers);
        // There are fewer than four thousand million.
        (start as u32, self.numbers.len() as u32)
    }

    fn arrange(&mut self, kept: Index<&Key, Vec<u32>>) {
        let (mut prefixes, mut caseless) = (Vec::new(), Vec::new());
        for (key, numbers) in kept {
            let bucket = self.bucket(&numbers);
            match key.clone() {
                Key::Path(text) => drop(self.paths.exact.insert(text, bucket)),
                Key::Prefix(text) => prefixes.push((text, bucket)),
                Key::CaselessPath(text) => drop(self.caseless.exact.insert(text, bucket)),
                Key::CaselessPrefix(text) => caseless.push((text, bucket)),
                Key::Authority(text) => drop(self.authorities.insert(text, bucket)),
                Key::Field(name, value) => {
                    if let Some((_, values)) = self.fields.iter_mut().find(|(of, _)| *of == name) {
                        values.insert(value.as_bytes().into(), bucket);
                    }
                }
            }
        }
        self.paths.prefixes = Affixes::new(Side::Front, prefixes);
        self.caseless.prefixes = Affixes::new(Side::Front, caseless);
        self.fields.retain(|(_, values)| !values.is_empty());
    }

    /// The first condition that `holds`, as rule and condition; it is asked with these.
    pub(crate) fn first(
        &self,
        request: &Request<'_>,
        holds: impl FnMut(usize, Option<usize>) -> bool,
    ) -> Option<(usize, Option<usize>)> {
        let mut merge = Merge { index: self, lists: [&[]; AT_ONCE], count: 0, best: None, holds };
        merge.add(&self.rest);
        self.paths.find(request.path, |bucket| merge.add(bucket));
        if !self.caseless.is_empty() {
            self.caseless.find(&lower(request.path), |bucket| merge.add(bucket));
        }
        if !self.authorities.is_empty() {
            self.authorities.get(request.authority).into_iter().for_each(|bucket| merge.add(bucket));
        }
        for (name, values) in &self.fields {
            for value in header_values(request, name) {
                values.get(value).into_iter().for_each(|bucket| merge.add(bucket));
            }
        }
        merge.settle();
        merge.best.map(|number| self.place(number))
    }

    fn place(&self, number: u32) -> (usize, Option<usize>) {
        let (rule, condition) = self.places[number as usize];
        (rule as usize, condition.map(|condition| condition as usize))
    }
}

impl Paths {
    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.is_empty()
    }

    fn find<'i>(&'i self, path: &str, mut found: impl FnMut(&'i Bucket)) {
        if !self.exact.is_empty() {
            self.exact.get(path).into_iter().for_each(&mut found);
        }
        self.prefixes.each(path.as_bytes(), found);
    }
}

/// Lists of numbers, gone through in the order of the numbers.
struct Merge<'i, H> {
    index: &'i ConditionIndex,
    /// What is left of each.
    lists: [&'i [u32]; AT_ONCE],
    count: usize,
    /// The lowest number that holds so far.
    best: Option<u32>,
    holds: H,
}

impl<'i, H: FnMut(usize, Option<usize>) -> bool> Merge<'i, H> {
    fn add(&mut self, &(start, end): &'i Bucket) {
        let Some(list @ [first, ..]) = self.index.numbers.get(start as usize..end as usize) else { return };
        if self.best.is_some_and(|best| best <= *first) {
            return;
        }
        if self.count == AT_ONCE {
            self.settle();
        }
        self.lists[self.count] = list;
        self.count += 1;
    }

    /// Asks about the numbers of all lists, lowest first, until one holds or none is below what holds already.
    fn settle(&mut self) {
        let lists = &mut self.lists[..self.count];
        self.count = 0;
        loop {
            let heads = lists.iter_mut().filter(|list| !list.is_empty());
            let Some(list) = heads.min_by_key(|list| list.first().copied()) else { return };
            let Some((number, rest)) = list.split_first() else { return };
            if self.best.is_some_and(|best| best <= *number) {
                return;
            }
            let (rule, condition) = self.index.place(*number);
            if (self.holds)(rule, condition) {
                self.best = Some(*number);
                return;
            }
            *list = rest;
        }
    }
}

/// The header fields of which most conditions demand one value.
fn common_fields(rules: &[HttpRule]) -> Vec<HeaderName> {
    let mut counts: Index<&HeaderName, usize> = Index::default();
    for (name, test) in rules.iter().flat_map(|rule| &rule.matches).flat_map(|condition| &condition.headers) {
        if matches!(test, TextMatch::Exact(_)) {
            *counts.entry(name).or_default() += 1;
        }
    }
    let mut fields: Vec<_> = counts.into_iter().filter(|(_, count)| *count >= WORTHWHILE).collect();
    fields.sort_by(|(a, first), (b, second)| second.cmp(first).then_with(|| a.as_str().cmp(b.as_str())));
    fields.into_iter().take(MOST_FIELDS).map(|(name, _)| name.clone()).collect()
}

/// What a condition can be kept under, best first.
fn keys(condition: &RequestMatch, fields: &[HeaderName]) -> [Option<Key>; 3] {
    let lower = |text: &Text| Text::from(text.to_ascii_lowercase());
    let path = condition.uri.as_ref().and_then(|uri| match uri {
        TextMatch::Exact(path) => Some(Key::Path(path.clone())),
        TextMatch::Prefix(prefix) => Some(Key::Prefix(prefix.clone())),
        TextMatch::ExactIgnoringCase(path) => Some(Key::CaselessPath(lower(path))),
        TextMatch::PrefixIgnoringCase(prefix) => Some(Key::CaselessPrefix(lower(prefix))),
        TextMatch::Regex(pattern) => {
            Some(pattern.beginning()).filter(|text| !text.is_empty()).map(|text| Key::Prefix(text.into()))
        }
        TextMatch::Present
        | TextMatch::NotEmpty
        | TextMatch::Suffix(_)
        | TextMatch::SuffixIgnoringCase(_) => None,
    });
    let authority = match &condition.authority {
        Some(TextMatch::Exact(text)) => Some(Key::Authority(text.clone())),
        _ => None,
    };
    let demanded = condition.headers.iter().find_map(|(name, test)| match test {
        TextMatch::Exact(value) if fields.contains(name) => Some(Key::Field(name.clone(), value.clone())),
        _ => None,
    });
    [path, authority, demanded]
}

#[cfg(test)]
mod tests;
