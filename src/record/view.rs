//! Batches and their records, borrowed from bytes: for `verify`, recovery, time look-ups and
//! fetched data.
//!
//! A `BatchView` is one whole batch by its length field; its CRC is checked on request
//! (`check_crc`), because a scan that only wants headers should not pay for it.

use std::borrow::Cow;

use bytes::Bytes;

use super::check::check_crc;
use super::codec::{DecodeLimits, decompress};
use super::header::{BATCH_HEADER_BYTES, BatchHeader};
use super::records::{Record, RecordParser, RecordView};
use super::{BatchError, Compression, DecodeError};

/// One whole batch, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    header: BatchHeader,
    bytes: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// The batch at the start of `bytes`, and what follows it.
    ///
    /// # Errors
    /// As `BatchHeader::read`; `Truncated` when the batch is not all there.
    pub fn parse(bytes: &'a [u8]) -> Result<(BatchView<'a>, &'a [u8]), BatchError> {
        let header = BatchHeader::read(bytes)?;
        let needed = header.size_bytes();
        let (bytes, rest) = bytes
            .split_at_checked(needed)
            .ok_or(BatchError::Truncated { needed, have: bytes.len() })?;
        Ok((BatchView { header, bytes }, rest))
    }

    /// The header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// All bytes, header included.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Compares the CRC-32C.
    ///
    /// # Errors
    /// `Crc`.
    pub fn check_crc(&self) -> Result<(), BatchError> {
        check_crc(&self.header, self.bytes)
    }

    /// The records' bytes, decompressed where need be.
    ///
    /// # Errors
    /// `UnknownCodec`, a header whose counts contradict each other, damaged or too much data.
    pub fn payload(&self, limits: &DecodeLimits) -> Result<Payload<'a>, DecodeError> {
        check_counts(&self.header)?;
        let stored = self.bytes.get(BATCH_HEADER_BYTES..).unwrap_or(&[]);
        let bytes = match self.header.attributes.compression()? {
            Compression::None => Cow::Borrowed(stored),
            codec => Cow::Owned(decompress(codec, stored, limits)?),
        };
        Ok(Payload { header: self.header, bytes })
    }
}

/// The (decompressed) records of one batch.
#[derive(Clone, Debug)]
pub struct Payload<'a> {
    header: BatchHeader,
    bytes: Cow<'a, [u8]>,
}

impl Payload<'_> {
    /// The records, in order; after an error there is no further one.
    pub fn records(&self) -> RecordViews<'_> {
        RecordViews { parser: RecordParser::new(&self.header), rest: &self.bytes }
    }
}

/// Iterator of `Payload::records`.
#[derive(Clone, Debug)]
pub struct RecordViews<'a> {
    parser: RecordParser,
    rest: &'a [u8],
}

impl<'a> Iterator for RecordViews<'a> {
    type Item = Result<RecordView<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.parser.take(&mut self.rest)
    }
}

/// The whole batches in `bytes`, one after the other. A batch that is not all there ends them, as
/// the last one of a fetch may be; another error is the last item.
pub fn batches(bytes: &[u8]) -> Batches<'_> {
    Batches { rest: bytes }
}

/// Iterator of `batches`.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    rest: &'a [u8],
}

impl<'a> Batches<'a> {
    /// Bytes that are not read yet: after the last batch, the partial one.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<BatchView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        match BatchView::parse(self.rest) {
            Ok((batch, rest)) => {
                self.rest = rest;
                Some(Ok(batch))
            }
            Err(BatchError::Truncated { .. }) => None,
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

/// The records of one batch as owned values that share its memory (or that of its decompressed
/// form): no bytes are copied per record.
#[derive(Clone, Debug)]
pub struct Records {
    header: BatchHeader,
    parser: RecordParser,
    payload: Bytes,
    position: usize,
}

impl Records {
    /// Takes the first batch of `fetched` off its front, checks its CRC and decompresses it.
    /// `None` when no whole batch is left (a partial one may be).
    ///
    /// # Errors
    /// As `BatchView::parse`, `check_crc` and `payload`. `fetched` then stands behind the bad batch
    /// when its length was readable, else it is empty.
    pub fn take_batch(
        fetched: &mut Bytes,
        limits: &DecodeLimits,
    ) -> Option<Result<Records, DecodeError>> {
        match BatchHeader::read(fetched) {
            Ok(header) if header.size_bytes() > fetched.len() => None,
            Ok(header) => Some(Records::open(fetched.split_to(header.size_bytes()), limits)),
            Err(BatchError::Truncated { .. }) => None,
            Err(error) => {
                fetched.clear();
                Some(Err(error.into()))
            }
        }
    }

