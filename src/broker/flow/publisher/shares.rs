//! Divides the windows of the log writers among publishers: max-min by the weight of their class,
//! per writer.
//!
//! What nobody claims is divided again by weight, so that a burst of a modest publisher need not wait
//! for the next division.
//!
//! It is the one window that is scaled, never each publisher's own: scaling what each has keeps every
//! inequality for ever (Chiu and Jain, 1989), dividing what there is ends it at once.
//!
//! # Invariants
//! The shares taken from a window add up to it at most. A publisher that waits gets at least as much
//! per weight as any other of the same writers.

use crate::broker::flow::{Claim, max_min};
use crate::types::Class;

/// Writers a publisher's mask can name; those beyond share the places.
pub(super) const WRITERS_MAX: usize = 64;

/// One publisher, as the division wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimant {
    /// Its class.
    pub class: Class,
    /// One bit for each writer it writes to.
    pub writers: u64,
    /// Bytes it can use on all of them together; `u64::MAX` = all there are.
    pub want: u64,
}

/// Divides again and again in the same memory.
#[derive(Clone, Debug, Default)]
pub struct Divider {
    claims: Vec<Claim>,
    who: Vec<usize>,
    taken: Vec<u64>,
}

impl Divider {
    /// Divides `windows`, one per writer, among `claimants`; `shares` is replaced by one share per
    /// claimant, the sum over its writers.
    pub fn divide(&mut self, windows: &[u64], claimants: &[Claimant], shares: &mut Vec<u64>) {
        shares.clear();
        shares.resize(claimants.len(), 0);
        for (writer, window) in windows.iter().take(WRITERS_MAX).enumerate() {
            self.claims.clear();
            self.who.clear();
            for (who, claimant) in claimants.iter().enumerate() {
                if claimant.writers >> writer & 1 == 1 {
                    self.claims.push(claimant.claim());
                    self.who.push(who);
                }
            }
            max_min(*window, &self.claims, &mut self.taken);
            let left = window.saturating_sub(self.taken.iter().sum());
            let weight: u64 = self.claims.iter().map(|claim| u64::from(claim.weight)).sum();
            for ((who, taken), claim) in self.who.iter().zip(&self.taken).zip(&self.claims) {
                let more = u128::from(left) * u128::from(claim.weight) / u128::from(weight.max(1));
                if let Some(share) = shares.get_mut(*who) {
                    *share += taken + u64::try_from(more).unwrap_or(u64::MAX);
                }
            }
        }
    }
}

impl Claimant {
    /// What it claims of each of its writers: partitions are spread over them evenly.
    fn claim(&self) -> Claim {
        let writers = u64::from(self.writers.count_ones().max(1));
        let want = if self.want == u64::MAX { u64::MAX } else { self.want.div_ceil(writers) };
        Claim { weight: self.class.weight(), want }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn divide(windows: &[u64], claimants: &[Claimant]) -> Vec<u64> {
        let mut shares = Vec::new();
        Divider::default().divide(windows, claimants, &mut shares);
        shares
    }

    fn greedy(class: Class, writers: u64) -> Claimant {
        Claimant { class, writers, want: u64::MAX }
    }

    #[test]
    fn classes_get_8_to_4_to_1_and_what_one_leaves_the_others_take() {
        let all = [Class::Critical, Class::Normal, Class::Bulk].map(|class| greedy(class, 1));
        assert_eq!(divide(&[1_300], &all), [800, 400, 100]);
        let modest = [Claimant { want: 100, ..all[0] }, all[1], all[2]];
        assert_eq!(divide(&[1_300], &modest), [100, 960, 240]);
    }

    #[test]
    fn a_publisher_of_two_writers_gets_a_share_of_both() {
        let publishers = [greedy(Class::Normal, 0b11), greedy(Class::Normal, 0b10)];
        assert_eq!(divide(&[600, 1_000], &publishers), [1_100, 500]);
        let modest = Claimant { want: 300, ..publishers[0] };
        assert_eq!(divide(&[600, 1_000], &[modest, publishers[1]]), [750, 850]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn no_window_is_given_out_twice_and_who_waits_is_not_behind(
            windows in prop::collection::vec(0u64..1 << 30, 1..4),
            who in prop::collection::vec((1usize..4, 1u64..15, prop::option::of(0u64..1 << 28)), 1..50),
        ) {
            let claimants: Vec<_> = who
                .into_iter()
                .map(|(class, writers, want)| Claimant {
                    class: Class::ALL[class],
                    writers,
                    want: want.unwrap_or(u64::MAX),
                })
                .collect();
            let shares = divide(&windows, &claimants);
            prop_assert!(shares.iter().sum::<u64>() <= windows.iter().sum::<u64>());
            for (one, its) in claimants.iter().zip(&shares).filter(|(c, _)| c.want == u64::MAX) {
                for (other, theirs) in claimants.iter().zip(&shares) {
                    if one.writers == other.writers {
                        let per_weight = |share: &u64, c: &Claimant| share / u64::from(c.class.weight());
                        prop_assert!(per_weight(its, one) + 8 >= per_weight(theirs, other));
                    }
                }
            }
        }
    }
}
