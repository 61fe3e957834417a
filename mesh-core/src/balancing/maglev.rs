//! Maglev (Eisenbud et al., 2016, section 3.4): a table of a prime size that members fill in turn, each in an order of
//! its own. Shares are nearly equal, a look-up is one step, and few keys move when a member comes or goes.

use super::choice::Member;
use super::hash::derived;

/// The size where the one demanded cannot be used.
const USUAL: u64 = 65_537;
/// Tables are smaller (Envoy's limit).
const LIMIT: u64 = 5_000_011;
const EMPTY: u32 = u32::MAX;

/// Members by slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Maglev {
    slots: Vec<u32>,
}

/// A member while the table is filled.
struct Filling {
    offset: u64,
    skip: u64,
    /// How far it is in its order.
    next: u64,
    weight: u64,
    /// It takes a slot when its weight times the round has reached this.
    due: u64,
}

impl Filling {
    fn slot(&mut self, size: u64) -> usize {
        let slot = (self.offset + self.next * self.skip) % size;
        self.next += 1;
        slot as usize
    }
}

impl Maglev {
    /// Fills a table of that size, which is a prime.
    pub(super) fn new(members: &[Member], size: u64) -> Maglev {
        let size = if size < LIMIT && is_prime(size) { size } else { USUAL };
        let mut slots = vec![EMPTY; if members.is_empty() { 0 } else { size as usize }];
        let heaviest = members.iter().map(|member| u64::from(member.weight)).max().unwrap_or(1);
        let mut filling: Vec<Filling> = members
            .iter()
            .map(|member| Filling {
                offset: derived(member.key, 0) % size,
                skip: derived(member.key, 1) % (size - 1) + 1,
                next: 0,
                weight: u64::from(member.weight),
                due: 0,
            })
            .collect();
        // Whoever lists them in another order has the same table.
        let mut order: Vec<usize> = (0..members.len()).collect();
        order.sort_unstable_by_key(|number| members[*number].key);
        let (mut empty, mut round) = (slots.len(), 0);
        while empty > 0 {
            round += 1;
            for number in order.iter().copied() {
                let member = &mut filling[number];
                if empty == 0 || round * member.weight < member.due {
                    continue;
                }
                member.due += heaviest;
                // The size is a prime, so that a member's order comes to every slot.
                let mut slot = member.slot(size);
                while slots[slot] != EMPTY {
                    slot = member.slot(size);
                }
                slots[slot] = number as u32;
                empty -= 1;
            }
        }
        Maglev { slots }
    }

    /// The member of a hash, or another one that belongs to it as well.
    pub(super) fn member(&self, hash: u64, step: usize) -> usize {
        if self.slots.is_empty() {
            return 0;
        }
        let hash = if step == 0 { hash } else { derived(hash, step as u64) };
        self.slots[(hash % self.slots.len() as u64) as usize] as usize
    }
}

fn is_prime(number: u64) -> bool {
    number >= 2 && (2..).take_while(|divisor| divisor * divisor <= number).all(|d| !number.is_multiple_of(d))
}
