//! The TOML file: sections and keys as in the table, one value each, with the line it stands in.

use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::layers::ConfigError;

/// Nesting of tables: `section.name` has two levels; more is never a setting.
const DEPTH_MAX: usize = 4;

/// One value of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// `section.name`.
    pub key: String,
    /// The value as text.
    pub value: String,
    /// The line of the value, from 1.
    pub line: usize,
}

/// All values of a file's `text`; `path` is for messages only. Keys are not checked here.
pub fn parse_file(path: &Path, text: &str) -> Result<Vec<FileEntry>, ConfigError> {
    let table = DeTable::parse(text).map_err(|e| ConfigError::Syntax {
        path: path.to_owned(),
        line: e.span().map_or(1, |span| line_of(text, &span)),
        message: e.message().to_owned(),
    })?;
    let mut entries = Vec::new();
    collect(path, text, "", table.get_ref(), 1, &mut entries)?;
    Ok(entries)
}

fn collect(
    path: &Path,
    text: &str,
    prefix: &str,
    table: &DeTable<'_>,
    depth: usize,
    entries: &mut Vec<FileEntry>,
) -> Result<(), ConfigError> {
    for (name, value) in table {
        let key = format!("{prefix}{}", name.get_ref());
        let line = line_of(text, &name.span());
        let scalar = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().replace('_', ""),
            DeValue::Boolean(switch) => switch.to_string(),
            DeValue::Table(inner) if depth < DEPTH_MAX => {
                collect(path, text, &format!("{key}."), inner, depth + 1, entries)?;
                continue;
            }
            _ => {
                let message =
                    format!("{key}: a setting is a string, a whole number, true or false");
                return Err(ConfigError::Syntax { path: path.to_owned(), line, message });
            }
        };
        entries.push(FileEntry { key, value: scalar, line });
    }
    Ok(())
}

fn line_of(text: &str, span: &Range<usize>) -> usize {
    let before = text.as_bytes().get(..span.start).unwrap_or_default();
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_with_their_lines() {
        let text = "# a broker\n[native]\nlisten = \"127.0.0.1:0\"\ninsecure = true\n\nlog.level = \"warn\"\n[limits]\nx = 1_000\n";
        let entries = parse_file(Path::new("s.toml"), text).expect("valid");
        let found: Vec<_> =
            entries.iter().map(|e| (e.key.as_str(), e.value.as_str(), e.line)).collect();
        assert!(found.contains(&("native.listen", "127.0.0.1:0", 3)), "{found:?}");
        assert!(found.contains(&("native.insecure", "true", 4)), "{found:?}");
        assert!(found.contains(&("native.log.level", "warn", 6)), "{found:?}");
        assert!(found.contains(&("limits.x", "1000", 8)), "{found:?}");
    }

    #[test]
    fn broken_files_name_the_line() {
        for (text, line) in [("a = 1\nb = = 2\n", 2), ("\n\nx = [1, 2]\n", 3)] {
            let error = parse_file(Path::new("s.toml"), text).expect_err("broken");
            assert!(error.to_string().starts_with(&format!("s.toml:{line}: ")), "{error}");
        }
    }
}
