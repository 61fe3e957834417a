//! How long many things took, in little space: counts in buckets that grow with the value.
//!
//! Up to 127 every value has a bucket of its own; above, each doubling is cut into 64. What is read back lies in the
//! middle of a bucket, at most 1/128 (0.8 %) from what was recorded. Recording is a shift and an addition, sketches of
//! the same things add up to the sketch of all, and their order does not matter.

/// Buckets of a doubling, as a power of two.
const FINE: u32 = 6;
/// The longest that is told apart: 2^36 microseconds are 19 hours.
const MOST: u64 = (1 << 36) - 1;
/// So many buckets there are.
const BUCKETS: u32 = index(MOST) + 1;
/// Room is made for so many at once.
const ROOM: u32 = 32;

/// Counts by bucket. Only the stretch between the smallest and the largest value takes space.
#[derive(Debug, Clone, Default)]
pub struct Sketch {
    /// The bucket of the first count; a multiple of `ROOM`.
    first: u32,
    counts: Vec<u32>,
}

impl PartialEq for Sketch {
    fn eq(&self, other: &Sketch) -> bool {
        self.buckets().eq(other.buckets())
    }
}

impl Eq for Sketch {}

impl Sketch {
    /// Adds one value.
    pub fn record(&mut self, value: u64) {
        self.add(index(value.min(MOST)), 1);
    }

    /// Adds values of one bucket, as [`Sketch::buckets`] tells them; `false` if there is no such bucket.
    pub fn add(&mut self, bucket: u32, count: u32) -> bool {
        if bucket >= BUCKETS {
            return false;
        }
        let at = bucket.wrapping_sub(self.first) as usize;
        if at >= self.counts.len() {
            self.make_room(bucket);
        }
        if let Some(held) = self.counts.get_mut((bucket - self.first) as usize) {
            *held = held.saturating_add(count);
        }
        true
    }

    fn make_room(&mut self, bucket: u32) {
        let start = bucket / ROOM * ROOM;
        if self.counts.is_empty() {
            self.first = start;
        } else if start < self.first {
            let more = (self.first - start) as usize;
            self.counts.splice(0..0, std::iter::repeat_n(0, more));
            self.first = start;
        }
        let length = (start + ROOM - self.first) as usize;
        if length > self.counts.len() {
            self.counts.resize(length, 0);
        }
    }

    /// Adds all of another one.
    pub fn merge(&mut self, other: &Sketch) {
        for (bucket, count) in other.buckets() {
            self.add(bucket, count);
        }
    }

    /// Buckets that hold something, in ascending order, with their counts.
    pub fn buckets(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let first = self.first;
        let counts = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        counts.map(move |(at, count)| (first + at as u32, *count))
    }

    /// How many values it holds.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|count| u64::from(*count)).sum()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }

    /// The value that so many of a thousand values do not exceed; `None` where there is none at all.
    pub fn quantile(&self, thousandths: u64) -> Option<u64> {
        let rank = (self.count() * thousandths.min(1000)).div_ceil(1000).max(1);
        let mut passed = 0;
        self.buckets()
            .find(|(_, count)| {
                passed += u64::from(*count);
                passed >= rank
            })
            .map(|(bucket, _)| middle(bucket))
    }

    /// The same in as few bytes as may be.
    pub fn packed(&self) -> Packed {
        let mut bytes = Vec::new();
        let mut last = 0;
        for (bucket, count) in self.buckets() {
            write(bucket - last, &mut bytes);
            write(count, &mut bytes);
            last = bucket;
        }
        Packed(bytes.into())
    }
}

/// A sketch that nothing is recorded into any more: distances and counts, seven bits a byte.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packed(Box<[u8]>);

impl Packed {
    /// Adds it to a sketch.
    pub fn merge_into(&self, sketch: &mut Sketch) {
        let mut rest = &*self.0;
        let mut bucket = 0;
        while let (Some(distance), Some(count)) = (read(&mut rest), read(&mut rest)) {
            bucket += distance;
            sketch.add(bucket, count);
        }
    }

    /// Bytes that it takes.
    pub fn size(&self) -> usize {
        self.0.len()
    }
}

fn write(mut number: u32, bytes: &mut Vec<u8>) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn read(bytes: &mut &[u8]) -> Option<u32> {
    let mut number = 0u32;
    for shift in (0..32).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(number)
}

/// The bucket of a value.
const fn index(value: u64) -> u32 {
    let octave = 63 - (value | 1).leading_zeros();
    let shift = octave.saturating_sub(FINE);
    (shift << FINE) + (value >> shift) as u32
}

/// What stands for the values of a bucket.
fn middle(bucket: u32) -> u64 {
    let shift = (bucket >> FINE).saturating_sub(1);
    let low = u64::from(bucket - (shift << FINE)) << shift;
    low + (1 << shift) / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sketch(values: &[u64]) -> Sketch {
        let mut sketch = Sketch::default();
        values.iter().for_each(|value| sketch.record(*value));
        sketch
    }

    #[test]
    fn buckets_are_close_to_what_they_stand_for() {
        for value in (0..5000).chain((0..36).map(|bits| (1 << bits) + (1 << bits) / 3)) {
            let read = middle(index(value));
            let off = read.abs_diff(value) as f64;
            assert!(off <= value as f64 / 128.0, "{value} is read as {read}");
        }
        let mut sketch = Sketch::default();
        sketch.record(u64::MAX);
        assert_eq!(sketch.buckets().collect::<Vec<_>>(), [(BUCKETS - 1, 1)]);
    }

    #[test]
    fn quantiles_of_known_values() {
        let values: Vec<u64> = (1..=1000).collect();
        let sketch = sketch(&values);
        for (thousandths, exact) in [(500, 500.0), (950, 950.0), (990, 990.0), (1000, 1000.0), (0, 1.0)] {
            let read = sketch.quantile(thousandths).unwrap() as f64;
            assert!((read - exact).abs() <= exact / 64.0, "{thousandths}: {read}");
        }
        assert_eq!(Sketch::default().quantile(500), None);
        assert!(!Sketch::default().add(BUCKETS, 1));
    }

    proptest! {
        #[test]
        fn what_is_merged_is_what_was_recorded_together(
            one in proptest::collection::vec(0u64..1 << 40, 0..200),
            other in proptest::collection::vec(0u64..1 << 20, 0..200),
        ) {
            let together = sketch(&[one.clone(), other.clone()].concat());
            let mut merged = sketch(&one);
            merged.merge(&sketch(&other));
            let mut reversed = sketch(&other);
            reversed.merge(&sketch(&one));
            prop_assert_eq!(&merged, &together);
            prop_assert_eq!(&reversed, &together);
            prop_assert_eq!(together.count(), (one.len() + other.len()) as u64);
            let mut unpacked = Sketch::default();
            together.packed().merge_into(&mut unpacked);
            prop_assert_eq!(&unpacked, &together);
        }

        #[test]
        fn quantiles_are_close_to_those_of_all_values(
            mut values in proptest::collection::vec(1u64..1 << 36, 1..300),
            thousandths in 1u64..=1000,
        ) {
            let read = sketch(&values).quantile(thousandths).unwrap();
            values.sort_unstable();
            let rank = (values.len() as u64 * thousandths).div_ceil(1000).max(1);
            let exact = values[rank as usize - 1];
            prop_assert!(read.abs_diff(exact) as f64 <= exact as f64 / 128.0, "{} for {}", read, exact);
        }
    }
}
