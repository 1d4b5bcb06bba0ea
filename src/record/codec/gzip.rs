//! gzip (RFC 1952): one member is written, several are read, as Java's `GZIPInputStream` does.

use std::io::{self, Write};

use flate2::Compression as Level;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::Budget;
use crate::record::DecodeError;

pub(super) fn compress(records: &[u8], to: &mut Vec<u8>) -> io::Result<()> {
    let mut encoder = GzEncoder::new(to, Level::default());
    encoder.write_all(records)?;
    encoder.finish().map(drop)
}

pub(super) fn decompress(compressed: &[u8], budget: &Budget) -> Result<Vec<u8>, DecodeError> {
    budget.drain(MultiGzDecoder::new(compressed))
}
