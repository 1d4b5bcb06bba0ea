//! Bytes as text: JSON that keeps every byte (`"text"` when it is UTF-8, else `{"base64": ...}`),
//! base64 (RFC 4648, with padding) and hexadecimal.

use std::fmt::Write as _;

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::Value;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// `bytes` in base64.
pub fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |sum, byte| sum << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let six = (group >> (18 - 6 * place)) & 63;
            text.push(if place <= chunk.len() { char::from(ALPHABET[six as usize]) } else { '=' });
        }
    }
    text
}

/// Bytes from base64; `None` when it is not.
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    let body = text.trim_end_matches('=');
    let padding = text.len() - body.len();
    if !text.len().is_multiple_of(4) || padding > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut group, mut bits) = (0u32, 0);
    for c in body.bytes() {
        let six = ALPHABET.iter().position(|a| *a == c)?;
        group = (group << 6 | u32::try_from(six).ok()?) & 0xff_ffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((group >> bits & 0xff) as u8);
        }
    }
    // Bits that no byte carries must be zero, or two texts would mean the same bytes.
    (group & ((1 << bits) - 1) == 0).then_some(bytes)
}

/// `bytes` in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A key, value or header that serializes as text when it is UTF-8, else as `{"base64": ...}`.
#[derive(Clone, Copy, Debug)]
pub struct JsonBytes<'a>(pub Option<&'a [u8]>);

impl Serialize for JsonBytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
            None => serializer.serialize_none(),
            Some((_, Ok(text))) => serializer.serialize_str(text),
            Some((bytes, Err(_))) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("base64", &base64(bytes))?;
                map.end()
            }
        }
    }
}

/// Back from [`JsonBytes`].
pub fn from_json(value: &Value) -> Result<Option<Vec<u8>>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.as_bytes().to_vec())),
        Value::Object(object) if object.len() == 1 => object
            .get("base64")
            .and_then(Value::as_str)
            .and_then(from_base64)
            .map(Some)
            .ok_or_else(|| "expected {\"base64\": \"...\"}".to_owned()),
        other => Err(format!("{other} is not a string, null or {{\"base64\": ...}}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn base64_of_the_rfc() {
        for (plain, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(plain.as_bytes()), text);
            assert_eq!(from_base64(text).as_deref(), Some(plain.as_bytes()));
        }
        for bad in ["Zg", "Zg=", "Zh==", "====", "Z===", "Zm9v!mFy"] {
            assert_eq!(from_base64(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_byte_survives_json(bytes in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..50))) {
            let json = serde_json::to_value(JsonBytes(bytes.as_deref())).expect("JSON");
            prop_assert_eq!(from_json(&json), Ok(bytes));
        }
    }
}
