//! `quota`: set, met by a producer, shown, removed.

use super::broker::Broker;

#[test]
fn a_low_quota_refuses_a_producer_by_name_until_it_is_removed() {
    let folder = tempfile::tempdir().expect("folder");
    let broker = Broker::start(folder.path());
    broker.run(&["topic", "create", "t", "--set", "max_message_bytes=2MiB"]).ok();
    let set = ["quota", "set", "client/stoplog-produce", "produce_bytes=1", "requests=1000"];
    broker.run(&[&set[..], &["--dry-run"]].concat()).ok();
    assert!(broker.run(&["quota", "ls", "--json"]).json().is_empty());
    broker.run(&set).ok();
    broker.run(&["quota", "set", "client/stoplog-produce", "requests=none"]).ok();
    // One batch, larger than the smallest burst: at one byte a second it owes for days.
    let mut large = vec![b'x'; 1_200_000];
    large.push(b'\n');
    broker.feed(&["produce", "t", "--batch-bytes", "2MiB"], &large).ok();
    let refused = broker.feed(&["produce", "t", "--timeout", "3s"], b"a\n");
    assert!(refused.err.contains("retry_after_ms: "), "{refused:?}");
    assert!(refused.err.contains("E0407"), "too late within its timeout: {refused:?}");
    refused.fails(6, "quota:client/stoplog-produce");

    let shown = broker.run(&["quota", "ls", "--json"]).json().remove(0);
    assert_eq!(shown["entity"], "client/stoplog-produce");
    assert_eq!(shown["settings"], serde_json::json!({ "produce_bytes": 1 }));
    let used = &shown["used"][0];
    assert!(used["refused"].as_u64().is_some_and(|refused| refused > 0), "{shown}");
    let described = broker.run(&["quota", "describe", "client/stoplog-produce"]).ok();
    assert!(described.contains("produce_bytes=1\n"), "{described}");

    broker.run(&["quota", "rm", "client/stoplog-produce"]).fails(2, "--yes");
    broker.run(&["quota", "rm", "client/stoplog-produce", "--yes"]).ok();
    broker.feed(&["produce", "t"], b"b\n").ok();
    broker.run(&["quota", "rm", "client/stoplog-produce", "--yes"]).fails(3, "E0413");
    broker.run(&["quota", "describe", "client/stoplog-produce"]).fails(3, "E0413");
}

#[test]
fn a_try_ends_at_once_with_the_brokers_reason() {
    let folder = tempfile::tempdir().expect("folder");
    let broker = Broker::start(folder.path());
    broker.run(&["topic", "create", "t", "--set", "max_message_bytes=2MiB"]).ok();
    broker.feed(&["produce", "t", "--try", "--class", "p3"], b"a\n").ok();
    broker.run(&["quota", "set", "client/stoplog-produce", "produce_bytes=64"]).ok();
    let mut large = vec![b'x'; 1_200_000];
    large.push(b'\n');
    broker.feed(&["produce", "t", "--batch-bytes", "2MiB"], &large).ok();
    // It owes for an hour and more: without --try this would wait for it.
    let refused = broker.feed(&["produce", "t", "--try", "--timeout", "1h"], b"b\n");
    assert!(refused.err.contains("E0401"), "{refused:?}");
    refused.fails(6, "quota:client/stoplog-produce");
    broker.run(&["produce", "t", "--class", "p0"]).fails(2, "--class");
}

#[test]
fn a_full_quota_of_connections_says_when_to_come_back_and_whose_it_is() {
    let folder = tempfile::tempdir().expect("folder");
    let broker = Broker::start(folder.path());
    broker.run(&["topic", "create", "t"]).ok();
    broker.run(&["quota", "set", "client/<default>", "connections=1"]).ok();
    let mut open = std::process::Command::new(crate::process::STOPLOG)
        .args(["consume", "t", "-f", "%v\n", "--server", &broker.address])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the binary runs");
    // It has read what was produced while it was open, so it is connected.
    broker.feed(&["produce", "t"], b"a\n").ok();
    let mut line = String::new();
    let out = open.stdout.take().expect("a pipe");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).expect("a line");
    let refused = broker.run(&["consume", "t", "-e"]);
    open.kill().expect("it runs");
    open.wait().expect("it ends");
    assert!(refused.err.contains("retry_after_ms: 1000\n"), "{refused:?}");
    refused.fails(6, "quota:client/stoplog-consume");
    let own = ["quota", "describe", "client/stoplog-consume"];
    broker.run(&own).fails(3, "it is under that of client/<default>");
}

#[test]
fn an_operator_who_shut_everybody_out_comes_in_and_opens_again() {
    let folder = tempfile::tempdir().expect("folder");
    let broker = Broker::start(folder.path());
    broker.run(&["topic", "create", "t"]).ok();
    for everybody in ["broker", "principal/anonymous", "client/<default>", "ip/<default>"] {
        broker.run(&["quota", "set", everybody, "connections=0"]).ok();
        let refused = broker.feed(&["produce", "t", "--timeout", "1s"], b"a\n");
        assert!(refused.err.contains("E0409"), "{refused:?}");
        refused.fails(6, "(quota:");
        let shown = broker.run(&["quota", "ls", "--json"]).json().remove(0);
        assert!(shown["used"][0]["refused"].as_u64().is_some_and(|times| times > 0), "{shown}");
        broker.run(&["quota", "rm", everybody, "--yes"]).ok();
        broker.feed(&["produce", "t"], b"a\n").ok();
    }
}

#[test]
fn wrong_quotas_are_wrong_command_lines() {
    let folder = tempfile::tempdir().expect("folder");
    let broker = Broker::start(folder.path());
    broker.run(&["quota", "set", "shop", "requests=1"]).fails(2, "names nothing");
    broker.run(&["quota", "set", "client/shop", "requests"]).fails(2, "KEY=VALUE");
    broker.run(&["quota", "set", "client/shop", "bytes=1"]).fails(2, "produce_bytes");
    broker.run(&["quota", "set", "client/shop", "storage_bytes=1"]).fails(2, "storage_bytes");
    broker.run(&["quota", "set", "client/shop"]).fails(2, "KEY=VALUE");
}
