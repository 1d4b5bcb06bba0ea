//! One setting: its name, what values fit, and why the bound is where it is.

use std::fmt;
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::time::Duration;

use crate::broker::BrokerOptions;
use crate::server::ServerOptions;
use crate::types::{format_bytes, format_duration, parse_bytes, parse_duration};

/// What values fit a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Switch,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A path; empty = not set.
    Path,
    /// `HOST:PORT`.
    Address,
    /// `HOST:PORT`, or `off`.
    AddressOrOff,
    /// A size from `min` to `max` bytes.
    Bytes {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// A size as above, or `auto`.
    BytesOrAuto {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// A duration from `min_ms` to `max_ms`.
    Duration {
        /// Shortest.
        min_ms: u64,
        /// Longest.
        max_ms: u64,
    },
    /// A duration as above, or `auto`.
    DurationOrAuto {
        /// Shortest.
        min_ms: u64,
        /// Longest.
        max_ms: u64,
    },
    /// A whole number from `min` to `max`.
    Count {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |ms: u64| format_duration(Duration::from_millis(ms));
        match *self {
            Kind::Switch => f.write_str("true or false"),
            Kind::Choice(words) => f.write_str(&words.join(", ")),
            Kind::Path => f.write_str("path"),
            Kind::Address => f.write_str("HOST:PORT"),
            Kind::AddressOrOff => f.write_str("HOST:PORT or off"),
            Kind::Bytes { min, max } => {
                write!(f, "size, {} to {}", format_bytes(min), format_bytes(max))
            }
            Kind::BytesOrAuto { min, max } => {
                write!(f, "auto, or size, {} to {}", format_bytes(min), format_bytes(max))
            }
            Kind::Duration { min_ms, max_ms } => {
                write!(f, "duration, {} to {}", ms(min_ms), ms(max_ms))
            }
            Kind::DurationOrAuto { min_ms, max_ms } => {
                write!(f, "auto, or duration, {} to {}", ms(min_ms), ms(max_ms))
            }
            Kind::Count { min, max } => write!(f, "number, {min} to {max}"),
        }
    }
}

/// One row of the table of settings.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// `section.name`, as the file and `--set` write it.
    pub key: &'static str,
    /// What values fit.
    pub kind: Kind,
    /// The value when nobody sets one, as text that fits.
    pub default: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// Why the default and the bounds are where they are.
    pub reason: &'static str,
    /// Puts a value that fits into the options of the room it belongs to.
    pub apply: fn(&mut Rooms, Value<'_>),
}

/// The options of every room that a broker consists of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rooms {
    /// The broker, with storage, flow and groups within.
    pub broker: BrokerOptions,
    /// The server.
    pub server: ServerOptions,
    /// Threads that serve connections; 0 = half of the cores.
    pub runtime_threads: usize,
}

/// Text that fits its setting, about to be put into options.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a>(pub(super) &'a str);

/// A number as a narrower one; what the table allows fits, anything else is a defect of the table.
pub(super) fn narrow<T: TryFrom<u64>>(number: u64) -> T {
    match T::try_from(number) {
        Ok(narrow) => narrow,
        Err(_) => panic!("the table allows {number}, its field does not"),
    }
}

impl Value<'_> {
    fn must<T, E>(self, parsed: Result<T, E>) -> T {
        match parsed {
            Ok(value) => value,
            Err(_) => panic!("{:?} was checked when it was set", self.0),
        }
    }

    pub(super) fn text(self) -> String {
        self.0.to_owned()
    }

    pub(super) fn path(self) -> PathBuf {
        PathBuf::from(self.0)
    }

    pub(super) fn switch(self) -> bool {
        self.0 == "true"
    }

    pub(super) fn bytes(self) -> u64 {
        self.must(parse_bytes(self.0))
    }

    pub(super) fn bytes_or_auto(self) -> Option<u64> {
        (self.0 != "auto").then(|| self.bytes())
    }

    pub(super) fn duration(self) -> Duration {
        self.must(parse_duration(self.0))
    }

    pub(super) fn duration_or_auto(self) -> Option<Duration> {
        (self.0 != "auto").then(|| self.duration())
    }

    pub(super) fn ms(self) -> u64 {
        u64::try_from(self.duration().as_millis()).unwrap_or(u64::MAX)
    }

    /// A size or a count, as the field's type.
    pub(super) fn narrow<T: TryFrom<u64>>(self) -> T {
        narrow(self.bytes())
    }
}

impl Setting {
    /// The environment variable: `native.listen` is `STOPLOG_NATIVE_LISTEN`.
    pub fn env_name(&self) -> String {
        format!("STOPLOG_{}", self.key.replace('.', "_").to_ascii_uppercase())
    }

    /// Whether `text` fits; the error says what would.
    pub fn check(&self, text: &str) -> Result<(), String> {
        let within = |fits: bool| fits.then_some(()).ok_or_else(|| format!("needs {}", self.kind));
        match self.kind {
            Kind::Switch => within(matches!(text, "true" | "false")),
            Kind::Choice(words) => within(words.contains(&text)),
            Kind::Path => Ok(()),
            Kind::Address => check_address(text),
            Kind::AddressOrOff if text == "off" => Ok(()),
            Kind::AddressOrOff => check_address(text),
            Kind::BytesOrAuto { .. } | Kind::DurationOrAuto { .. } if text == "auto" => Ok(()),
            Kind::Bytes { min, max } | Kind::BytesOrAuto { min, max } => {
                within((min..=max).contains(&parse_bytes(text).map_err(|e| e.to_string())?))
            }
            Kind::Duration { min_ms, max_ms } | Kind::DurationOrAuto { min_ms, max_ms } => {
                let duration = parse_duration(text).map_err(|e| e.to_string())?;
                let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
                within((min_ms..=max_ms).contains(&ms))
            }
            Kind::Count { min, max } => {
                within(text.parse().is_ok_and(|n: u64| (min..=max).contains(&n)))
            }
        }
    }
}

fn check_address(text: &str) -> Result<(), String> {
    let form = || format!("{text:?} is not HOST:PORT, for example 127.0.0.1:7600");
    let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(form());
    }
    match text.to_socket_addrs().map(|mut found| found.next()) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(format!("{host:?} has no address")),
        Err(e) => Err(format!("{host:?} cannot be resolved: {e}")),
    }
}
