//! `meta.properties`: what a data directory is. Text, for people; the last line guards the others.
//!
//! ```text
//! # Stoplog data directory. Written once; do not edit.
//! format_version=1
//! min_reader_version=1
//! cluster_id=7f0c0c1e-...
//! created_ms=1700000000000
//! crc32=0a1b2c3d
//! ```
//!
//! `crc32` is the CRC-32 (eight hex digits) of all bytes before its line.

use uuid::Uuid;

use crate::types::Timestamp;

use super::fields::FormatError;
use super::identity::FORMAT_VERSION;

/// Largest file.
pub const META_BYTES_MAX: u64 = 4096;

const STRUCTURE: &str = "meta.properties";
const HEAD: &str = "# Stoplog data directory. Written once; do not edit.\n";

/// What a data directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Identity of the data directory, made at its first start.
    pub cluster_id: Uuid,
    /// Version that made it.
    pub format_version: u16,
    /// Smallest version that may open it.
    pub min_reader_version: u16,
    /// When it was made.
    pub created: Timestamp,
}

impl Meta {
    /// A new data directory.
    pub fn new(cluster_id: Uuid, created: Timestamp) -> Meta {
        Meta {
            cluster_id,
            format_version: FORMAT_VERSION,
            min_reader_version: FORMAT_VERSION,
            created,
        }
    }

    /// The bytes of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut text = format!(
            "{HEAD}format_version={}\nmin_reader_version={}\ncluster_id={}\ncreated_ms={}\n",
            self.format_version, self.min_reader_version, self.cluster_id, self.created
        );
        let crc = crc32fast::hash(text.as_bytes());
        text.push_str(&format!("crc32={crc:08x}\n"));
        text.into_bytes()
    }

    /// Reads the bytes of the file.
    pub fn decode(bytes: &[u8]) -> Result<Meta, FormatError> {
        let bad = |field| FormatError::Field { structure: STRUCTURE, field };
        let text = str::from_utf8(bytes).map_err(|_| bad("encoding"))?;
        let guarded = text.rfind("crc32=").and_then(|at| text.split_at_checked(at));
        let (body, last) = guarded.ok_or_else(|| bad("crc32"))?;
        let computed = crc32fast::hash(body.as_bytes());
        if last != format!("crc32={computed:08x}\n") {
            let digits = last.trim_start_matches("crc32=").trim_end();
            let stored = u32::from_str_radix(digits, 16).unwrap_or_default();
            return Err(FormatError::Checksum { structure: STRUCTURE, stored, computed });
        }
        let value = |field: &'static str| {
            let line = body.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix('='));
            line.ok_or_else(|| bad(field))
        };
        let version = |field| value(field)?.parse::<u16>().map_err(|_| bad(field));
        let meta = Meta {
            format_version: version("format_version")?,
            min_reader_version: version("min_reader_version")?,
            cluster_id: Uuid::parse_str(value("cluster_id")?).map_err(|_| bad("cluster_id"))?,
            created: Timestamp(value("created_ms")?.parse().map_err(|_| bad("created_ms"))?),
        };
        if meta.min_reader_version > FORMAT_VERSION {
            let what = format!("readable from version {} on", meta.min_reader_version);
            return Err(FormatError::Newer { structure: STRUCTURE, what });
        }
        Ok(meta)
    }
}

/// For `cargo fuzz`: no bytes may panic.
pub fn fuzz_meta(bytes: &[u8]) {
    if let Ok(meta) = Meta::decode(bytes) {
        assert_eq!(Meta::decode(&meta.encode()), Ok(meta));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::fields::assert_no_damage_passes;

    fn example() -> Meta {
        Meta::new(Uuid::from_bytes([0xab; 16]), Timestamp(1_700_000_000_000))
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Meta::decode(&example().encode()), Ok(example()));
    }

    #[test]
    fn no_truncation_and_no_flipped_bit_passes() {
        assert_no_damage_passes(&example().encode(), Meta::decode);
    }

    #[test]
    fn a_newer_directory_is_refused_with_its_version() {
        let meta = Meta { min_reader_version: FORMAT_VERSION + 1, ..example() };
        assert!(matches!(Meta::decode(&meta.encode()), Err(FormatError::Newer { .. })));
    }
}
