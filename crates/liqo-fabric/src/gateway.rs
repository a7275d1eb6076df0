//! The gateway.

mod check;
mod election;
mod message;
mod mtu;
mod path;
