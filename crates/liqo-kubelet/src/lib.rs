//! One virtual node: it registers it, mirrors what runs on it, and answers for its pods.
//!
//! - `node`: the Node, its lease and its end.
//! - `reflect`: what goes to the other cluster and what comes back.
//! - `translate`: addresses on their way there and back, where Liqo connects the networks.
//! - `api`: the kubelet API: logs, exec, attach, port-forward, statistics.
//!
//! One process for each accepted offer; everything it knows is in objects, so it can be killed at any time.

mod api;
mod args;
mod link;
mod metrics;
mod node;
mod reflect;
mod run;
mod translate;

pub use args::{ApiServerArgs, CertificateType, KubeletArgs, NodeArgs, Pairs, PeeringArgs, WorkerArgs};
