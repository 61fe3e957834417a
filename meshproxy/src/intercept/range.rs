//! Numbers and ranges of numbers, as flags have them: ports and users.

use std::fmt;
use std::str::FromStr;

/// From one number to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// The first.
    pub from: u32,
    /// The last.
    pub to: u32,
}

/// Why a text is no range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a number nor a range of numbers (FROM-TO)")]
pub struct RangeError(String);

impl FromStr for Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Range, RangeError> {
        let wrong = || RangeError(text.to_owned());
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| wrong());
        let (from, to) = (number(from)?, number(to)?);
        if from <= to { Ok(Range { from, to }) } else { Err(wrong()) }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.from == self.to {
            true => write!(f, "{}", self.from),
            false => write!(f, "{}-{}", self.from, self.to),
        }
    }
}

impl Range {
    /// One number.
    pub fn one(number: u32) -> Range {
        Range { from: number, to: number }
    }
}

/// A range of ports.
pub fn ports(text: &str) -> Result<Range, String> {
    let range: Range = text.parse().map_err(|error: RangeError| error.to_string())?;
    match (1..=65_535).contains(&range.from) && range.to <= 65_535 {
        true => Ok(range),
        false => Err(format!("{text:?} is no port: they go from 1 to 65535")),
    }
}

/// The same numbers in order, each in one range only: sets of the kernel have no overlaps.
pub fn merged(ranges: impl IntoIterator<Item = Range>) -> Vec<Range> {
    let mut all: Vec<Range> = ranges.into_iter().collect();
    all.sort();
    let mut merged: Vec<Range> = Vec::new();
    for range in all {
        match merged.last_mut() {
            Some(last) if range.from <= last.to.saturating_add(1) => last.to = last.to.max(range.to),
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_merged() {
        let check = |texts: &[&str], expected: &str| {
            let ranges = texts.iter().map(|text| text.parse().unwrap());
            let shown: Vec<String> = merged(ranges).iter().map(ToString::to_string).collect();
            assert_eq!(shown.join(" "), expected, "{texts:?}");
        };
        check(&["22"], "22");
        check(&["80-90", "85-95", "22", "96"], "22 80-96");
        check(&["1-4294967295", "7"], "1-4294967295");
        for bad in ["", "x", "9-8", "-1", "1-", "4294967296"] {
            assert!(bad.parse::<Range>().is_err(), "{bad}");
        }
        assert!(ports("0").is_err() && ports("70000").is_err() && ports("1-65535").is_ok());
    }
}
