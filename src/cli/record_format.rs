//! How `consume -f` prints a record: a printf-like text, parsed once.
//!
//! | piece | prints |
//! |---|---|
//! | `%t` `%p` `%o` | topic, partition, offset |
//! | `%k` `%v` | key, value; `%k{hex}`, `%v{base64}`, `%v{json}` in that form; a null prints nothing |
//! | `%K` `%V` | bytes of key, of value; -1 for a null |
//! | `%h` `%H` | headers as `name=value,...`; how many |
//! | `%d` | timestamp in milliseconds; `%d{rfc3339}`, `%d{%F %T}` or `%d{strftime[%F %T]}` (UTC) |
//! | `%%` `\n` `\t` `\r` `\0` `\\` `\xNN` | themselves |

use std::io::{self, Write};

use jiff::Timestamp as Moment;

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use super::bytes_text::{JsonBytes, base64, hex};
use super::position::rfc3339;
use crate::types::{Offset, PartitionId, Timestamp};

/// One record to print; borrowed from wherever it is.
#[derive(Clone, Copy, Debug)]
pub struct RecordFields<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: PartitionId,
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp.
    pub timestamp: Timestamp,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
}

impl Serialize for RecordFields<'_> {
    /// The object that `--json` prints for a record.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut record = serializer.serialize_struct("Record", 7)?;
        record.serialize_field("topic", self.topic)?;
        record.serialize_field("partition", &self.partition)?;
        record.serialize_field("offset", &self.offset)?;
        record.serialize_field("timestamp", &self.timestamp)?;
        record.serialize_field("key", &JsonBytes(self.key))?;
        record.serialize_field("value", &JsonBytes(self.value))?;
        record.serialize_field("headers", &Headers(self.headers))?;
        record.end()
    }
}

