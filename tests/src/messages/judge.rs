//! Whether what came of a case is what shall become of it.

use super::Finding;
use super::cases::{Case, Check, Verdict};
use super::client::Outcome;
use super::recorder::Heard;

/// Judges a case. Others may refuse with any status, and take what we refuse only as harm if it is.
pub(super) fn judge(
    case: &Case,
    outcome: &Outcome,
    heard: &[Heard],
    is_answer: bool,
    strictly: bool,
) -> Finding {
    let refused = match outcome.last() {
        Some(400..) => true,
        Some(_) if is_answer => !outcome.whole,
        Some(_) => false,
        None => outcome.ended || outcome.reset.is_some(),
    };
    let passed = |count: usize| {
        let good = |status: &u16| *status < 400;
        outcome.whole && outcome.statuses.len() == count && outcome.statuses.iter().all(good)
    };
    let verdict = match &case.verdict {
        Verdict::Refused(statuses) => {
            let breaks_off = is_answer && !outcome.whole;
            let told = |last: u16| statuses.is_empty() || statuses.contains(&last);
            let as_told = breaks_off || outcome.last().is_none_or(told);
            refused && (as_told || !strictly)
        }
        Verdict::Ended => outcome.ended,
        Verdict::Passed(count) => passed(*count),
        Verdict::Either => refused || passed(outcome.statuses.len()),
    };
    let mut wrong = Vec::new();
    if !verdict {
        wrong.push(format!("not {:?}", case.verdict));
    }
    let asked = case.checks.iter().find_map(|check| match check {
        Check::Requests(count) => Some(*count),
        _ => None,
    });
    let expected = match (&case.verdict, asked) {
        (_, Some(count)) => Some(count),
        (Verdict::Refused(_), None) if !is_answer => Some(0),
        (Verdict::Passed(count), None) if !is_answer => Some(*count),
        _ => None,
    };
    if expected.is_some_and(|count| count != heard.len()) {
        wrong.push(format!("{} requests arrive", heard.len()));
    }
    if !(matches!(case.verdict, Verdict::Either) && refused) {
        wrong.extend(case.checks.iter().filter(|check| !holds(check, outcome, heard, is_answer)).map(told));
    }
    let holds = wrong.is_empty();
    let heads: Vec<_> = heard.iter().map(|heard| shown(&heard.head)).collect();
    let what = format!(
        "{}: {:?}{}{} {} <- {}",
        wrong.join(", "),
        outcome.statuses,
        outcome.reset.map_or(String::new(), |code| format!(" reset {code}")),
        if outcome.ended { " ended" } else { "" },
        if is_answer { shown(&outcome.bytes) } else { String::new() },
        heads.join(" & "),
    );
    Finding { holds, what }
}

fn holds(check: &Check, outcome: &Outcome, heard: &[Heard], is_answer: bool) -> bool {
    let all = || heard.iter().flat_map(|heard| [&*heard.head, &*heard.body].concat()).collect::<Vec<u8>>();
    let seen = if is_answer { outcome.bytes.clone() } else { all() };
    match check {
        Check::Has(text) => contains(&seen, text),
        Check::Lacks(text) => !contains(&seen, text),
        Check::Requests(_) => true,
        Check::Body(body) if is_answer => outcome.bytes.ends_with(body),
        Check::Body(body) => heard.last().is_some_and(|heard| heard.body == *body),
        Check::Status(status) => outcome.last() == Some(*status),
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    part.is_empty() || bytes.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

fn told(check: &Check) -> String {
    match check {
        Check::Has(text) => format!("lacks {}", shown(text)),
        Check::Lacks(text) => format!("has {}", shown(text)),
        Check::Requests(count) => format!("not {count} requests"),
        Check::Body(_) => "another content".into(),
        Check::Status(status) => format!("not {status}"),
    }
}

fn shown(bytes: &[u8]) -> String {
    let text = bytes.escape_ascii().to_string();
    if text.len() > 300 { format!("{}...", &text[..300]) } else { text }
}
