//! `bench match`: the time of decisions, one of few beside one of many.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use super::{BAR, Sizes, built, judge, ratio, titled};
use crate::run::{Outcome, heard, target};

/// How often a ratio over the bar is measured. The least time of each size counts: whatever else the machine does only
/// adds to it.
const TRIES: usize = 3;

/// Measures the rows whose names contain a filter.
pub(super) fn run(filter: &str) -> Outcome {
    let program = built("matching")?;
    let mut rows = measure(&program, filter)?;
    for _ in 1..TRIES {
        let over = rows.iter().filter(|(_, sizes)| ratio(sizes).is_some_and(|ratio| ratio > BAR));
        let over: Vec<String> = over.map(|(name, _)| name.clone()).collect();
        for name in over {
            for (name, sizes) in measure(&program, &format!("{name} of "))? {
                let known = rows.entry(name).or_default();
                for (size, nanoseconds) in sizes {
                    known.entry(size).and_modify(|best| *best = best.min(nanoseconds)).or_insert(nanoseconds);
                }
            }
        }
    }
    judge(&rows, "ns")
}

fn measure(program: &Path, filter: &str) -> Outcome<BTreeMap<String, Sizes>> {
    let mut rows = BTreeMap::<String, Sizes>::new();
    let mut command = Command::new(program);
    command.args(["--bench", "--output-format", "bencher"]).env("CRITERION_HOME", target().join("criterion"));
    if !filter.is_empty() {
        command.arg(filter);
    }
    let good = heard(&mut command, |line| {
        if let Some((name, size, nanoseconds)) = measured(line) {
            rows.entry(name).or_default().insert(size, nanoseconds);
        }
    })?;
    if !good {
        return Err("the bench failed".into());
    }
    if rows.is_empty() {
        return Err(format!("no row's name contains {filter:?}"));
    }
    Ok(rows)
}

/// `test NAME of SIZE ... bench:         1,230 ns/iter (+/- 5)`.
fn measured(line: &str) -> Option<(String, u64, f64)> {
    let (title, rest) = line.strip_prefix("test ")?.split_once(" ... bench:")?;
    let (name, size) = titled(title)?;
    let number: String =
        rest.trim_start().chars().take_while(|c| !c.is_whitespace()).filter(|c| *c != ',').collect();
    Some((name.to_owned(), size, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::measured;

    #[test]
    fn lines_of_the_bench_are_read() {
        let line = "test prefix, last of 1000 ... bench:       1,990 ns/iter (+/- 9)";
        assert_eq!(measured(line), Some(("prefix, last".to_owned(), 1000, 1990.0)));
        assert_eq!(measured("running 3 tests"), None);
    }
}
