//! Claims with their figures and verdicts, for people and for scripts.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// What became of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Holds,
    /// It does not.
    Fails,
    /// It did not, and what it is part of has been tried again from the beginning.
    Unsteady,
    /// It could not be tried here, and why.
    Skipped(String),
}

/// One claim.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What is claimed.
    pub claim: String,
    /// What was measured.
    pub figure: String,
    /// Whether it holds.
    pub verdict: Verdict,
    /// How long it took to find out.
    pub took: Duration,
}

/// Prints findings as they come and keeps them for the end.
pub struct Report {
    findings: Vec<Finding>,
    quiet: bool,
    color: bool,
    began: Instant,
    last: Instant,
}

impl Report {
    /// A report; a quiet one prints JSON at its end only.
    pub fn new(quiet: bool) -> Self {
        let now = Instant::now();
        Self { findings: Vec::new(), quiet, color: std::io::stdout().is_terminal(), began: now, last: now }
    }

    /// Says something that is no claim.
    pub fn say(&self, text: &str) {
        use std::io::Write;
        // A reader that has gone away does not end the work.
        if self.quiet {
            drop(writeln!(std::io::stderr(), "{text}"));
        } else {
            drop(writeln!(std::io::stdout(), "{text}"));
        }
    }

    /// Begins a chapter.
    pub fn title(&mut self, text: &str) {
        self.last = Instant::now();
        self.say(&format!("\n{}{text}{}", self.style("1"), self.style("0")));
    }

    /// Notes a claim with its figure.
    pub fn claim(&mut self, claim: impl Into<String>, holds: bool, figure: impl Into<String>) -> bool {
        let verdict = if holds { Verdict::Holds } else { Verdict::Fails };
        self.note(claim.into(), verdict, figure.into());
        holds
    }

    /// Notes a claim that was tried by steps that can go wrong; their error is its figure.
    pub fn attempt(&mut self, claim: impl Into<String>, tried: anyhow::Result<(bool, String)>) -> bool {
        match tried {
            Ok((holds, figure)) => self.claim(claim, holds, figure),
            Err(error) => self.claim(claim, false, format!("{error:#}")),
        }
    }

    /// Notes that a claim could not be tried.
    pub fn skip(&mut self, claim: impl Into<String>, why: impl Into<String>) {
        self.note(claim.into(), Verdict::Skipped(why.into()), String::new());
    }

    fn note(&mut self, claim: String, verdict: Verdict, figure: String) {
        let took = self.last.elapsed();
        self.last = Instant::now();
        let (mark, color, figure) = match &verdict {
            Verdict::Holds => ("ok", "32", figure),
            Verdict::Fails => ("FAILED", "31", figure),
            Verdict::Unsteady => ("unsteady", "33", figure),
            Verdict::Skipped(why) => ("skipped", "33", why.clone()),
        };
        self.say(&format!("  {}{mark:7}{} {claim}: {figure}", self.style(color), self.style("0")));
        self.findings.push(Finding { claim, figure, verdict, took });
    }

    /// How many findings there are.
    pub fn len(&self) -> usize {
        self.findings.len()
    }

    /// Whether nothing has been found yet.
    pub fn is_empty(&self) -> bool {
        self.findings.is_empty()
    }

    /// Takes the failures since so many findings for unsteady, and what held then as never tried; says whether there
    /// were any. What is tried again afterwards decides.
    pub fn try_again(&mut self, since: usize) -> bool {
        let latest = self.findings.split_off(since.min(self.findings.len()));
        let failed = latest.iter().any(|f| f.verdict == Verdict::Fails);
        if failed {
            let of_failures = latest.into_iter().filter(|f| f.verdict == Verdict::Fails);
            self.findings.extend(of_failures.map(|f| Finding { verdict: Verdict::Unsteady, ..f }));
        } else {
            self.findings.extend(latest);
        }
        failed
    }

    /// How many claims hold, fail, and were skipped.
    pub fn counts(&self) -> (usize, usize, usize) {
        let count = |want: fn(&Verdict) -> bool| self.findings.iter().filter(|f| want(&f.verdict)).count();
        (
            count(|v| *v == Verdict::Holds),
            count(|v| *v == Verdict::Fails),
            count(|v| matches!(v, Verdict::Skipped(_))),
        )
    }

    /// Prints the end; says whether nothing failed.
    pub fn finish(&self) -> bool {
        let (held, failed, skipped) = self.counts();
        for finding in &self.findings {
            let (mark, color) = match finding.verdict {
                Verdict::Fails => ("FAILED", "31"),
                Verdict::Unsteady => ("UNSTEADY", "33"),
                Verdict::Holds | Verdict::Skipped(_) => continue,
            };
            let (on, off) = (self.style(color), self.style("0"));
            self.say(&format!("  {on}{mark}{off}  {}: {}", finding.claim, finding.figure));
        }
        let seconds = self.began.elapsed().as_secs_f64();
        self.say(&format!("{held} claims hold, {failed} fail, {skipped} were skipped ({seconds:.0} s)"));
        if self.quiet {
            use std::io::Write;
            drop(writeln!(std::io::stdout(), "{}", self.json()));
        }
        failed == 0
    }

    fn json(&self) -> Value {
        let (held, failed, skipped) = self.counts();
        let claims: Vec<Value> = self
            .findings
            .iter()
            .map(|f| {
                let (verdict, figure) = match &f.verdict {
                    Verdict::Holds => ("passed", &f.figure),
                    Verdict::Fails => ("failed", &f.figure),
                    Verdict::Unsteady => ("unsteady", &f.figure),
                    Verdict::Skipped(why) => ("skipped", why),
                };
                json!({"claim": f.claim, "verdict": verdict, "figure": figure, "seconds": f.took.as_secs_f64()})
            })
            .collect();
        json!({"passed": held, "failed": failed, "skipped": skipped, "claims": claims})
    }

    fn style(&self, code: &str) -> String {
        if self.color && !self.quiet { format!("\x1b[{code}m") } else { String::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::Report;

    #[test]
    fn a_second_trial_decides() {
        for (second, counts) in [(true, (3, 0, 0)), (false, (2, 1, 0))] {
            let mut report = Report::new(true);
            report.claim("before", true, "");
            let since = report.len();
            report.claim("first", true, "");
            report.claim("second", false, "1 of 2");
            assert!(report.try_again(since));
            assert!(!report.try_again(report.len()));
            report.claim("first", true, "");
            report.claim("second", second, "2 of 2");
            assert_eq!(report.counts(), counts);
        }
    }
}
