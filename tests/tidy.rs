//! The rules of the code as tests: who may import whom, what every file starts with, how long files
//! and functions may be, where `unsafe` may stand, and that README's commands exist.
//!
//! It reads text, not syntax: the code is rustfmt-clean, so an item ends at a brace that stands
//! where it began.
#![allow(clippy::disallowed_methods)] // a test of files reads files

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Production lines a file may have. STYLE.md: 100 to 400 is the aim.
const FILE_LINES_MAX: usize = 800;
/// Lines a function may have. STYLE.md: under 40 is the aim.
const FUNCTION_LINES_MAX: usize = 70;
/// Test binaries: few, because each is linked on its own.
const TEST_BINARIES: [&str; 6] = ["broker", "clients", "server", "sim", "storage", "tidy"];

struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Lines up to the unit tests at the bottom.
    fn production(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = self.text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        self.text.get(..end).unwrap_or("").lines().enumerate().map(|(n, line)| (n + 1, line))
    }

    fn is_test(&self) -> bool {
        self.path.starts_with("tests/")
            || self.path.ends_with("/tests.rs")
            || self.path.contains("/tests/")
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    let mut pending: Vec<PathBuf> = folders.iter().map(|f| root().join(f)).collect();
    while let Some(folder) = pending.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("directory entry").path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target" && name != "corpus") {
                    pending.push(path);
                }
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(read(&path));
            }
        }
    }
    assert!(!found.is_empty(), "no sources below {folders:?}");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn read(path: &Path) -> Source {
    let name = path.strip_prefix(root()).expect("below the root").display().to_string();
    Source { path: name, text: fs::read_to_string(path).expect("UTF-8 source") }
}

fn report(rule: &str, findings: &str) {
    assert!(findings.is_empty(), "{rule}:\n{findings}");
}

/// The table in the docs of `src/lib.rs`: room -> what it may import; `None` = all.
fn rooms() -> BTreeMap<String, Option<Vec<String>>> {
    let lib = read(&root().join("src/lib.rs"));
    let mut rooms = BTreeMap::new();
    for line in lib.text.lines().filter_map(|l| l.strip_prefix("//! | `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let (room, may) = (cells[0].trim_end_matches('`'), cells[2]);
        let may = match may {
            "all" => None,
            "-" => Some(Vec::new()),
            list => Some(list.split(' ').map(str::to_owned).collect()),
        };
        rooms.insert(room.to_owned(), may);
    }
    assert_eq!(rooms.len(), 13, "the table of rooms in src/lib.rs has lost its form");
    rooms
}

/// Rooms that a line names: `crate::room` and the first names of `crate::{room, ...}`.
fn named_rooms<'a>(
    line: &'a str,
    rooms: &'a BTreeMap<String, Option<Vec<String>>>,
) -> Vec<&'a str> {
    let known = |name: &str| rooms.get_key_value(name).map(|(key, _)| key.as_str());
    let mut named = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let rest = line.get(at + "crate::".len()..).unwrap_or("");
        let names =
            rest.strip_prefix('{').map_or_else(|| vec![rest], |list| list.split(',').collect());
        for name in names {
            let end = name.trim().find(|c: char| !c.is_alphanumeric() && c != '_');
            let name = name.trim();
            named.extend(known(name.get(..end.unwrap_or(name.len())).unwrap_or("")));
        }
    }
    named
}

#[test]
fn rooms_import_only_what_their_row_names() {
    let rooms = rooms();
    let mut findings = String::new();
    for source in sources(&["src"]) {
        let below = source.path.strip_prefix("src/").expect("below src");
        let Some((room, _)) = below.split_once('/') else { continue };
        let Some(may) = rooms.get(room) else {
            let _ = writeln!(findings, "{}: no room of this name in the table", source.path);
            continue;
        };
        let Some(may) = may else { continue };
        for (number, line) in source.text.lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for named in named_rooms(line, &rooms) {
                if named != room && !may.iter().any(|m| m == named) {
                    let _ = writeln!(findings, "{}:{}: {room} -> {named}", source.path, number + 1);
                }
            }
        }
    }
    report("imports against the table in src/lib.rs", &findings);
}

#[test]
fn every_file_says_what_it_is() {
    let mut findings = String::new();
    for source in sources(&["src", "tests", "benches", "tools", "examples"]) {
        if !source.text.starts_with("//! ") {
            let _ = writeln!(findings, "{}", source.path);
        }
    }
    report("files that do not start with //!", &findings);
}

#[test]
fn files_stay_readable() {
    let mut findings = String::new();
    for source in sources(&["src"]) {
        let lines = source.production().count();
        if lines > FILE_LINES_MAX && !source.is_test() {
            let _ = writeln!(findings, "{}: {lines} lines", source.path);
        }
    }
    report("files over the limit: each is two of something", &findings);
}

#[test]
fn functions_stay_readable() {
    let mut findings = String::new();
    for source in sources(&["src"]).iter().filter(|s| !s.is_test()) {
        let mut open: Vec<(usize, usize, String)> = Vec::new();
        for (number, line) in source.production() {
            let indent = line.len() - line.trim_start().len();
            if starts_function(line) && !line.trim_end().ends_with([';', '}']) {
                open.push((indent, number, line.trim().to_owned()));
            } else if line.trim_end() == format!("{}}}", " ".repeat(indent)) {
                while let Some((_, start, name)) = open.pop_if(|(at, _, _)| *at >= indent) {
                    let lines = number - start + 1;
                    if lines > FUNCTION_LINES_MAX {
                        let _ =
                            writeln!(findings, "{}:{start}: {lines} lines: {name}", source.path);
                    }
                }
            }
        }
    }
    report("functions over the limit", &findings);
}

