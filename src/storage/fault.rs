//! What a failed file operation means for what may still be written (DESIGN D7).
//!
//! `?` on a call that changes a file makes a `NoSpace` or a `Write` of its error; a failed sync, of
//! a file or of a directory, must be named: `sync().map_err(Fault::Sync)?`.

use std::io;

use thiserror::Error;

use super::reserve::is_no_space;

/// Why something was not written, or is not known to be.
#[derive(Debug, Error)]
pub enum Fault {
    /// No space; nothing that was promised is lost.
    #[error(transparent)]
    NoSpace(io::Error),
    /// A write failed: the partition takes no more.
    #[error(transparent)]
    Write(io::Error),
    /// A sync failed: the data directory takes no more.
    #[error(transparent)]
    Sync(io::Error),
}

impl Fault {
    /// Whether the file or directory is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        let (Fault::NoSpace(error) | Fault::Write(error) | Fault::Sync(error)) = self;
        error.kind() == io::ErrorKind::NotFound
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        if is_no_space(&error) { Fault::NoSpace(error) } else { Fault::Write(error) }
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> io::Error {
        match fault {
            Fault::NoSpace(error) | Fault::Write(error) | Fault::Sync(error) => error,
        }
    }
}
