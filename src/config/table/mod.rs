//! The table of all settings of `stoplog serve`, by section.

mod edge;
mod engine;
mod limits;

use super::setting::{Rooms, Setting, Value};

/// Every setting, by section.
pub fn settings() -> impl Iterator<Item = &'static Setting> {
    edge::ROWS.iter().chain(limits::ROWS).chain(engine::ROWS)
}

/// A setting that no room takes: the command line reads it itself, or a later version will.
fn nothing(_: &mut Rooms, _: Value<'_>) {}
