//! The network fabric: what its roles decide and do.

pub mod proxy;
