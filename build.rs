//! Tells the crate which commit it is built from: `STOPLOG_COMMIT`, as the environment or git says.
//!
//! In release builds alone: a development build would be made anew with every commit.

use std::env::var;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=STOPLOG_COMMIT");
    let given = var("STOPLOG_COMMIT").ok();
    let release = var("PROFILE").is_ok_and(|profile| profile == "release");
    if let Some(commit) = given.or_else(|| release.then(of_checkout).flatten()) {
        println!("cargo::rustc-env=STOPLOG_COMMIT={commit}");
    }
}

/// The commit that is checked out; `None` outside of a checkout of this repository, as in a package.
fn of_checkout() -> Option<String> {
    if !Path::new(".git").exists() {
        return None;
    }
    // Every commit and checkout adds a line there; a path that is missing would count as changed.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    if Path::new(&log).exists() {
        println!("cargo::rerun-if-changed={log}");
    }
    git(&["rev-parse", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
