//! Primitive encodings: little-endian integers, length-prefixed text and lists.
//!
//! # Invariants
//! Nothing is allocated for a claimed length before that many bytes are known to be there:
//! `count * MIN_BYTES <= bytes left` holds for every list that is decoded.

use crate::types::InvalidName;

/// Why control bytes could not be read. The frame's CRC was right, so the sender wrote them so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct DecodeError {
    /// The field, innermost first named.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: DecodeProblem,
}

/// What can be wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeProblem {
    /// Fewer bytes are left than the field takes.
    #[error("{needed} bytes are needed, {left} are left")]
    Truncated {
        /// Bytes the field takes at least.
        needed: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// More bytes than the layout has.
    #[error("{left} bytes too many")]
    Trailing {
        /// Bytes after the last field.
        left: usize,
    },
    /// A number that stands for nothing.
    #[error("{found} is not a value of {what}")]
    Value {
        /// The number.
        found: u64,
        /// The set it should come from.
        what: &'static str,
    },
    /// Text that is not UTF-8.
    #[error("text is not UTF-8")]
    Utf8,
    /// A name that is not allowed.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// The data part does not fit what the control part says about it.
    #[error("the control part announces {announced} bytes of data, the frame has {found}")]
    DataLength {
        /// Sum of the announced lengths.
        announced: u64,
        /// Length of the data part.
        found: u64,
    },
}

impl DecodeError {
    pub(super) fn new(problem: DecodeProblem) -> DecodeError {
        DecodeError { field: "", problem }
    }

    pub(super) fn value(found: u64, what: &'static str) -> DecodeError {
        DecodeError::new(DecodeProblem::Value { found, what })
    }

    /// Names the field, unless a field within it did already.
    pub(super) fn in_field(self, field: &'static str) -> DecodeError {
        if self.field.is_empty() { DecodeError { field, ..self } } else { self }
    }
}

/// A cursor over received control bytes.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// Bytes not read yet.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let Some((head, rest)) = self.rest.split_at_checked(len) else {
            return Err(self.truncated(len));
        };
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.truncated(N));
        };
        self.rest = rest;
        Ok(*head)
    }

    /// The next byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// Refuses bytes after the last field.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(DecodeError::new(DecodeProblem::Trailing { left: self.rest.len() })
            .in_field("end of frame"))
    }

    fn truncated(&self, needed: usize) -> DecodeError {
        DecodeError::new(DecodeProblem::Truncated { needed, left: self.rest.len() })
    }
}

/// A value with one layout on the wire. `take` reads exactly what `put` wrote.
pub trait Wire: Sized {
    /// No value takes fewer bytes; what a list's count is checked against.
    const MIN_BYTES: usize;

    /// Appends the value.
    fn put(&self, out: &mut Vec<u8>);

    /// Reads one value and leaves the reader behind it.
    fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// The type's name in `docs/protocol.md`; adds the tables of the structs it is made of.
    #[cfg(test)]
    fn describe(docs: &mut super::sample::Docs) -> String;

    /// Some value, for tests and examples.
    #[cfg(test)]
    fn sample(source: &mut super::sample::Source) -> Self;

    /// Reads a value that takes all the bytes.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let value = Self::take(&mut reader)?;
        reader.finish()?;
        Ok(value)
    }
}

macro_rules! wire_integer {
    ($($type:ident)*) => {$(
        impl Wire for $type {
            const MIN_BYTES: usize = size_of::<$type>();

            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn take(from: &mut Reader<'_>) -> Result<$type, DecodeError> {
                Ok($type::from_le_bytes(from.array()?))
            }

            #[cfg(test)]
            fn describe(_docs: &mut super::sample::Docs) -> String {
                stringify!($type).to_owned()
            }

            #[cfg(test)]
            fn sample(source: &mut super::sample::Source) -> $type {
                source.number() as $type
            }
        }
    )*};
}

wire_integer!(u8 u16 u32 u64 i16 i32 i64);

impl Wire for bool {
    const MIN_BYTES: usize = 1;

    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn take(from: &mut Reader<'_>) -> Result<bool, DecodeError> {
        match from.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            found => Err(DecodeError::value(u64::from(found), "bool")),
        }
    }

    #[cfg(test)]
    fn describe(_docs: &mut super::sample::Docs) -> String {
        "bool".to_owned()
    }

    #[cfg(test)]
    fn sample(source: &mut super::sample::Source) -> bool {
        source.choose(2) == 1
    }
}

