//! The client's side of flow control, without sockets, tasks or a clock: how far a publisher may
//! send, how far a subscription may be sent to, when a refused request may be tried again.
//!
//! Times are durations since any fixed moment; whoever calls says what time it is. So the same rules
//! run in the client and in simulations.

mod credit;
mod pace;
mod retry;
mod window;

pub use credit::{CREDIT_BYTES_MAX, CreditTotals, CreditWindow, Push, Share};
pub use pace::RatePace;
pub use retry::{Retry, RetryBudget, RetryContract, Told};
pub use window::{PublisherWindow, WANT_EVERY};
