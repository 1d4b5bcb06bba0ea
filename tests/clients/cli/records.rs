//! `produce`, `consume`, `dump`, `load`: what goes in comes out, in the fixed forms.

use serde_json::json;

use super::broker::Broker;

fn broker() -> (tempfile::TempDir, Broker) {
    let folder = tempfile::tempdir().expect("folder");
    let broker = Broker::start(folder.path());
    (folder, broker)
}

#[test]
fn lines_become_records_and_acks_are_json_lines() {
    let (_folder, broker) = broker();
    broker.run(&["topic", "create", "t", "-p", "1"]).ok();
    let acks =
        broker.feed(&["produce", "t", "-K", ":", "--json"], b"k:v\r\n\nplain\n:empty").json();
    let count: i64 = acks.iter().map(|ack| ack["count"].as_i64().expect("a number")).sum();
    assert_eq!(
        (count, &acks[0]["base_offset"], &acks[0]["level"]),
        (4, &json!(0), &json!("durable"))
    );
    let records = broker.run(&["consume", "t", "-e", "--json"]).json();
    let pairs: Vec<_> = records.iter().map(|r| (&r["key"], &r["value"])).collect();
    assert_eq!(
        pairs,
        [
            (&json!("k"), &json!("v")),
            (&json!(null), &json!("")),
            (&json!(null), &json!("plain")),
            (&json!(""), &json!("empty")),
        ]
    );
    assert_eq!((&records[3]["topic"], &records[3]["partition"]), (&json!("t"), &json!(0)));
    assert_eq!((&records[3]["offset"], &records[3]["headers"]), (&json!(3), &json!([])));
    assert!(records[3]["timestamp"].is_i64());
}

#[test]
fn keys_from_json_keep_equal_keys_together_and_bad_json_names_the_line() {
    let (_folder, broker) = broker();
    broker.run(&["topic", "create", "t", "-p", "4"]).ok();
    let lines = b"{\"id\":7,\"n\":1}\n{\"id\":null}\n{\"id\":7,\"n\":2}\n{}\n";
    broker.feed(&["produce", "t", "--key-json", "id"], lines).ok();
    let records = broker.run(&["consume", "t", "-e", "--json"]).json();
    let sevens: Vec<_> = records.iter().filter(|r| r["key"] == "7").collect();
    assert_eq!(sevens.len(), 2);
    assert_eq!(sevens[0]["partition"], sevens[1]["partition"]);
    assert_eq!(records.iter().filter(|r| r["key"].is_null()).count(), 2);
    broker.feed(&["produce", "t", "--key-json", "id"], b"{}\n{").fails(2, "line 2");
}

#[test]
fn bytes_that_are_not_text_survive_dump_and_load() {
    let (_folder, broker) = broker();
    broker.run(&["topic", "create", "a", "-p", "2"]).ok();
    broker.run(&["topic", "create", "b", "-p", "2"]).ok();
    broker.feed(&["produce", "a", "-K", "="], b"k=\xff\xfe\nplain\n").ok();
    let dump = broker.run(&["dump", "a"]).ok();
    assert!(dump.contains("{\"base64\":\"//4=\"}"), "{dump}");
    broker.feed(&["load", "b", "--keep-partitions"], dump.as_bytes()).ok();
    assert_eq!(broker.run(&["dump", "b"]).ok(), dump.replace("\"topic\":\"a\"", "\"topic\":\"b\""));
}

#[test]
fn positions_and_counts_choose_what_is_read() {
    let (_folder, broker) = broker();
    broker.run(&["topic", "create", "t"]).ok();
    broker.feed(&["produce", "t"], b"0\n1\n2\n3\n4\n").ok();
    let read = |args: &[&str]| {
        let all = [&["consume", "t", "-e", "-f", "%o "], args].concat();
        broker.run(&all).ok().trim_end().to_owned()
    };
    assert_eq!(read(&[]), "0 1 2 3 4");
    assert_eq!(read(&["-o", "3"]), "3 4");
    assert_eq!(read(&["-o", "-2"]), "3 4");
    assert_eq!(read(&["-o", "+1"]), "1 2 3 4");
    assert_eq!(read(&["-o", "1:3"]), "1 2");
    assert_eq!(read(&["-o", "end"]), "");
    assert_eq!(read(&["-o", "@-1h", "-n", "2"]), "0 1");
    assert_eq!(read(&["-p", "0", "-n", "1"]), "0");
    assert_eq!(read(&["--credit", "3"]), "0 1 2");
    assert_eq!(read(&["--credit", "1", "-n", "4"]), "0 1 2 3");
    assert_eq!(read(&["--credit", "9"]), "0 1 2 3 4");
}

