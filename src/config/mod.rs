//! Settings of a broker: defaults < file < environment < flags, resolved once at the start into
//! text that is known to be valid, with the origin of every value.
//!
//! One table ([`settings`]) is the truth: it checks values, answers `config options`, names the
//! environment variables and generates `docs/configuration.md`, so none of them can go stale.
//! Deliberately absent: reading files and the environment (the caller hands them in), topic
//! settings (`types::TopicConfig` has those) and reloading while the broker runs.

mod file;
mod layers;
mod reference;
mod setting;
mod table;

pub use file::{FileEntry, parse_file};
pub use layers::{Config, ConfigError, Origin, Resolved};
pub use reference::reference_page;
pub use setting::{Kind, Rooms, Setting, Value};
pub use table::settings;
