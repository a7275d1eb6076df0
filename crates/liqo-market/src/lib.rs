//! The market without a cluster: which providers fit a wish, and why the others do not; which reservations an offer can hold.
//!
//! Values in, values out: no I/O, no clock (`now` and ages are arguments), no Kubernetes. The same input always gives the same
//! output: amounts are exact, scores are whole thousandths, and ties are broken by cluster ID.

pub mod book;
pub mod provider;
pub mod select;
pub mod wire;
pub mod wish;

pub use book::{Ask, Booked, Grant, Verdict, book, free};
pub use provider::Provider;
pub use select::{Chosen, Code, Left, Outcome, Parts, Reason, select};
pub use wish::Wish;
