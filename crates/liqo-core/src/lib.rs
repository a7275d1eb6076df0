//! What is true without a cluster: values in, values out.

pub mod decision;
pub mod door;
pub mod endpoint;
pub mod exposition;
pub mod grants;
pub mod join_token;
pub mod mapping;
pub mod naming;
pub mod peering;
pub mod quantity;
pub mod resources;
pub mod selector;
