//! One record inside the (decompressed) bytes of a batch:
//! length, attributes (unused), timestamp delta, offset delta, key, value, headers; all numbers are
//! zigzag varints, a length of -1 is null.
//!
//! # Invariants
//! Every length and count is compared with the bytes left before it is used; nothing is allocated
//! for a claim.

use bytes::Bytes;

use super::header::BatchHeader;
use super::{Attributes, DecodeError, RecordFault, varint};
use crate::types::{Offset, Timestamp};

/// Fewest bytes of a header: two lengths.
const HEADER_BYTES_MIN: usize = 2;

/// A record to be written.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecordRef<'a> {
    /// When it was created.
    pub timestamp: Timestamp,
    /// Its key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is null.
    pub value: Option<&'a [u8]>,
    /// Its headers, in order.
    pub headers: &'a [RecordHeader],
}

/// A record that was read, borrowed from the bytes of its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// Its place in the partition.
    pub offset: Offset,
    /// Its creation time, or the batch's append time.
    pub timestamp: Timestamp,
    /// Its key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is null.
    pub value: Option<&'a [u8]>,
    headers: &'a [u8],
    header_count: u32,
}

/// A header of a record, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderView<'a> {
    /// Its name: UTF-8 by convention, not checked.
    pub key: &'a [u8],
    /// Its value; `None` is null.
    pub value: Option<&'a [u8]>,
}

/// A record that was read; key, value and headers share the memory of its batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the partition.
    pub offset: Offset,
    /// Its creation time, or the batch's append time.
    pub timestamp: Timestamp,
    /// Its key; `None` is null.
    pub key: Option<Bytes>,
    /// Its value; `None` is null.
    pub value: Option<Bytes>,
    /// Its headers, in order.
    pub headers: Vec<RecordHeader>,
}

/// A header of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Its name: UTF-8 by convention, not checked.
    pub key: Bytes,
    /// Its value; `None` is null.
    pub value: Option<Bytes>,
}

impl Record {
    /// The record as the builder takes it.
    pub fn as_ref(&self) -> RecordRef<'_> {
        RecordRef {
            timestamp: self.timestamp,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &self.headers,
        }
    }
}

impl<'a> RecordView<'a> {
    /// Number of headers.
    pub fn header_count(&self) -> u32 {
        self.header_count
    }

    /// The headers, in order.
    pub fn headers(&self) -> impl Iterator<Item = HeaderView<'a>> {
        let mut rest = self.headers;
        // They were read once before the view was made: `ok()` never ends them early.
        (0..self.header_count).map_while(move |_| take_header(&mut rest).ok())
    }

    /// The record as slices of `payload`, which it borrows from.
    pub(super) fn share(&self, payload: &Bytes) -> Record {
        let slice = |bytes: &[u8]| payload.slice_ref(bytes);
        Record {
            offset: self.offset,
            timestamp: self.timestamp,
            key: self.key.map(slice),
            value: self.value.map(slice),
            headers: self
                .headers()
                .map(|h| RecordHeader { key: slice(h.key), value: h.value.map(slice) })
                .collect(),
        }
    }
}

/// Reads the records of one batch from the front of its payload, one call each.
#[derive(Clone, Debug)]
pub(super) struct RecordParser {
    base_offset: Offset,
    base_timestamp: Timestamp,
    append_time: Option<Timestamp>,
    last_offset_delta: i32,
    previous_delta: i32,
    index: u32,
    count: u32,
}

impl RecordParser {
    pub(super) fn new(header: &BatchHeader) -> RecordParser {
        let append_time = header.attributes.has(Attributes::APPEND_TIME);
        RecordParser {
            base_offset: header.base_offset,
            base_timestamp: header.base_timestamp,
            append_time: append_time.then_some(header.max_timestamp),
            last_offset_delta: header.last_offset_delta,
            previous_delta: -1,
            index: 0,
            count: u32::try_from(header.record_count).unwrap_or(0),
        }
    }

    /// Records that are left.
    pub(super) fn remaining(&self) -> usize {
        (self.count - self.index) as usize
    }

