//! What goes to stdout: tables for people, JSON for programs. The form depends on `--json` alone,
//! never on the terminal. Diagnostics, progress and questions go to stderr.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use serde::Serialize;

use super::failure::Failure;

/// Buffer between us and the pipe; streams flush at their own points.
const BUFFER_BYTES: usize = 64 << 10;

/// Whether people or programs read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Tables and sentences.
    Human,
    /// JSON, one value a line.
    Json,
}

/// Stdout, buffered.
pub struct Output {
    form: Form,
    out: BufWriter<StdoutLock<'static>>,
}

impl Output {
    /// Stdout in this form.
    pub fn new(form: Form) -> Output {
        Output { form, out: BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock()) }
    }

    /// Whether programs read.
    pub fn is_json(&self) -> bool {
        self.form == Form::Json
    }

    /// Programs read, whatever was asked for.
    pub fn use_json(&mut self) {
        self.form = Form::Json;
    }

    /// One line for people; nothing when programs read.
    pub fn say(&mut self, line: impl std::fmt::Display) -> Result<(), Failure> {
        if self.form == Form::Human {
            writeln!(self.out, "{line}")?;
        }
        Ok(())
    }

    /// One JSON line for programs; nothing when people read.
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        if self.form == Form::Json {
            serde_json::to_writer(&mut self.out, value).map_err(io::Error::from)?;
            self.out.write_all(b"\n")?;
        }
        Ok(())
    }

    /// A table for people; nothing when programs read.
    pub fn table(&mut self, table: &Table) -> Result<(), Failure> {
        if self.form == Form::Human {
            self.out.write_all(table.render().as_bytes())?;
        }
        Ok(())
    }

    /// The bytes themselves.
    pub fn writer(&mut self) -> &mut impl Write {
        &mut self.out
    }

    /// Everything so far has left the process.
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(Failure::from)
    }
}

/// Columns for people: text to the left, numbers to the right.
#[derive(Clone, Debug)]
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with this head.
    pub fn new(head: &[&'static str]) -> Table {
        Table { head: head.to_vec(), rows: Vec::new() }
    }

    /// One row; as many cells as the head has.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let row: Vec<String> = cells.into_iter().collect();
        assert_eq!(row.len(), self.head.len(), "a row has as many cells as the head");
        self.rows.push(row);
    }

    /// The lines, each with its newline.
    pub fn render(&self) -> String {
        let columns = self.head.len();
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0).max(self.head[column].chars().count())
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let right: Vec<bool> = (0..columns).map(|c| self.is_numeric(c)).collect();
        let head: Vec<String> = self.head.iter().map(|h| (*h).to_owned()).collect();
        let mut text = String::new();
        for row in std::iter::once(&head).chain(&self.rows) {
            let cells = row.iter().enumerate().map(|(column, cell)| {
                let pad = " ".repeat(widths[column] - cell.chars().count());
                if right[column] { format!("{pad}{cell}") } else { format!("{cell}{pad}") }
            });
            let line = cells.collect::<Vec<_>>().join("  ");
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    fn is_numeric(&self, column: usize) -> bool {
        let numeric = |cell: &String| {
            let first = cell.bytes().next().unwrap_or(b'-');
            first == b'-' || first.is_ascii_digit()
        };
        !self.rows.is_empty() && self.rows.iter().all(|row| numeric(&row[column]))
    }
}

/// A number with thousands apart: `1,204,991`.
pub fn grouped(number: impl Into<i128>) -> String {
    let number: i128 = number.into();
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

/// A number of things: `1 batch`, `1,204 batches`.
pub fn counted(number: u64, thing: &str) -> String {
    let many = match number {
        1 => "",
        _ if thing.ends_with("ch") => "es",
        _ => "s",
    };
    format!("{} {thing}{many}", grouped(number))
}

/// Asks before something is destroyed. Without a terminal `--yes` is the only consent.
pub fn confirm(plan: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        let failure = Failure::usage(format!("{plan}: needs --yes without a terminal"));
        return Err(failure.help("--dry-run shows what would happen."));
    }
    eprint!("{plan}. Go on? [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Failure::usage("nothing was changed").help("Answer y, or give --yes."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right() {
        let mut table = Table::new(&["TOPIC", "LAG"]);
        table.row(["orders".to_owned(), "5".to_owned()]);
        table.row(["x".to_owned(), "1,204".to_owned()]);
        assert_eq!(table.render(), "TOPIC     LAG\norders      5\nx       1,204\n");
        assert_eq!(Table::new(&["A", "B"]).render(), "A  B\n");
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!(counted(1, "batch"), "1 batch");
        assert_eq!(counted(0, "batch"), "0 batches");
        assert_eq!(counted(1_204, "record"), "1,204 records");
    }

    #[test]
    fn thousands_are_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (-1_204_991, "-1,204,991")]
        {
            assert_eq!(grouped(number), text);
        }
    }
}