/// Longest text in bytes: its length is a u16. Longer text (only messages can be) is cut.
pub const TEXT_BYTES_MAX: usize = u16::MAX as usize;

impl Wire for String {
    const MIN_BYTES: usize = 2;

    fn put(&self, out: &mut Vec<u8>) {
        put_text(self, out);
    }

    fn take(from: &mut Reader<'_>) -> Result<String, DecodeError> {
        take_text(from).map(str::to_owned)
    }

    #[cfg(test)]
    fn describe(_docs: &mut super::sample::Docs) -> String {
        "text".to_owned()
    }

    #[cfg(test)]
    fn sample(source: &mut super::sample::Source) -> String {
        source.text()
    }
}

pub(super) fn put_text(text: &str, out: &mut Vec<u8>) {
    let cut = text.get(..text.floor_char_boundary(TEXT_BYTES_MAX)).unwrap_or_default();
    u16::try_from(cut.len()).unwrap_or(u16::MAX).put(out);
    out.extend_from_slice(cut.as_bytes());
}

pub(super) fn take_text<'a>(from: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let len = u16::take(from)?;
    let bytes = from.bytes(usize::from(len))?;
    std::str::from_utf8(bytes).map_err(|_| DecodeError::new(DecodeProblem::Utf8))
}

impl<T: Wire> Wire for Option<T> {
    const MIN_BYTES: usize = 1;

    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn take(from: &mut Reader<'_>) -> Result<Option<T>, DecodeError> {
        Ok(if bool::take(from)? { Some(T::take(from)?) } else { None })
    }

    #[cfg(test)]
    fn describe(docs: &mut super::sample::Docs) -> String {
        format!("optional {}", T::describe(docs))
    }

    #[cfg(test)]
    fn sample(source: &mut super::sample::Source) -> Option<T> {
        source.present().then(|| T::sample(source))
    }
}

impl<T: Wire> Wire for Vec<T> {
    const MIN_BYTES: usize = 4;

    fn put(&self, out: &mut Vec<u8>) {
        let count = u32::try_from(self.len()).expect("a frame holds fewer than 2^32 items");
        count.put(out);
        for item in self {
            item.put(out);
        }
    }

    fn take(from: &mut Reader<'_>) -> Result<Vec<T>, DecodeError> {
        let count = u32::take(from)? as usize;
        // A count beyond what is left is refused before anything is allocated for it.
        let least = count.saturating_mul(T::MIN_BYTES.max(1));
        if least > from.left() {
            return Err(from.truncated(least));
        }
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(T::take(from)?);
        }
        Ok(items)
    }

    #[cfg(test)]
    fn describe(docs: &mut super::sample::Docs) -> String {
        format!("list of {}", T::describe(docs))
    }

    #[cfg(test)]
    fn sample(source: &mut super::sample::Source) -> Vec<T> {
        (0..source.len()).map(|_| T::sample(source)).collect()
    }
}

impl<T: Wire, E: Wire> Wire for Result<T, E> {
    const MIN_BYTES: usize = 1;

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Ok(value) => {
                out.push(0);
                value.put(out);
            }
            Err(error) => {
                out.push(1);
                error.put(out);
            }
        }
    }

    fn take(from: &mut Reader<'_>) -> Result<Result<T, E>, DecodeError> {
        match from.u8()? {
            0 => Ok(Ok(T::take(from)?)),
            1 => Ok(Err(E::take(from)?)),
            found => Err(DecodeError::value(u64::from(found), "result")),
        }
    }

    #[cfg(test)]
    fn describe(docs: &mut super::sample::Docs) -> String {
        format!("result of {} or {}", T::describe(docs), E::describe(docs))
    }

    #[cfg(test)]
    fn sample(source: &mut super::sample::Source) -> Result<T, E> {
        if source.present() { Ok(T::sample(source)) } else { Err(E::sample(source)) }
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    const MIN_BYTES: usize = A::MIN_BYTES + B::MIN_BYTES;

    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn take(from: &mut Reader<'_>) -> Result<(A, B), DecodeError> {
        Ok((A::take(from)?, B::take(from)?))
    }

    #[cfg(test)]
    fn describe(docs: &mut super::sample::Docs) -> String {
        format!("({}, {})", A::describe(docs), B::describe(docs))
    }

    #[cfg(test)]
    fn sample(source: &mut super::sample::Source) -> (A, B) {
        (A::sample(source), B::sample(source))
    }
}
