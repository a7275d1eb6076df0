//! WireGuard: one interface, two engines, the kernel's and ours in this process.
//!
//! Knows peers, keys and packets; nothing of Liqo, nothing of Kubernetes.
