//! `docs/protocol.md` describes what the code does, to the byte: its generated part is compared
//! with the code. `STOPLOG_BLESS=1 cargo test documentation` writes it anew.

use std::fmt::Write as _;

use super::*;
use crate::protocol::native::sample::Docs;
use crate::types::ErrorKind;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/protocol.md");
const BEGIN: &str = "<!-- generated from the code: begin -->";
const END: &str = "<!-- generated from the code: end -->";

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

#[test]
#[allow(clippy::disallowed_methods)] // reads a file of the repository, not of a broker
fn the_document_says_what_the_code_does() {
    let text = std::fs::read_to_string(PATH).expect("docs/protocol.md is part of the repository");
    let (before, rest) = text.split_once(BEGIN).expect("the generated part begins");
    let (found, after) = rest.split_once(END).expect("the generated part ends");
    let wanted = generated();
    if std::env::var_os("STOPLOG_BLESS").is_some() {
        let text = format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", wanted.trim());
        std::fs::write(PATH, text).expect("docs/protocol.md can be written");
        return;
    }
    let same = found.trim() == wanted.trim();
    assert!(same, "docs/protocol.md is behind the code: STOPLOG_BLESS=1 cargo test documentation");
}
