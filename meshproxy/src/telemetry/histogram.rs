//! Histograms with Envoy's buckets: recording is two additions, reading costs only the scrape.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds of the buckets, the same for milliseconds and bytes.
pub const BOUNDS: [f64; 19] = [
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0, 30000.0, 60000.0,
    300000.0, 600000.0, 1800000.0, 3600000.0,
];

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
    buckets: [AtomicU64; BOUNDS.len() + 1],
    thousandths: AtomicU64,
}

impl Histogram {
    /// Adds one value given in thousandths (microseconds for milliseconds, thousand a byte).
    pub fn record_thousandths(&self, value: u64) {
        let bucket = THOUSANDTHS.partition_point(|bound| *bound < value);
        // Relaxed: counts are independent of each other and of all else; a scrape may lag by one.
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.thousandths.fetch_add(value, Ordering::Relaxed);
    }

    /// Adds one whole value.
    pub fn record(&self, value: u64) {
        self.record_thousandths(value.saturating_mul(1000));
    }

    /// Writes the series in Prometheus' text format. `labels` is `a="b",c="d"`.
    pub fn render(&self, name: &str, labels: &str, out: &mut String) {
        let mut total = 0;
        for (bucket, bound) in self.buckets.iter().zip(BOUNDS) {
            total += bucket.load(Ordering::Relaxed);
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {total}");
        }
        total += self.buckets[BOUNDS.len()].load(Ordering::Relaxed);
        let sum = self.thousandths.load(Ordering::Relaxed) as f64 / 1000.0;
        let _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {total}");
        let _ = writeln!(out, "{name}_sum{{{labels}}} {sum}");
        let _ = writeln!(out, "{name}_count{{{labels}}} {total}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_the_bucket_that_bounds_them() {
        let histogram = Histogram::default();
        histogram.record_thousandths(500);
        histogram.record(1024);
        histogram.record(u64::MAX / 1000);
        let mut out = String::new();
        histogram.render("h", "a=\"b\"", &mut out);
        assert!(out.contains("h_bucket{a=\"b\",le=\"0.5\"} 1\n"), "{out}");
        assert!(out.contains("h_bucket{a=\"b\",le=\"1000\"} 1\n"), "{out}");
        assert!(out.contains("h_bucket{a=\"b\",le=\"2500\"} 2\n"), "{out}");
        assert!(out.contains("h_bucket{a=\"b\",le=\"+Inf\"} 3\n"), "{out}");
        assert!(out.contains("h_count{a=\"b\"} 3\n"), "{out}");
    }
}
