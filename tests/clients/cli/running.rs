//! `serve`, topics and `verify`: the life of a broker as a script sees it.

use std::io::{BufRead as _, BufReader};

use super::broker::{Broker, run};
use crate::process::STOPLOG;

#[test]
fn topics_are_made_changed_trimmed_and_deleted() {
    let folder = tempfile::tempdir().expect("folder");
    let broker = Broker::start(folder.path());
    broker.run(&["topic", "create", "t", "-p", "2", "--set", "retention_ms=1d"]).ok();
    broker.run(&["topic", "create", "t"]).fails(3, "E0202");
    broker.run(&["topic", "create", "u", "--set", "retention=1d"]).fails(2, "retention");
    broker.run(&["topic", "alter", "t", "-p", "3", "--set", "retention_ms=2d"]).ok();
    let topic = broker.run(&["topic", "describe", "t", "--json"]).json().remove(0);
    assert_eq!(topic["partitions"].as_array().map(Vec::len), Some(3));
    assert_eq!(topic["config"]["retention_ms"], 172_800_000);
    broker.feed(&["produce", "t", "-p", "0"], b"a\nb\nc\n").ok();
    broker.run(&["topic", "create", "u", "-p", "0"]).fails(2, "E0108");
    broker.run(&["topic", "alter", "t", "-p", "1"]).fails(2, "E0108");
    let trim = ["topic", "trim", "t", "-p", "0", "--before", "2"];
    broker.run(&trim).fails(2, "--yes");
    broker.run(&[&trim[..], &["--yes"]].concat()).ok();
    assert_eq!(broker.run(&["consume", "t", "-e"]).ok(), "c\n");
    broker.run(&["topic", "delete", "t"]).fails(2, "--yes");
    broker.run(&["topic", "delete", "t", "--dry-run"]).ok();
    broker.run(&["topic", "delete", "t", "--yes"]).ok();
    assert!(broker.run(&["topic", "ls", "--json"]).json().is_empty());
}

#[test]
fn a_taken_port_and_a_taken_directory_are_exit_5() {
    let (folder, other) =
        (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
    let broker = Broker::start(folder.path());
    let (taken, free) = (folder.path().display().to_string(), other.path().display().to_string());
    run(&["serve", "--data", &free, "--listen", &broker.address]).fails(5, "E0704");
    run(&["serve", "--data", &taken, "--listen", "127.0.0.1:0"]).fails(5, "E0604");
    run(&["serve", "--data", &free, "--listen", "0.0.0.0:0"]).fails(2, "--insecure");
    // An address of nobody here: TEST-NET-1.
    let elsewhere = ["serve", "--data", &free, "--listen", "192.0.2.1:0", "--insecure"];
    run(&elsewhere).fails(2, "--listen HOST:PORT");
}

#[test]
fn sigterm_drains_and_a_kill_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().expect("folder");
    let data = folder.path().display().to_string();
    let mut broker = Broker::start(folder.path());
    broker.run(&["topic", "create", "t"]).ok();
    broker.feed(&["produce", "t"], b"a\n").ok();
    let live = run(&["verify", &data, "--json"]).json();
    assert_eq!(live.last().expect("a summary")["live"], true);
    broker.kill_and_restart();
    broker.feed(&["produce", "t"], b"b\n").ok();
    assert_eq!(broker.run(&["consume", "t", "-e"]).ok(), "a\nb\n");
    assert_eq!(broker.terminate(), Some(0));
    let rows = run(&["verify", &data, "--json"]).json();
    let of_topic: Vec<_> = rows.iter().filter(|row| row["topic"] == "t").collect();
    assert!(!of_topic.is_empty() && of_topic.iter().all(|row| row["verdict"] == "ok"), "{rows:?}");
}

#[test]
fn a_flipped_byte_below_the_mark_is_exit_8() {
    let folder = tempfile::tempdir().expect("folder");
    let broker = Broker::start(folder.path());
    broker.run(&["topic", "create", "t"]).ok();
    broker.feed(&["produce", "t"], b"some bytes to damage\n").ok();
    let id = broker.run(&["topic", "describe", "t", "--json"]).json().remove(0)["id"].clone();
    assert_eq!(broker.terminate(), Some(0));
    let segment = folder.path().join("topics").join(id.as_str().expect("an id")).join("0");
    let segment = segment.join("00000000000000000000.log");
    let mut bytes = std::fs::read(&segment).expect("the segment");
    let at = bytes.windows(4).position(|w| w == b"some").expect("the record");
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).expect("written");
    let data = folder.path().display().to_string();
    run(&["verify", &data]).fails(8, "E0708");
    let repair = ["verify", &data, "--repair"];
    run(&repair).fails(8, "--accept-loss");
    let lost = run(&[&repair[..], &["--accept-loss", "t/0", "--dry-run", "--json"]].concat());
    assert_eq!(lost.json().last().expect("a summary")["lost_offsets"], 1);
    let shown = run(&["inspect", "segment", &segment.display().to_string(), "--json"]).json();
    assert!(shown[0]["stopped"].as_str().expect("text").contains("checksum"), "{shown:?}");
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let folder = tempfile::tempdir().expect("folder");
    let broker = Broker::start(folder.path());
    broker.run(&["topic", "create", "t"]).ok();
    broker.feed(&["produce", "t"], "line\n".repeat(50_000).as_bytes()).ok();
    let mut consume = std::process::Command::new(STOPLOG)
        .args(["consume", "t", "-e", "--server", &broker.address])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("runs");
    drop(consume.stdout.take());
    let ended = consume.wait_with_output().expect("ends");
    assert_eq!((ended.status.code(), ended.stderr), (Some(0), Vec::new()));
}

#[test]
fn a_reader_says_that_its_broker_is_away_and_goes_on_when_it_is_back() {
    let folder = tempfile::tempdir().expect("folder");
    let mut broker = Broker::start(folder.path());
    broker.run(&["topic", "create", "t"]).ok();
    let mut reader = std::process::Command::new(STOPLOG)
        .args(["consume", "t", "-n", "2", "--server", &broker.address])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut out = BufReader::new(reader.stdout.take().expect("a pipe"));
    let mut err = BufReader::new(reader.stderr.take().expect("a pipe"));
    let (mut read, mut said) = (String::new(), String::new());
    broker.feed(&["produce", "t"], b"a\n").ok();
    out.read_line(&mut read).expect("a line");
    broker.kill();
    err.read_line(&mut said).expect("a line");
    assert!(said.starts_with("warning: ") && said.ends_with("; trying again\n"), "{said}");
    broker.kill_and_restart();
    broker.feed(&["produce", "t"], b"b\n").ok();
    out.read_line(&mut read).expect("a line");
    assert_eq!((read.as_str(), reader.wait().expect("it ends").code()), ("a\nb\n", Some(0)));
}
