//! The examples, run as a reader of the documentation runs them.

use std::path::PathBuf;
use std::process::Command;

use stoplog::client::NewRecord;
use stoplog::types::Timestamp;

use crate::world::{World, within};

/// Where `cargo test` put it: beside the directory of the tests.
fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().unwrap().parent().unwrap();
    let example = profile.join("examples").join(name);
    if !example.exists() {
        // Only these tests were asked for.
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--example", name]);
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        build.args(profile.ends_with("release").then_some("--release"));
        assert!(build.status().unwrap().success());
    }
    example
}

/// What it prints.
fn run(name: &str, server: Option<&str>, arguments: &[&str]) -> Vec<String> {
    let mut command = Command::new(built(name));
    command.args(arguments).env_remove("STOPLOG_SERVER");
    command.envs(server.map(|server| ("STOPLOG_SERVER", server)));
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {said}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn order_events() {
    let expected =
        ["email", "inventory", "analytics"].map(|n| format!("{n} saw 1000 of 1000 orders"));
    assert_eq!(run("order_events", None, &[]), expected);
}

#[test]
fn embedded_log() {
    let printed = run("embedded_log", None, &[]);
    let expected = [
        "stored from offset 0, durable",
        "0: OrderPlaced 1",
        "1: OrderPaid 1",
        "2: OrderShipped 1",
    ];
    assert_eq!(printed, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_from_time() {
    let world = World::start(1).await;
    let producer = world.producer().await;
    for time in 0..20_i64 {
        let value = format!("order {time}");
        let mut record = NewRecord::value(value.as_bytes());
        record.timestamp = Some(Timestamp(1_764_000_000_000 + time));
        within(producer.send(record).await.unwrap()).await.unwrap();
    }
    let server = world.address.clone();
    let replay = tokio::task::spawn_blocking(move || {
        run("replay_from_time", Some(&server), &["orders", "1764000000017"])
    });
    let expected = [17, 18, 19].map(|n| format!("0/{n} {} order {n}", 1_764_000_000_000_i64 + n));
    assert_eq!(within(replay).await.unwrap(), expected);
}
