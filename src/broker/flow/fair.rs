//! Who gets how much of what is not enough for all: weighted max-min fairness (water filling;
//! Bertsekas and Gallager, Data Networks, 6.5.2).
//!
//! Whoever wants less than its share keeps what it wants, and the rest is divided again among the
//! others by weight. It is the one rule behind quotas of siblings, publishers and classes.
//!
//! # Invariants
//! - The sum of shares <= capacity; every share <= its want.
//! - The sum = min(capacity, sum of wants), less than one unit per claim short of it.
//! - A claim that got less than it wanted has at least as much per weight as any other, but for
//!   one unit.
//! - The result does not depend on the order of claims.

/// What one party asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its weight; 0 counts as 1.
    pub weight: u32,
    /// What it could use; `u64::MAX` = all there is.
    pub want: u64,
}

impl Claim {
    fn weight(&self) -> u128 {
        u128::from(self.weight.max(1))
    }

    fn want(&self) -> u128 {
        u128::from(self.want)
    }
}

/// Divides `capacity` among `claims`; `shares` is replaced by one share per claim, in their order.
///
/// O(n log n), and allocates only when `shares` has to grow: whoever calls it each tick keeps it.
pub fn max_min(capacity: u64, claims: &[Claim], shares: &mut Vec<u64>) {
    shares.clear();
    let Some((rest, weight)) = level(capacity, claims, shares) else {
        shares.clear();
        shares.extend(claims.iter().map(|claim| claim.want));
        return;
    };
    shares.clear();
    shares.extend(claims.iter().map(|claim| {
        let share = rest * claim.weight() / weight;
        u64::try_from(share).unwrap_or(u64::MAX).min(claim.want)
    }));
}

/// The water level as a fraction: what is left for those it does not satisfy, and their weight.
/// `None` when all are satisfied. `order` is room for sorting.
fn level(capacity: u64, claims: &[Claim], order: &mut Vec<u64>) -> Option<(u128, u128)> {
    order.extend((0u64..).take(claims.len()));
    let claim = |index: &u64| usize::try_from(*index).ok().and_then(|at| claims.get(at));
    let by_want_per_weight = |one: &u64, other: &u64| match (claim(one), claim(other)) {
        (Some(one), Some(other)) => {
            (one.want() * other.weight()).cmp(&(other.want() * one.weight()))
        }
        _ => std::cmp::Ordering::Equal,
    };
    order.sort_unstable_by(by_want_per_weight);
    let mut rest = u128::from(capacity);
    let mut weight: u128 = claims.iter().map(Claim::weight).sum();
    for claim in order.iter().filter_map(claim) {
        if claim.want() * weight > rest * claim.weight() {
            return Some((rest, weight));
        }
        rest -= claim.want();
        weight -= claim.weight();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shares(capacity: u64, claims: &[(u32, u64)]) -> Vec<u64> {
        let claims: Vec<Claim> =
            claims.iter().map(|(weight, want)| Claim { weight: *weight, want: *want }).collect();
        let mut shares = vec![7];
        max_min(capacity, &claims, &mut shares);
        shares
    }

    #[test]
    fn equal_claims_get_equal_shares() {
        assert_eq!(shares(90, &[(1, u64::MAX), (1, 500), (1, 31)]), [30, 30, 30]);
        assert_eq!(shares(90, &[]), [0u64; 0]);
    }

    #[test]
    fn what_one_leaves_goes_to_the_others_by_weight() {
        assert_eq!(shares(100, &[(1, 10), (1, 1_000), (2, 1_000)]), [10, 30, 60]);
        assert_eq!(shares(130, &[(8, 5), (8, u64::MAX), (4, 10), (1, u64::MAX)]), [5, 102, 10, 12]);
    }

    #[test]
    fn without_scarcity_everybody_gets_what_it_wants() {
        assert_eq!(shares(100, &[(1, 10), (9, 90)]), [10, 90]);
        assert_eq!(shares(u64::MAX, &[(1, u64::MAX), (0, 0)]), [u64::MAX, 0]);
        assert_eq!(shares(0, &[(1, 3), (1, 0)]), [0, 0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn shares_are_max_min_fair(
            capacity in prop_oneof![0u64..2_000, any::<u64>()],
            claims in prop::collection::vec(
                (1u32..1_000, prop_oneof![0u64..500, any::<u64>(), Just(u64::MAX)]), 0..40),
        ) {
            let got = shares(capacity, &claims);
            prop_assert_eq!(got.len(), claims.len());
            let sum: u128 = got.iter().map(|s| u128::from(*s)).sum();
            let wanted: u128 = claims.iter().map(|c| u128::from(c.1)).sum();
            let due = wanted.min(u128::from(capacity));
            prop_assert!(sum <= due && due - sum <= claims.len() as u128);
            for (share, (weight, want)) in got.iter().zip(&claims) {
                prop_assert!(share <= want);
                if share == want {
                    continue;
                }
                for (other, (other_weight, _)) in got.iter().zip(&claims) {
                    let (w, v) = (u128::from(*weight), u128::from(*other_weight));
                    prop_assert!((u128::from(*share) + w) * v >= u128::from(*other) * w);
                }
            }
        }

        #[test]
        fn the_order_of_claims_does_not_matter(
            capacity in 0u64..10_000,
            claims in prop::collection::vec((1u32..9, 0u64..2_000), 1..20),
        ) {
            let mut back = claims.clone();
            back.reverse();
            let mut got = shares(capacity, &back);
            got.reverse();
            prop_assert_eq!(got, shares(capacity, &claims));
        }
    }
}
