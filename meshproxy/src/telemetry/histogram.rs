//! Histograms with Envoy's buckets: recording is two additions, reading costs only the scrape.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use mesh_core::telemetry::exposition::{Buckets, Example, Page};

use super::example::Kept;

/// Upper bounds of the buckets, the same for milliseconds and bytes.
pub const BOUNDS: [f64; 19] = [
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0, 30000.0, 60000.0,
    300000.0, 600000.0, 1800000.0, 3600000.0,
];

/// One more than bounds.
const BUCKETS: usize = BOUNDS.len() + 1;

/// The same in thousandths.
const THOUSANDTHS: [u64; BOUNDS.len()] = {
    let mut thousandths = [0; BOUNDS.len()];
    let mut index = 0;
    while index < BOUNDS.len() {
        thousandths[index] = (BOUNDS[index] * 1000.0) as u64;
        index += 1;
    }
    thousandths
};

/// Counts a bucket, and the sum of everything recorded in thousandths.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    thousandths: AtomicU64,
    /// Made with the first example.
    examples: OnceLock<Box<[Kept; BUCKETS]>>,
}

impl Histogram {
    /// Adds one value given in thousandths (microseconds for milliseconds, thousand a byte).
    pub fn record_thousandths(&self, value: u64) {
        // Relaxed: counts are independent of each other and of all else; a scrape may lag by one.
        self.buckets[bucket(value)].fetch_add(1, Ordering::Relaxed);
        self.thousandths.fetch_add(value, Ordering::Relaxed);
    }

    /// Adds one whole value.
    pub fn record(&self, value: u64) {
        self.record_thousandths(value.saturating_mul(1000));
    }

    /// Keeps an exchange as the example of the bucket that its value fell into.
    pub fn exemplify(&self, example: &Example) {
        self.examples.get_or_init(Box::default)[bucket(example.thousandths)].keep(example);
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// Writes the series.
    pub fn write(&self, labels: &str, page: &mut Page) {
        let mut counts = [0; BUCKETS];
        for (count, bucket) in counts.iter_mut().zip(&self.buckets) {
            *count = bucket.load(Ordering::Relaxed);
        }
        let mut examples = [None; BUCKETS];
        let kept = self.examples.get();
        if let Some(kept) = kept {
            examples.iter_mut().zip(kept.iter()).for_each(|(example, kept)| *example = kept.read());
        }
        let buckets = Buckets {
            bounds: &BOUNDS,
            counts: &counts,
            thousandths: self.thousandths.load(Ordering::Relaxed),
            examples: if kept.is_some() { &examples } else { &[] },
        };
        page.histogram(labels, &buckets);
    }
}

fn bucket(thousandths: u64) -> usize {
    THOUSANDTHS.partition_point(|bound| *bound < thousandths)
}

#[cfg(test)]
mod tests {
    use mesh_core::telemetry::exposition::{Family, Form, Kind};

    use super::*;

    static H: Family = Family { name: "h", kind: Kind::Histogram, help: "H." };

    #[test]
    fn values_fall_into_the_bucket_that_bounds_them() {
        let histogram = Histogram::default();
        histogram.record_thousandths(500);
        histogram.record(1024);
        histogram.record(u64::MAX / 1000);
        histogram.exemplify(&Example { trace_id: [1; 16], version: 7, thousandths: 500, millis: 0 });
        let mut page = Page::new(Form::OpenMetrics, 0);
        page.family(&H);
        histogram.write("a=\"b\"", &mut page);
        let out = page.finish();
        assert!(out.contains("h_bucket{a=\"b\",le=\"0.5\"} 1 # {trace_id=\"0101"), "{out}");
        assert!(out.contains("h_bucket{a=\"b\",le=\"1000.0\"} 1\n"), "{out}");
        assert!(out.contains("h_bucket{a=\"b\",le=\"2500.0\"} 2\n"), "{out}");
        assert!(out.contains("h_bucket{a=\"b\",le=\"+Inf\"} 3\n"), "{out}");
        assert!(out.contains("h_count{a=\"b\"} 3\n"), "{out}");
    }
}
