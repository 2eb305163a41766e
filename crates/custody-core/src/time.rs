//! Moments in UTC with a resolution of one second, written in exactly one form (RFC 3339, `Z`).

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use crate::{Code, Refusal};

/// Seconds since 1970-01-01T00:00:00Z, from that moment to the end of the year 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

const LAST: u64 = 253_402_300_799;

impl Time {
    /// 1970-01-01T00:00:00Z, the first moment.
    pub const EPOCH: Self = Self(0);

    /// The moment so many seconds after 1970, or none after the year 9999.
    pub const fn from_unix(seconds: u64) -> Option<Self> {
        if seconds <= LAST { Some(Self(seconds)) } else { None }
    }

    /// Seconds since 1970.
    pub const fn unix(self) -> u64 {
        self.0
    }

    /// This moment and so many seconds more; at the latest the end of the year 9999.
    #[must_use]
    pub fn plus(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds).min(LAST))
    }

    /// Seconds from `earlier` to this moment; 0 if `earlier` is later.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

const fn days_in(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to the first of January of `year`.
#[expect(clippy::arithmetic_side_effects, reason = "years are 1970 to 9999")]
const fn days_before_year(year: u64) -> u64 {
    let y = year - 1;
    (year - 1970) * 365 + (y / 4 - y / 100 + y / 400) - 477
}

#[expect(clippy::arithmetic_side_effects, reason = "all fields are range-checked first")]
fn parse(text: &str) -> Option<Time> {
    let bytes = text.as_bytes();
    if bytes.len() != 20 {
        return None;
    }
    let shape = b"dddd-dd-ddTdd:dd:ddZ";
    let fits = bytes.iter().zip(shape).all(|(b, s)| match s {
        b'd' => b.is_ascii_digit(),
        _ => b == s,
    });
    if !fits {
        return None;
    }
    let field = |range: core::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
    let (year, month, day) = (field(0..4)?, field(5..7)?, field(8..10)?);
    let (hour, minute, second) = (field(11..13)?, field(14..16)?, field(17..19)?);
    let date_exists =
        year >= 1970 && (1..=12).contains(&month) && day >= 1 && day <= days_in(year, month);
    if !date_exists || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days_before_year(year) + (1..month).map(|m| days_in(year, m)).sum::<u64>() + day - 1;
    Some(Time(days * 86_400 + hour * 3_600 + minute * 60 + second))
}

impl FromStr for Time {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        parse(text).ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            Refusal::new(Code::ParseTimeInvalid, "", "a time like 2026-11-22T18:06:00Z", shown)
        })
    }
}

impl fmt::Display for Time {
    #[expect(clippy::arithmetic_side_effects, reason = "a Time is at most the year 9999")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second) = (self.0 / 86_400, self.0 % 86_400);
        let mut year = 1970 + days / 366;
        while days_before_year(year + 1) <= days {
            year += 1;
        }
        let (mut month, mut day) = (1, days - days_before_year(year));
        while day >= days_in(year, month) {
            day -= days_in(year, month);
            month += 1;
        }
        let (hour, minute) = (second / 3_600, second / 60 % 60);
        write!(f, "{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{:02}Z", day + 1, second % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    #[test]
    fn known_moments() {
        for (unix, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_370_760, "2026-11-22T18:06:00Z"),
            (LAST, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(text.parse::<Time>().unwrap().unix(), unix);
            assert_eq!(Time(unix).to_string(), text);
        }
    }

    #[test]
    fn since_an_earlier_moment_and_never_less_than_nothing() {
        assert_eq!(Time(70).since(Time(7)), 63);
        assert_eq!(Time(7).since(Time(70)), 0);
    }

    /// `json-time-forms`.
    #[test]
    fn other_forms_are_refused() {
        for text in [
            "2026-02-30T00:00:00Z",
            "2026-01-01T00:00:60Z",
            "2026-01-01T00:00:00",
            "2026-01-01 00:00:00Z",
            "2026-01-01T00:00:00+23:59",
            "10000-01-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-01-01t00:00:00z",
            "2026-01-01T24:00:00Z",
            "2026-13-01T00:00:00Z",
            "2100-02-29T00:00:00Z",
        ] {
            assert_eq!(text.parse::<Time>().unwrap_err().code, Code::ParseTimeInvalid, "{text}");
        }
    }

    proptest! {
        #[test]
        fn printed_times_are_read_back(unix in 0..=LAST) {
            let time = Time(unix);
            prop_assert_eq!(time.to_string().parse::<Time>().unwrap(), time);
        }
    }
}
