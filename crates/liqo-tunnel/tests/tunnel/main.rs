//! Tunnels between machines made of network namespaces: the real thing, as root.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod attack;
mod bed;
mod carry;
mod change;
mod size;
mod stranger;
