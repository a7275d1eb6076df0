//! The door to the kernel's network: links, addresses, routes, rules, neighbours, nftables, tracked flows, namespaces.
//!
//! A caller says what it wants as a value ([`State`]) and what belongs to it ([`Realm`]); [`Kernel::settle`] looks,
//! plans and acts until both agree. What is not in the realm is never touched. Requests are plain netlink messages
//! built here; this crate runs no program, knows nothing of Liqo and nothing of Kubernetes.
#![warn(missing_docs)]

mod change;
mod conntrack;
mod error;
mod events;
mod gateways;
mod kernel;
mod netns;
pub mod nft;
mod plan;
mod rt;
mod socket;
mod state;
mod sys;
mod sysctl;
mod wire;

pub use change::{Change, Kind};
pub use conntrack::{Flow, Way};
pub use error::{Error, Result};
pub use events::Events;
pub use kernel::{Kernel, LinkInfo, Repairs};
pub use netns::Netns;
pub use plan::{Seen, plan};
pub use state::{Address, Family, Fdb, Link, LinkKind, Mac, Neighbour, Realm, Route, Rule, State, mac_of};
