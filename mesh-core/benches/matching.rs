//! How long decisions take: one of ten beside one of a thousand or ten thousand. `cargo xtask bench match` prints the
//! ratios.
#![allow(missing_docs, reason = "criterion's macros write functions")]

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

mod cases;

fn decisions(criterion: &mut Criterion) {
    for row in cases::rows() {
        for size in row.sizes {
            // Made only where it is run: a filter may leave it out.
            let mut made = None;
            criterion.bench_function(&row.title(*size), |bencher| {
                let run = made.get_or_insert_with(|| (row.make)(*size));
                bencher.iter(run);
            });
        }
    }
}

criterion_group! {
    name = matching;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(900))
        .sample_size(30)
        .without_plots();
    targets = decisions
}
criterion_main!(matching);
