//! The door to the kernel's network: links, addresses, routes, rules, neighbours, nftables, namespaces.
//!
//! Knows nothing of Liqo and nothing of Kubernetes; runs no program.