    /// The next record, or an error, after which there is none; `None` after the last, which must
    /// end where the payload ends.
    pub(super) fn take<'a>(
        &mut self,
        rest: &mut &'a [u8],
    ) -> Option<Result<RecordView<'a>, DecodeError>> {
        if self.index == self.count {
            let extra = std::mem::take(rest).len();
            return (extra > 0).then_some(Err(DecodeError::TrailingBytes { extra }));
        }
        let index = self.index;
        let record = self.take_record(rest);
        if record.is_err() {
            (self.index, *rest) = (self.count, &[]);
        } else {
            self.index += 1;
        }
        Some(record.map_err(|fault| DecodeError::Record { index, fault }))
    }

    fn take_record<'a>(&mut self, rest: &mut &'a [u8]) -> Result<RecordView<'a>, RecordFault> {
        let mut body = take_bytes(rest)?.ok_or(RecordFault::NegativeLength)?;
        let (_attributes, after) = body.split_first().ok_or(RecordFault::Truncated)?;
        body = after;
        let timestamp_delta = varint::take_i64(&mut body)?;
        let offset_delta = varint::take_i32(&mut body)?;
        if offset_delta <= self.previous_delta || offset_delta > self.last_offset_delta {
            return Err(RecordFault::OffsetOrder);
        }
        self.previous_delta = offset_delta;
        let offset = self.base_offset.checked_add(i64::from(offset_delta));
        let key = take_bytes(&mut body)?;
        let value = take_bytes(&mut body)?;
        let (headers, header_count) = take_headers(&mut body)?;
        if !body.is_empty() {
            return Err(RecordFault::TrailingBytes);
        }
        // Timestamps are data, not positions: what the sender wrapped (as Java does) is unwrapped.
        let created = Timestamp(self.base_timestamp.0.wrapping_add(timestamp_delta));
        Ok(RecordView {
            offset: offset.ok_or(RecordFault::OffsetOrder)?,
            timestamp: self.append_time.unwrap_or(created),
            key,
            value,
            headers,
            header_count,
        })
    }
}

/// A length and as many bytes; -1 is null.
fn take_bytes<'a>(from: &mut &'a [u8]) -> Result<Option<&'a [u8]>, RecordFault> {
    let len = varint::take_i32(from)?;
    if len == -1 {
        return Ok(None);
    }
    let len = usize::try_from(len).map_err(|_| RecordFault::NegativeLength)?;
    let (bytes, rest) = from.split_at_checked(len).ok_or(RecordFault::Truncated)?;
    *from = rest;
    Ok(Some(bytes))
}

/// The bytes of all headers, and their number.
fn take_headers<'a>(from: &mut &'a [u8]) -> Result<(&'a [u8], u32), RecordFault> {
    let count = varint::take_i32(from)?;
    let count = u32::try_from(count).map_err(|_| RecordFault::NegativeLength)?;
    if count as usize > from.len() / HEADER_BYTES_MIN {
        return Err(RecordFault::HeaderCount);
    }
    let all = *from;
    for _ in 0..count {
        take_header(from)?;
    }
    let taken = all.len() - from.len();
    Ok((all.get(..taken).unwrap_or(all), count))
}

fn take_header<'a>(from: &mut &'a [u8]) -> Result<HeaderView<'a>, RecordFault> {
    let key = take_bytes(from)?.ok_or(RecordFault::NegativeLength)?;
    Ok(HeaderView { key, value: take_bytes(from)? })
}

/// Bytes of a record after its length.
pub(super) fn body_bytes(record: &RecordRef<'_>, timestamp_delta: i64, offset_delta: i32) -> usize {
    let optional = |bytes: Option<&[u8]>| {
        bytes.map_or(1, |bytes| varint::size_of_len(bytes.len()).saturating_add(bytes.len()))
    };
    let headers = record.headers.iter().fold(0usize, |sum, header| {
        let bytes = optional(Some(&header.key)).saturating_add(optional(header.value.as_deref()));
        sum.saturating_add(bytes)
    });
    let numbers = 1 + varint::size_of(timestamp_delta) + varint::size_of(i64::from(offset_delta));
    (numbers + varint::size_of_len(record.headers.len()))
        .saturating_add(optional(record.key))
        .saturating_add(optional(record.value))
        .saturating_add(headers)
}

/// Appends a record of `body_bytes` (as computed for the same arguments, and within `i32`).
pub(super) fn put_record(
    to: &mut Vec<u8>,
    record: &RecordRef<'_>,
    body_bytes: usize,
    timestamp_delta: i64,
    offset_delta: i32,
) {
    put_len(to, body_bytes);
    let start = to.len();
    to.push(0);
    varint::put_i64(to, timestamp_delta);
    varint::put_i32(to, offset_delta);
    put_bytes(to, record.key);
    put_bytes(to, record.value);
    put_len(to, record.headers.len());
    for header in record.headers {
        put_bytes(to, Some(&header.key));
        put_bytes(to, header.value.as_deref());
    }
    debug_assert_eq!(to.len() - start, body_bytes, "the length foretold");
}

fn put_bytes(to: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => varint::put_i32(to, -1),
        Some(bytes) => {
            put_len(to, bytes.len());
            to.extend_from_slice(bytes);
        }
    }
}

fn put_len(to: &mut Vec<u8>, len: usize) {
    varint::put_i64(to, i64::try_from(len).unwrap_or(i64::MAX));
}
