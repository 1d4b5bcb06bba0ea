//! Sizes and durations as people write them: `64KiB`, `10MB`, `250ms`, `7d`.

use std::time::Duration;

/// Why a size or duration was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {what}; write for example {example}")]
pub struct InvalidQuantity {
    text: String,
    what: &'static str,
    example: &'static str,
}

const BYTE_UNITS: [(&str, u64); 11] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("k", 1 << 10),
    ("b", 1),
    ("", 1),
];

const TIME_UNITS_MS: [(&str, u64); 7] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
    ("", 1),
];

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_');
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let number = number.replace('_', "");
    let unit = unit.trim().to_ascii_lowercase();
    let scale = units.iter().find(|(name, _)| *name == unit)?.1;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(scale);
    }
    let value = number.parse::<f64>().ok()? * scale as f64;
    (value.is_finite() && (0.0..9.0e18).contains(&value)).then_some(value as u64)
}

/// Bytes from `4096`, `64KiB`, `1.5GiB` (powers of 1,024) or `10MB` (powers of 1,000).
pub fn parse_bytes(text: &str) -> Result<u64, InvalidQuantity> {
    let invalid =
        || InvalidQuantity { text: text.to_owned(), what: "size", example: "64KiB, 10MB or 4096" };
    parse(text, &BYTE_UNITS).ok_or_else(invalid)
}

/// A duration from `250ms`, `30s`, `5m`, `12h`, `7d`, `2w`; a bare number is milliseconds.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidQuantity> {
    let invalid =
        || InvalidQuantity { text: text.to_owned(), what: "duration", example: "250ms, 5m or 7d" };
    parse(text, &TIME_UNITS_MS).map(Duration::from_millis).ok_or_else(invalid)
}

/// Bytes for people: `1.5 GiB`, `812 B`.
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A duration in the largest unit that writes it exactly: `7d`, `90s`, `250ms`.
pub fn format_duration(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let unit = TIME_UNITS_MS[..5].iter().rev().find(|(_, scale)| ms > 0 && ms % scale == 0);
    let (name, scale) = unit.copied().unwrap_or(("ms", 1));
    format!("{}{name}", ms / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64KiB", 65_536),
            ("10MB", 10_000_000),
            ("1.5 GiB", 1_610_612_736),
            ("1_000b", 1_000),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for bad in ["", "KiB", "-1", "1.2.3", "10 parsecs", "99999999999TiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_round_trip() {
        for text in ["250ms", "90s", "5m", "12h", "7d"] {
            let parsed = parse_duration(text).expect("valid");
            assert_eq!(parse_duration(&format_duration(parsed)), Ok(parsed));
        }
        assert_eq!(parse_duration("2w").map(format_duration), Ok("14d".to_owned()));
        assert!(parse_duration("soon").is_err());
    }

    #[test]
    fn bytes_for_people() {
        assert_eq!(format_bytes(812), "812 B");
        assert_eq!(format_bytes(1_610_612_736), "1.5 GiB");
    }
}
