//! Who uses which addresses: networks of this cluster and of its peers, and the addresses exported to them.
//!
//! Values in, values out: no I/O, no clock, no Kubernetes.
