//! Tunnels between machines made of network namespaces: the real thing, as root.

mod attack;
mod bed;
mod carry;
mod change;
mod size;
mod stranger;
