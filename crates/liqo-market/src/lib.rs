//! The market without a cluster: which providers fit a wish, and why the others do not; which reservations an offer can hold.
//!
//! Values in, values out: no I/O, no clock (`now` and ages are arguments), no Kubernetes. The same input always gives the same
//! output: amounts are exact, scores are whole thousandths, and who is equally good is in an order that follows from the customer.

pub mod book;
mod count;
pub mod explain;
pub mod keep;
pub mod outcome;
pub mod placement;
pub mod provider;
mod select;
mod table;
pub mod uptime;
pub mod wire;
pub mod wish;

pub use book::{Ask, Booked, Grant, Verdict, book, free};
pub use outcome::{Asked, Code, Fit, Outcome, Parts, Reason};
pub use placement::{Placed, Share};
pub use provider::Provider;
pub use select::select;
pub use table::Table;
pub use wish::Wish;
