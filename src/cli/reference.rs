//! The generated pages of `docs/`: a test compares each with its source, so that none goes stale.

use std::fmt::Write as _;

use clap::CommandFactory as _;

use super::args::Cli;

/// Width of the help texts on the page.
const COLUMNS: usize = 100;

/// The text of `docs/cli.md`: the help of every command.
pub fn cli_page() -> String {
    let mut page = "\
# Command line

<!-- Generated from src/cli. Do not edit: STOPLOG_BLESS=1 cargo test rewrites it. -->
"
    .to_owned();
    let mut root = Cli::command().term_width(COLUMNS);
    root.build();
    write_command(&mut page, &mut root, "stoplog");
    page
}

fn write_command(page: &mut String, command: &mut clap::Command, name: &str) {
    let help = command.render_long_help().to_string();
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    let _ = write!(page, "\n## {name}\n\n```text\n{}\n```\n", lines.join("\n").trim_end());
    for inner in command.get_subcommands_mut().filter(|c| !c.is_hide_set()) {
        let inner_name = format!("{name} {}", inner.get_name());
        write_command(page, inner, &inner_name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    fn compare(page: &str, text: &str) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(page);
        if std::env::var_os("STOPLOG_BLESS").is_some() {
            fs::write(&path, text).expect("written");
        }
        let stored = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            stored == text,
            "{page} does not say what the code says; STOPLOG_BLESS=1 cargo test --lib reference rewrites it"
        );
    }

    #[test]
    fn configuration_page_is_the_table() {
        compare("docs/configuration.md", &crate::config::reference_page());
    }

    #[test]
    fn errors_page_is_the_table() {
        compare("docs/errors.md", &crate::cli::explain::errors_page());
    }

    #[test]
    fn cli_page_is_the_help() {
        compare("docs/cli.md", &cli_page());
    }

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
    }
}