struct Headers<'a>(&'a [(&'a [u8], Option<&'a [u8]>)]);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Header<'a> {
            key: JsonBytes<'a>,
            value: JsonBytes<'a>,
        }
        serializer.collect_seq(
            self.0
                .iter()
                .map(|(key, value)| Header { key: JsonBytes(Some(key)), value: JsonBytes(*value) }),
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Raw,
    Hex,
    Base64,
    Json,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Time {
    Millis,
    Rfc3339,
    Strftime(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Key(Form),
    Value(Form),
    KeyBytes,
    ValueBytes,
    Headers,
    HeaderCount,
    Time(Time),
}

/// A parsed format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordFormat {
    pieces: Vec<Piece>,
}

impl Default for RecordFormat {
    /// The value and a newline: what went in with `produce` comes out.
    fn default() -> RecordFormat {
        RecordFormat { pieces: vec![Piece::Value(Form::Raw), Piece::Literal(b"\n".to_vec())] }
    }
}

impl std::str::FromStr for RecordFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<RecordFormat, String> {
        let mut pieces = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            match c {
                '%' if rest.starts_with('%') => {
                    literal.push(b'%');
                    rest = &rest[1..];
                }
                '%' => {
                    if !literal.is_empty() {
                        pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                    }
                    let piece;
                    (piece, rest) = parse_piece(rest)?;
                    pieces.push(piece);
                }
                '\\' => {
                    let byte;
                    (byte, rest) = parse_escape(rest)?;
                    literal.push(byte);
                }
                other => literal.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(RecordFormat { pieces })
    }
}

fn parse_escape(rest: &str) -> Result<(u8, &str), String> {
    let c = rest.chars().next().ok_or("a \\ at the end escapes nothing")?;
    let after = &rest[c.len_utf8()..];
    let byte = match c {
        'n' => b'\n',
        't' => b'\t',
        'r' => b'\r',
        '0' => 0,
        '\\' => b'\\',
        'x' => {
            let digits = after.get(..2).ok_or("\\x needs two hexadecimal digits")?;
            let byte = u8::from_str_radix(digits, 16)
                .map_err(|_| format!("\\x{digits}: two hexadecimal digits are needed"))?;
            return Ok((byte, &after[2..]));
        }
        other => return Err(format!("\\{other} is not known; \\n \\t \\r \\0 \\\\ \\xNN are")),
    };
    Ok((byte, after))
}

/// The piece after a `%`, and what follows it.
fn parse_piece(rest: &str) -> Result<(Piece, &str), String> {
    let name = rest.chars().next().ok_or("a % at the end stands for nothing; %% is a %")?;
    let after = &rest[name.len_utf8()..];
    let (modifier, after) = match after.strip_prefix('{') {
        Some(inner) => {
            let end = inner.find('}').ok_or_else(|| format!("%{name}{{ has no }}"))?;
            (Some(&inner[..end]), &inner[end + 1..])
        }
        None => (None, after),
    };
    let plain = |piece: Piece| match modifier {
        None => Ok(piece),
        Some(modifier) => Err(format!("%{name} takes no {{{modifier}}}")),
    };
    let piece = match name {
        't' => plain(Piece::Topic)?,
        'p' => plain(Piece::Partition)?,
        'o' => plain(Piece::Offset)?,
        'k' => Piece::Key(parse_form(name, modifier)?),
        'v' => Piece::Value(parse_form(name, modifier)?),
        'K' => plain(Piece::KeyBytes)?,
        'V' => plain(Piece::ValueBytes)?,
        'h' => plain(Piece::Headers)?,
        'H' => plain(Piece::HeaderCount)?,
        'd' => Piece::Time(parse_time(modifier)?),
        other => {
            return Err(format!("%{other} is not known; %t %p %o %k %v %K %V %h %H %d %% are"));
        }
    };
    Ok((piece, after))
}

fn parse_form(name: char, modifier: Option<&str>) -> Result<Form, String> {
    match modifier {
        None => Ok(Form::Raw),
        Some("hex") => Ok(Form::Hex),
        Some("base64") => Ok(Form::Base64),
        Some("json") => Ok(Form::Json),
        Some(other) => Err(format!("%{name}{{{other}}}: hex, base64 and json are known")),
    }
}

fn parse_time(modifier: Option<&str>) -> Result<Time, String> {
    let format = match modifier {
        None | Some("ms") => return Ok(Time::Millis),
        Some("rfc3339") => return Ok(Time::Rfc3339),
        Some(text) => {
            text.strip_prefix("strftime[").and_then(|t| t.strip_suffix(']')).unwrap_or(text)
        }
    };
    let mut trial = String::new();
    jiff::fmt::strtime::BrokenDownTime::from(Moment::UNIX_EPOCH)
        .format(format, &mut trial)
        .map_err(|e| format!("%d{{{format}}}: {e}"))?;
    Ok(Time::Strftime(format.to_owned()))
}

impl RecordFormat {
    /// Prints one record.
    pub fn write(&self, out: &mut impl Write, record: &RecordFields<'_>) -> io::Result<()> {
        for piece in &self.pieces {
            match piece {
                Piece::Literal(bytes) => out.write_all(bytes)?,
                Piece::Topic => out.write_all(record.topic.as_bytes())?,
                Piece::Partition => write!(out, "{}", record.partition)?,
                Piece::Offset => write!(out, "{}", record.offset)?,
                Piece::Key(form) => write_bytes(out, record.key, *form)?,
                Piece::Value(form) => write_bytes(out, record.value, *form)?,
                Piece::KeyBytes => write_len(out, record.key)?,
                Piece::ValueBytes => write_len(out, record.value)?,
                Piece::Headers => write_headers(out, record)?,
                Piece::HeaderCount => write!(out, "{}", record.headers.len())?,
                Piece::Time(time) => write_time(out, record.timestamp, time)?,
            }
        }
        Ok(())
    }
}

fn write_len(out: &mut impl Write, bytes: Option<&[u8]>) -> io::Result<()> {
    match bytes {
        Some(bytes) => write!(out, "{}", bytes.len()),
        None => out.write_all(b"-1"),
    }
}

fn write_bytes(out: &mut impl Write, bytes: Option<&[u8]>, form: Form) -> io::Result<()> {
    match (form, bytes) {
        (Form::Json, bytes) => {
            serde_json::to_writer(out, &JsonBytes(bytes)).map_err(io::Error::from)
        }
        (_, None) => Ok(()),
        (Form::Raw, Some(bytes)) => out.write_all(bytes),
        (Form::Hex, Some(bytes)) => out.write_all(hex(bytes).as_bytes()),
        (Form::Base64, Some(bytes)) => out.write_all(base64(bytes).as_bytes()),
    }
}

fn write_headers(out: &mut impl Write, record: &RecordFields<'_>) -> io::Result<()> {
    for (at, (key, value)) in record.headers.iter().enumerate() {
        if at > 0 {
            out.write_all(b",")?;
        }
        out.write_all(key)?;
        out.write_all(b"=")?;
        out.write_all(value.unwrap_or_default())?;
    }
    Ok(())
}

fn write_time(out: &mut impl Write, at: Timestamp, time: &Time) -> io::Result<()> {
    match (time, Moment::from_millisecond(at.0)) {
        (Time::Rfc3339, _) => out.write_all(rfc3339(at).as_bytes()),
        (Time::Strftime(format), Ok(moment)) => {
            let mut text = String::new();
            let broken = jiff::fmt::strtime::BrokenDownTime::from(moment);
            match broken.format(format, &mut text) {
                Ok(()) => out.write_all(text.as_bytes()),
                Err(_) => write!(out, "{at}"),
            }
        }
        // A time no calendar has is printed as it is stored.
        (Time::Millis, _) | (Time::Strftime(_), Err(_)) => write!(out, "{at}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: RecordFields<'static> = RecordFields {
        topic: "orders",
        partition: PartitionId(3),
        offset: Offset(41),
        timestamp: Timestamp(1_323_435_000_123),
        key: Some(b"17850"),
        value: Some(b"\xffv"),
        headers: &[(b"a", Some(b"1")), (b"b", None)],
    };

    fn print(format: &str, record: &RecordFields<'_>) -> Vec<u8> {
        let format: RecordFormat = format.parse().unwrap_or_else(|e| panic!("{format}: {e}"));
        let mut out = Vec::new();
        format.write(&mut out, record).expect("written");
        out
    }

    #[test]
    fn every_piece_prints() {
        for (format, expected) in [
            ("%t %p %o %k\\n", "orders 3 41 17850\n"),
            ("%k{hex} %v{hex} %v{base64} %k{json}", "3137383530 ff76 /3Y= \"17850\""),
            ("%K/%V", "5/2"),
            ("%h|%H", "a=1,b=|2"),
            ("%d %d{rfc3339}", "1323435000123 2011-12-09T12:50:00.123Z"),
            ("%d{%F %T} %d{strftime[%H:%M]}", "2011-12-09 12:50:00 12:50"),
            ("100%% \\t\\\\\\x41é", "100% \t\\Aé"),
        ] {
            assert_eq!(
                String::from_utf8(print(format, &RECORD)),
                Ok(expected.to_owned()),
                "{format}"
            );
        }
        assert_eq!(print("%v", &RECORD), b"\xffv");
    }

    #[test]
    fn a_null_prints_nothing_but_its_length() {
        let record = RecordFields { key: None, value: None, headers: &[], ..RECORD };
        assert_eq!(print("[%k%v%h] %K %V %v{json}", &record), b"[] -1 -1 null");
    }

    #[test]
    fn json_has_the_fixed_shape() {
        let line = serde_json::to_string(&RECORD).expect("JSON");
        assert_eq!(
            line,
            r#"{"topic":"orders","partition":3,"offset":41,"timestamp":1323435000123,"key":"17850","value":{"base64":"/3Y="},"headers":[{"key":"a","value":"1"},{"key":"b","value":null}]}"#
        );
    }

    #[test]
    fn wrong_formats_are_refused() {
        for bad in ["%", "%x", "%t{hex}", "%v{utf7}", "%v{hex", "\\", "\\q", "\\x4", "%d{%!}"] {
            assert!(bad.parse::<RecordFormat>().is_err(), "{bad}");
        }
    }
}
