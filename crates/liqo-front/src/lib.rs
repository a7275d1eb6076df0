//! The front for people and programs: who asks, may they, how often, and in which form they are answered.
//!
//! Knows HTTP and the users of the cluster; knows no kind of ours and reads no object for anybody.
//!
//! - [`Front`]: identifies each caller, limits the rate of each principal, writes one audit line for each request.
//! - [`Opening`]: how a role starts that answers people, with the flags [`FrontArgs`].
//! - [`problem`]: every refusal is a problem document (RFC 9457), or a page for who reads pages.
//! - [`etag`], [`page`], [`accept`]: preconditions, paging and content negotiation, as pure functions; [`json`] uses them.
//! - [`events`]: watching by server-sent events, bounded in number and time.
//! - [`certificate`]: what the server shows, kept current.
//! - [`session`]: how a browser shows a token.
//! - [`open`]: the front where callers are no users of the cluster.
//! - [`grpc`]: the same front for gRPC services.
//! - [`scope`]: in which namespaces a caller may list a kind.

pub mod accept;
mod audit;
pub mod certificate;
mod document;
pub mod etag;
pub mod events;
mod front;
pub mod grpc;
pub mod json;
pub mod look;
pub mod open;
mod opening;
pub mod page;
pub mod problem;
pub mod scope;
pub mod session;

pub use front::{Caller, Front, Routes};
pub use opening::{FrontArgs, Opening, patience};
