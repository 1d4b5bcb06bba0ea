//! What a subscriber adds up, and the comparison with what was published.
//!
//! Two tallies are equal only if both saw the same events, byte for byte, and for each customer in
//! the same order. Events without a customer have no common partition, so no order is promised for
//! them: their digest does not depend on it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::order::{Money, Order};

/// Totals over a sequence of events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Events.
    pub events: u64,
    /// Lines of all orders.
    pub lines: u64,
    /// Pieces of all lines.
    pub units: i64,
    /// Quantity times price over all lines.
    pub money: Money,
    /// One digest per customer, over the customer's events in order; `""` = no customer.
    pub customers: BTreeMap<String, Digest>,
}

/// Events of one customer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// How many.
    pub events: u64,
    /// CRC-32 over their bytes in order; for events without a customer the sum of their CRC-32s.
    pub digest: u64,
}

/// Why an event could not be added.
#[derive(Debug, thiserror::Error)]
pub enum TallyError {
    /// It is not an order.
    #[error("not an order event: {0}")]
    NotAnOrder(#[from] serde_json::Error),
    /// Its sums do not fit.
    #[error("order {0}: the amount is too large")]
    TooLarge(String),
}

impl Tally {
    /// Adds one event, given as its JSON bytes.
    pub fn add(&mut self, event: &[u8]) -> Result<(), TallyError> {
        let order: Order = serde_json::from_slice(event)?;
        let money = order.money().ok_or_else(|| TallyError::TooLarge(order.order_id.clone()))?;
        self.events += 1;
        self.lines += order.lines.len() as u64;
        self.units += order.units();
        self.money += money;
        let ordered = order.customer_id.is_some();
        let customer = self.customers.entry(order.customer_id.unwrap_or_default()).or_default();
        customer.events += 1;
        customer.digest = if ordered {
            let before = u32::try_from(customer.digest).unwrap_or(0);
            let mut hasher = crc32fast::Hasher::new_with_initial(before);
            hasher.update(event);
            u64::from(hasher.finalize())
        } else {
            customer.digest.wrapping_add(u64::from(crc32fast::hash(event)))
        };
        Ok(())
    }

    /// Customers whose events differ from `published` in number, bytes or order.
    pub fn customers_that_differ(&self, published: &Tally) -> usize {
        let all = self.customers.keys().chain(published.customers.keys());
        let mut names: Vec<&String> = all.collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().filter(|n| self.customers.get(*n) != published.customers.get(*n)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::generator::Generator;

    fn events(count: usize) -> Vec<Vec<u8>> {
        Generator::new(3).take(count).map(|o| serde_json::to_vec(&o).expect("JSON")).collect()
    }

    fn tally<'a>(events: impl IntoIterator<Item = &'a Vec<u8>>) -> Tally {
        let mut tally = Tally::default();
        for event in events {
            tally.add(event).expect("an order");
        }
        tally
    }

    #[test]
    fn a_lost_a_doubled_and_a_changed_event_show() {
        let events = events(300);
        let published = tally(&events);
        assert_eq!(tally(&events), published);
        assert_ne!(tally(&events[1..]), published);
        assert_ne!(tally(events.iter().chain([&events[0]])), published);
        assert_eq!(tally(&events[1..]).customers_that_differ(&published), 1);
    }

    #[test]
    fn order_counts_within_a_customer_only() {
        let all = events(4_000);
        let key = |e: &Vec<u8>| serde_json::from_slice::<Order>(e).expect("order").customer_id;
        let (first, again) = (0..all.len())
            .filter(|i| key(&all[*i]).is_some())
            .find_map(|i| {
                let again = (i + 1..all.len()).find(|j| key(&all[*j]) == key(&all[i]))?;
                Some((i, again))
            })
            .expect("a customer who comes back");
        let mut swapped = all.clone();
        swapped.swap(first, again);
        assert_eq!(tally(&swapped).customers_that_differ(&tally(&all)), 1);
        let mut by_customer = all.clone();
        by_customer.sort_by_key(key);
        assert_eq!(tally(&by_customer), tally(&all));
    }

    #[test]
    fn what_is_not_an_order_is_refused() {
        assert!(matches!(Tally::default().add(b"{}"), Err(TallyError::NotAnOrder(_))));
    }
}
