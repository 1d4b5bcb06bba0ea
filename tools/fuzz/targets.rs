//! The table of fuzz targets: one row for each `fuzz_*` function beside a decoder. Shared by the
//! cargo-fuzz binaries (`fuzz_targets/`) and by the plain test that replays the seeds
//! (`tests/storage/fuzz_seeds.rs`), so that both always know the same targets.

use stoplog::protocol::native;
use stoplog::record;
use stoplog::storage::{epochs, footer, identity, index, manifest, meta, slot, snapshot};

/// A target: its name (also of its file and its folder of seeds) and what it runs.
pub type Target = (&'static str, fn(&[u8]));

/// Every target, by name.
pub const TARGETS: &[Target] = &[
    ("protocol_deframer", native::fuzz_deframer),
    ("protocol_frame", native::fuzz_frame),
    ("record_batch_header", record::fuzz_batch_header),
    ("record_batches", record::fuzz_batches),
    ("record_checked_batch", record::fuzz_checked_batch),
    ("record_compress", record::fuzz_compress),
    ("record_decompress", record::fuzz_decompress),
    ("record_records", record::fuzz_records),
    ("storage_epochs", |data| sealed(data, epochs::fuzz_epochs)),
    ("storage_footer", |data| sealed(data, footer::fuzz_footer)),
    ("storage_identity", |data| sealed(data, identity::fuzz_identity)),
    ("storage_index", |data| {
        index::fuzz_index(data);
        index::fuzz_index(&index_sealed(data));
    }),
    ("storage_manifest", |data| sealed(data, manifest::fuzz_manifest)),
    ("storage_meta", meta::fuzz_meta),
    ("storage_slot", |data| sealed(data, slot::fuzz_slot)),
    ("storage_snapshot", |data| sealed(data, snapshot::fuzz_snapshot)),
];

/// Runs the target as it is, and with the CRC-32 in its last four bytes made right: chance never
/// gets past a checksum.
fn sealed(data: &[u8], target: fn(&[u8])) {
    target(data);
    let mut bytes = data.to_vec();
    if let Some((body, crc)) = bytes.split_last_chunk_mut::<4>() {
        *crc = crc32fast::hash(body).to_le_bytes();
        target(&bytes);
    }
}

/// An index has a CRC-32 in each block, at byte 12, of the block without it.
fn index_sealed(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    for block in bytes.chunks_mut(index::INDEX_BLOCK_BYTES) {
        let Some((before, rest)) = block.split_at_mut_checked(12) else { continue };
        let Some((crc, after)) = rest.split_first_chunk_mut::<4>() else { continue };
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(before);
        hasher.update(after);
        *crc = hasher.finalize().to_le_bytes();
    }
    bytes
}
