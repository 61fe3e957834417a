//! Which rules of a long list may match a path.
//!
//! A list of thousands of rules is mostly told apart by path. Rules are kept by the exact path or the prefix that
//! they ask for; those that ask otherwise (patterns, case aside, no path at all) are candidates for every path.

use super::Index;
use crate::matching::text::TextMatch;
use crate::routing::rule::HttpRule;
use crate::vocab::name::Text;

/// Below so many rules a search of all is faster.
const WORTHWHILE: usize = 16;

/// Rules by what they ask of the path, each list ascending.
#[derive(Debug)]
pub(crate) struct PathIndex {
    exact: Index<Text, Vec<u32>>,
    prefixes: Index<Text, Vec<u32>>,
    /// Lengths of these prefixes, each once.
    lengths: Vec<usize>,
    any: Vec<u32>,
}

impl PathIndex {
    /// The index of a list, if it is long enough to be worth one.
    pub(crate) fn new(rules: &[HttpRule]) -> Option<PathIndex> {
        (rules.len() >= WORTHWHILE).then(|| PathIndex::of(rules))
    }

    pub(super) fn of(rules: &[HttpRule]) -> PathIndex {
        let mut index = PathIndex {
            exact: Index::default(),
            prefixes: Index::default(),
            lengths: Vec::new(),
            any: Vec::new(),
        };
        for (number, rule) in rules.iter().enumerate() {
            let Ok(number) = u32::try_from(number) else { break };
            if rule.matches.is_empty() {
                index.any.push(number);
            }
            for condition in &rule.matches {
                match &condition.uri {
                    Some(TextMatch::Exact(path)) => add(&mut index.exact, path, number),
                    Some(TextMatch::Prefix(prefix)) => add(&mut index.prefixes, prefix, number),
                    _ => push(&mut index.any, number),
                }
            }
        }
        index.lengths = index.prefixes.keys().map(|prefix| prefix.len()).collect();
        index.lengths.sort_unstable();
        index.lengths.dedup();
        index
    }

    /// The first rule of the list that `matches`, which is asked only about rules that may.
    pub(crate) fn first<M>(
        &self,
        path: &str,
        mut matches: impl FnMut(usize) -> Option<M>,
    ) -> Option<(usize, M)> {
        let mut best: Option<(usize, M)> = None;
        let prefixes = self.lengths.iter().filter_map(|length| self.prefixes.get(path.get(..*length)?));
        for list in self.exact.get(path).into_iter().chain(prefixes).chain([&self.any]) {
            for candidate in list.iter().map(|number| *number as usize) {
                if best.as_ref().is_some_and(|(found, _)| *found <= candidate) {
                    break;
                }
                if let Some(found) = matches(candidate) {
                    best = Some((candidate, found));
                    break;
                }
            }
        }
        best
    }
}

fn add(index: &mut Index<Text, Vec<u32>>, text: &Text, number: u32) {
    push(index.entry(text.clone()).or_default(), number);
}

fn push(list: &mut Vec<u32>, number: u32) {
    if list.last() != Some(&number) {
        list.push(number);
    }
}
