//! What is true without a cluster: values in, values out.

pub mod endpoint;
pub mod mapping;
pub mod naming;
pub mod quantity;
pub mod resources;
pub mod selector;
pub mod standing;
