//! How we talk to API servers. Knows Kubernetes, knows no kind of ours.
//!
//! - [`Cluster`]: the one door to an API server; every read and write goes through its verbs.
//! - [`Watch`] and [`Store`]: what an API server holds, kept current, malformed objects left out.
//! - [`Queue`] and [`drive`]: one control loop; a key is never handled twice at once.
//! - [`latest`]: values that wait to be acted on, the last one for each key.
//! - [`ledger`]: a value that several replicas change, kept in one object.
//! - [`twin`]: the one mirror engine between two clusters.
//! - [`guard`], [`rate`], [`reach`]: what others send, and how often, and where they lead us, harms nobody else.
//! - [`said`], [`told`], [`refusals`]: how texts of other clusters are shown, and users told once; how refusals are counted.
//! - [`access`]: who asks us, and may they.
//! - [`kubeconfig`]: what a kubeconfig may say.
//! - [`role`]: the frame of every role; [`metrics`]: what a role counts.
//! - [`life`], [`drain`], [`server`], [`certs`], [`tokens`], [`lease`]: what a process needs to live, serve, be trusted and be alone.

pub mod access;
mod answers;
pub mod args;
mod budget;
pub mod certs;
mod cluster;
mod count;
pub mod drain;
mod drive;
mod events;
pub mod guard;
pub mod kubeconfig;
pub mod latest;
pub mod lease;
pub mod ledger;
pub mod life;
pub mod metrics;
pub mod peer;
mod queue;
pub mod rate;
pub mod reach;
pub mod refusals;
pub mod role;
pub mod said;
pub mod server;
pub mod tokens;
pub mod told;
pub mod turns;
pub mod twin;
mod watch;
mod wire;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

pub use cluster::{Cluster, KubeError, Object, owner_reference, owners_with, reference};
pub use drive::{chain, drive};
pub use queue::Queue;
pub use watch::{Store, Watch, strip};

/// The clock. Pure code takes the time as an argument.
pub fn now() -> Time {
    Time(Timestamp::from_second(Timestamp::now().as_second()).expect("the present is in range"))
}
