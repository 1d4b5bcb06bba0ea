//! stoplog
fn main() {}
