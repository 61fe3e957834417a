//! Formats of times in access logs: `START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)`. Times are told in UTC.

use crate::vocab::name::Text;

/// A part of a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimePiece {
    /// As it stands.
    Text(Text),
    /// `%Y`.
    Year,
    /// `%y`.
    ShortYear,
    /// `%m`.
    Month,
    /// `%b`, `%h`; whole with `%B`.
    MonthName {
        /// Not cut to three letters.
        whole: bool,
    },
    /// `%d`; `%e` has a space for a zero.
    Day {
        /// What stands before one digit.
        fill: char,
    },
    /// `%j`.
    DayOfYear,
    /// `%a`; whole with `%A`.
    Weekday {
        /// Not cut to three letters.
        whole: bool,
    },
    /// `%H`.
    Hour,
    /// `%I`.
    Hour12,
    /// `%p`.
    Half,
    /// `%M`.
    Minute,
    /// `%S`.
    Second,
    /// `%f`, `%3f`: that many digits of the second's fraction.
    Fraction(u8),
    /// `%s`: seconds since 1970; `%3s` has that many digits of a fraction behind them, without a point.
    Epoch(u8),
}

/// A moment, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Year.
    pub year: i32,
    /// From 1.
    pub month: u8,
    /// From 1.
    pub day: u8,
    /// From 1.
    pub day_of_year: u16,
    /// From 0 for Sunday.
    pub weekday: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
    /// Of the second.
    pub nanosecond: u32,
    /// Seconds since 1970.
    pub epoch: u64,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// How a time is written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TimeFormat {
    /// Empty for the usual form, `2026-01-02T03:04:05.678Z`.
    pub pieces: Vec<TimePiece>,
}

impl TimeFormat {
    /// Reads a format of `strftime`; the error is the conversion that is unknown.
    pub fn parse(text: &str) -> Result<TimeFormat, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            plain.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let count = rest[..digits].parse::<u8>().ok();
            let Some(letter) = rest[digits..].chars().next() else { return Err("%".to_owned()) };
            let written = &rest[..digits + letter.len_utf8()];
            rest = &rest[written.len()..];
            let long = match (count, letter) {
                (None, '%') => "%",
                (None, 'n') => "\n",
                (None, 't') => "\t",
                (None, 'z') => "+0000",
                (None, 'Z') => "UTC",
                _ => "",
            };
            if !long.is_empty() {
                plain.push_str(long);
                continue;
            }
            if !plain.is_empty() {
                pieces.push(TimePiece::Text(std::mem::take(&mut plain).into()));
            }
            match conversion(count, letter) {
                Some(found) => pieces.extend(found),
                None => return Err(format!("%{written}")),
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(TimePiece::Text(plain.into()));
        }
        Ok(TimeFormat { pieces })
    }

    /// Writes a moment.
    pub fn write(&self, at: &Moment, out: &mut String) {
        use std::fmt::Write as _;
        for piece in &self.pieces {
            // Writing to a text does not fail.
            let _written = match piece {
                TimePiece::Text(text) => out.write_str(text),
                TimePiece::Year => write!(out, "{:04}", at.year),
                TimePiece::ShortYear => write!(out, "{:02}", at.year.rem_euclid(100)),
                TimePiece::Month => write!(out, "{:02}", at.month),
                TimePiece::MonthName { whole } => {
                    out.write_str(name(&MONTHS, at.month.wrapping_sub(1), *whole))
                }
                TimePiece::Day { fill: '0' } => write!(out, "{:02}", at.day),
                TimePiece::Day { .. } => write!(out, "{:2}", at.day),
                TimePiece::DayOfYear => write!(out, "{:03}", at.day_of_year),
                TimePiece::Weekday { whole } => out.write_str(name(&WEEKDAYS, at.weekday, *whole)),
                TimePiece::Hour => write!(out, "{:02}", at.hour),
                TimePiece::Hour12 => write!(out, "{:02}", (at.hour + 11) % 12 + 1),
                TimePiece::Half => out.write_str(if at.hour < 12 { "AM" } else { "PM" }),
                TimePiece::Minute => write!(out, "{:02}", at.minute),
                TimePiece::Second => write!(out, "{:02}", at.second),
                TimePiece::Fraction(digits) => out.write_str(&fraction(at.nanosecond, *digits)),
                TimePiece::Epoch(digits) => write!(out, "{}{}", at.epoch, fraction(at.nanosecond, *digits)),
            };
        }
    }
}

fn fraction(nanosecond: u32, digits: u8) -> String {
    format!("{nanosecond:09}")[..usize::from(digits.min(9))].to_owned()
}

fn name(names: &[&'static str], index: u8, whole: bool) -> &'static str {
    let name = names.get(usize::from(index)).copied().unwrap_or("");
    if whole { name } else { &name[..name.len().min(3)] }
}

fn conversion(count: Option<u8>, letter: char) -> Option<Vec<TimePiece>> {
    use TimePiece as P;
    let text = |text: &str| P::Text(text.into());
    let day = P::Day { fill: '0' };
    Some(match (count, letter) {
        (None, 'Y') => vec![P::Year],
        (None, 'y') => vec![P::ShortYear],
        (None, 'm') => vec![P::Month],
        (None, 'b' | 'h') => vec![P::MonthName { whole: false }],
        (None, 'B') => vec![P::MonthName { whole: true }],
        (None, 'd') => vec![day],
        (None, 'e') => vec![P::Day { fill: ' ' }],
        (None, 'j') => vec![P::DayOfYear],
        (None, 'a') => vec![P::Weekday { whole: false }],
        (None, 'A') => vec![P::Weekday { whole: true }],
        (None, 'H') => vec![P::Hour],
        (None, 'I') => vec![P::Hour12],
        (None, 'p') => vec![P::Half],
        (None, 'M') => vec![P::Minute],
        (None, 'S') => vec![P::Second],
        (None, 'D') => vec![P::Month, text("/"), day, text("/"), P::ShortYear],
        (None, 'F') => vec![P::Year, text("-"), P::Month, text("-"), day],
        (None, 'T') => vec![P::Hour, text(":"), P::Minute, text(":"), P::Second],
        (None, 'R') => vec![P::Hour, text(":"), P::Minute],
        (None, 'f') => vec![P::Fraction(9)],
        (Some(digits @ 1..=9), 'f') => vec![P::Fraction(digits)],
        (None, 's') => vec![P::Epoch(0)],
        (Some(digits @ 1..=9), 's') => vec![P::Epoch(digits)],
        _ => return None,
    })
}
