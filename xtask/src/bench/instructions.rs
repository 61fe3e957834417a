//! `bench instructions`: how many instructions decisions take, as valgrind counts them, beside the budget that is kept
//! in the repository. What else the machine does changes nothing.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use super::{Sizes, built, judge, titled};
use crate::install;
use crate::run::{Outcome, captured, root};

/// The budgets.
const FILE: &str = "tests/budgets/instructions.toml";
/// How often each row is repeated.
const TIMES: u64 = 500;
/// Per cent that a new row may differ.
const TOLERANCE: u64 = 5;
/// The function in which instructions count.
const COUNTED: &str = "*instructions*measured*";
const HEADER: &str = "\
# Instructions of one decision of mesh-core, x86_64, built as `cargo bench` builds; how many per cent more are borne.
# `cargo xtask bench instructions` compares, and with --update writes new figures; tolerances stay as they are here.

";

/// A row of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Budget {
    instructions: u64,
    tolerance: u64,
}

type Budgets = BTreeMap<String, Budget>;

/// Counts the rows whose names contain the filter that is given, and compares or, with `--update`, writes.
pub(super) fn run(rest: &[String]) -> Outcome {
    let update = rest.iter().any(|argument| argument == "--update");
    let filter = rest.iter().find(|argument| !argument.starts_with("--")).map_or("", String::as_str);
    install::program("valgrind", "valgrind")?;
    let program = built("instructions")?;
    let titles = captured(&mut Command::new(&program))?;
    let wanted: Vec<&str> = titles.lines().filter(|title| title.contains(filter)).collect();
    let counted = count_all(&program, &wanted)?;
    let file = root().join(FILE);
    let before = std::fs::read_to_string(&file).unwrap_or_default();
    let before = read(&before)?;
    let known: Vec<&str> = titles.lines().collect();
    if update {
        let mut budgets = before;
        budgets.retain(|title, _| known.contains(&title.as_str()));
        for (title, instructions) in counted {
            let tolerance = budgets.get(&title).map_or(TOLERANCE, |budget| budget.tolerance);
            budgets.insert(title, Budget { instructions, tolerance });
        }
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        }
        std::fs::write(&file, write(&budgets)).map_err(|e| format!("{FILE}: {e}"))?;
        println!("{FILE} has {} rows", budgets.len());
        return Ok(());
    }
    let over = compare(&counted, &before, &known);
    let mut rows = BTreeMap::<String, Sizes>::new();
    for (title, instructions) in &counted {
        if let Some((name, size)) = titled(title) {
            rows.entry(name.to_owned()).or_default().insert(size, *instructions as f64);
        }
    }
    judge(&rows, "instructions")?;
    if over == 0 { Ok(()) } else { Err(format!("{over} rows are not within {FILE}")) }
}

/// Two at a time, or as many as there are processors.
fn count_all(program: &Path, titles: &[&str]) -> Outcome<BTreeMap<String, u64>> {
    let waiting = Mutex::new(titles.iter());
    let counted = Mutex::new(Ok(BTreeMap::new()));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let next = || waiting.lock().ok()?.next().copied();
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(title) = next() {
                    let outcome = count(program, title);
                    let Ok(mut counted) = counted.lock() else { return };
                    match (&mut *counted, outcome) {
                        (Ok(rows), Ok(instructions)) => drop(rows.insert(title.to_owned(), instructions)),
                        (Ok(_), Err(error)) => *counted = Err(error),
                        (Err(_), _) => return,
                    }
                }
            });
        }
    });
    counted.into_inner().map_err(|_| "counting was given up".to_owned())?
}

fn count(program: &Path, title: &str) -> Outcome<u64> {
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect={COUNTED}"));
    command.arg(program).arg(title).arg(TIMES.to_string());
    let output = command.output().map_err(|e| format!("valgrind: {e}"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    let collected = collected(&told).filter(|collected| output.status.success() && *collected > 0);
    collected.map(|all| all / TIMES).ok_or_else(|| format!("valgrind counted nothing of {title:?}: {told}"))
}

/// `==17== Collected : 360113`.
fn collected(told: &str) -> Option<u64> {
    told.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
}

/// Prints each row beside its budget; how many are over it or have none.
fn compare(counted: &BTreeMap<String, u64>, budgets: &Budgets, known: &[&str]) -> usize {
    println!("{:<52} {:>12} {:>10} {:>8}", "", "instructions", "budget", "");
    let mut over = 0;
    for (title, instructions) in counted {
        let Some(budget) = budgets.get(title) else {
            println!(
                "{title:<52} {instructions:>12} {:>10} {:>8}  has no budget: write one with --update",
                "-", ""
            );
            over += 1;
            continue;
        };
        let percent = |more: i64| budget.instructions * 100u64.saturating_add_signed(more);
        let tolerance = i64::try_from(budget.tolerance).unwrap_or(100);
        let is_over = instructions * 100 > percent(tolerance);
        let verdict = match is_over {
            true => "  over the budget",
            false if instructions * 100 < percent(-tolerance) => "  better: keep it with --update",
            false => "",
        };
        over += usize::from(is_over);
        let change = (*instructions as f64 / budget.instructions.max(1) as f64 - 1.0) * 100.0;
        println!("{title:<52} {instructions:>12} {:>10} {change:>+7.1}%{verdict}", budget.instructions);
    }
    for title in budgets.keys().filter(|title| !known.contains(&title.as_str())) {
        println!("{title:<52} is not counted any more: remove it with --update");
        over += 1;
    }
    over
}

/// `"TITLE" = { instructions = N, tolerance = N }`, one a line.
fn read(text: &str) -> Outcome<Budgets> {
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let budget = |line: &str| -> Option<(String, Budget)> {
        let (title, values) = line.strip_prefix('"')?.split_once("\" = { instructions = ")?;
        let (instructions, tolerance) = values.strip_suffix(" }")?.split_once(", tolerance = ")?;
        let budget = Budget { instructions: instructions.parse().ok()?, tolerance: tolerance.parse().ok()? };
        Some((title.to_owned(), budget))
    };
    lines.map(|line| budget(line).ok_or_else(|| format!("{FILE}: not a row: {line}"))).collect()
}

fn write(budgets: &Budgets) -> String {
    let rows = budgets.iter().map(|(title, Budget { instructions, tolerance })| {
        format!("\"{title}\" = {{ instructions = {instructions}, tolerance = {tolerance} }}\n")
    });
    HEADER.to_owned() + &rows.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_kept() {
        let budget = |instructions| Budget { instructions, tolerance: 5 };
        let budgets =
            Budgets::from([("a, b of 10".to_owned(), budget(1000)), ("c of 10".to_owned(), budget(7))]);
        assert_eq!(read(&write(&budgets)), Ok(budgets.clone()));
        assert!(read("\"a\" = 5").is_err());
        let over = |instructions: u64, titles: &[&str]| {
            let counted = titles.iter().map(|title| ((*title).to_owned(), instructions)).collect();
            compare(&counted, &budgets, &["a, b of 10", "c of 10"])
        };
        assert_eq!(over(1050, &["a, b of 10"]), 0);
        assert_eq!(over(1051, &["a, b of 10"]), 1);
        assert_eq!(over(900, &["a, b of 10"]), 0);
        assert_eq!(over(1, &["new of 10"]), 1);
        assert_eq!(compare(&BTreeMap::new(), &budgets, &["a, b of 10"]), 1);
        assert_eq!(collected("==1== \n==17== Collected : 360113\n"), Some(360_113));
    }
}
