//! The rights of a peer in its tenant namespace: during the peering those of Liqo 0.8.3 on which the peer's components rely.
//!
//! Liqo 0.8.3 also grants the statuses. No component uses them, because the status of a copy is written by the cluster the copy is
//! in, and they would let a peer answer its own requests where admission does not judge the peer.

use super::{ALL, Rule, rule};

/// As soon as the tenant namespace exists.
pub(super) const BASIC: &[Rule] = &[rule("discovery.liqo.io", &["resourcerequests"], ALL)];

/// While the peer consumes from us.
pub(super) const INCOMING: &[Rule] =
    &[rule("net.liqo.io", &["networkconfigs"], ALL), rule("virtualkubelet.liqo.io", &["namespacemaps"], ALL)];

/// While we consume from the peer.
pub(super) const OUTGOING: &[Rule] =
    &[rule("net.liqo.io", &["networkconfigs"], ALL), rule("sharing.liqo.io", &["resourceoffers"], ALL)];

/// After the deadline of a withdrawal, until no object of the peer is left: the peer releases its originals only when it sees
/// that the copies here are gone.
pub(super) const LEAVING: &[Rule] = &[
    rule("net.liqo.io", &["networkconfigs"], TAKE_BACK),
    rule("sharing.liqo.io", &["resourceoffers"], TAKE_BACK),
    rule("virtualkubelet.liqo.io", &["namespacemaps"], TAKE_BACK),
];

const TAKE_BACK: &[&str] = &["get", "list", "watch", "delete"];