fn starts_function(line: &str) -> bool {
    let mut words = line.split_whitespace().skip_while(|word| {
        matches!(*word, "pub" | "const" | "async" | "extern" | "unsafe") || word.starts_with("pub(")
    });
    words.next() == Some("fn")
}

#[test]
fn unsafe_stands_in_one_file() {
    let mut findings = String::new();
    for source in sources(&["src"]).iter().filter(|s| s.path != "src/env/mmap.rs") {
        for (number, line) in source.text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            if code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe") {
                let _ = writeln!(findings, "{}:{}", source.path, number + 1);
            }
        }
    }
    report("unsafe outside env/mmap.rs", &findings);
    let mmap = read(&root().join("src/env/mmap.rs"));
    assert!(mmap.production().count() <= 200, "env/mmap.rs is over 200 lines");
    let blocks = mmap.text.matches("unsafe {").count() + mmap.text.matches("unsafe impl").count();
    assert!(
        blocks <= mmap.text.matches("SAFETY:").count(),
        "an unsafe block without its SAFETY note"
    );
}

#[test]
fn nothing_reaches_over_its_parent() {
    let mut findings = String::new();
    for source in sources(&["src"]) {
        for (number, line) in source.text.lines().enumerate() {
            if line.contains("super::super") {
                let _ = writeln!(findings, "{}:{}", source.path, number + 1);
            }
        }
    }
    report("super::super", &findings);
}

#[test]
fn bincode_stands_in_one_file() {
    let mut findings = String::new();
    for source in sources(&["src"]).iter().filter(|s| s.path != "src/broker/encoding.rs") {
        if source.text.lines().any(|l| !l.trim_start().starts_with("//") && l.contains("bincode::"))
        {
            let _ = writeln!(findings, "{}", source.path);
        }
    }
    report("bincode outside broker/encoding.rs (DESIGN D10)", &findings);
}

#[test]
fn test_binaries_are_few() {
    let mut findings = String::new();
    for entry in fs::read_dir(root().join("tests")).expect("tests") {
        let path = entry.expect("entry").path();
        let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or("").to_owned();
        if path.extension().is_some_and(|e| e == "rs") && !TEST_BINARIES.contains(&stem.as_str()) {
            let _ = writeln!(findings, "{}", path.display());
        }
    }
    report("a test belongs into a folder of one of the test binaries", &findings);
}

#[test]
fn no_test_is_ignored_silently() {
    let mut findings = String::new();
    for source in sources(&["src", "tests"]).iter().filter(|s| s.path != "tests/tidy.rs") {
        for (number, line) in source.text.lines().enumerate() {
            if line.trim() == "#[ignore]"
                || line.contains("todo!(")
                || line.contains("unimplemented!(")
            {
                let _ = writeln!(findings, "{}:{}: {}", source.path, number + 1, line.trim());
            }
        }
    }
    report("unfinished or silently ignored", &findings);
}

/// Lines of README and docs that run the binary: `$ stoplog ...` or a line that starts with it,
/// inside a fence.
fn documented_commands() -> Vec<(String, String)> {
    let mut commands = Vec::new();
    let pages = ["README.md", "docs/operations.md", "docs/performance.md", "docs/back-pressure.md"];
    for page in pages {
        let Ok(text) = fs::read_to_string(root().join(page)) else { continue };
        let mut fenced = false;
        for line in text.lines() {
            if line.starts_with("```") {
                fenced = !fenced;
            } else if fenced {
                let line = line.trim_start_matches("$ ");
                for part in line.split(['|', '&', ';']) {
                    let part = part.trim().trim_start_matches("cargo run --release -- ");
                    let part = part
                        .strip_prefix("stoplog ")
                        .or_else(|| line.starts_with("cargo run --release -- ").then_some(part));
                    commands.extend(part.map(|p| (page.to_owned(), p.to_owned())));
                }
            }
        }
    }
    commands
}

#[test]
fn documented_commands_exist() {
    let commands = documented_commands();
    assert!(commands.iter().any(|(page, c)| page == "README.md" && c.starts_with("demo")));
    let mut findings = String::new();
    for (page, command) in commands {
        let words: Vec<&str> = command.split_whitespace().collect();
        let verbs: Vec<&str> = words.iter().copied().take_while(|w| is_verb(w)).take(2).collect();
        let help = (1..=verbs.len()).rev().find_map(|n| help_of(&verbs[..n]));
        let Some(help) = help else {
            let _ = writeln!(findings, "{page}: stoplog {command}: no such command");
            continue;
        };
        for flag in words.iter().filter(|w| w.starts_with("--") && w.len() > 2) {
            let flag = flag.split('=').next().unwrap_or(flag);
            if !help.contains(flag) {
                let _ = writeln!(findings, "{page}: stoplog {command}: no {flag}");
            }
        }
    }
    report("commands in the documents that --help does not know", &findings);
}

fn is_verb(word: &str) -> bool {
    let verb = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    word.starts_with(|c: char| c.is_ascii_lowercase()) && word.chars().all(verb)
}

fn help_of(verbs: &[&str]) -> Option<String> {
    let binary = env!("CARGO_BIN_EXE_stoplog");
    let output = Command::new(binary).args(verbs).arg("--help").output().expect("the binary runs");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
