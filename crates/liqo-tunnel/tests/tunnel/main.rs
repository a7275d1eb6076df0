//! Tunnels between machines made of network namespaces: the real thing, as root.

mod bed;
mod carry;
