//! Records from text: one a line, from files (`.gz` and `.zst` are unpacked) or stdin.
//!
//! `\n` and `\r\n` are stripped, an empty line is an empty value, a last line needs no newline.
//! A line is never longer than a record can be.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::failure::Failure;
use crate::types::ErrorCode;

/// Longest line in bytes: the largest `max_message_bytes` a topic can have (8 MiB).
pub const LINE_BYTES_MAX: u64 = 8 << 20;
/// Read-ahead of a file; larger gains nothing measurable.
const BUFFER_BYTES: usize = 256 << 10;

/// Lines of several inputs, one after the other.
pub struct Lines {
    pending: std::vec::IntoIter<PathBuf>,
    current: Option<Box<dyn BufRead + Send>>,
    name: String,
    number: u64,
}

impl Lines {
    /// Lines of `files`; none or `-` = stdin. A file that is missing fails here, before anything
    /// is sent.
    pub fn open(files: &[PathBuf]) -> Result<Lines, Failure> {
        for file in files.iter().filter(|file| !is_stdin(file)) {
            File::open(file).map_err(|e| unreadable(file, &e))?;
        }
        let files = if files.is_empty() { vec![PathBuf::from("-")] } else { files.to_vec() };
        Ok(Lines { pending: files.into_iter(), current: None, name: String::new(), number: 0 })
    }

    /// Lines of one open input.
    #[cfg(test)]
    fn of(name: &str, input: Box<dyn BufRead + Send>) -> Lines {
        Lines {
            pending: Vec::new().into_iter(),
            current: Some(input),
            name: name.to_owned(),
            number: 0,
        }
    }

    /// Puts the next line into `line` (without its end); false = there is none.
    pub fn next_into(&mut self, line: &mut Vec<u8>) -> Result<bool, Failure> {
        line.clear();
        loop {
            let input = match &mut self.current {
                Some(input) => input,
                None => match self.pending.next() {
                    Some(path) => {
                        self.name = path.display().to_string();
                        self.number = 0;
                        self.current.insert(open(&path)?)
                    }
                    None => return Ok(false),
                },
            };
            let read = input.by_ref().take(LINE_BYTES_MAX + 2).read_until(b'\n', line);
            let count = read.map_err(|e| unreadable(Path::new(&self.name), &e))?;
            if count > 0 {
                break;
            }
            self.current = None;
        }
        self.number += 1;
        if line.last() == Some(&b'\n') {
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
        }
        if line.len() as u64 > LINE_BYTES_MAX {
            return Err(self.invalid("longer than 8 MiB, the largest a record can be"));
        }
        Ok(true)
    }

    /// Where the last line stood: `orders.jsonl: line 12`.
    pub fn place(&self) -> String {
        let name = if self.name == "-" { "stdin" } else { &self.name };
        format!("{name}: line {}", self.number)
    }

    /// An error about the last line: exit 2, with its number.
    pub fn invalid(&self, what: impl std::fmt::Display) -> Failure {
        Failure::new(ErrorCode::InvalidInput, format!("{}: {what}", self.place()))
    }
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::new(ErrorCode::InvalidInput, format!("{}: {error}", path.display()));
    failure.help("Is the path right, and the file what its ending says?")
}

fn open(path: &Path) -> Result<Box<dyn BufRead + Send>, Failure> {
    if is_stdin(path) {
        return Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, io::stdin())));
    }
    let file = File::open(path).map_err(|e| unreadable(path, &e))?;
    let file = BufReader::with_capacity(BUFFER_BYTES, file);
    match path.extension().and_then(|e| e.to_str()) {
        Some("gz") => {
            Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(file))))
        }
        Some("zst" | "zstd") => {
            let decoder =
                zstd::stream::Decoder::with_buffer(file).map_err(|e| unreadable(path, &e))?;
            Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder)))
        }
        _ => Ok(Box::new(file)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn all(mut lines: Lines) -> Vec<String> {
        let (mut found, mut line) = (Vec::new(), Vec::new());
        while lines.next_into(&mut line).expect("readable") {
            found.push(String::from_utf8(line.clone()).expect("UTF-8"));
        }
        found
    }

    fn of(text: &'static str) -> Lines {
        Lines::of("-", Box::new(io::Cursor::new(text)))
    }

    #[test]
    fn line_ends_are_stripped_and_empty_lines_kept() {
        assert_eq!(all(of("a\nb\r\n\n\r\nlast")), ["a", "b", "", "", "last"]);
        assert_eq!(all(of("")), [""; 0]);
        assert_eq!(all(of("one\r\r\n")), ["one\r"]);
    }

    #[test]
    fn packed_files_are_unpacked() {
        let folder = tempfile::tempdir().expect("folder");
        let gz = folder.path().join("a.jsonl.gz");
        let zst = folder.path().join("b.jsonl.zst");
        let mut packer =
            flate2::write::GzEncoder::new(File::create(&gz).expect("file"), Default::default());
        packer.write_all(b"1\n2\n").expect("written");
        packer.finish().expect("finished");
        let packed = zstd::encode_all(&b"3\n4"[..], 1).expect("packed");
        std::fs::write(&zst, packed).expect("written");
        assert_eq!(all(Lines::open(&[gz, zst]).expect("open")), ["1", "2", "3", "4"]);
    }

    #[test]
    fn a_line_longer_than_a_record_is_named() {
        let long = vec![b'x'; LINE_BYTES_MAX as usize + 1];
        let mut lines = Lines::of("big", Box::new(io::Cursor::new(long)));
        let failure = lines.next_into(&mut Vec::new()).expect_err("too long");
        assert!(failure.text().expect("said").contains("big: line 1:"));
    }

    #[test]
    fn a_missing_file_fails_before_anything_is_read() {
        let failure = Lines::open(&[PathBuf::from("/no/such/file")]).err().expect("missing");
        assert_eq!(failure.exit(), crate::cli::failure::Exit::Usage);
    }
}
