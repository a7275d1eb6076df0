//! What we say to Kubernetes: the eleven kinds of Liqo 0.8.3, our own, and the labels, annotations,
//! finalizers and object names that other programs read.
//!
//! Nothing here acts. Group names, JSON casing, enums, defaults, patterns and columns are a
//! contract with peers that run Go Liqo 0.8.3 and are checked against it by tests.

pub mod crds;
pub mod discovery;
pub mod identity;
pub mod jobs;
pub mod market;
pub mod meta;
pub mod names;
pub mod net;
pub mod offloading;
pub mod role;
pub mod sharing;
pub mod virtualkubelet;

pub use identity::ClusterIdentity;
