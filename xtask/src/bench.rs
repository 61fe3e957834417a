//! `bench`: decisions of the core are measured by themselves, everything else in the lab.

mod instructions;
mod matching;

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use crate::lab;
use crate::run::{Outcome, captured, cargo, shown};

/// One of a thousand may cost so many times what one of ten costs.
const BAR: f64 = 1.3;

/// Runs one bench, or all; a bar that is not kept is an error.
pub(crate) fn run(rest: &[String]) -> Outcome {
    match rest.first().map(String::as_str) {
        Some("match") => matching::run(rest.get(1).map_or("", String::as_str)),
        Some("instructions") => instructions::run(&rest[1..]),
        Some(name) if !name.starts_with('-') => {
            let mut command = lab::bench(rest)?;
            let error = command.exec();
            Err(format!("{}: {error}", command.get_program().display()))
        }
        _ => {
            let outcomes =
                [matching::run(""), instructions::run(&[]), lab::bench(rest).and_then(|mut c| shown(&mut c))];
            let failed: Vec<String> = outcomes.into_iter().filter_map(Result::err).collect();
            if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
        }
    }
}

/// Builds a bench of the core, and tells where the program is.
fn built(bench: &str) -> Outcome<PathBuf> {
    println!("xtask: building the bench {bench} of the core (the first time takes some minutes)");
    let arguments = ["bench", "--quiet", "--package", "mesh-core", "--bench", bench, "--no-run"];
    let told = captured(cargo(&arguments).arg("--message-format=json"))?;
    let mut named = told.lines().filter_map(|line| line.split_once("\"executable\":\"")?.1.split('"').next());
    named.next_back().map(PathBuf::from).ok_or_else(|| "cargo names no program".into())
}

/// The figures of a row by size.
type Sizes = BTreeMap<u64, f64>;

/// `NAME of SIZE` -> name and size.
fn titled(title: &str) -> Option<(&str, u64)> {
    let (name, size) = title.rsplit_once(" of ")?;
    Some((name, size.parse().ok()?))
}

/// How many times as much the largest size costs as the smallest, where there are two.
fn ratio(sizes: &Sizes) -> Option<f64> {
    let (smallest, largest) = (sizes.first_key_value()?, sizes.last_key_value()?);
    (smallest.0 < largest.0).then(|| largest.1 / smallest.1.max(f64::EPSILON))
}

/// Prints how each row changes with its size, the worst last. An error if one is over the bar.
fn judge(rows: &BTreeMap<String, Sizes>, unit: &str) -> Outcome {
    let mut ratios: Vec<(f64, &String, &Sizes)> =
        rows.iter().filter_map(|(name, sizes)| Some((ratio(sizes)?, name, sizes))).collect();
    ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
    println!(
        "\n{:<44} {:>22} {:>24} {:>7}",
        "",
        format!("{unit} of few"),
        format!("{unit} of many"),
        "ratio"
    );
    let figure =
        |at: Option<(&u64, &f64)>| at.map_or(String::new(), |(size, value)| format!("{value:.0} of {size}"));
    for (ratio, name, sizes) in &ratios {
        let (few, many) = (figure(sizes.first_key_value()), figure(sizes.last_key_value()));
        let verdict = if *ratio > BAR { "  over the bar" } else { "" };
        println!("{name:<44} {few:>22} {many:>24} {ratio:>6.2}x{verdict}");
    }
    let over = ratios.iter().filter(|(ratio, ..)| *ratio > BAR).count();
    println!("The bar is {BAR}x.");
    if over == 0 { Ok(()) } else { Err(format!("{over} of {} are over {BAR}x", ratios.len())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_compared_by_size() {
        assert_eq!(titled("rule, one of two of 1000"), Some(("rule, one of two", 1000)));
        assert_eq!(titled("rule"), None);
        let row = |sizes: &[(u64, f64)]| sizes.iter().copied().collect::<Sizes>();
        assert_eq!(ratio(&row(&[(10, 100.0), (1000, 125.0)])), Some(1.25));
        assert_eq!(ratio(&row(&[(10, 100.0)])), None);
        let judged =
            |large| judge(&BTreeMap::from([("r".to_owned(), row(&[(10, 100.0), (1000, large)]))]), "ns");
        assert!(judged(130.0).is_ok());
        assert!(judged(131.0).is_err());
    }
}
