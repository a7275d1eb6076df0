//! Real Kubernetes clusters on one machine, for tests, the playground and benches.
//!
//! A [`Testbed`] is a wire: a bridge in a network namespace with a /24 of its own. A [`Cluster`] on it is etcd, the
//! control plane and nodes with containerd, kubelet and kube-proxy, each node in its own network namespace, so that
//! clusters with equal pod and service CIDRs live side by side. The host has a leg on the wire: kubeconfigs work from it.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use liqo_test::{ClusterSpec, Testbed};
//! let bed = Testbed::new("story")?;
//! let [rome, milan] = bed.clusters([ClusterSpec::new("rome", 1), ClusterSpec::new("milan", 2)])?;
//! bed.join_pod_networks(&[&rome, &milan])?;
//! rome.kubectl(&["get", "nodes"])?;
//! # Ok(()) }
//! ```
//!
//! **Kept true:** nothing outlives its test bed. Processes, mounts, namespaces, interfaces and files go when the
//! [`Testbed`] is dropped; when its owner dies, a reaper does the same; should that die too, the next test bed sweeps.
//! Only a persistent one (`testbed up`, the playground) stays until `testbed down`.

pub mod api;
pub mod assets;
pub mod browser;
pub mod cidr;
pub mod cluster;
pub mod delay;
pub mod down;
pub mod echo;
pub mod evidence;
pub mod fault;
pub mod metrics;
pub mod names;
pub mod nat;
pub mod netns;
pub mod out;
pub mod process;
pub mod product;
pub mod reaper;
pub mod record;
mod rights;
pub mod run;
pub mod stage;
pub mod story;
pub mod testbed;
pub mod usage;
pub mod wait;
pub mod wire;

pub use cluster::{Cluster, ClusterSpec};
pub use product::Product;
pub use stage::Stage;
pub use story::{Story, Suite};
pub use testbed::Testbed;
pub use wait::wait_for;
