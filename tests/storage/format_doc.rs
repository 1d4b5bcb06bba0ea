//! `storage-format.md` is compared with what the engine writes and with the code it describes.
//! `STOPLOG_UPDATE_DOCS=1 cargo test --test storage format_doc` writes both into it.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use stoplog::env::sim::sim_env;
use stoplog::record::{BatchBuilder, BatchLimits, BuilderOptions, CheckedBatch, RecordRef};
use stoplog::storage::{
    Append, Drive, LogDir, Materialised, PartitionOptions, ShutdownMode, StorageOptions,
};
use stoplog::types::{Acks, Offset, PartitionId, Timestamp, TopicId, TopicPartition};

const CODE: [&str; 11] = [
    "fields", "identity", "slot", "tail", "footer", "index", "manifest", "epochs", "snapshot",
    "meta", "layout",
];

fn document() -> (std::path::PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("storage-format.md");
    let text = read(&path);
    (path, text)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("readable")
}

/// The text between two markers must be `expected`.
fn compare(name: &str, expected: &str) {
    let (path, text) = document();
    let (begin, end) = (format!("<!-- {name}:begin -->\n"), format!("<!-- {name}:end -->"));
    let from = text.find(&begin).expect("marker") + begin.len();
    let to = text.find(&end).expect("marker");
    if std::env::var_os("STOPLOG_UPDATE_DOCS").is_some() {
        write(&path, &format!("{}{expected}{}", &text[..from], &text[to..]));
        return;
    }
    assert_eq!(&text[from..to], expected, "storage-format.md, {name}: see the head of this test");
}

#[expect(clippy::disallowed_methods, reason = "only when asked to bring the document up to date")]
fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("writable");
}

#[test]
fn format_doc_describes_this_code() {
    let mut hasher = crc32fast::Hasher::new();
    for name in CODE {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/storage/{name}.rs"));
        let text = read(&path);
        let code = text.split("#[cfg(test)]\npub(crate) mod tests").next().unwrap_or_default();
        let code = code.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        hasher.update(code.as_bytes());
    }
    compare("code", &format!("`{:08x}`\n", hasher.finalize()));
}

#[test]
fn format_doc_shows_a_real_segment() {
    let file = small_segment();
    let mut dump = String::from("```text\n");
    for (row, bytes) in file.chunks(16).enumerate() {
        if bytes.iter().all(|b| *b == 0) {
            continue;
        }
        let hex: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let text: String = bytes
            .iter()
            .map(|b| if (32..127).contains(b) { char::from(*b) } else { '.' })
            .collect();
        writeln!(dump, "{:08x}  {:<47}  |{text}|", row * 16, hex.join(" ")).expect("a string");
    }
    dump.push_str("```\n");
    compare("dump", &dump);
}

/// What the engine writes for three batches and a clean stop.
fn small_segment() -> Vec<u8> {
    let (env, disk, _clock) = sim_env(2026);
    let options = StorageOptions { drive: Drive::Stepped, writers: 1, ..StorageOptions::default() };
    let dir = LogDir::open(options, env).expect("opens");
    let topic = TopicId::from_bytes([0x11; 16]);
    let id = TopicPartition { topic, partition: PartitionId(0) };
    let partition = dir
        .partition(id, Arc::new(PartitionOptions::default()), Materialised::Unknown)
        .expect("opens");
    for records in 1..=3 {
        let append = Append::new(batch(records), Acks::Durable, Box::new(|_| {}));
        partition.append(append).expect("room");
        dir.stepper().expect("stepped").run_until_idle();
    }
    assert_eq!(partition.offsets().durable_end, Offset(6));
    dir.shutdown(ShutdownMode::Drain);
    disk.read_file(format!("topics/{topic}/0/00000000000000000000.log")).expect("written")
}

fn batch(records: i64) -> CheckedBatch {
    let mut builder = BatchBuilder::new(BuilderOptions::default());
    for number in 0..records {
        let (key, value) = (format!("k{number}"), format!("stop log {records}.{number}"));
        let record = RecordRef {
            timestamp: Timestamp(1_700_000_000_000 + number),
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            ..RecordRef::default()
        };
        builder.push(&record).expect("room");
    }
    CheckedBatch::check(builder.build(), &BatchLimits::client(1 << 20)).expect("a batch")
}
