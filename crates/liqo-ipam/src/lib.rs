//! Who uses which addresses: networks of this cluster and of its peers, and the addresses exported to them.
//!
//! Values in, values out: no I/O, no clock, no Kubernetes client. Every operation of [`Plan`] takes the plan as it is
//! and gives a new one or a [`Refusal`]; nothing is ever half done, so nothing needs rolling back, and several
//! operations can be folded into one write.
//!
//! What always holds:
//! - networks given out do not overlap each other, this cluster's own networks or the reserved networks; a newly chosen
//!   network covers no address in [`Around`];
//! - an address of the external network is given to one endpoint only, never the network's first or last address, and
//!   the second one is that of the tunnel;
//! - what is released is free at once: a plan after giving and releasing equals the plan before;
//! - what a peer sees follows from the plan each time it is asked for, it is not stored: a peer that changes how it
//!   sees us changes all mapped addresses with it.

mod around;
mod endpoint;
mod network;
mod plan;
mod refusal;
mod space;
mod storage;

pub use around::Around;
pub use endpoint::{MAPPINGS, MAPPINGS_OF_PEER};
pub use network::{host_in, is_unicast, remap};
pub use plan::{DEFAULT_POOLS, Peer, Plan, Range, Seen, TUNNEL_ADDRESS};
pub use refusal::Refusal;
pub use storage::{Loaded, NOT_REMAPPED, PrefixUse, prefix_uses};
