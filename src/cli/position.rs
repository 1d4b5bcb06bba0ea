//! Where to start and stop reading, as people write it (the grammar of `rpk` and `kcat`):
//! `start`, `end`, `+N`, `-N`, `N`, `@TIME`, and the ranges `N:M`, `:end`, `@T1:T2`, `@-1h:end`.
//! Counts are per partition.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp as Moment;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::types::{Timestamp, parse_duration};

/// A moment, absolute or counted back from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeRef {
    /// This moment.
    At(Timestamp),
    /// So long before now.
    Ago(Duration),
}

impl TimeRef {
    /// The moment, when it is `now`.
    pub fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            TimeRef::At(at) => at,
            TimeRef::Ago(ago) => {
                Timestamp(now.0.saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)))
            }
        }
    }
}

impl FromStr for TimeRef {
    type Err = String;

    /// RFC 3339 (`2011-12-09T12:50:00Z`), a date (`2011-12-09`, UTC), milliseconds (13 digits) or
    /// seconds (10 digits) since 1970, or `-1h`.
    fn from_str(text: &str) -> Result<TimeRef, String> {
        if let Some(ago) = text.strip_prefix('-') {
            return parse_duration(ago).map(TimeRef::Ago).map_err(|e| e.to_string());
        }
        if text.bytes().all(|b| b.is_ascii_digit()) {
            let scale = match text.len() {
                10 => 1_000,
                13 => 1,
                _ => return Err(form(text)),
            };
            let number: i64 = text.parse().map_err(|_| form(text))?;
            return Ok(TimeRef::At(Timestamp(number * scale)));
        }
        let at = match text.parse::<Moment>() {
            Ok(moment) => moment,
            Err(_) => {
                let date: Date = text.parse().map_err(|_| form(text))?;
                let is_date_alone = text.len() == "2011-12-09".len();
                let midnight = date.to_zoned(TimeZone::UTC).map_err(|_| form(text))?;
                is_date_alone.then(|| midnight.timestamp()).ok_or_else(|| form(text))?
            }
        };
        Ok(TimeRef::At(Timestamp(at.as_millisecond())))
    }
}

fn form(text: &str) -> String {
    format!("{text:?} is not a time; write 2011-12-09T12:50:00Z, 2011-12-09, 1323435000000 or -1h")
}

/// One place in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// The first offset that can be read.
    Start,
    /// The visible end.
    End,
    /// So many records after the start.
    AfterStart(i64),
    /// So many records before the end.
    BeforeEnd(i64),
    /// This offset.
    At(i64),
    /// The first record at or after this time.
    Time(TimeRef),
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Position, String> {
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| digits.parse().ok()).flatten().ok_or_else(|| {
                format!("{text:?} is not an offset; write start, end, 42, +42, -42 or @TIME")
            })
        };
        match text {
            "start" => Ok(Position::Start),
            "end" => Ok(Position::End),
            _ => match text.as_bytes().first() {
                Some(b'@') => text[1..].parse().map(Position::Time),
                Some(b'+') => number(&text[1..]).map(Position::AfterStart),
                Some(b'-') => number(&text[1..]).map(Position::BeforeEnd),
                _ => number(text).map(Position::At),
            },
        }
    }
}

/// Where to start, and where to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first record.
    pub from: Position,
    /// The first record that is not read any more; `None` = go on for ever.
    pub until: Option<Position>,
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let whole = text.parse::<Position>();
        if let Ok(from) = whole {
            return Ok(Span { from, until: None });
        }
        // A time has colons of its own: the one that leaves two valid sides is the range's.
        let in_time = text.starts_with('@');
        for (at, _) in text.match_indices(':') {
            let (left, right) = (&text[..at], &text[at + 1..]);
            let from = if left.is_empty() { Ok(Position::Start) } else { left.parse() };
            let until = match right {
                "end" => Ok(Position::End),
                time if in_time => time.trim_start_matches('@').parse().map(Position::Time),
                other => other.parse(),
            };
            if let (Ok(from), Ok(until)) = (from, until) {
                return Ok(Span { from, until: Some(until) });
            }
        }
        Err(whole.err().unwrap_or_default())
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Position::Start => f.write_str("start"),
            Position::End => f.write_str("end"),
            Position::AfterStart(n) => write!(f, "+{n}"),
            Position::BeforeEnd(n) => write!(f, "-{n}"),
            Position::At(n) => write!(f, "{n}"),
            Position::Time(TimeRef::At(at)) => write!(f, "@{at}"),
            Position::Time(TimeRef::Ago(ago)) => {
                write!(f, "@-{}", crate::types::format_duration(*ago))
            }
        }
    }
}

/// A moment in RFC 3339, UTC, with milliseconds; out of range = the number itself.
pub fn rfc3339(at: Timestamp) -> String {
    match Moment::from_millisecond(at.0) {
        Ok(moment) => format!("{moment:.3}"),
        Err(_) => at.0.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str) -> (String, Option<String>) {
        let span: Span = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        (span.from.to_string(), span.until.map(|u| u.to_string()))
    }

    #[test]
    fn the_grammar_is_read_whole() {
        for (text, from, until) in [
            ("start", "start", None),
            ("end", "end", None),
            (":end", "start", Some("end")),
            ("+10", "+10", None),
            ("-10", "-10", None),
            ("42", "42", None),
            ("42:50", "42", Some("50")),
            (":50", "start", Some("50")),
            ("-10:end", "-10", Some("end")),
            ("@1323435000000", "@1323435000000", None),
            ("@1323435000", "@1323435000000", None),
            ("@2011-12-09T12:50:00Z", "@1323435000000", None),
            ("@2011-12-09", "@1323388800000", None),
            ("@-1h", "@-1h", None),
            ("@-1h:end", "@-1h", Some("end")),
            ("@1323388800000:1323435000000", "@1323388800000", Some("@1323435000000")),
            ("@2011-12-09:2011-12-09T12:50:00Z", "@1323388800000", Some("@1323435000000")),
            ("@2011-12-09T13:50:00+01:00:-5m", "@1323435000000", Some("@-5m")),
        ] {
            assert_eq!(span(text), (from.to_owned(), until.map(str::to_owned)), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "begin", "1.5", "--1", "+-1", "@", "@yesterday", "@12", "4:x", "@-1parsec"]
        {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }

    #[test]
    fn relative_times_count_from_now() {
        let ago: TimeRef = "-1h".parse().expect("valid");
        assert_eq!(ago.resolve(Timestamp(7_200_000)), Timestamp(3_600_000));
        assert_eq!(rfc3339(Timestamp(1_323_435_000_123)), "2011-12-09T12:50:00.123Z");
    }
}
