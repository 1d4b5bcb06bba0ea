//! Where the orders come from: a seeded generator, or a file of one event a line.

use std::path::PathBuf;

use super::generator::Generator;
use super::ledger::{Delivery, Ledger};
use crate::cli::failure::Failure;
use crate::cli::keys::KeyRule;
use crate::cli::lines::Lines;

/// The source; it can be read several times and gives the same events each time.
#[derive(Clone, Debug)]
pub enum Input {
    /// The first `events` orders of a seed.
    Generated {
        /// The seed.
        seed: u64,
        /// How many.
        events: u64,
    },
    /// Lines of a file; `.gz` and `.zst` are unpacked.
    File(PathBuf),
}

/// An event on its way into the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The customer, when there is one.
    pub key: Option<Vec<u8>>,
    /// The order as JSON.
    pub value: Vec<u8>,
}

impl Input {
    /// Calls `each` with every event, in order.
    pub fn for_each(
        &self,
        mut each: impl FnMut(Event) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match self {
            Input::Generated { seed, events } => {
                let count = usize::try_from(*events).unwrap_or(usize::MAX);
                for order in Generator::new(*seed).take(count) {
                    let key = order.customer_id.as_ref().map(|id| id.clone().into_bytes());
                    let value = serde_json::to_vec(&order).map_err(std::io::Error::from)?;
                    each(Event { key, value })?;
                }
                Ok(())
            }
            Input::File(path) => {
                let rule = KeyRule::JsonField("customerId".to_owned());
                let mut lines = Lines::open(std::slice::from_ref(path))?;
                let mut line = Vec::new();
                while lines.next_into(&mut line)? {
                    let keyed = rule.split(&line).map_err(|e| lines.invalid(e))?;
                    let key = keyed.key.map(std::borrow::Cow::into_owned);
                    each(Event { key, value: line.clone() })?;
                }
                Ok(())
            }
        }
    }

    /// The totals that everything later has to equal, counted before anything is published.
    pub fn totals(&self) -> Result<Ledger, Failure> {
        let mut ledger = Ledger::default();
        let mut offset = 0;
        self.for_each(|event| {
            let taken = ledger.take(Delivery { partition: 0, offset, event: &event.value });
            offset += 1;
            taken.map_err(|e| {
                let place = format!("event {offset} of the input: {e}");
                Failure::new(crate::types::ErrorCode::InvalidInput, place)
            })
        })?;
        Ok(ledger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_its_generator_have_the_same_totals() {
        let generated = Input::Generated { seed: 3, events: 200 };
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("orders.jsonl");
        let mut text = Vec::new();
        generated
            .for_each(|event| {
                text.extend_from_slice(&event.value);
                text.push(b'\n');
                Ok(())
            })
            .expect("generated");
        std::fs::write(&path, text).expect("written");
        let file = Input::File(path);
        assert_eq!(
            file.totals().expect("file").tally(),
            generated.totals().expect("generated").tally()
        );
        let keys = |input: &Input| {
            let mut keys = Vec::new();
            let kept = input.for_each(|event| {
                keys.push(event.key);
                Ok(())
            });
            kept.expect("readable");
            keys
        };
        assert_eq!(keys(&file), keys(&generated));
    }

    #[test]
    fn a_line_that_is_no_order_is_named() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("orders.jsonl");
        std::fs::write(&path, "{}\n").expect("written");
        let failure = Input::File(path).totals().expect_err("no order");
        assert!(failure.text().expect("said").contains("event 1"));
    }
}