    /// Opens exactly one batch.
    ///
    /// # Errors
    /// As `take_batch`; `TrailingBytes` when more follows.
    pub fn open(batch: Bytes, limits: &DecodeLimits) -> Result<Records, DecodeError> {
        let (view, rest) = BatchView::parse(&batch)?;
        if !rest.is_empty() {
            return Err(BatchError::TrailingBytes { extra: rest.len() }.into());
        }
        view.check_crc()?;
        let header = *view.header();
        let payload = match view.payload(limits)?.bytes {
            Cow::Borrowed(stored) => batch.slice_ref(stored),
            Cow::Owned(decompressed) => Bytes::from(decompressed),
        };
        Ok(Records { header, parser: RecordParser::new(&header), payload, position: 0 })
    }

    /// The header of the batch.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }
}

impl Iterator for Records {
    type Item = Result<Record, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut rest = self.payload.get(self.position..).unwrap_or(&[]);
        let view = self.parser.take(&mut rest);
        self.position = self.payload.len() - rest.len();
        Some(view?.map(|view| view.share(&self.payload)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.parser.remaining().saturating_add(1)))
    }
}

/// What every reader relies on; a compacted batch may hold fewer records than its offsets span.
fn check_counts(header: &BatchHeader) -> Result<(), BatchError> {
    let (record_count, last_offset_delta) = (header.record_count, header.last_offset_delta);
    if record_count < 0 {
        return Err(BatchError::RecordCount { record_count, records_max: i32::MAX.unsigned_abs() });
    }
    if last_offset_delta < 0 || i64::from(record_count) > i64::from(last_offset_delta) + 1 {
        return Err(BatchError::OffsetDelta { last_offset_delta, record_count });
    }
    Ok(())
}

/// Any bytes: walking batches and records ends, stays within the limits, and both readers agree.
pub fn fuzz_batches(data: &[u8]) {
    let limits = DecodeLimits { bytes_max: 1 << 20, ..DecodeLimits::default() };
    for batch in batches(data).flatten() {
        let Ok(payload) = batch.payload(&limits) else { continue };
        let borrowed: Vec<_> = payload.records().collect();
        if batch.check_crc().is_err() {
            continue;
        }
        let opened = Records::open(Bytes::copy_from_slice(batch.bytes()), &limits);
        let owned: Vec<_> = opened.into_iter().flatten().collect();
        assert_eq!(borrowed.len(), owned.len());
        for (view, record) in borrowed.iter().zip(&owned) {
            assert_eq!(view.as_ref().map(|v| v.offset), record.as_ref().map(|r| r.offset));
        }
    }
}

/// Any bytes as the payload of a batch whose header fits: gets past length and CRC. The first byte
/// chooses the codec, the second the number of records.
pub fn fuzz_records(data: &[u8]) {
    let [codec, count, payload @ ..] = data else { return };
    let mut batch = vec![0; BATCH_HEADER_BYTES];
    batch.extend_from_slice(payload);
    let header = BatchHeader {
        attributes: super::Attributes(i16::from(codec % 8)),
        last_offset_delta: i32::from(*count).max(1) - 1,
        record_count: i32::from(*count),
        ..BatchHeader::EMPTY
    };
    header.seal(&mut batch);
    fuzz_batches(&batch);
}
