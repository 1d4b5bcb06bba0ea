//! How a command ends badly: a stable code, a sentence, a next step, and the exit code.
//!
//! Exit codes are few and mean what a script does next; `ErrorCode` says the rest.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use crate::config::ConfigError;
use crate::types::{ErrorCode, InvalidName, InvalidQuantity, Pushback};

/// What the process answers. The numbers are documented in `stoplog --help` and never change; 4 is
/// kept for authentication, which this version does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Anything without a code of its own.
    Other = 1,
    /// The command line or the input is wrong.
    Usage = 2,
    /// It does not exist, or exists already.
    NotFound = 3,
    /// The broker cannot be reached, or the address or directory is taken.
    Unavailable = 5,
    /// Refused by back pressure.
    Pressure = 6,
    /// Refused for another reason, or no answer in time.
    Refused = 7,
    /// Damaged data was found.
    Corrupt = 8,
    /// Stopped by a signal.
    Interrupted = 130,
}

/// The exit code for an error code.
pub fn exit_of(code: ErrorCode) -> Exit {
    use ErrorCode as E;
    match code {
        E::InvalidName
        | E::InsecureListen
        | E::InvalidInput
        | E::InvalidCommand
        | E::NotADataDir => Exit::Usage,
        E::TopicNotFound
        | E::TopicExists
        | E::PartitionNotFound
        | E::OffsetOutOfRange
        | E::GroupNotFound
        | E::QuotaNotFound => Exit::NotFound,
        E::Unreachable | E::ConnectionLost | E::AddressInUse | E::DataDirLocked | E::Draining => {
            Exit::Unavailable
        }
        E::TooManyRequests
        | E::ThrottledRate
        | E::ServerBusy
        | E::DiskLow
        | E::DiskFull
        | E::TopicFull
        | E::BacklogLimit
        | E::DeadlineUnmeetable
        | E::ConnLimit
        | E::MetadataRate
        | E::GroupLimit => Exit::Pressure,
        E::CorruptRange | E::DiskRead | E::VerifyFailed | E::ResultMismatch => Exit::Corrupt,
        E::Interrupted => Exit::Interrupted,
        E::UnsupportedFormat | E::LocalIo | E::Internal => Exit::Other,
        E::MalformedFrame
        | E::ChecksumMismatch
        | E::FrameTooLarge
        | E::UnknownRequest
        | E::UnsupportedVersion
        | E::UnknownFlags
        | E::HelloRequired
        | E::InvalidRequest
        | E::InvalidConfig
        | E::Unsupported
        | E::TooManyTopics
        | E::InvalidBatch
        | E::BatchTooLarge
        | E::OutOfOrderSequence
        | E::ProducerFenced
        | E::DuplicateUnknown
        | E::CreditViolation
        | E::UnknownMember
        | E::StaleMemberEpoch
        | E::GroupNotEmpty
        | E::InstanceFenced
        | E::PartitionReadOnly
        | E::DataDirLatched
        | E::PartitionFenced
        | E::TimedOut => Exit::Refused,
    }
}

/// Why a command ended.
#[derive(Debug)]
pub struct Failure {
    code: ErrorCode,
    message: String,
    help: Option<String>,
    retry_after_ms: Option<u32>,
    exit: Exit,
    quiet: bool,
}

/// What every command returns.
pub type CommandResult = Result<(), Failure>;

impl Failure {
    /// With a stable code, which also gives the exit code and the next step.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Failure {
        Failure {
            code,
            message: message.into(),
            help: None,
            retry_after_ms: None,
            exit: exit_of(code),
            quiet: false,
        }
    }

    /// A wrong command line: exit 2.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(ErrorCode::InvalidCommand, message)
    }

    /// The code alone, without a message on stderr: what happened was printed before.
    pub fn quiet(exit: Exit) -> Failure {
        Failure { exit, quiet: true, ..Failure::new(ErrorCode::Internal, "") }
    }

    /// Another next step than the code's own.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Failure {
        self.help = Some(help.into());
        self
    }

    /// Another exit code than the code's own.
    #[must_use]
    pub fn exit_with(mut self, exit: Exit) -> Failure {
        self.exit = exit;
        self
    }

    /// When to try again, where the broker named a time.
    #[must_use]
    pub fn retry_after(mut self, wait: Option<Duration>) -> Failure {
        let ms = wait.map(|wait| u32::try_from(wait.as_millis()).unwrap_or(u32::MAX));
        self.retry_after_ms = ms.filter(|ms| *ms > 0);
        self
    }

    /// The stable code.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// What clap says of a wrong command line, with the code that it has, too.
    pub fn coded(text: &str) -> String {
        let code = ErrorCode::InvalidCommand;
        match text.contains("error:") {
            true => format!(
                "{}explain: stoplog explain {code}\n",
                text.replacen("error:", &format!("error[{code}]:"), 1)
            ),
            false => text.to_owned(),
        }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// The text for stderr; `None` when nothing is to be said.
    pub fn text(&self) -> Option<String> {
        if self.quiet {
            return None;
        }
        let code = self.code;
        let help = self.help.as_deref().unwrap_or(code.help());
        let mut text = format!("error[{code}]: {}\nhelp: {help}\n", self.message);
        if let Some(ms) = self.retry_after_ms {
            let _ = writeln!(text, "retry_after_ms: {ms}");
        }
        let _ = writeln!(text, "explain: stoplog explain {code}");
        Some(text)
    }
}

impl From<io::Error> for Failure {
    /// A reader that went away (`| head`) is no failure worth a word.
    fn from(error: io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::quiet(Exit::Ok);
        }
        Failure::new(ErrorCode::LocalIo, error.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        Failure::new(ErrorCode::InvalidConfig, error.to_string())
            .help("stoplog config options lists every setting with what fits.")
            .exit_with(Exit::Usage)
    }
}

impl From<InvalidName> for Failure {
    fn from(error: InvalidName) -> Failure {
        Failure::new(ErrorCode::InvalidName, error.to_string())
    }
}

impl From<InvalidQuantity> for Failure {
    fn from(error: InvalidQuantity) -> Failure {
        Failure::usage(error.to_string())
    }
}

impl From<Pushback> for Failure {
    fn from(pushback: Pushback) -> Failure {
        let code = ErrorCode::from(pushback.code);
        let mut failure = Failure::new(code, format!("{} {pushback}", code.title()));
        failure.retry_after_ms = (pushback.retry_after_ms > 0).then_some(pushback.retry_after_ms);
        failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ErrorKind;

    #[test]
    fn back_pressure_is_six_whatever_its_cause() {
        for code in ErrorCode::ALL.iter().filter(|c| c.kind() == ErrorKind::Throttle) {
            assert_eq!(exit_of(*code), Exit::Pressure, "{code}");
        }
    }

    #[test]
    fn a_failure_says_what_why_and_what_next() {
        let failure = Failure::new(ErrorCode::TopicNotFound, "no topic \"orders\"");
        let text = failure.text().expect("said");
        assert!(text.starts_with("error[E0201]: no topic \"orders\"\nhelp: Create it"), "{text}");
        assert!(text.ends_with("explain: stoplog explain E0201\n"), "{text}");
        assert_eq!(failure.exit(), Exit::NotFound);
    }

    #[test]
    fn a_closed_pipe_is_quiet() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.exit(), failure.text()), (Exit::Ok, None));
    }
}
