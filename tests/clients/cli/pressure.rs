//! `pressure`, `why` and the broker's own topic.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::broker::Broker;
use crate::process::STOPLOG;

/// A command that goes on until the test ends.
struct Running(Child);

impl Running {
    fn start(broker: &Broker, args: &[&str], stdin: &[u8]) -> Running {
        use std::io::Write as _;
        let mut command = Command::new(STOPLOG);
        command.args(args).env("STOPLOG_SERVER", &broker.address);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the binary runs");
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(stdin).expect("fed");
        Running(child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks until the answer is as it should be.
fn until(broker: &Broker, args: &[&str], holds: impl Fn(&Value) -> bool) -> Value {
    let mut last = String::new();
    for _ in 0..400 {
        let ran = broker.run(args);
        if ran.code == Some(0) {
            let value = ran.json().remove(0);
            if holds(&value) {
                return value;
            }
            last = value.to_string();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("never: {args:?}, but {last}");
}

#[test]
fn a_healthy_broker_says_so_and_nobody_knows_who_is_not_there() {
    let folder = tempfile::tempdir().expect("folder");
    let broker = Broker::start(folder.path());
    broker.run(&["topic", "create", "t"]).ok();
    let shown = broker.run(&["pressure", "--history", "15m"]).ok();
    assert!(shown.starts_with("nobody is limited, and nobody was in the last minute\n"), "{shown}");
    assert!(shown.contains("nothing came or went"), "{shown}");
    let shown = broker.run(&["why", "topic", "t"]).ok();
    assert!(shown.contains("Nothing limited topic t in the last minute"), "{shown}");
    let report = broker.run(&["pressure", "--json"]).json().remove(0);
    assert_eq!(report["limited"], serde_json::json!([]));
    assert!(report["disk"]["capacity"].as_u64().is_some_and(|bytes| bytes > 0), "{report}");
    assert!(report["metrics"].as_array().is_some_and(|metrics| !metrics.is_empty()));
    broker.run(&["why", "topic", "u"]).fails(3, "E0201");
    broker.run(&["why", "group", "g"]).fails(3, "E0501");
    broker.run(&["why", "client", "c"]).fails(7, "no client c is known");
    broker.run(&["why", "topics", "t"]).fails(2, "topics");
    broker.run(&["why", "topic"]).fails(2, "needs a name");
}

#[test]
fn a_client_that_waits_for_its_quota_is_led_to_it() {
    let folder = tempfile::tempdir().expect("folder");
    let broker = Broker::start(folder.path());
    broker.run(&["topic", "create", "t", "--set", "max_message_bytes=2MiB"]).ok();
    broker.run(&["quota", "set", "client/stoplog-produce", "produce_bytes=2KiB"]).ok();
    let mut large = vec![b'x'; 1_200_000];
    large.push(b'\n');
    broker.feed(&["produce", "t", "--batch-bytes", "2MiB"], &large).ok();
    let _held = Running::start(&broker, &["produce", "t", "--timeout", "10m"], b"a\n");
    let ask = ["why", "client", "stoplog-produce", "--json"];
    let report = until(&broker, &ask, |report| report["root"]["kind"] == "quota");
    assert_eq!(report["root"]["name"], "client/stoplog-produce");
    assert!(report["until_ms"].as_u64().is_some_and(|ms| ms > 1_000), "{report}");
    let shown = broker.run(&["why", "topic", "t"]).ok();
    assert!(shown.contains("root   quota client/stoplog-produce\n"), "{shown}");
    assert!(shown.contains("stoplog quota set client/stoplog-produce KEY=VALUE"), "{shown}");
    let shown = broker.run(&["pressure", "--history", "1m"]).ok();
    assert!(shown.contains("quota:client/stoplog-produce"), "{shown}");

    let has = |report: &Value| !report["limited"].as_array().expect("a list").is_empty();
    let report = until(&broker, &["pressure", "--json"], has);
    let limited = report["metrics"].as_array().expect("a list").iter().find(|metric| {
        metric["name"] == "stoplog_limited_seconds_total"
            && metric["labels"][0][1] == "quota client/stoplog-produce"
    });
    assert!(limited.is_some(), "{report}");
    broker.run(&["quota", "rm", "client/stoplog-produce", "--yes"]).ok();
}

#[test]
fn the_topic_of_the_broker_is_read_and_hidden_and_nobody_else_writes_it() {
    let folder = tempfile::tempdir().expect("folder");
    let broker = Broker::start(folder.path());
    let small = ["--set", "max_bytes=64KiB", "--set", "max_message_bytes=64KiB"];
    broker.run(&[&["topic", "create", "t"][..], &small[..]].concat()).ok();
    let line = "x".repeat(1_000) + "\n";
    let full = broker.feed(&["produce", "t", "--timeout", "1s"], line.repeat(200).as_bytes());
    full.fails(6, "E0405");
    let report = until(&broker, &["why", "topic", "t", "--json"], |report| {
        report["steps"][0]["by"] == "topic_full"
    });
    assert_eq!(report["root"], serde_json::json!({ "kind": "topic", "name": "t" }));
    let all = ["topic", "ls", "--all", "--json"];
    let rows = || broker.run(&all).json();
    for _ in 0..400 {
        if rows().iter().any(|row| row["topic"] == "__pressure") {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(rows().iter().any(|row| row["topic"] == "__pressure"));
    let shown = broker.run(&["topic", "ls", "--json"]).json();
    assert!(shown.iter().all(|row| row["topic"] != "__pressure"), "{shown:?}");
    let read = broker.run(&["consume", "__pressure", "-e"]).ok();
    let events = read.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let mut of_topic = events.filter(|event| event["kind"] == "topic" && event["name"] == "t");
    assert_eq!(of_topic.next().expect("an event")["to"], "topic_full", "{read}");
    broker.feed(&["produce", "__pressure"], b"a\n").fails(2, "E0109");
    broker.run(&["topic", "create", "__mine"]).fails(2, "E0109");
    broker.run(&["topic", "delete", "__pressure", "--yes"]).fails(2, "E0109");
}

#[test]
fn producers_that_wait_for_a_slow_group_are_led_to_its_consumer() {
    let folder = tempfile::tempdir().expect("folder");
    let broker = Broker::start(folder.path());
    broker.run(&["topic", "create", "t", "--set", "backlog=slow:records=50"]).ok();
    let slow = ["consume", "t", "-g", "slow", "--rate", "5", "--commit-every", "100ms"];
    let _consumer = Running::start(&broker, &slow, b"");
    // Only a group that was seen to have caught up can hold anybody back.
    for committed in 1..=10 {
        broker.feed(&["produce", "t"], b"a\n").ok();
        until(&broker, &["group", "describe", "slow", "--json"], |group| {
            group["offsets"][0]["committed"] == committed
        });
    }
    // A batch always comes in whole when the group has read everything; the next one waits.
    let many = "b\n".repeat(5_000);
    let _held = Running::start(&broker, &["produce", "t", "--timeout", "10m"], many.as_bytes());
    let report = until(&broker, &["why", "client", "stoplog-produce", "--json"], |report| {
        report["root"]["kind"] == "client" && report["root"]["name"] != "stoplog-produce"
    });
    let steps = report["steps"].as_array().expect("the way");
    assert!(steps.iter().any(|step| step["by"] == "backlog:slow"), "{report}");
    assert!(steps.iter().any(|step| step["entity"]["kind"] == "group"), "{report}");
    assert_eq!(report["root"]["name"], "stoplog-consume", "{report}");
}
