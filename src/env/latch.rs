//! Fail-stop: the first fatal cause is kept for good (DESIGN D7).

use std::sync::OnceLock;

/// Set once, by the first failure; read by everyone who must not go on after it.
#[derive(Debug, Default)]
pub struct Latch(OnceLock<String>);

impl Latch {
    /// An open latch.
    pub fn new() -> Latch {
        Latch::default()
    }

    /// Closes it. The first cause stays; later ones are dropped.
    pub fn close(&self, cause: impl Into<String>) {
        self.0.get_or_init(|| cause.into());
    }

    /// The cause, when it is closed.
    pub fn cause(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }

    /// Whether it is closed.
    pub fn is_closed(&self) -> bool {
        self.0.get().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cause_stays() {
        let latch = Latch::new();
        assert!(!latch.is_closed());
        latch.close("first");
        latch.close("second");
        assert_eq!(latch.cause(), Some("first"));
    }
}
