//! The table of fuzz targets: one row for each `fuzz_*` function beside a decoder. Shared by the
//! cargo-fuzz binaries (`fuzz_targets/`) and by the plain test that replays the seeds
//! (`tests/storage/fuzz_seeds.rs`), so that both always know the same targets.

use stoplog::protocol::native;
use stoplog::record;
use stoplog::storage::{epochs, footer, identity, manifest, meta, slot};

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
    ("storage_manifest", |data| sealed(data, manifest::fuzz_manifest)),
    ("storage_meta", meta::fuzz_meta),
    ("storage_slot", |data| sealed(data, slot::fuzz_slot)),
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
