//! Where the key of a line comes from: nowhere, a JSON field, or the text before a delimiter.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer as _, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// How a line becomes key and value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRule {
    /// No key: the line is the value.
    None,
    /// The key is this field of a JSON object; the whole line stays the value.
    JsonField(String),
    /// The key ends at the first delimiter, the value begins after it; no delimiter = no key.
    Delimiter(Vec<u8>),
}

/// A line, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyedLine<'a> {
    /// The key, when there is one.
    pub key: Option<Cow<'a, [u8]>>,
    /// The value.
    pub value: &'a [u8],
}

impl KeyRule {
    /// Key and value of `line`; the error says what is wrong with it.
    pub fn split<'a>(&self, line: &'a [u8]) -> Result<KeyedLine<'a>, String> {
        match self {
            KeyRule::None => Ok(KeyedLine { key: None, value: line }),
            KeyRule::JsonField(field) => Ok(KeyedLine { key: json_key(line, field)?, value: line }),
            KeyRule::Delimiter(delimiter) => {
                let at = line.windows(delimiter.len()).position(|window| window == delimiter);
                Ok(match at {
                    Some(at) => {
                        let value = &line[at + delimiter.len()..];
                        KeyedLine { key: Some(line[..at].into()), value }
                    }
                    None => KeyedLine { key: None, value: line },
                })
            }
        }
    }
}

/// `\t`, `\n`, `\0` and `\\` in a delimiter given on the command line.
pub fn parse_delimiter(text: &str) -> Result<Vec<u8>, String> {
    let plain = text.replace("\\t", "\t").replace("\\n", "\n").replace("\\0", "\0");
    let plain = plain.replace("\\\\", "\\");
    if plain.is_empty() { Err("needs at least one character".to_owned()) } else { Ok(plain.into()) }
}

/// A string as it is, a number (or anything else) as written, null or missing = no key.
fn json_key<'a>(line: &'a [u8], field: &str) -> Result<Option<Cow<'a, [u8]>>, String> {
    let mut parser = serde_json::Deserializer::from_slice(line);
    let raw = parser.deserialize_map(FieldVisitor { field }).map_err(|e| bad(&e))?;
    parser.end().map_err(|e| bad(&e))?;
    let Some(raw) = raw.map(RawValue::get) else { return Ok(None) };
    match raw.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') => {
            let text: Cow<'a, str> = match serde_json::from_str::<&'a str>(raw) {
                Ok(plain) => Cow::Borrowed(plain),
                Err(_) => Cow::Owned(serde_json::from_str(raw).map_err(|e| bad(&e))?),
            };
            Ok(Some(match text {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            }))
        }
        _ => Ok(Some(Cow::Borrowed(raw.as_bytes()))),
    }
}

fn bad(error: &serde_json::Error) -> String {
    format!("not a JSON object: {error}")
}

/// Keeps one field and walks over the others without building them.
struct FieldVisitor<'f> {
    field: &'f str,
}

impl<'de> Visitor<'de> for FieldVisitor<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            if name == self.field {
                if found.is_some() {
                    return Err(A::Error::custom(format!("field {:?} stands twice", self.field)));
                }
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(line: &str) -> Result<Option<String>, String> {
        let rule = KeyRule::JsonField("id".to_owned());
        let KeyedLine { key, value } = rule.split(line.as_bytes())?;
        assert_eq!(value, line.as_bytes());
        Ok(key.map(|k| String::from_utf8(k.into_owned()).expect("UTF-8")))
    }

    #[test]
    fn json_keys_keep_their_form() {
        for (line, expected) in [
            (r#"{"id":"a b","x":1}"#, Some("a b")),
            (r#"{"x":{"id":9},"id":"tab\tü\u00e9"}"#, Some("tab\tüé")),
            (r#"{"id":17850}"#, Some("17850")),
            (r#"{"id":1.50e3}"#, Some("1.50e3")),
            (r#"{"id":0.1000000000000000055}"#, Some("0.1000000000000000055")),
            (r#"{"id":null}"#, None),
            (r#"{"other":"x"}"#, None),
            (r#"{}"#, None),
            (r#" {"id" : "" } "#, Some("")),
            (r#"{"id":true}"#, Some("true")),
        ] {
            assert_eq!(key(line), Ok(expected.map(str::to_owned)), "{line}");
        }
    }

    #[test]
    fn broken_json_is_an_error() {
        for bad in
            ["", "{", "[1]", "17", r#"{"id":1} x"#, r#"{"id":1,"id":2}"#, "{\"id\":\"\u{1}\"}"]
        {
            assert!(key(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_delimiter_splits_once() {
        let rule = KeyRule::Delimiter(parse_delimiter("::").expect("valid"));
        let split = |line: &'static str| {
            let KeyedLine { key, value } = rule.split(line.as_bytes()).expect("never fails");
            (key.map(|k| k.into_owned()), value)
        };
        assert_eq!(split("k::v::w"), (Some(b"k".to_vec()), &b"v::w"[..]));
        assert_eq!(split("::v"), (Some(Vec::new()), &b"v"[..]));
        assert_eq!(split("k::"), (Some(b"k".to_vec()), &b""[..]));
        assert_eq!(split("none"), (None, &b"none"[..]));
        assert_eq!(parse_delimiter("\\t"), Ok(b"\t".to_vec()));
        assert!(parse_delimiter("").is_err());
    }
}
