//! What proxies along a chain of calls tell each other of retries, so that one failure is retried at one place. The request
//! of a retry says so to the next proxy, and an answer behind which all was tried says that to the one before. From
//! the request that came to a workload to those that it makes leads what applications pass on anyway: `x-request-id`.
//!
//! A table of fixed size: what is forgotten costs a retry more, and nothing else.

use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use foldhash::fast::FixedState;

use super::load;

/// So many notes are kept; one in the same place takes it over.
const PLACES: usize = 4096;
/// For so long a note counts: a client may give many requests one id.
const COUNTS: Duration = Duration::from_secs(15);
/// Bits of a note for its time in seconds.
const TIME: u32 = 24;

/// What is told of the requests with an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// They come of a retry.
    Retried,
    /// What they led to was tried as often as may be.
    GivenUp,
}

/// What is known of requests by their ids.
#[derive(Debug)]
pub struct Chain {
    places: Box<[AtomicU64]>,
    any: AtomicBool,
}

impl Default for Chain {
    fn default() -> Chain {
        Chain { places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(), any: AtomicBool::new(false) }
    }
}

impl Chain {
    /// An id as a number, different for each thing that is told.
    pub fn id(request_id: &[u8]) -> u64 {
        FixedState::default().hash_one(request_id)
    }

    /// Notes something of the requests with an id.
    pub fn note(&self, id: u64, told: Sign) {
        let (place, tag) = placed(id, told);
        // Relaxed: one word, of use by itself.
        self.places[place].store(tag | seconds(), Ordering::Relaxed);
        self.any.store(true, Ordering::Relaxed);
    }

    /// Whether that was noted lately.
    pub fn knows(&self, id: u64, told: Sign) -> bool {
        let (place, tag) = placed(id, told);
        let note = self.places[place].load(Ordering::Relaxed);
        let age = seconds().wrapping_sub(note & TIME_MASK) & TIME_MASK;
        note & !TIME_MASK == tag && age <= COUNTS.as_secs()
    }

    /// Whether anything was ever noted: while not, nobody needs to ask.
    pub fn knows_any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }
}

const TIME_MASK: u64 = (1 << TIME) - 1;

fn seconds() -> u64 {
    load::now().as_secs() & TIME_MASK
}

/// The place of a note, and what tells it from others there; never 0.
fn placed(id: u64, told: Sign) -> (usize, u64) {
    let id = match told {
        Sign::Retried => id,
        Sign::GivenUp => id.rotate_left(32) ^ 0x5555_5555_5555_5555,
    };
    ((id % PLACES as u64) as usize, (id | 1 << 63) & !TIME_MASK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_of_one_request_is_known_of_that() {
        let chain = Chain::default();
        let (one, two) = (Chain::id(b"1b2c"), Chain::id(b"1b2d"));
        assert!(!chain.knows_any() && !chain.knows(one, Sign::Retried));
        chain.note(one, Sign::Retried);
        assert!(chain.knows_any() && chain.knows(one, Sign::Retried));
        assert!(!chain.knows(one, Sign::GivenUp) && !chain.knows(two, Sign::Retried));
        for number in 0..100_000_u64 {
            chain.note(Chain::id(&number.to_be_bytes()), Sign::GivenUp);
        }
        assert!(chain.places.len() == PLACES);
    }
}
