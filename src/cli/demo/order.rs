//! An order event as it is published: one JSON object a line. Money is decimal text and stays
//! exact: an integer count of millionths, never a float.

use std::borrow::Cow;
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Digits after the point that are kept apart.
const SCALE_DIGITS: usize = 6;
const SCALE: i128 = 1_000_000;

/// An exact amount of money.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Money(i128);

/// Why a text is not money.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a decimal amount with at most {SCALE_DIGITS} digits after the point")]
pub struct InvalidMoney(String);

impl Money {
    /// This amount `quantity` times; `None` when it does not fit.
    pub fn times(self, quantity: i64) -> Option<Money> {
        self.0.checked_mul(i128::from(quantity)).map(Money)
    }
}

impl FromStr for Money {
    type Err = InvalidMoney;
    fn from_str(text: &str) -> Result<Money, InvalidMoney> {
        let invalid = || InvalidMoney(text.to_owned());
        let (negative, digits) =
            text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        let fits = !whole.is_empty() && whole.len() <= 20 && fraction.len() <= SCALE_DIGITS;
        if !fits || !all_digits(whole) || !all_digits(fraction) {
            return Err(invalid());
        }
        let number: i128 =
            format!("{whole}{fraction:0<SCALE_DIGITS$}").parse().map_err(|_| invalid())?;
        Ok(Money(if negative { -number } else { number }))
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.0.abs() / SCALE, self.0.abs() % SCALE);
        let fraction = format!("{fraction:0SCALE_DIGITS$}");
        let fraction = fraction.trim_end_matches('0');
        let text =
            if fraction.is_empty() { whole.to_string() } else { format!("{whole}.{fraction}") };
        f.pad_integral(self.0 >= 0, "", &text)
    }
}

impl Add for Money {
    type Output = Money;
    fn add(self, other: Money) -> Money {
        Money(self.0 + other.0)
    }
}

impl AddAssign for Money {
    fn add_assign(&mut self, other: Money) {
        *self = *self + other;
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Money>>(amounts: I) -> Money {
        amounts.fold(Money::default(), Money::add)
    }
}

impl Serialize for Money {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Money, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// One event: an invoice placed or cancelled, or a correction of the stock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// `OrderPlaced`, `OrderCancelled` or `StockAdjusted`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Number of the invoice.
    #[serde(rename = "orderId")]
    pub order_id: String,
    /// The customer, when the shop knows one: the key of the record.
    #[serde(rename = "customerId")]
    pub customer_id: Option<String>,
    /// Where it is sent to.
    pub country: String,
    /// Local time, `2010-12-01T08:26:00`.
    #[serde(rename = "placedAt")]
    pub placed_at: String,
    /// What was ordered.
    pub lines: Vec<OrderLine>,
}

/// One line of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderLine {
    /// The article.
    pub sku: String,
    /// Its name, when there is one.
    pub description: Option<String>,
    /// Pieces; negative when they come back.
    pub quantity: i64,
    /// Price of one piece.
    #[serde(rename = "unitPrice")]
    pub unit_price: Money,
}

impl Order {
    /// Pieces of all lines.
    pub fn units(&self) -> i64 {
        self.lines.iter().map(|line| line.quantity).sum()
    }

    /// Quantity times price over all lines; `None` when it does not fit.
    pub fn money(&self) -> Option<Money> {
        self.lines.iter().map(|line| line.unit_price.times(line.quantity)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_exact_decimal_text() {
        let sum: Money = ["0.1", "0.2", "-11062.06", "0.001"]
            .iter()
            .map(|text| text.parse::<Money>().expect("valid"))
            .sum();
        assert_eq!(sum.to_string(), "-11061.759");
        assert_eq!("2.50".parse::<Money>().map(|m| m.to_string()), Ok("2.5".to_owned()));
        assert_eq!("-0.5".parse::<Money>().map(|m| m.to_string()), Ok("-0.5".to_owned()));
        for bad in ["", ".", "1e3", "1.1234567", "--1", "1,5", "+1"] {
            assert!(bad.parse::<Money>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_order_reads_and_adds_up() {
        let text = r#"{"type":"OrderPlaced","orderId":"1","customerId":null,"country":"EIRE",
            "placedAt":"2010-12-01T08:26:00","lines":[
            {"sku":"A","description":"X","quantity":6,"unitPrice":"2.55"},
            {"sku":"B","description":null,"quantity":-2,"unitPrice":"0.001"}]}"#;
        let order: Order = serde_json::from_str(text).expect("valid");
        assert_eq!(order.units(), 4);
        assert_eq!(order.money().map(|m| m.to_string()), Some("15.298".to_owned()));
    }
}
