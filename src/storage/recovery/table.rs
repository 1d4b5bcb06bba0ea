//! The decision table of recovery: what was found in the segment that takes appends, and what is
//! done about it. Every combination of findings fits exactly one row (a test walks them all).
//!
//! The findings: what the watermark slots say ([`Slots`]), where the data stops being valid
//! ([`Valid`]), what follows there ([`Rest`]).

/// What the two watermark slots say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slots {
    /// All that were written read back, and the newest is clean.
    Clean,
    /// All that were written read back; the newest is not clean.
    Unclean,
    /// One that was written does not read back: the watermark may have been higher than what the
    /// other one says.
    OneDamaged,
    /// None reads back. Creation synced one, so this is damage.
    NoneValid,
}

/// Where the data stops being valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Valid {
    /// Below the watermark: synced bytes are not what they were.
    BelowWatermark,
    /// At the watermark or above it.
    ToWatermark,
}

/// What follows the valid data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Nothing, or zeros.
    Zeros,
    /// A footer that describes exactly the data before it.
    Footer,
    /// Anything else.
    Bytes,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing is written; appends go on where they stopped.
    Serve,
    /// The file is cut at the valid end, the epoch grows, a clean slot is written.
    Close,
    /// The bytes behind the valid end go to `torn/`, then as `Close`.
    CutTorn,
    /// The interrupted sealing is completed.
    FinishSeal,
    /// Nothing is written, nothing is appended any more; what is valid stays readable.
    Fence,
}

/// One row.
#[derive(Debug)]
pub(crate) struct Row {
    /// Its name, in reports and in `storage-format.md`.
    pub name: &'static str,
    slots: &'static [Slots],
    valid: &'static [Valid],
    rest: &'static [Rest],
    /// What is done.
    pub action: Action,
}

const READABLE: &[Slots] = &[Slots::Clean, Slots::Unclean];
const SOME_VALID: &[Slots] = &[Slots::Clean, Slots::Unclean, Slots::OneDamaged];
const ANY_VALID: &[Valid] = &[Valid::BelowWatermark, Valid::ToWatermark];
const ANY_REST: &[Rest] = &[Rest::Zeros, Rest::Footer, Rest::Bytes];

/// The table. Order does not matter: rows do not overlap.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "clean",
        slots: &[Slots::Clean],
        valid: &[Valid::ToWatermark],
        rest: &[Rest::Zeros],
        action: Action::Serve,
    },
    Row {
        name: "whole",
        slots: &[Slots::Unclean],
        valid: &[Valid::ToWatermark],
        rest: &[Rest::Zeros],
        action: Action::Close,
    },
    Row {
        name: "whole, slot damaged",
        slots: &[Slots::OneDamaged],
        valid: &[Valid::ToWatermark],
        rest: &[Rest::Zeros],
        action: Action::Close,
    },
    Row {
        name: "torn above the watermark",
        slots: READABLE,
        valid: &[Valid::ToWatermark],
        rest: &[Rest::Bytes],
        action: Action::CutTorn,
    },
    Row {
        name: "torn, slot damaged",
        slots: &[Slots::OneDamaged],
        valid: &[Valid::ToWatermark],
        rest: &[Rest::Bytes],
        action: Action::Fence,
    },
    Row {
        name: "sealing interrupted",
        slots: SOME_VALID,
        valid: &[Valid::ToWatermark],
        rest: &[Rest::Footer],
        action: Action::FinishSeal,
    },
    Row {
        name: "damaged below the watermark",
        slots: SOME_VALID,
        valid: &[Valid::BelowWatermark],
        rest: ANY_REST,
        action: Action::Fence,
    },
    Row {
        name: "no watermark",
        slots: &[Slots::NoneValid],
        valid: ANY_VALID,
        rest: ANY_REST,
        action: Action::Fence,
    },
];

/// The row that fits.
pub(crate) fn decide(slots: Slots, valid: Valid, rest: Rest) -> &'static Row {
    let mut fitting = ROWS.iter().filter(|row| row.fits(slots, valid, rest));
    let row = fitting.next();
    assert!(fitting.next().is_none(), "two rows fit {slots:?} {valid:?} {rest:?}");
    row.unwrap_or_else(|| unreachable!("no row fits {slots:?} {valid:?} {rest:?}"))
}

impl Row {
    fn fits(&self, slots: Slots, valid: Valid, rest: Rest) -> bool {
        self.slots.contains(&slots) && self.valid.contains(&valid) && self.rest.contains(&rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY_SLOTS: &[Slots] =
        &[Slots::Clean, Slots::Unclean, Slots::OneDamaged, Slots::NoneValid];

    #[test]
    fn exactly_one_row_fits_every_combination() {
        for slots in ANY_SLOTS {
            for valid in ANY_VALID {
                for rest in ANY_REST {
                    let fitting = ROWS.iter().filter(|row| row.fits(*slots, *valid, *rest));
                    let names: Vec<_> = fitting.map(|row| row.name).collect();
                    assert_eq!(names.len(), 1, "{slots:?} {valid:?} {rest:?}: {names:?}");
                }
            }
        }
    }

    #[test]
    fn nothing_below_the_watermark_is_ever_cut() {
        for slots in ANY_SLOTS {
            for rest in ANY_REST {
                let row = decide(*slots, Valid::BelowWatermark, *rest);
                assert_eq!(row.action, Action::Fence, "{}", row.name);
            }
        }
    }

    #[test]
    fn nothing_is_cut_while_the_watermark_is_in_doubt() {
        for slots in [Slots::OneDamaged, Slots::NoneValid] {
            for valid in ANY_VALID {
                assert_eq!(decide(slots, *valid, Rest::Bytes).action, Action::Fence);
            }
        }
    }

    #[test]
    fn every_row_is_in_the_format_document() {
        let text = include_str!("../../../storage-format.md");
        for row in ROWS {
            assert!(text.contains(&format!("| {} |", row.name)), "{} is missing", row.name);
        }
    }
}