#[test]
fn a_group_goes_on_where_it_committed_and_can_be_moved() {
    let (_folder, broker) = broker();
    broker.run(&["topic", "create", "t", "-p", "1"]).ok();
    broker.feed(&["produce", "t"], b"a\nb\nc\n").ok();
    assert_eq!(broker.run(&["consume", "t", "-g", "g", "-n", "2"]).ok(), "a\nb\n");
    let lag = broker.run(&["group", "lag", "g", "--json"]).json();
    assert_eq!(lag, [json!({"topic":"t","partition":0,"committed":2,"end":3,"lag":1})]);
    assert_eq!(broker.run(&["consume", "t", "-g", "g", "-e"]).ok(), "c\n");
    let seek = ["group", "seek", "g", "--topic", "t", "--to", "start"];
    let moved = broker.run(&[&seek[..], &["--dry-run", "--json"]].concat()).json();
    assert_eq!((&moved[0]["from"], &moved[0]["to"]), (&json!(3), &json!(0)));
    broker.run(&seek).ok();
    assert_eq!(broker.run(&["consume", "t", "-g", "g", "-e"]).ok(), "a\nb\nc\n");
    broker.run(&["group", "delete", "g"]).fails(2, "--yes");
    broker.run(&["group", "delete", "g", "--yes"]).ok();
    broker.run(&["group", "describe", "g"]).fails(3, "E0501");
}

#[test]
fn a_group_that_is_made_by_a_seek_is_said_to_be_new() {
    let (_folder, broker) = broker();
    broker.run(&["topic", "create", "t", "-p", "1"]).ok();
    broker.feed(&["produce", "t"], b"a\n").ok();
    let seek = ["group", "seek", "g", "--topic", "t", "--to", "end"];
    let tried = broker.run(&[&seek[..], &["--dry-run"]].concat());
    assert!(tried.err.contains("group g is new: it would be made"), "{tried:?}");
    broker.run(&["group", "describe", "g"]).fails(3, "E0501");
    let made = broker.run(&seek);
    assert!(made.err.contains("group g is new: it was made"), "{made:?}");
    assert_eq!(broker.run(&["consume", "t", "-g", "g", "-e"]).ok(), "", "it begins at the end");
    let moved = broker.run(&seek);
    assert_eq!((moved.code, moved.err.as_str()), (Some(0), ""));
}

#[test]
fn an_offset_that_is_not_there_is_said_with_first_and_end() {
    let (_folder, broker) = broker();
    broker.run(&["topic", "create", "t", "-p", "1"]).ok();
    broker.feed(&["produce", "t"], b"0\n1\n2\n").ok();
    let trim = ["topic", "trim", "t", "-p", "0", "--before", "1", "--yes"];
    broker.run(&trim).ok();
    for (offset, from, read) in [("9", "3", ""), ("0", "1", "1\n2\n")] {
        let ran = broker.run(&["consume", "t", "-e", "-o", offset]);
        assert!(ran.err.contains(&format!("offset {offset} is out of range")), "{ran:?}");
        assert!(ran.err.contains("the first is 1, the end 3"), "{ran:?}");
        assert!(ran.err.contains(&format!("reading from {from}\n")), "{ran:?}");
        assert_eq!(ran.ok(), read);
    }
    for there in ["1", "3", "1:2"] {
        assert_eq!(broker.run(&["consume", "t", "-e", "-o", there]).err, "");
    }
}

#[test]
fn a_topic_that_is_missing_or_full_says_so() {
    let (_folder, broker) = broker();
    broker.feed(&["produce", "nope"], b"x\n").fails(3, "E0201");
    broker.run(&["consume", "nope", "-e"]).fails(3, "E0201");
    let settings = ["max_message_bytes=32KiB", "max_bytes=64KiB", "segment_bytes=64KiB"];
    let set = settings.map(|setting| ["--set", setting]).concat();
    broker.run(&[&["topic", "create", "small"], &set[..]].concat()).ok();
    let line = format!("{}\n", "x".repeat(20_000));
    let input = line.repeat(30);
    let full = broker
        .feed(&["produce", "small", "--timeout", "2s", "--batch-bytes", "30KiB"], input.as_bytes());
    full.fails(6, "TOPIC_FULL");
}

#[test]
fn a_credit_is_exactly_so_many_of_all_partitions_and_the_next_start_goes_on() {
    let (_folder, broker) = broker();
    broker.run(&["topic", "create", "t", "-p", "4"]).ok();
    let lines: String = (100..200).map(|number| format!("{number}:{number}\n")).collect();
    broker.feed(&["produce", "t", "-K", ":"], lines.as_bytes()).ok();
    let read = |args: &[&str]| {
        let all = [&["consume", "t", "--credit", "30"], args].concat();
        broker.run(&all).ok().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(read(&[]).len(), 30);
    assert_eq!(read(&["-o", "2:9"]).len(), 28, "a range of four partitions ends before");
    let mut seen: Vec<String> = (0..3).flat_map(|_| read(&["-g", "g"])).collect();
    assert_eq!(seen.len(), 90);
    seen.extend(read(&["-g", "g", "-e"]));
    seen.sort_unstable();
    assert_eq!(seen, (100..200).map(|number| number.to_string()).collect::<Vec<_>>());
}
