//! What every file of `fuzz_targets/` is made with.

#[path = "../targets.rs"]
mod targets;

pub use libfuzzer_sys;

/// Runs the target of that name from the table.
pub fn run(name: &str, data: &[u8]) {
    let target = targets::TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = target.expect("the file's name is in the table");
    target(data);
}

/// The whole of a target's file.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        $crate::libfuzzer_sys::fuzz_target!(|data: &[u8]| $crate::run($name, data));
    };
}
