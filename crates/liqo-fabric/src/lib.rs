//! The network fabric: what its roles decide and do.

pub mod gateway;
pub mod layout;
pub mod manager;
pub mod network;
mod pace;
pub mod proxy;
pub mod route;
mod wire;
