//! What became of bytes that a limit admitted.

/// The end of an admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// They were written, or may have been: they stay counted.
    Written,
    /// Nothing of them was: the limit gets them back.
    Nothing,
}
