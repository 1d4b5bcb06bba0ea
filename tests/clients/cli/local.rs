//! Commands that need no broker.

use super::broker::{run, run_with};

#[test]
fn every_command_of_the_tree_has_help() {
    for command in [
        "serve",
        "demo",
        "topic",
        "produce",
        "consume",
        "group",
        "inspect",
        "verify",
        "dump",
        "load",
        "pressure",
        "doctor",
        "config",
        "completions",
        "explain",
        "version",
    ] {
        assert!(run(&[command, "--help"]).ok().contains("Usage: stoplog"), "{command}");
    }
    assert!(run(&["--help"]).ok().contains("6  refused by back pressure"));
}

#[test]
fn a_wrong_command_line_is_exit_2() {
    for args in [
        &["nonsense"][..],
        &["consume"],
        &["consume", "t", "-g", "g", "-o", "start"],
        &["consume", "t", "-o", "nowhere"],
        &["consume", "t", "-f", "%x"],
        &["produce", "t", "--acks", "maybe"],
        &["topic", "create", "a/b"],
        &["serve"],
        &["demo", "--pressure", "--crash"],
        &["demo", "--pressure", "--events", "5"],
    ] {
        let ran = run(args);
        assert!(ran.err.starts_with("error[E0710]: "), "{ran:?}");
        assert!(ran.err.ends_with("explain: stoplog explain E0710\n"), "{ran:?}");
        assert_eq!(ran.code, Some(2), "{args:?}");
    }
    assert_eq!(run(&["topic"]).code, Some(2), "what a noun takes is told, without an error");
    run(&["produce", "t", "/no/such/file"]).fails(2, "/no/such/file");
}

#[test]
fn what_the_system_refuses_has_a_code() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("opened");
    let mut explain = std::process::Command::new(crate::process::STOPLOG);
    let ran = explain.arg("explain").stdout(full).output().expect("it ran");
    let err = String::from_utf8(ran.stderr).expect("UTF-8");
    assert!(err.starts_with("error[E0711]: ") && err.contains("\nhelp: "), "{err}");
    assert_eq!(ran.status.code(), Some(1));
    run(&["serve", "--data", "/proc/none", "--listen", "127.0.0.1:0"]).fails(1, "error[E0711]");
}

#[test]
fn a_path_that_is_not_there_or_is_something_else_is_exit_2() {
    let folder = tempfile::tempdir().expect("folder");
    let (empty, missing) = (folder.path(), folder.path().join("none"));
    let (empty, missing) = (empty.display().to_string(), missing.display().to_string());
    run(&["verify", &missing]).fails(2, "error[E0706]");
    run(&["verify", &empty]).fails(2, "error[E0607]");
    run(&["inspect", "segment", &missing]).fails(2, "error[E0706]");
}

#[test]
fn nobody_there_is_exit_5() {
    run(&["topic", "ls", "--server", "127.0.0.1:1"]).fails(5, "error[E0701]");
}

#[test]
fn explain_knows_every_code_it_prints() {
    assert!(run(&["explain", "E0404"]).ok().contains("No disk space is left"));
    let codes = run(&["explain", "--json"]).json();
    assert!(codes.iter().any(|line| line["code"] == "E0404" && line["exit"] == 6));
    run(&["explain", "E9999"]).fails(3, "E9999");
}

#[test]
fn version_says_what_was_built_and_what_it_reads() {
    let version = &run(&["version", "--json"]).json()[0];
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(version["storage_format"], stoplog::storage::FORMAT_VERSION);
    assert!(version["commit"].as_str().is_some_and(|commit| !commit.is_empty()));
}

#[test]
fn config_shows_values_and_origins() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("stoplog.toml");
    std::fs::write(&file, "[log]\nlevel = \"warn\"\n").expect("written");
    let file = file.display().to_string();
    let args =
        ["config", "show", "--origin", "--json", "--config", &file, "--set", "http.listen=off"];
    let lines = run_with(&[("STOPLOG_NATIVE_LISTEN", "127.0.0.1:1")], &args, b"").json();
    let origin = |key: &str| {
        let line = lines.iter().find(|line| line["key"] == key).expect(key);
        line["origin"].as_str().expect("text").to_owned()
    };
    assert_eq!(origin("log.level"), format!("{file}:2"));
    assert_eq!(origin("native.listen"), "env STOPLOG_NATIVE_LISTEN");
    assert_eq!(origin("http.listen"), "flag --set");
    assert_eq!(origin("limits.topics_max"), "default");
}

#[test]
fn an_unknown_key_is_an_error_with_its_line() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("stoplog.toml");
    std::fs::write(&file, "[native]\nlissen = \"127.0.0.1:1\"\n").expect("written");
    let file = file.display().to_string();
    run(&["config", "show", "--config", &file]).fails(2, "stoplog.toml:2: no setting is called");
}

#[test]
fn doctor_says_what_it_found() {
    let folder = tempfile::tempdir().expect("folder");
    let data = folder.path().display().to_string();
    let checks = run(&["doctor", "--data", &data, "--json"]).json();
    for name in ["open files", "clock", "data dir", "file system", "disk space", "fdatasync"] {
        assert!(checks.iter().any(|check| check["check"] == name), "{name}: {checks:?}");
    }
}

#[test]
fn completions_come_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(run(&["completions", shell]).ok().contains("stoplog"), "{shell}");
    }
}
