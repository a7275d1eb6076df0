//! The gRPC service `ipam` of Liqo 0.8.3: which address a peer, or this cluster, must use for an endpoint.
//!
//! Four unary calls on plain HTTP/2 (port [`PORT`]), without package prefix: `/ipam/MapEndpointIP` and so on.
//! Names and field numbers are a contract: a foreign address management can be plugged in, and ours serves others.
//! The messages are written by hand, so that no build needs a protobuf compiler; a test compares their bytes with
//! the encoding the protobuf specification prescribes.
//!
//! A caller shows a token as the metadata `authorization: Bearer ...`; a server of Liqo 0.8.3 does not look at it.
//!
//! [`IpamClient`] asks; [`Answers`] make a gRPC service of an [`Ipam`]; [`files`] describes the service. Inside this crate's borders addresses are [`std::net::IpAddr`];
//! text exists on the wire only.

mod client;
mod description;
mod message;
mod server;

pub use client::{Call, IpamClient, IpamError};
pub use description::files;
pub use message::{
    BelongsRequest, BelongsResponse, GetHomePodIpRequest, GetHomePodIpResponse, MapRequest, MapResponse, UnmapRequest,
    UnmapResponse,
};
pub use server::{Answers, Ipam, Refusal, Subject};

/// TCP port of the service.
pub const PORT: u16 = 6000;
