//! Orders that look like a real gift shop's, from a seed: the same seed gives the same orders.
//!
//! The shape follows the public "Online Retail" data set (Chen 2015, doi:10.24432/C5BW33): a few
//! hot customers, one event in seven without a customer, a median of ten lines with a long tail,
//! one in seven cancelled with negative quantities, nine in ten sent to one country.

use crate::env::{Rng, SeededRng};

use super::order::{Money, Order, OrderLine};

/// Customers of the shop.
const CUSTOMERS: u64 = 4_000;
/// Articles of the shop.
const ARTICLES: u64 = 3_500;
/// Most lines of one order.
const LINES_MAX: u64 = 400;
const ADJECTIVES: [&str; 12] = [
    "WHITE",
    "RED",
    "VINTAGE",
    "HANGING",
    "SMALL",
    "RETROSPOT",
    "WOODEN",
    "IVORY",
    "PINK",
    "ANTIQUE",
    "GLASS",
    "PAPER",
];
const NOUNS: [&str; 12] = [
    "LANTERN",
    "HEART",
    "T-LIGHT HOLDER",
    "CAKE TIN",
    "BAG",
    "MUG",
    "ALARM CLOCK",
    "CHALKBOARD",
    "DOORMAT",
    "NAPKINS",
    "GARLAND",
    "JAM JAR",
];
const COUNTRIES: [&str; 6] = ["Germany", "France", "EIRE", "Belgium", "Spain", "Netherlands"];
const PRICES: [&str; 16] = [
    "1.25", "1.65", "0.85", "2.95", "0.42", "4.95", "3.75", "2.1", "2.46", "2.08", "0.83", "4.13",
    "7.95", "12.75", "0.19", "0.001",
];
const QUANTITIES: [i64; 12] = [1, 1, 2, 12, 6, 4, 3, 24, 10, 8, 5, 48];

/// An endless sequence of orders.
#[derive(Debug)]
pub struct Generator {
    rng: SeededRng,
    next: u64,
}

impl Generator {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Generator {
        Generator { rng: SeededRng::new(seed), next: 0 }
    }

    fn order(&mut self) -> Order {
        let number = self.next;
        self.next += 1;
        let cancelled = self.rng.below(7) == 0;
        let lines = self.lines_count();
        let sign = if cancelled { -1 } else { 1 };
        Order {
            kind: if cancelled { "OrderCancelled" } else { "OrderPlaced" }.to_owned(),
            order_id: format!("{}{}", if cancelled { "C" } else { "" }, 600_000 + number),
            customer_id: self.customer(),
            country: self.country(),
            placed_at: placed_at(number),
            lines: (0..lines).map(|_| self.line(sign)).collect(),
        }
    }

    /// Hot customers: the square of a uniform number crowds the low ids.
    fn customer(&mut self) -> Option<String> {
        if self.rng.below(7) == 0 {
            return None;
        }
        let uniform = self.rng.below(CUSTOMERS);
        Some((12_000 + uniform * uniform / CUSTOMERS).to_string())
    }

    fn country(&mut self) -> String {
        let other = self.rng.below(10) == 0;
        let index = if other { 1 + self.rng.below(COUNTRIES.len() as u64) as usize } else { 0 };
        let country = index.checked_sub(1).and_then(|i| COUNTRIES.get(i));
        (*country.unwrap_or(&"United Kingdom")).to_owned()
    }

    /// Median ten; each further doubling is half as likely.
    fn lines_count(&mut self) -> u64 {
        let mut most = 18;
        while most < LINES_MAX && self.rng.below(3) == 0 {
            most *= 2;
        }
        1 + self.rng.below(most.min(LINES_MAX))
    }

    fn line(&mut self, sign: i64) -> OrderLine {
        let article = self.rng.below(ARTICLES);
        let pick = |list: &[&'static str], by: u64| list[(by % list.len() as u64) as usize];
        let description = format!("{} {}", pick(&ADJECTIVES, article), pick(&NOUNS, article / 12));
        let quantity = QUANTITIES[self.rng.below(QUANTITIES.len() as u64) as usize];
        OrderLine {
            sku: format!("{}{}", 20_000 + article, pick(&["", "A", "B"], article / 144)),
            description: (self.rng.below(370) != 0).then_some(description),
            quantity: sign * quantity,
            unit_price: pick(&PRICES, self.rng.next_u64()).parse().unwrap_or(Money::default()),
        }
    }
}

impl Iterator for Generator {
    type Item = Order;
    fn next(&mut self) -> Option<Order> {
        Some(self.order())
    }
}

/// Two minutes apart, from the first of December on; months of 28 days keep it simple and valid.
fn placed_at(number: u64) -> String {
    let minutes = number * 2;
    let (days, minute) = (minutes / 1_440, minutes % 1_440);
    let (months, day) = (days / 28 + 11, days % 28 + 1);
    let (year, month) = (2010 + months / 12, months % 12 + 1);
    format!("{year}-{month:02}-{day:02}T{:02}:{:02}:00", minute / 60, minute % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_orders() {
        let first: Vec<Order> = Generator::new(7).take(500).collect();
        assert_eq!(Generator::new(7).take(500).collect::<Vec<_>>(), first);
        assert_ne!(Generator::new(8).take(500).collect::<Vec<_>>(), first);
    }

    #[test]
    fn the_shape_is_a_shops() {
        let orders: Vec<Order> = Generator::new(1).take(5_000).collect();
        let mut lines: Vec<usize> = orders.iter().map(|o| o.lines.len()).collect();
        lines.sort_unstable();
        assert!((7..=14).contains(&lines[2_500]), "median {}", lines[2_500]);
        assert!(lines[4_999] > 100, "a long tail: {}", lines[4_999]);
        let cancelled = orders.iter().filter(|o| o.units() < 0).count();
        assert!((500..=1_000).contains(&cancelled), "{cancelled} cancelled");
        let nobody = orders.iter().filter(|o| o.customer_id.is_none()).count();
        assert!((500..=1_000).contains(&nobody), "{nobody} without a customer");
    }

    #[test]
    fn times_are_valid_and_ascend() {
        let times: Vec<String> = (0..30_000).map(placed_at).collect();
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(times[0], "2010-12-01T00:00:00");
    }
}
