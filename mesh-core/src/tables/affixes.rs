//! What many texts begin or end with: a trie, walked once however many there are.

use std::collections::VecDeque;
use std::ops::Range;

use crate::vocab::name::Text;

/// Where the parts stand in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Side {
    /// At its beginning.
    #[default]
    Front,
    /// At its end.
    Back,
}

/// Values by beginnings, or by ends, of texts. It takes about as much memory as its texts, and has no more than two
/// nodes for each.
#[derive(Debug, Default)]
pub(crate) struct Affixes<T> {
    side: Side,
    /// The children of a node stand side by side, in the order of their first bytes.
    nodes: Vec<Node>,
    /// The first byte of each node; without meaning at the root.
    firsts: Vec<u8>,
    /// What nodes add to it, one after the other, each as it stands in the text.
    labels: Vec<u8>,
    values: Vec<T>,
}

#[derive(Debug, Default)]
struct Node {
    /// Where its label begins.
    label: u32,
    length: u32,
    /// Number of the first child.
    children: u32,
    count: u32,
    /// One more than the index of its value; 0 for none.
    value: u32,
}

impl<T> Affixes<T> {
    /// Arranges values; of one text the first counts.
    pub(crate) fn new(side: Side, entries: impl IntoIterator<Item = (Text, T)>) -> Affixes<T> {
        let mut entries: Vec<(Text, T)> = entries.into_iter().collect();
        entries.sort_by(|(a, _), (b, _)| match side {
            Side::Front => a.as_bytes().cmp(b.as_bytes()),
            Side::Back => a.bytes().rev().cmp(b.bytes().rev()),
        });
        entries.dedup_by(|(later, _), (kept, _)| later == kept);
        let (texts, values): (Vec<Text>, Vec<T>) = entries.into_iter().unzip();
        let mut made = Affixes { side, nodes: Vec::new(), firsts: Vec::new(), labels: Vec::new(), values };
        made.grow(&texts);
        made
    }

    /// Makes the nodes, level by level.
    fn grow(&mut self, texts: &[Text]) {
        if texts.is_empty() {
            return;
        }
        let side = self.side;
        let byte = |text: &Text, place: usize| match side {
            Side::Front => text.as_bytes()[place],
            Side::Back => text.as_bytes()[text.len() - 1 - place],
        };
        // Texts with a common part, and how much of it is told by the nodes above.
        let mut waiting: VecDeque<(Range<usize>, usize)> = VecDeque::from([(0..texts.len(), 0)]);
        self.firsts.push(0);
        while let Some((range, depth)) = waiting.pop_front() {
            let (first, last) = (&texts[range.start], &texts[range.end - 1]);
            let shortest = first.len().min(last.len());
            let end = (depth..shortest).find(|place| byte(first, *place) != byte(last, *place));
            let end = end.unwrap_or(shortest);
            let label = match side {
                Side::Front => &first.as_bytes()[depth..end],
                Side::Back => &first.as_bytes()[first.len() - end..first.len() - depth],
            };
            let whole = first.len() == end;
            let node = Node {
                label: small(self.labels.len()),
                length: small(label.len()),
                children: small(self.firsts.len()),
                count: 0,
                value: if whole { small(range.start + 1) } else { 0 },
            };
            self.labels.extend_from_slice(label);
            let mut start = range.start + usize::from(whole);
            let mut count = 0;
            while start < range.end {
                let next = byte(&texts[start], end);
                let stop = start + texts[start..range.end].partition_point(|text| byte(text, end) <= next);
                self.firsts.push(next);
                waiting.push_back((start..stop, end + 1));
                (start, count) = (stop, count + 1);
            }
            self.nodes.push(Node { count, ..node });
        }
    }

    /// Hands out the values of all that a text begins, or ends, with: the shortest first.
    pub(crate) fn each<'a>(&'a self, text: &[u8], mut found: impl FnMut(&'a T)) {
        let Some(mut node) = self.nodes.first() else { return };
        let mut rest = text;
        loop {
            let label = &self.labels[node.label as usize..][..node.length as usize];
            let behind = match self.side {
                Side::Front => rest.strip_prefix(label),
                Side::Back => rest.strip_suffix(label),
            };
            let Some(behind) = behind else { return };
            if let Some(value) = (node.value as usize).checked_sub(1) {
                found(&self.values[value]);
            }
            let next = match self.side {
                Side::Front => behind.split_first(),
                Side::Back => behind.split_last(),
            };
            let Some((byte, behind)) = next else { return };
            let children = node.children as usize;
            let firsts = &self.firsts[children..][..node.count as usize];
            let Ok(child) = firsts.binary_search(byte) else { return };
            node = &self.nodes[children + child];
            rest = behind;
        }
    }

    /// Whether there is nothing to be found.
    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

/// More than four thousand million bytes of names are none that a snapshot could carry.
fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn all_that_a_text_begins_or_ends_with_the_shortest_first(
            parts in prop::collection::vec("[abé]{0,5}", 0..30), text in "[abé]{0,8}", back in any::<bool>(),
        ) {
            let side = if back { Side::Back } else { Side::Front };
            let entries = parts.iter().map(|part| (Text::from(part.as_str()), part.clone()));
            let affixes = Affixes::new(side, entries);
            let mut found = Vec::new();
            affixes.each(text.as_bytes(), |part| found.push(part.clone()));
            let holds = |part: &&String| if back { text.ends_with(&**part) } else { text.starts_with(&**part) };
            let mut expected: Vec<String> = parts.iter().filter(holds).cloned().collect();
            expected.sort_by_key(String::len);
            expected.dedup();
            prop_assert_eq!(found, expected);
            prop_assert!(affixes.nodes.len() <= 2 * parts.len());
            prop_assert_eq!(affixes.is_empty(), parts.is_empty());
        }
    }
}
