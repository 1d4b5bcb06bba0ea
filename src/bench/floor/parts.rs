//! What this machine can do at best, part by part: the parts an event log cannot do without.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::env::{Clock, Disk, OpenMode};
use crate::record::crc32c;

/// Throughput of one part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// What was measured.
    pub part: String,
    /// Bytes moved.
    pub bytes: u64,
    /// Seconds it took.
    pub seconds: f64,
    /// Millions of bytes a second.
    pub mb_per_s: f64,
}

/// How much is moved for each part.
#[derive(Clone, Copy, Debug)]
pub struct PartsOptions {
    /// Bytes in all.
    pub bytes: u64,
    /// Bytes a piece (a write, a checksum, a send).
    pub piece_bytes: usize,
    /// Pieces covered by one `fdatasync`.
    pub pieces_per_sync: u64,
}

/// Measures every part once, in a fixed order, with files below `dir` (relative to the disk).
pub fn measure(
    options: PartsOptions,
    disk: &dyn Disk,
    clock: &dyn Clock,
    dir: &Path,
) -> io::Result<Vec<Part>> {
    let piece: Vec<u8> = (0..options.piece_bytes).map(|i| (i * 31 % 251) as u8).collect();
    let pieces = (options.bytes / options.piece_bytes as u64).max(1);
    Ok(vec![
        timed("memcpy", pieces, &piece, clock, copy)?,
        timed("crc32", pieces, &piece, clock, |piece| {
            std::hint::black_box(crc32fast::hash(piece));
            Ok(())
        })?,
        timed("crc32c", pieces, &piece, clock, |piece| {
            std::hint::black_box(crc32c(piece));
            Ok(())
        })?,
        loopback(pieces, &piece, clock)?,
        write(WriteRun { name: "pwritev", pieces, sync_every: None }, &piece, disk, clock, dir)?,
        write(
            WriteRun {
                name: "pwritev+fdatasync",
                pieces,
                sync_every: Some(options.pieces_per_sync.max(1)),
            },
            &piece,
            disk,
            clock,
            dir,
        )?,
    ])
}

fn part(name: &str, bytes: u64, took: Duration) -> Part {
    let seconds = took.as_secs_f64().max(1e-9);
    Part { part: name.to_owned(), bytes, seconds, mb_per_s: bytes as f64 / 1e6 / seconds }
}

fn timed(
    name: &str,
    pieces: u64,
    piece: &[u8],
    clock: &dyn Clock,
    mut work: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<Part> {
    let start = clock.monotonic();
    for _ in 0..pieces {
        work(std::hint::black_box(piece))?;
    }
    Ok(part(name, pieces * piece.len() as u64, clock.monotonic() - start))
}

fn copy(piece: &[u8]) -> io::Result<()> {
    std::hint::black_box(piece.to_vec());
    Ok(())
}

/// One thread sends, this one receives, over TCP on loopback.
fn loopback(pieces: u64, piece: &[u8], clock: &dyn Clock) -> io::Result<Part> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut sender = TcpStream::connect(listener.local_addr()?)?;
    let (mut receiver, _) = listener.accept()?;
    let sent = piece.to_vec();
    let start = clock.monotonic();
    let thread = std::thread::spawn(move || (0..pieces).try_for_each(|_| sender.write_all(&sent)));
    let mut buffer = vec![0; piece.len()];
    let mut received = 0;
    loop {
        match receiver.read(&mut buffer)? {
            0 => break,
            bytes => received += bytes as u64,
        }
    }
    thread.join().map_err(|_| io::Error::other("the sending thread failed"))??;
    Ok(part("loopback tcp", received, clock.monotonic() - start))
}

struct WriteRun {
    name: &'static str,
    pieces: u64,
    sync_every: Option<u64>,
}

/// Sequential writes into one preallocated file.
fn write(
    run: WriteRun,
    piece: &[u8],
    disk: &dyn Disk,
    clock: &dyn Clock,
    dir: &Path,
) -> io::Result<Part> {
    let path = dir.join("floor.bin");
    let file = disk.open(&path, OpenMode::Truncate)?;
    file.allocate(0, run.pieces * piece.len() as u64)?;
    file.sync()?;
    let start = clock.monotonic();
    for index in 0..run.pieces {
        let offset = index * piece.len() as u64;
        let written = file.pwritev(&[IoSlice::new(piece)], offset)?;
        if written != piece.len() {
            crate::env::write_all_at(&*file, &piece[written..], offset + written as u64)?;
        }
        if run.sync_every.is_some_and(|every| (index + 1) % every == 0) {
            file.sync()?;
        }
    }
    if run.sync_every.is_some() {
        file.sync()?;
    }
    let result = part(run.name, run.pieces * piece.len() as u64, clock.monotonic() - start);
    drop(file);
    disk.remove_file(&path)?;
    Ok(result)
}
