//! The decisions a cluster takes.
//!
//! - [`peering`]: who our peers are, what they may do, what is asked and offered.
//! - [`offload`]: virtual kubelets, namespaces there, shadow pods here.
//! - [`admit`]: what the API server asks us before it accepts an object.
//! - [`replicate`]: the messenger between tenant namespaces.

pub mod admit;
pub mod args;
mod door;
pub mod home;
mod ledger;
mod limits;
pub mod manager;
mod memory;
pub mod offload;
pub mod peering;
pub mod replicate;

/// Source of Events.
pub(crate) const COMPONENT: &str = "liqo-controller-manager";
