//! What a peer may do in its tenant namespace. Exactly as in Liqo 0.8.3: the peer's components rely on it.

use super::{ALL, Rule, rule};

/// As soon as the tenant namespace exists.
pub(super) const BASIC: &[Rule] = &[rule("discovery.liqo.io", &["resourcerequests", "resourcerequests/status"], ALL)];

/// While the peer consumes from us.
pub(super) const INCOMING: &[Rule] = &[
    rule("net.liqo.io", &["networkconfigs", "networkconfigs/status"], ALL),
    rule("virtualkubelet.liqo.io", &["namespacemaps", "namespacemaps/status"], ALL),
];

/// While we consume from the peer.
pub(super) const OUTGOING: &[Rule] = &[
    rule("net.liqo.io", &["networkconfigs", "networkconfigs/status"], ALL),
    rule("sharing.liqo.io", &["resourceoffers", "resourceoffers/status"], ALL),
];
