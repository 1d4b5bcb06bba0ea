//! `docs/protocol.md` describes what the code does, to the byte: its generated part is compared
//! with the code. `STOPLOG_BLESS=1 cargo test documentation` writes it anew.

use std::fmt::Write as _;

use super::*;
use crate::protocol::native::sample::Docs;
use crate::record::{BatchBuilder, BuilderOptions, RecordRef};
use crate::types::{Acks, DurabilityLevel, ErrorKind, Offset, PartitionId, Timestamp, TopicId};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/protocol.md");

#[derive(Default)]
struct Tables {
    docs: Docs,
    bodies: Vec<(String, (FrameType, FrameFlags), String, String)>,
}

impl Visit for Tables {
    fn visit<T: Wire + PartialEq + std::fmt::Debug>(
        &mut self,
        name: &str,
        kind: (FrameType, FrameFlags),
    ) {
        T::describe(&mut self.docs);
        let value = T::sample(&mut Source::plain());
        self.bodies.push((
            name.to_owned(),
            kind,
            format!("{value:?}"),
            hex(&frame_of(kind, &value)),
        ));
    }
}

fn hex(bytes: &[u8]) -> String {
    let lines: Vec<String> = bytes
        .chunks(32)
        .map(|line| line.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" "))
        .collect();
    lines.join("\n")
}

fn generated() -> String {
    let mut tables = Tables::default();
    visit_every_body(&mut tables);
    let mut out = String::new();
    let mut told = Vec::new();
    for kind in FrameType::ALL {
        let _ = writeln!(out, "### {} {}\n\n{}\n", kind.as_u16(), kind.name(), kind.title());
        for (name, (of, flags), value, bytes) in &tables.bodies {
            if of != kind || flags.is_error() {
                continue;
            }
            let what = if flags.is_answer() { "Answer" } else { "Frame" };
            let table = tables.docs.table(name).expect("every body has a table");
            told.push(name.clone());
            let _ = writeln!(out, "**{what}** ({name}). {table}\nExample: `{value}`\n");
            let _ = writeln!(out, "```text\n{bytes}\n```\n");
        }
    }
    out.push_str("## 7. Structs and enums that frames are made of\n\n");
    for name in tables.docs.names().filter(|name| !told.iter().any(|t| t == name)) {
        let table = tables.docs.table(name).expect("it has this name");
        let _ = writeln!(out, "### {name}\n\n{table}");
    }
    out.push_str("## 8. Error codes\n\n| code | number | kind | meaning |\n|---|---|---|---|\n");
    for code in ErrorCode::ALL {
        let kind: ErrorKind = code.kind();
        let _ = writeln!(
            out,
            "| {code} {} | {} | {kind:?} | {} |",
            code.name(),
            code.as_u16(),
            code.title()
        );
    }
    out
}

/// Hello, one record produced, and read back.
fn examples() -> String {
    let hello = hello::Request {
        version_min: 1,
        version_max: 1,
        features: 0,
        client_id: "shop".to_owned(),
        software: "demo 1".to_owned(),
        frame_bytes_max: 16 << 20,
    };
    let welcome = hello::Response {
        version: 1,
        features: 0,
        cluster_id: "c1".to_owned(),
        node_id: 0,
        writer_id: "w1".to_owned(),
        software: "stoplog 0.1.0".to_owned(),
        frame_bytes_max: 16 << 20,
        requests_max: 256,
        publishers_max: 256,
        subscriptions_max: 1024,
        idle_timeout_ms: 600_000,
    };
    let topic = TopicId::from_bytes([0x11; 16]);
    let partition = PartitionId(0);
    let (acks, deadline_ms) = (Acks::Durable, 0);
    let produce = produce::Request { publisher: 0, topic, partition, acks, deadline_ms };
    let produced = produce::Response {
        base_offset: Some(Offset(0)),
        append_time: Timestamp(1_700_000_000_000),
        level: DurabilityLevel::Durable,
        duplicate: false,
    };
    let read = fetch::Partition { topic, partition, from: Offset(0), max_bytes: 1 << 20 };
    let fetch = fetch::Request {
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 1 << 20,
        partitions: vec![read],
        group: None,
    };
    let mut builder = BatchBuilder::new(BuilderOptions::default());
    let timestamp = Timestamp(1_700_000_000_000);
    let record = RecordRef { timestamp, key: Some(b"k"), value: Some(b"hi"), headers: &[] };
    builder.push(&record).expect("one record fits");
    let batch = builder.build();
    let read = fetch::PartitionRead {
        start: Offset(0),
        visible_end: Offset(1),
        next_offset: Offset(1),
        data_bytes: batch.len() as u32,
    };
    let fetched = fetch::Response {
        partitions: vec![fetch::PartitionAnswer { topic, partition, read: Ok(read) }],
        limited_by: None,
    };
    let mut out = String::new();
    let mut tell = |title: &str, value: &dyn std::fmt::Debug, bytes: &[u8], data: &[u8]| {
        let (header, control) = bytes.split_at(HEADER_BYTES);
        let _ =
            writeln!(out, "**{title}**: `{value:?}`\n\n```text\nheader\n{}\ncontrol", hex(header));
        let _ = writeln!(out, "{}", hex(control));
        if !data.is_empty() {
            let _ = writeln!(out, "data (one record batch)\n{}", hex(data));
        }
        out.push_str("```\n\n");
    };
    let frame = |encode: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        encode(&mut bytes);
        bytes
    };
    tell("HELLO", &hello, &frame(&|out| encode_call(out, 1, &hello)), &[]);
    let bytes = frame(&|out| encode_answer::<hello::Request>(out, 1, &welcome));
    tell("Its answer", &welcome, &bytes, &[]);
    let bytes = frame(&|out| produce::encode(out, 2, &produce, &batch));
    tell("PRODUCE", &produce, &bytes, &batch);
    let bytes = frame(&|out| encode_answer::<produce::Request>(out, 2, &produced));
    tell("Its answer", &produced, &bytes, &[]);
    tell("FETCH", &fetch, &frame(&|out| encode_call(out, 3, &fetch)), &[]);
    let data_bytes = batch.len() as u32;
    let bytes = frame(&|out| fetch::encode_response(out, 3, &fetched, data_bytes));
    tell("Its answer", &fetched, &bytes, &batch);
    out
}

fn replaced(text: &str, what: &str, wanted: &str) -> String {
    let (begin, end) = (
        format!("<!-- {what} from the code: begin -->"),
        format!("<!-- {what} from the code: end -->"),
    );
    let (before, rest) = text.split_once(&begin).expect("the part begins");
    let (_, after) = rest.split_once(&end).expect("the part ends");
    format!("{before}{begin}\n\n{}\n\n{end}{after}", wanted.trim())
}

#[test]
#[allow(clippy::disallowed_methods)] // reads a file of the repository, not of a broker
fn the_document_says_what_the_code_does() {
    let found = std::fs::read_to_string(PATH).expect("docs/protocol.md is part of the repository");
    let wanted = replaced(&found, "examples", &examples());
    let wanted = replaced(&wanted, "generated", &generated());
    if std::env::var_os("STOPLOG_BLESS").is_some() {
        std::fs::write(PATH, wanted).expect("docs/protocol.md can be written");
        return;
    }
    let same = found == wanted;
    assert!(same, "docs/protocol.md is behind the code: STOPLOG_BLESS=1 cargo test documentation");
}
