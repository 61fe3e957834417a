//! The newest exchange that stands for what was counted. Written by data threads without waiting for each other, read by
//! the scrape.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use mesh_core::telemetry::exposition::Example;

/// A place for one example. Its number is odd while somebody writes; who finds it so leaves it to the other.
#[derive(Debug, Default)]
pub struct Kept {
    turn: AtomicU64,
    words: [AtomicU64; 5],
}

impl Kept {
    /// Puts an example in the place of the one before.
    pub fn keep(&self, example: &Example) {
        let turn = self.turn.load(Ordering::Relaxed);
        // Acquire: what is written now comes after what the last writer wrote.
        let begun = turn.is_multiple_of(2)
            && self.turn.compare_exchange(turn, turn + 1, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if !begun {
            return;
        }
        // Release: who sees a word of this example sees that the turn has changed.
        fence(Ordering::Release);
        let (high, low) = example.trace_id.split_at(8);
        let word = |bytes: &[u8]| bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        let words = [word(high), word(low), example.version, example.thousandths, example.millis];
        for (place, word) in self.words.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
        // Release: who sees the turn sees the words.
        self.turn.store(turn + 2, Ordering::Release);
    }

    /// The example; `None` if there is none, or it is being written.
    pub fn read(&self) -> Option<Example> {
        let before = self.turn.load(Ordering::Acquire);
        if before == 0 || !before.is_multiple_of(2) {
            return None;
        }
        let [high, low, version, thousandths, millis] =
            [0, 1, 2, 3, 4].map(|index: usize| self.words[index].load(Ordering::Relaxed));
        // Acquire: with the writer's fence, words of a newer example come with its turn.
        fence(Ordering::Acquire);
        if self.turn.load(Ordering::Relaxed) != before {
            return None;
        }
        let trace_id = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
        Some(Example { trace_id, version, thousandths, millis })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_read_whole() {
        let kept = Kept::default();
        assert_eq!(kept.read(), None);
        let example = |n: u8| Example {
            trace_id: [n; 16],
            version: u64::from(n),
            thousandths: u64::from(n),
            millis: u64::from(n),
        };
        std::thread::scope(|scope| {
            for n in 1..3 {
                let kept = &kept;
                scope.spawn(move || (0..2000).for_each(|_| kept.keep(&example(n))));
            }
            for _ in 0..2000 {
                if let Some(read) = kept.read() {
                    assert_eq!(read, example(read.trace_id[0]));
                }
            }
        });
        assert!(kept.read().is_some());
    }
}
