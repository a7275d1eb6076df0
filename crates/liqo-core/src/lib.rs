//! What is true without a cluster: values in, values out.

pub mod naming;
pub mod endpoint;
pub mod quantity;
pub mod resources;
pub mod selector;
